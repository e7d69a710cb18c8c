package lab

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/crypto/label"
)

// TestSeizedDisks: every disk of every member, with all long-term keys, seized after a finished epoch, opens no
// contribution, neither of a published round nor of one that expired; and of y, heads, boxes and sums nothing is left.
// The same thief, with the same uploads recorded, opens all of them as long as the epoch's keys are there, from f+1
// disks on and not from f.
func TestSeizedDisks(t *testing.T) {
	f := story(t, Options{N: 4, F: 1, Devices: 4, Window: "1h", Values: 40})
	f.Begin()
	first := until(t, f, round.Open)
	everybody(t, f, f.Devices...)
	steal := func(members ...int) *Opened {
		t.Helper()
		loot, err := f.Seize(members...)
		must(t, err)
		return loot.Open()
	}
	if got := steal(2); len(got.Vectors) != 0 || got.SealKeys != 1 || got.VoteKeys != 1 || got.Boxes != 4 {
		t.Errorf("one disk: %d seal keys, %d vote keys, %d boxes, %d vectors; want 1, 1, 4 and none", got.SealKeys, got.VoteKeys, got.Boxes, len(got.Vectors))
	}
	got := steal(0, 3)
	wantPlain(t, f, got, first.ID)
	if len(got.Vectors) != 4 || len(got.Left) == 0 {
		t.Errorf("two disks open %d of 4 contributions", len(got.Vectors))
	}
	until(t, f, round.Published)

	f.Advance(time.Hour)
	must(t, f.RunUntil("the second round is open", func() bool { v, _ := f.Round(); return v.Config.Seq == 2 && v.Phase == round.Open }, 40))
	second, _ := f.Round()
	everybody(t, f, f.Devices...)
	until(t, f, round.Acked)
	f.Seats[0].Crash()
	f.Seats[1].Crash()
	f.Advance(CloseAfter + AckAfter + RevealAfter)
	must(t, f.Seats[0].Restart(false))
	must(t, f.RunUntil("the second round has expired", func() bool { v, _ := f.observerRound(second.ID); return v.Death == round.Expired }, 30))
	if got := steal(1, 2); len(got.Vectors) != 8 {
		t.Errorf("within the epoch two disks open %d of 8 contributions", len(got.Vectors))
	}

	f.Advance(24 * time.Hour)
	must(t, f.Seats[1].Restart(true)) // a member that stays down keeps its keys
	for range 10 {
		must(t, f.Step())
	}
	got = steal(0, 1, 2, 3)
	if got.SealKeys+got.VoteKeys+got.Boxes+got.Seeds+len(got.Vectors) != 0 {
		t.Errorf("after the epoch the disks give %d seal keys, %d vote keys, %d boxes, %d seeds and %d contributions", got.SealKeys, got.VoteKeys, got.Boxes, got.Seeds, len(got.Vectors))
	}
	if len(got.Left) != 0 {
		t.Errorf("something of an upload is left in %v", got.Left)
	}
	for _, s := range f.Seats {
		for _, id := range []label.Hash{first.ID, second.ID} {
			for _, place := range []string{"blobs/y", "blobs/heads", "sums"} {
				if files, err := os.ReadDir(filepath.Join(s.Dir, place, id.String())); err == nil && len(files) > 0 {
					t.Errorf("member %d: %d files are left in %s", s.Index, len(files), place)
				}
			}
		}
	}
	must(t, f.Finish())
}

// wantPlain compares what a thief opened with what the devices hid.
func wantPlain(t testing.TB, f *Federation, got *Opened, id label.Hash) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.views[0].trace.rounds[id]
	for _, a := range r.accepts {
		x, err := f.encoded(a, r)
		must(t, err)
		if v, ok := got.Vectors[a.Header]; ok && !slices.Equal(v, x) {
			t.Error("what was opened is not what the device hid")
		}
	}
}
