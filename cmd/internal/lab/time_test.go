package lab

import (
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/round"
)

// TestTimeFromFarAhead: a lying leader stamps the far future, which the log does not take, and then as far ahead as it does:
// to the end of the keys of f+1 members. The liar's own keys of the far future add nothing to it. The round that runs is
// dead, and with honest leaders again none is proposed until that time is there, an epoch's life at most. Then one is
// published with the same devices, by members of which one was restarted and one took a snapshot. The same over a lie that
// is repeated just before it would be over.
func TestTimeFromFarAhead(t *testing.T) {
	for _, kind := range []string{charter.KindVector, charter.KindLoRA} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			f, l := ruled(t, 4, 1, Options{Devices: 5, Kind: kind})
			life := f.Charter.Timing.EpochLife.D()
			f.Begin()
			v := until(t, f, round.Open)
			everybody(t, f, f.Devices[:3]...)
			h := f.views[0]
			for lie := range 2 {
				said := f.Now()
				for _, ahead := range []time.Duration{100 * 365 * 24 * time.Hour, 365 * 24 * time.Hour, life + time.Millisecond} {
					if got := l.code(h, round.TickCommand(said.Add(ahead).UnixMilli())); got != round.BeyondHorizon {
						t.Fatalf("a tick of %s ahead: %s", ahead, got)
					}
				}
				for _, ahead := range []time.Duration{0, 365 * 24 * time.Hour} {
					if got := l.code(h, l.Keys(said.Add(ahead))); got != round.OK {
						t.Fatal(got)
					}
				}
				if got := l.code(h, round.TickCommand(said.Add(life+time.Millisecond).UnixMilli())); got != round.BeyondHorizon {
					t.Fatalf("with a liar's keys of the far future: %s", got)
				}
				f.mu.Lock()
				horizon := h.observer.HorizonMs()
				f.mu.Unlock()
				if got := l.code(h, round.TickCommand(horizon)); got != round.OK {
					t.Fatalf("the horizon: %s", got)
				}
				if lie == 0 {
					must(t, f.RunUntil("the round is certified dead", func() bool { return f.phaseIn(h, v.ID).Death == round.Certified }, 60))
				}
				if lie > 0 {
					break
				}
				f.Advance(life - time.Hour) // the members draw keys meanwhile
				for range 20 {
					must(t, f.Step())
				}
			}
			lied := f.Now()
			l.Word, l.seat.Liar = nil, nil // it lies no more
			must(t, f.Lead(1))
			f.Seats[2].Crash()
			must(t, f.Seats[2].Restart(false))
			must(t, f.Seats[3].Install(h, h.last()))
			for f.Now().Before(lied.Add(life / 2)) {
				must(t, f.Step())
				f.Advance(time.Hour)
			}
			if now, _ := f.Round(); now.ID != v.ID {
				t.Fatalf("round %d is proposed before its time", now.Config.Seq)
			}
			must(t, f.RunUntil("the next round is open", func() bool {
				f.Advance(10 * time.Minute)
				now, _ := f.Round()
				return now.ID != v.ID && now.Phase == round.Open
			}, 200))
			if late := f.Now().Sub(lied); late > life+time.Hour {
				t.Errorf("it is %s after the lie, an epoch lives %s", late, life)
			}
			next, _ := f.Round()
			for range 2 { // the first check-in may bring the end of the round before
				must(t, f.Contribute(f.Devices...))
			}
			must(t, f.RunUntil("it is published", func() bool { return reached(f, next.ID, round.Published) }, 60))
			if now, _ := f.observerRound(next.ID); now.Contributors != len(f.Devices) {
				t.Errorf("%d contributors are in the sum of round %d", now.Contributors, next.Config.Seq)
			}
			must(t, f.Finish())
		})
	}
}

// TestTimeAfterAStandstill: nobody is there for a week. The members come back by themselves: the log's time stands until
// f+1 of them have drawn new keys, and then a round opens and is published.
func TestTimeAfterAStandstill(t *testing.T) {
	f := story(t, Options{N: 4, F: 1, Devices: 4, Kind: charter.KindLoRA})
	f.Begin()
	first := until(t, f, round.Published)
	t.Log(first.Config.Seq)
}
