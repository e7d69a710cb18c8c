package lab

import (
	"fmt"
	"hash/fnv"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/crypto/label"
)

// patience is how long a device waits where some members never answer, before it begins anew: real time.
const patience = 300 * time.Millisecond

// sizes are the rows of SA 2.2, with how many members may be missing.
var sizes = []struct{ n, f, missing int }{{1, 0, 0}, {2, 1, 0}, {3, 1, 0}, {4, 1, 1}, {5, 1, 1}, {5, 2, 0}, {7, 2, 2}, {7, 3, 0}}

// story makes a federation in a folder in memory, where there is one: what is tested is order, not the disk. The seed is
// the test's name, and printed when it fails.
func story(t *testing.T, o Options) *Federation {
	t.Helper()
	h := fnv.New64a()
	h.Write([]byte(t.Name()))
	if o.Seed == 0 {
		o.Seed = h.Sum64()
	}
	o.Dir = t.TempDir()
	if memory, err := os.MkdirTemp("/dev/shm", "lab"); err == nil {
		t.Cleanup(func() { os.RemoveAll(memory) })
		o.Dir = memory
	}
	f, err := New(o)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d, after %d steps and %d turns", o.Seed, f.Steps(), f.Turns())
		}
		must(t, f.Close())
	})
	must(t, f.Start())
	return f
}

// holding does what reads, or breaks, what mu guards.
func (f *Federation) holding(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// first is the id of a log's first round.
func (f *Federation) first(h *history) (id label.Hash) {
	f.holding(func() { id = h.trace.order[0].id })
	return id
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until steps until the newest round, or the first if there is none, has reached a phase. It may not be the newest any
// more when it has: a leader proposes the next round in the turn in which one ends.
func until(t testing.TB, f *Federation, p round.Phase) round.View {
	t.Helper()
	now, _ := f.Round()
	must(t, f.RunUntil("the round is "+p.String(), func() bool { return reached(f, now.ID, p) }, 60))
	if now.ID.IsZero() {
		now, _ = f.Round()
	}
	now, _ = f.observerRound(now.ID)
	return now
}

// reached reports whether a round has been in a phase; the newest one for no id.
func reached(f *Federation, id label.Hash, p round.Phase) bool {
	v, _ := f.observerRound(id)
	if id.IsZero() {
		v, _ = f.Round()
	}
	for _, t := range v.Times {
		if t.Phase == p {
			return true
		}
	}
	return false
}

// everybody lets all devices contribute, and all of them must be acknowledged.
func everybody(t testing.TB, f *Federation, devices ...*Device) {
	t.Helper()
	must(t, f.Contribute(devices...))
	v, _ := f.Round()
	for _, d := range devices {
		if !d.Acked(v.ID) {
			t.Fatalf("%s has no ack in round %d", d.Name, v.Config.Seq)
		}
	}
}

// adopted lets devices check in until all of them use what the newest round published: members that lag are asked too.
func adopted(t testing.TB, f *Federation, devices ...*Device) {
	t.Helper()
	v, ok := f.latest()
	if !ok {
		t.Fatal("nothing is published")
	}
	for range 10 {
		left := 0
		for _, d := range devices {
			if d.Adopted().Hash() != v.Result.Model {
				must(t, f.Contribute(d))
				left++
			}
		}
		if left == 0 {
			return
		}
		must(t, f.Step())
	}
	t.Fatalf("devices do not adopt round %d", v.Config.Seq)
}

// TestRound is the plain story, at every size: five devices contribute, the round is published, everybody adopts it.
func TestRound(t *testing.T) {
	for _, s := range sizes {
		t.Run(fmt.Sprintf("(%d,%d)", s.n, s.f), func(t *testing.T) {
			t.Parallel()
			f := story(t, Options{N: s.n, F: s.f, Devices: 5})
			f.Begin()
			until(t, f, round.Open)
			everybody(t, f, f.Devices...)
			if v := until(t, f, round.Published); v.Contributors != 5 {
				t.Errorf("%d contributors, want 5", v.Contributors)
			}
			adopted(t, f, f.Devices...)
			must(t, f.Finish())
			t.Logf("%d steps, %d turns, %d entries, %d vectors fetched", f.Steps(), f.Turns(), f.Last(f.log()), len(f.Served()))
		})
	}
}

// everywhere steps until a round has ended at every honest member that runs, in the same way and with the same bytes of a
// result. It returns phase and death.
func everywhere(t testing.TB, f *Federation, id label.Hash) string {
	t.Helper()
	var end string
	must(t, f.RunUntil("the round has ended everywhere, and the same", func() bool {
		end = ""
		for _, s := range f.Seats {
			if s.Member() == nil || s.Liar() != nil {
				continue
			}
			r, err := s.Member().DeviceServer().GetRound(t.Context(), &coordpb.GetRoundRequest{RoundId: id[:]})
			if err != nil || r.GetPhase() != "published" && r.GetPhase() != "dead" {
				return false
			}
			own := fmt.Sprintf("%s %s %x %x %x", r.GetPhase(), r.GetDeath(), r.GetDecision(), r.GetContributors(), r.GetResult().GetBody())
			if end != "" && own != end {
				return false
			}
			end = own
		}
		return end != ""
	}, 60))
	fields := strings.SplitN(end, " ", 3)
	return strings.TrimSpace(fields[0] + " " + fields[1])
}
