package lab

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/crypto/label"
)

// TestTwoMembersDown: at (4,1) two members go down, in any phase. The round waits; before the certificate no sum of masks
// leaves any member, nor is there one. Once one of them is back the round ends, published or, where its deadlines have
// passed meanwhile, dead, the same everywhere, bit for bit; and of an expired round nothing leaves a member any more.
func TestTwoMembersDown(t *testing.T) {
	for p := round.Proposed; p <= round.Revealed; p++ {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s late %v", p, late), func(t *testing.T) {
				t.Parallel()
				f := story(t, Options{N: 4, F: 1, Devices: 4, NMax: 12})
				chance := rand.New(rand.NewPCG(f.opts.Seed, 6))
				f.Begin()
				until(t, f, min(p, round.Open))
				if p >= round.Open {
					everybody(t, f, f.Devices...)
				}
				if p > round.Open {
					f.Advance(CloseAfter)
					until(t, f, p)
				}
				first := f.first(f.log())
				down := chance.Perm(4)[:2]
				for _, j := range down {
					f.Seats[j].Crash()
				}
				stood := f.phaseIn(f.log(), first)
				for range 12 {
					must(t, f.Step())
				}
				if now := f.phaseIn(f.log(), first); now.Phase != stood.Phase {
					t.Errorf("the round does not wait: it was %s and is %s", stood.Phase, now.Phase)
				}
				if n := len(f.Served()); stood.Phase < round.Sealed && n > 0 {
					t.Errorf("%d vectors have left members before the certificate", n)
				}
				if late {
					f.Advance(CloseAfter + AckAfter + RevealAfter)
				}
				must(t, f.Seats[down[0]].Restart(chance.IntN(2) == 0))
				if !late && p < round.Open {
					until(t, f, round.Open)
					everybody(t, f, f.Devices...)
				}
				if !late && p <= round.Open {
					f.Advance(CloseAfter)
				}
				end := everywhere(t, f, first)
				if want := "published"; !late && end != want {
					t.Errorf("the round is %s, want %s", end, want)
				}
				if late && end == "published" {
					t.Error("the round is published after its deadlines")
				}
				must(t, f.Seats[down[1]].Restart(chance.IntN(2) == 0))
				for range 10 {
					must(t, f.Step())
				}
				end = everywhere(t, f, first)
				if late {
					nothingLeaves(t, f, first)
				}
				must(t, f.Finish())
				t.Logf("%s; %d vectors were fetched", end, len(f.Served()))
			})
		}
	}
}

// nothingLeaves asks every member for every sum that anybody ever named or holds of a round.
func nothingLeaves(t testing.TB, f *Federation, id label.Hash) {
	t.Helper()
	var named []label.Hash
	f.mu.Lock()
	for _, r := range f.of(id).reveals {
		named = append(named, r.SumY)
		for _, x := range r.TSums {
			named = append(named, x.Hash)
		}
	}
	f.mu.Unlock()
	for _, s := range f.Seats {
		files, err := os.ReadDir(filepath.Join(s.Dir, "sums", id.String()))
		if err == nil {
			for _, x := range files {
				if h, err := label.ParseHash(x.Name()); err == nil {
					named = append(named, h)
				}
			}
		}
	}
	before := len(f.Served())
	for _, s := range f.Seats {
		for _, h := range append(named, id) {
			stream, err := coordpb.NewMeshClient(s.live().mesh.conn).FetchSum(t.Context(), &coordpb.FetchSumRequest{RoundId: id[:], Hash: h[:]})
			must(t, err)
			if c, err := stream.Recv(); err == nil || err == io.EOF {
				t.Errorf("member %d serves %d bytes of a round that has expired", s.Index, len(c.GetData()))
			}
		}
	}
	if after := len(f.Served()); after != before {
		t.Errorf("%d vectors of an expired round leave members", after-before)
	}
}
