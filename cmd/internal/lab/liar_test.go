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
			t.Run(fmt.Sprintf("(%d,%d) %s", s.n, s.f, told.name), func(t *testing.T) {
				if s.n == 7 && !everything && (testing.Short() || i%4 != 0) {
					t.Skip("a lie that is told at (4,1); RUCHE_LAB=all tells it at (7,2) too")
				}
				t.Parallel()
				f := story(t, Options{N: s.n, F: s.f, Devices: 6})
				must(t, f.Lead(0))
				for j := range s.f {
					l, err := f.Corrupt(1 + 2*j)
					must(t, err)
					told.tell(l)
				}
				f.Begin()
				// Two liars that refuse the same candidate are still one candidate of six.
				survives(t, f, 6-told.lost)
			})
		}
	}
}

// survives lets all devices contribute: each has its ack, and the round is published everywhere, with so many of them.
func survives(t *testing.T, f *Federation, contributors int) {
	t.Helper()
	until(t, f, round.Open)
	everybody(t, f, f.Devices...)
	v := until(t, f, round.Published)
	if end := everywhere(t, f, v.ID); end != "published" {
		t.Errorf("the round is %s", end)
	}
	if v.Contributors != contributors {
		t.Errorf("%d contributors are in the sum, want %d", v.Contributors, contributors)
	}
	adopted(t, f, f.Devices...)
	must(t, f.Finish())
}

// TestLyingMembersWhereAllAreNeeded: at (3,1) one liar can stop a round, and nothing else: by refusing what the others
// hold, by another vote, by false sums, or by silence. Nothing is published then, and the round ends at its reveal
// deadline. All the rest of its lies the round survives, as at (4,1).
func TestLyingMembersWhereAllAreNeeded(t *testing.T) {
	for i, told := range lies {
		t.Run(told.name, func(t *testing.T) {
			if testing.Short() && i%4 != 0 {
				t.Skip("a lie that is told at (4,1); without -short it is told at (3,1) too")
			}
			t.Parallel()
			f := story(t, Options{N: 3, F: 1, Devices: 6, Patience: patience})
			must(t, f.Lead(0))
			l, err := f.Corrupt(1)
			must(t, err)
			told.tell(l)
			f.Begin()
			if !told.stops {
				f.opts.Patience = 0
				survives(t, f, 6-told.lost)
				return
			}
			for range 20 {
				must(t, f.Step())
			}
			_ = f.Contribute(f.Devices...) // the round may not even be open
			must(t, f.Check())
			for i := range 40 {
				if i == 20 {
					f.Advance(CloseAfter + AckAfter + RevealAfter)
				}
				must(t, f.Step())
			}
			if v, ok := f.latest(); ok {
				t.Errorf("round %d is published", v.Config.Seq)
			}
			if v := f.phaseIn(f.log(), f.first(f.log())); v.Phase != round.Dead {
				t.Errorf("round %d is %s after its reveal deadline", v.Config.Seq, v.Phase)
			}
			must(t, f.Finish())
		})
	}
}
