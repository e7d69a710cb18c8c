package lab

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
)

// moment is when members go missing.
type moment struct {
	name  string
	phase round.Phase // as soon as the log has reached it; for half, in the middle of the uploads
	half  bool
}

var moments = []moment{
	{name: "before open"},
	{name: "after half of the uploads", phase: round.Open, half: true},
	{name: "after close", phase: round.Closed},
	{name: "after decision", phase: round.Acked},
	{name: "after seal", phase: round.Sealed},
}

// subsetsUpTo lists the sets of at most k of n members; exactly k if only is set.
func subsetsUpTo(n, k int, only bool) (out []statement.Mask) {
	for m := statement.Mask(0); m < 1<<n; m++ {
		if m.Size() == k || !only && m.Size() < k {
			out = append(out, m)
		}
	}
	return out
}

// everything asks for all cases of the large sizes too (doc.go).
var everything = os.Getenv("RUCHE_LAB") == "all"

// chosen says whether a set goes missing at a moment: always where the committee is smaller than large, else at one
// moment of every few.
func chosen(n, large, at, moment, few int) bool {
	if testing.Short() {
		return n < large && at%few == moment%few
	}
	return everything || n < large || at%few == moment%few
}

// TestMayBeMissing: with at most as many members missing as SA 2.2 allows, whichever, from whatever moment on, and with
// devices that drop out, every round is published, and what was opened is the plain sum, bit for bit.
func TestMayBeMissing(t *testing.T) {
	for _, s := range sizes {
		for at, missing := range subsetsUpTo(s.n, s.missing, false) {
			for i, m := range moments {
				if !chosen(s.n, 7, at, i, len(moments)) {
					continue
				}
				t.Run(fmt.Sprintf("(%d,%d) without %v %s", s.n, s.f, missing, m.name), func(t *testing.T) {
					t.Parallel()
					without(t, Options{N: s.n, F: s.f, Devices: 5}, m, missing, false)
				})
			}
		}
	}
}

// TestOneMoreMissing: with one member more missing the round waits, and no sum of masks has left anybody before the
// certificate is there. When one of them comes back, the round ends.
func TestOneMoreMissing(t *testing.T) {
	for _, s := range sizes {
		for at, missing := range subsetsUpTo(s.n, s.missing+1, true) {
			for i, m := range moments {
				if !chosen(s.n, 5, at, i, len(moments)*max(1, s.n/4)) {
					continue
				}
				t.Run(fmt.Sprintf("(%d,%d) without %v %s", s.n, s.f, missing, m.name), func(t *testing.T) {
					t.Parallel()
					without(t, Options{N: s.n, F: s.f, Devices: 4}, m, missing, true)
				})
			}
		}
	}
}

// without tells the story of one round in which members go missing at a moment. waits: one of them comes back in the end,
// and until then nothing may end.
func without(t *testing.T, o Options, m moment, missing statement.Mask, waits bool) {
	f := story(t, o)
	chance := rand.New(rand.NewPCG(f.opts.Seed, 2))
	contributors, dropped := f.Devices, []*Device(nil)
	if !waits {
		contributors, dropped = dropOut(f, chance)
	}
	gone := false
	leave := func() {
		if gone {
			return
		}
		gone = true
		for _, j := range missing.Members() {
			f.Seats[j].Crash()
		}
		if !waits {
			return
		}
		before := len(f.Served())
		for range 12 {
			must(t, f.Step())
		}
		if m.phase < round.Sealed {
			v, _ := f.Round()
			if reached(f, v.ID, round.Revealed) || v.Phase.Terminal() {
				t.Fatalf("without %v the round went on to %s", missing, f.Phase())
			}
			if n := len(f.Served()); n > before && !reached(f, v.ID, round.Sealed) {
				t.Fatalf("without %v %d vectors left members before the certificate", missing, n-before)
			}
		}
		members := missing.Members()
		must(t, f.Seats[members[chance.IntN(len(members))]].Restart(chance.IntN(2) == 0))
	}
	if m.phase == 0 {
		leave()
	}
	f.Begin()
	until(t, f, round.Open)
	for _, d := range dropped {
		if d.Fault != None {
			_ = f.Contribute(d) // it dies on the way, and never comes back
		}
	}
	half := len(contributors) / 2
	everybody(t, f, contributors[:half]...)
	if m.half {
		leave()
	}
	everybody(t, f, contributors[half:]...)
	if len(contributors) < len(f.Devices) {
		f.Advance(CloseAfter)
	}
	for _, p := range []round.Phase{round.Closed, round.Acked, round.Sealed} {
		if m.phase == p && !m.half {
			until(t, f, p)
			leave()
		}
	}
	if v := until(t, f, round.Published); v.Contributors != len(contributors) {
		t.Errorf("%d contributors are in the sum, want %d", v.Contributors, len(contributors))
	}
	must(t, f.Finish())
}

// TestAMemberThatHasJustStartedMissesNothing: a member that was down while devices contributed and has heard of nobody
// since calls no contribution missing that the others hold. It asks them first.
func TestAMemberThatHasJustStartedMissesNothing(t *testing.T) {
	f := story(t, Options{N: 4, F: 1, Devices: 4})
	f.Begin()
	until(t, f, round.Open)
	late := f.Seats[3]
	late.Crash()
	everybody(t, f, f.Devices...)
	late.Fresh.Store(true)
	must(t, late.Restart(false))
	v := until(t, f, round.Acked)
	if len(v.Closes) != 1 || !v.Closes[0].Acked.Has(late.Index) || v.Contributors != len(f.Devices) {
		t.Errorf("%d contributors of %d, after %d closes: %+v", v.Contributors, len(f.Devices), len(v.Closes), v.Closes)
	}
	late.Fresh.Store(false)
	until(t, f, round.Published)
	must(t, f.Finish())
}

// TestAMemberThatCannotAskWaits: a member that reaches nobody for a moment accuses no contribution; one that reaches nobody
// for long does, and the round goes on without its word.
func TestAMemberThatCannotAskWaits(t *testing.T) {
	for name, moment := range map[string]bool{"for a moment": true, "for long": false} {
		t.Run(name, func(t *testing.T) {
			f := story(t, Options{N: 4, F: 1, Devices: 4})
			f.Begin()
			until(t, f, round.Open)
			late := f.Seats[3]
			late.Crash()
			everybody(t, f, f.Devices...)
			late.Cut.Store(true)
			must(t, late.Restart(false))
			v := until(t, f, round.Closed)
			must(t, f.Step())
			if v, _ = f.Round(); v.Closes[0].Acked.Has(late.Index) {
				t.Error("it acked what it could not ask for")
			}
			late.Cut.Store(!moment)
			v = until(t, f, round.Acked)
			if v.Contributors != len(f.Devices) || moment && len(v.Closes) != 1 {
				t.Errorf("%d contributors of %d, after %d closes: %+v", v.Contributors, len(f.Devices), len(v.Closes), v.Closes)
			}
			late.Cut.Store(false)
			until(t, f, round.Published)
			must(t, f.Finish())
		})
	}
}

// dropOut chooses up to two devices that never contribute: some do not come, some die before a byte of theirs has left.
func dropOut(f *Federation, chance *rand.Rand) (remain, dropped []*Device) {
	gone := chance.IntN(3)
	for i, at := range chance.Perm(len(f.Devices)) {
		d := f.Devices[at]
		if i >= gone {
			remain = append(remain, d)
			continue
		}
		d.Fault = Fault(chance.IntN(int(BeforeSend) + 1))
		dropped = append(dropped, d)
	}
	return remain, dropped
}
