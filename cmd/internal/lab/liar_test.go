package lab

import (
	"fmt"
	"testing"

	"github.com/ruche-federation/ruche/coordinator/round"
)

// TestLyingMembers: with an honest leader, up to f members that lie cost nothing but time. The round is published at
// every honest member, bit for bit, with every honest device whose contribution an honest M can carry.
func TestLyingMembers(t *testing.T) {
	for _, s := range []struct{ n, f int }{{4, 1}, {7, 2}} {
		for i, told := range lies {
			if s.n == 7 && (testing.Short() || !everything && i%4 != 0) {
				continue
			}
			t.Run(fmt.Sprintf("(%d,%d) %s", s.n, s.f, told.name), func(t *testing.T) {
				t.Parallel()
				f := story(t, Options{N: s.n, F: s.f, Devices: 6})
				must(t, f.Lead(0))
				for j := range s.f {
					l, err := f.Corrupt(1 + 2*j)
					must(t, err)
					told.tell(l)
				}
				f.Begin()
				until(t, f, round.Open)
				everybody(t, f, f.Devices...)
				v := until(t, f, round.Published)
				if end := everywhere(t, f, v.ID); end != "published" {
					t.Errorf("the round is %s", end)
				}
				// Two liars that refuse the same candidate are still one candidate of six.
				if want := 6 - told.lost; v.Contributors != want {
					t.Errorf("%d contributors are in the sum, want %d", v.Contributors, want)
				}
				adopted(t, f, f.Devices...)
				must(t, f.Finish())
			})
		}
	}
}

// TestLyingMembersWhereAllAreNeeded: at (3,1) one liar can stop a round, and nothing else. What it is asked to say and
// does not leaves the round waiting until it is dead; the rest of its lies the round survives.
func TestLyingMembersWhereAllAreNeeded(t *testing.T) {
	for i, told := range lies {
		if testing.Short() && i%4 != 0 {
			continue
		}
		t.Run(told.name, func(t *testing.T) {
			t.Parallel()
			f := story(t, Options{N: 3, F: 1, Devices: 6, Patience: patience})
			must(t, f.Lead(0))
			l, err := f.Corrupt(1)
			must(t, err)
			told.tell(l)
			f.Begin()
			for range 20 {
				must(t, f.Step())
			}
			_ = f.Contribute(f.Devices...) // without the liar there is no ack
			must(t, f.Check())
			for i := range 40 {
				if i == 20 {
					f.Advance(CloseAfter + AckAfter + RevealAfter)
				}
				must(t, f.Step())
			}
			if v, ok := f.Round(); ok && v.Config.Seq == 1 && !v.Phase.Terminal() && v.Phase != round.Published {
				t.Errorf("the round is %s after its reveal deadline", v.Phase)
			}
			must(t, f.Finish())
		})
	}
}
