package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/cmd/internal/lab"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/crypto/label"
)

// memberSources let an audit read from a member of a lab.
func memberSources(f *lab.Federation, member int) sources {
	task := f.Charter.Tasks[0]
	server := f.Seats[member].Member().DeviceServer()
	return sources{
		state: func(model label.Hash) ([]byte, error) {
			m, err := f.Seats[member].Member().Model(model, task.Layout.D())
			if errors.Is(err, fs.ErrNotExist) {
				return nil, absent("this member does not have it yet")
			}
			return m.Canonical(), err
		},
		previous: func(_ string, model label.Hash) (*coordpb.RoundRecord, error) {
			list, err := server.ListRounds(context.Background(), &coordpb.ListRoundsRequest{})
			if err != nil {
				return nil, err
			}
			for _, r := range list.GetRounds() {
				if string(r.GetModelHash()) == string(model[:]) {
					return server.GetRound(context.Background(), &coordpb.GetRoundRequest{RoundId: r.GetRoundId()})
				}
			}
			return nil, absent("not kept")
		},
	}
}

// auditAll verifies the newest round as every member serves it now. It returns the audits of those that know it.
func auditAll(f *lab.Federation) ([]*audit, error) {
	v, ok := f.Round()
	if !ok {
		return nil, nil
	}
	var out []*audit
	for i, s := range f.Seats {
		rec, err := s.Member().DeviceServer().GetRound(context.Background(), &coordpb.GetRoundRequest{RoundId: v.ID[:]})
		if status.Code(err) == codes.NotFound {
			continue // it has yet to apply the proposal
		}
		if err != nil {
			return nil, err
		}
		a := verifyRound(f.Charter, v.ID, rec, memberSources(f, i))
		for _, at := range a.findings {
			if at.Result == markFailed {
				return nil, fmt.Errorf("member %d, round %d %s, check %s: %s", i, v.Config.Seq, rec.GetPhase(), at.Check, at.Detail)
			}
		}
		if _, err := reportRound(f.Charter, v.ID, rec, "a member"); err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// TestHonestMembersNeverFailAnAudit runs real members through real rounds and verifies, after every step, what each of
// them serves: nothing may fail at any moment, and in the end everything must check out.
func TestHonestMembersNeverFailAnAudit(t *testing.T) {
	for _, o := range []lab.Options{
		{N: 4, F: 1, Devices: 5, Seed: 1},
		{N: 4, F: 1, Devices: 4, Seed: 2, Kind: charter.KindLoRA},
		{N: 2, F: 1, Devices: 3, Seed: 3},
		{N: 1, F: 0, Devices: 3, Seed: 4},
	} {
		t.Run(fmt.Sprintf("(%d,%d) %s", o.N, o.F, o.Kind), func(t *testing.T) {
			o.Dir = t.TempDir()
			if memory, err := os.MkdirTemp("/dev/shm", "ruche"); err == nil { // what is tested is not the disk
				t.Cleanup(func() { os.RemoveAll(memory) })
				o.Dir = memory
			}
			f, err := lab.New(o)
			must(t, err)
			t.Cleanup(func() { must(t, f.Close()) })
			must(t, f.Start())
			f.Begin()
			var failed error
			audited := label.Hash{} // what was verified last
			watch := func(want round.Phase, seq uint64) {
				t.Helper()
				must(t, f.RunUntil(want.String(), func() bool {
					if failed != nil {
						return true
					}
					v, ok := f.Round()
					if now := stand(v); ok && now != audited { // something was said
						audited = now
						if _, err := auditAll(f); err != nil {
							failed = err
							return true
						}
					}
					return ok && v.Phase == want && v.Config.Seq == seq
				}, 200))
				must(t, failed)
			}
			rounds := uint64(1)
			if o.Kind == charter.KindLoRA {
				rounds = 2 // the second rests on the first
			}
			for seq := uint64(1); seq <= rounds; seq++ {
				watch(round.Open, seq)
				must(t, f.Contribute(f.Devices...))
				watch(round.Published, seq)
				// Members that lag have to get there as well; a state that they do not have is not theirs to prove.
				var audits []*audit
				for range 50 {
					if audits, err = auditAll(f); err != nil {
						t.Fatal(err)
					}
					if complete(audits, true) == o.N {
						break
					}
					must(t, f.Step())
				}
				if all, own := complete(audits, true), complete(audits, false); all != o.N || own < f.Charter.Believe() {
					t.Errorf("round %d: of %d members %d serve a record in which everything checks out, %d the state as well", seq, o.N, all, own)
				}
			}
		})
	}
}

// complete counts the audits in which every check passed, with or without the state's.
func complete(audits []*audit, lessState bool) (n int) {
	for _, a := range audits {
		ok := len(a.findings) == 10
		for _, f := range a.findings {
			ok = ok && (f.Result == markOK || lessState && f.Check == "state")
		}
		if ok {
			n++
		}
	}
	return n
}

// stand names what is known of a round: it changes when anything was said.
func stand(v round.View) label.Hash {
	acked := 0
	for _, c := range v.Closes {
		acked += c.Acked.Size()
	}
	return label.Sum(label.TagRoundConfig, v.ID[:], fmt.Append(nil, v.Phase, v.Accepted, len(v.Signatures), len(v.Closes), acked, len(v.Votes), len(v.Reveals), len(v.ResultSignatures)))
}
