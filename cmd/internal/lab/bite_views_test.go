package lab

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// TestTheChecksAcrossLogsBite breaks from outside what has to hold where liars show several logs.
func TestTheChecksAcrossLogsBite(t *testing.T) {
	upTo := func(t *testing.T, p round.Phase) (*Federation, round.View) {
		f := story(t, Options{N: 4, F: 1, Devices: 4})
		f.Begin()
		until(t, f, round.Open)
		everybody(t, f, f.Devices...)
		return f, until(t, f, p)
	}
	other := label.Sum(label.TagSum, []byte("other"))
	cases := map[string]func(t *testing.T) (*Federation, error){
		"invariant 2: round": func(t *testing.T) (*Federation, error) { // one liar more than f, and two members that differ
			f, v := upTo(t, round.Acked)
			for _, j := range []int{2, 3} {
				_, err := f.Corrupt(j)
				must(t, err)
			}
			f.holding(func() {
				said := f.of(v.ID)
				said.votes = map[int]label.Hash{0: v.Decision, 1: statement.Dead()}
				f.judgeVotes(v.ID, said)
			})
			return f, f.Check()
		},
		"can be certified dead, and vectors of it have left": func(t *testing.T) (*Federation, error) {
			f, v := upTo(t, round.Published)
			f.holding(func() {
				said := f.of(v.ID)
				said.votes = map[int]label.Hash{0: statement.Dead(), 1: statement.Dead(), 2: statement.Dead()}
				f.judgeVotes(v.ID, said)
			})
			return f, f.Check()
		},
		"which can be certified dead": func(t *testing.T) (*Federation, error) {
			f, v := upTo(t, round.Published)
			var sum label.Hash
			f.holding(func() {
				r := f.of(v.ID)
				r.votes = map[int]label.Hash{0: statement.Dead(), 1: statement.Dead(), 2: statement.Dead()}
				sum = r.reveals[0].SumY
			})
			f.judgeSum(f.Seats[0].live(), &coordpb.FetchSumRequest{RoundId: v.ID[:], Hash: sum[:]})
			return f, f.Check()
		},
		"has said that it never would": func(t *testing.T) (*Federation, error) {
			f, v := upTo(t, round.Published)
			var sum label.Hash
			f.holding(func() {
				f.of(v.ID).expired[0] = true
				sum = f.of(v.ID).reveals[0].SumY
			})
			f.judgeSum(f.Seats[0].live(), &coordpb.FetchSumRequest{RoundId: v.ID[:], Hash: sum[:]})
			return f, f.Check()
		},
		"which has no certificate in any log": func(t *testing.T) (*Federation, error) {
			f, v := upTo(t, round.Sealed)
			f.holding(func() {
				f.of(v.ID).reveals = map[int]*statement.Reveal{}
				f.of(v.ID).votes = map[int]label.Hash{}
			})
			return f, f.RunUntil("", func() bool { return reached(f, v.ID, round.Published) }, 30)
		},
		"find two sums of what was uploaded": func(t *testing.T) (*Federation, error) {
			f, v := upTo(t, round.Acked)
			f.holding(func() { f.of(v.ID).reveals[3] = &statement.Reveal{Round: v.ID, Set: v.Decision, SumY: other} })
			return f, f.RunUntil("", func() bool { return reached(f, v.ID, round.Published) }, 30)
		},
		"find two sums of the masks": func(t *testing.T) (*Federation, error) {
			f, v := upTo(t, round.Published)
			f.holding(func() {
				lie := *f.of(v.ID).reveals[0]
				lie.TSums = []statement.TSum{{Subset: lie.TSums[0].Subset, Hash: other}}
				f.judgeReveals(f.of(v.ID), &said{round: v.ID, member: 1, reveal: &lie})
			})
			return f, f.Check()
		},
		"invariant 5: member 0 votes for a set": func(t *testing.T) (*Federation, error) {
			f, v := upTo(t, round.Acked)
			vote := statement.SignKey(f.voteKey(t, 0), label.StmtVote, (&statement.Vote{Round: v.ID, Value: other}).Bytes())
			_, _ = (&memberLog{f.Seats[0].live()}).Propose(context.Background(), round.VoteCommand(v.ID, 0, vote))
			return f, f.Check()
		},
		"invariant 11: member 1 applies another entry": func(t *testing.T) (*Federation, error) {
			f, l := ruled(t, 4, 1, Options{Devices: 4})
			f.Begin()
			until(t, f, round.Open)
			b := f.Fork(f.log(), 4)
			must(t, l.Pad(f.log(), b))
			f.Seats[1].Crash()
			f.holding(func() { f.Seats[1].view = b }) // past the member's own log, which refuses
			must(t, f.Seats[1].Restart(false))
			for range 5 {
				if err := f.Step(); err != nil {
					return f, err
				}
			}
			return f, nil
		},
		"signs two configs for round 1": func(t *testing.T) (*Federation, error) {
			f := story(t, Options{N: 4, F: 1, Devices: 4})
			f.holding(func() { f.signed[signedSeq{1, TaskID, 1}] = other })
			f.Begin()
			return f, f.RunUntil("", func() bool { return reached(f, label.Hash{}, round.Published) }, 10)
		},
		"invariant 7: device 0 has an ack of a contribution that no log ever accepted": func(t *testing.T) (*Federation, error) {
			f, v := upTo(t, round.Published)
			f.holding(func() {
				r := f.views[0].trace.rounds[v.ID]
				r.accepts = slices.DeleteFunc(r.accepts, func(a acceptTrace) bool { return a.Device == f.Devices[0].ID })
			})
			return f, f.Finish()
		},
		"is not in the published set of round 1": func(t *testing.T) (*Federation, error) { // in a second log only
			f, l := ruled(t, 4, 1, Options{Devices: 4})
			f.Begin()
			until(t, f, round.Open)
			everybody(t, f, f.Devices...)
			v := until(t, f, round.Published)
			f.Advance(time.Second)
			must(t, l.Drive(f.log()))
			b := f.Fork(f.log(), f.Last(f.log()))
			f.holding(func() {
				r := b.trace.rounds[v.ID]
				r.set = r.set[1:]
			})
			return f, f.Finish()
		},
	}
	for want, tell := range cases {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			f, err := tell(t)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("the checks say: %v", err)
			}
			f.forgive()
		})
	}
}
