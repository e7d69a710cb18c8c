package lab

import (
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/round"
)

// TestTimeFromFarAhead: a lying leader stamps the far future, which the log does not take, whatever keys the liar has
// published; and then as far ahead as the log lets it, to the end of the keys of f+1 members. The round that was open is
// dead, for certain. A day later it lies once more. Then it leads no more: the members draw new keys meanwhile, one is
// restarted, one takes a snapshot, and no round is proposed before the time has come, an epoch's life after the last lie.
// The next round is published with every device.
func TestTimeFromFarAhead(t *testing.T) {
	for _, kind := range []string{charter.KindVector, charter.KindLoRA} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			f, l := ruled(t, 4, 1, Options{Devices: 5, Kind: kind})
			life, h := f.Charter.Timing.EpochLife.D(), f.views[0]
			f.Begin()
			first := until(t, f, round.Open)
			everybody(t, f, f.Devices[:3]...)
			lied := func() time.Time {
				t.Helper()
				f.mu.Lock()
				horizon := h.observer.HorizonMs()
				f.mu.Unlock()
				now := f.Now()
				if far := time.UnixMilli(horizon).Sub(now); far > life {
					t.Fatalf("the log's time can go %s ahead", far)
				}
				if got := l.code(h, l.Keys(now.AddDate(1, 0, 0))); got != round.OK {
					t.Fatal(got)
				}
				for _, at := range []int64{now.AddDate(100, 0, 0).UnixMilli(), now.AddDate(1, 0, 0).UnixMilli(), horizon + 1} {
					if got := l.code(h, round.TickCommand(at)); got != round.BeyondHorizon {
						t.Errorf("a tick %s ahead: %s", time.UnixMilli(at).Sub(now), got)
					}
				}
				if got := l.code(h, round.TickCommand(horizon)); got != round.OK {
					t.Fatalf("a tick %s ahead: %s", time.UnixMilli(horizon).Sub(now), got)
				}
				return now
			}
			lied()
			must(t, f.RunUntil("the round is dead for certain", func() bool { return f.phaseIn(h, first.ID).Death == round.Certified }, 60))
			f.Advance(life - time.Hour)
			for range 10 { // keys are drawn
				must(t, f.Step())
			}
			last := lied()
			must(t, f.Lead(1))
			f.Seats[2].Crash()
			must(t, f.Seats[2].Restart(false))
			must(t, f.settle())
			must(t, f.Seats[3].Install(h, h.last()))
			newest := func() round.View { v, _ := f.Round(); return v }
			for newest().ID == first.ID && f.Now().Before(last.Add(2*life)) {
				f.Advance(5 * time.Minute)
				must(t, f.Step())
			}
			if waited := f.Now().Sub(last); waited < life/2 || waited > life+10*time.Minute {
				t.Fatalf("round %d is proposed %s after the lie, an epoch lives %s", newest().Config.Seq, waited, life)
			}
			next := openRound(t, f)
			for range 2 { // the first check-in may bring the end of the round before, and the next the upload
				must(t, f.Contribute(f.Devices...))
			}
			must(t, f.RunUntil("the next round is published", func() bool { return reached(f, next.ID, round.Published) }, 60))
			if now, _ := f.observerRound(next.ID); now.Contributors != len(f.Devices) {
				t.Errorf("%d devices are in round %d", now.Contributors, next.Config.Seq)
			}
			must(t, f.Finish())
		})
	}
}

// TestTimeAfterAStandstill: for a week all members are down, in the middle of a round. They come back by themselves: the
// time in the log stands until f+1 of them have published new keys, the round of last week is dead, and the next is
// published. Its devices are new ones: what nobody can call certain, since the keys of last week are erased, gives no
// participation back.
func TestTimeAfterAStandstill(t *testing.T) {
	f := story(t, Options{N: 4, F: 1, Devices: 4, Kind: charter.KindLoRA})
	f.Begin()
	v := openRound(t, f)
	everybody(t, f, f.Devices...)
	for _, s := range f.Seats {
		s.Crash()
	}
	f.Advance(7 * 24 * time.Hour)
	for _, s := range f.Seats {
		must(t, s.Restart(false))
	}
	must(t, f.RunUntil("the round of last week is dead", func() bool { return reached(f, v.ID, round.Dead) }, 60))
	next := openRound(t, f)
	if next.ID == v.ID || next.Config.ProposedMs < v.Config.ProposedMs+7*24*time.Hour.Milliseconds() {
		t.Fatalf("round %d is open", next.Config.Seq)
	}
	if d := f.Now().UnixMilli() - f.views[0].observer.TimeMs(); d > 5000 {
		t.Errorf("the log's time is %d ms behind", d)
	}
	for range 3 {
		d, err := f.AddDevice()
		must(t, err)
		must(t, d.enrol())
	}
	must(t, f.Contribute(f.Devices...))
	f.Advance(CloseAfter)
	must(t, f.RunUntil("it is published", func() bool { return reached(f, next.ID, round.Published) }, 60))
	if now, _ := f.observerRound(next.ID); now.Contributors != 3 {
		t.Errorf("%d devices are in round %d", now.Contributors, next.Config.Seq)
	}
	must(t, f.Finish())
}
