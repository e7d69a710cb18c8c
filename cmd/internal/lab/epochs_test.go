package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/epoch"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/node/participant"
)

// pause keeps the leader from proposing and from stamping the time, until Begin.
func pause(f *Federation) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leading = false
}

// openRound steps until the newest round is open.
func openRound(t *testing.T, f *Federation) round.View {
	t.Helper()
	must(t, f.RunUntil("a round is open", func() bool { return f.Phase() == round.Open }, 60))
	v, _ := f.Round()
	return v
}

// TestThreeEpochs: over rounds of two days every member draws at least three epochs, while one member after the other is
// restarted in the middle of a round, by its log or by a snapshot. No round is lost, no promise is broken, old keys go,
// and every member says so.
func TestThreeEpochs(t *testing.T) {
	f := story(t, Options{N: 4, F: 1, Devices: 4, Kind: charter.KindLoRA})
	chance := rand.New(rand.NewPCG(f.opts.Seed, 3))
	var published []round.View
	for turn := range 6 {
		f.Begin()
		v := openRound(t, f)
		must(t, f.settle())
		s := f.Seats[turn%len(f.Seats)]
		s.Crash()
		must(t, s.Restart(chance.IntN(2) == 0))
		everybody(t, f, f.Devices...)
		phase := []round.Phase{round.Closed, round.Acked, round.Sealed, round.Revealed}[chance.IntN(4)]
		must(t, f.RunUntil("it goes on", func() bool { return reached(f, v.ID, phase) }, 60))
		s = f.Seats[chance.IntN(len(f.Seats))]
		s.Crash()
		must(t, s.Restart(chance.IntN(2) == 0))
		must(t, f.RunUntil("it is published", func() bool { return reached(f, v.ID, round.Published) }, 60))
		adopted(t, f, f.Devices...)
		published = append(published, v)
		pause(f)
		f.Advance(7 * time.Hour)
		for range 4 {
			must(t, f.Step())
		}
	}
	f.Begin()
	for range 12 { // a tick, after which keys go, and then the word that they are gone
		must(t, f.Step())
	}
	f.mu.Lock()
	observer := f.views[0].observer
	for j, s := range f.Seats {
		_, k, _ := observer.KeyPackage(j)
		if erased := observer.Erased(j); k.Epoch < 3 || erased < 2 {
			t.Errorf("member %d is in epoch %d and said that it erased %d", j, k.Epoch, erased)
		}
		list, err := epoch.Inspect(filepath.Join(s.Dir, "epochs"))
		must(t, err)
		for _, r := range list {
			if _, said := observer.Erasure(j, r.Number); said || r.Damage != nil || r.Err != nil {
				t.Errorf("member %d has epoch %d, erased %v, %v, %v", j, r.Number, said, r.Damage, r.Err)
			}
		}
	}
	record, ok := observer.Record(published[0].ID, round.Everything)
	f.mu.Unlock()
	if !ok || len(record.GetErasures()) != published[0].Config.Listed().Size() {
		t.Errorf("the first round shows the erasures of %d members, it lists %d", len(record.GetErasures()), published[0].Config.Listed().Size())
	}
	must(t, f.Finish())
}

// TestKeysChangeInAnOpenRound: the epochs that an open round lists come to the second half of their life when half of its
// devices have contributed. Every member publishes its next keys, and the rest of the devices contribute to the round as if
// nothing had been. It is published with all of them. No member's keys of the listed epoch leave its disk before that, nor
// does anybody say that they have; then all of them do. The next round lists the new epochs.
func TestKeysChangeInAnOpenRound(t *testing.T) {
	for _, s := range []struct{ n, f int }{{3, 1}, {4, 1}} {
		t.Run(fmt.Sprintf("(%d,%d)", s.n, s.f), func(t *testing.T) {
			t.Parallel()
			f := story(t, Options{N: s.n, F: s.f, Devices: 6, Kind: charter.KindLoRA})
			f.Advance(f.Charter.Timing.EpochLife.D()/2 - 5*time.Minute)
			f.Begin()
			v := openRound(t, f)
			everybody(t, f, f.Devices[:3]...)
			listed := func(j int) uint64 { k, _ := v.Config.Package(j); return k.Epoch }
			gone, said := func(j int) bool { // the keys of the listed epoch
				_, err := os.Stat(filepath.Join(f.Seats[j].Dir, "epochs", fmt.Sprint(listed(j)), "keys"))
				return errors.Is(err, fs.ErrNotExist)
			}, func(j int) (said bool) {
				f.holding(func() { _, said = f.views[0].observer.Erasure(j, listed(j)) })
				return said
			}
			held := 0
			f.onTurn = func() {
				if reached(f, v.ID, round.Published) {
					return
				}
				held++
				for j := range f.Seats {
					if gone(j) || said(j) {
						now, _ := f.observerRound(v.ID)
						t.Fatalf("the round is %s; member %d's keys are gone: %v, and so it says: %v", now.Phase, j, gone(j), said(j))
					}
				}
			}
			f.Advance(6 * time.Minute)
			must(t, f.RunUntil("everybody has published its next epoch", func() bool {
				next := true
				f.holding(func() {
					for j := range f.Seats {
						_, k, ok := f.views[0].observer.KeyPackage(j)
						next = next && ok && k.Epoch == listed(j)+1
					}
				})
				return next
			}, 20))
			if now, _ := f.observerRound(v.ID); now.Phase != round.Open || now.Accepted != 3 {
				t.Fatalf("the round is %s with %d accepted", now.Phase, now.Accepted)
			}
			for range 5 { // whoever erases too much has the time for it
				must(t, f.Step())
			}
			everybody(t, f, f.Devices[3:]...)
			if v := until(t, f, round.Published); v.Contributors != 6 || held < 5*s.n {
				t.Errorf("%d contributors; the keys were looked for %d times", v.Contributors, held)
			}
			must(t, f.RunUntil("everybody has erased the keys of the first round, and says so", func() bool {
				for j := range f.Seats {
					if !gone(j) || !said(j) {
						return false
					}
				}
				return true
			}, 30))
			f.Advance(time.Minute)
			next := openRound(t, f)
			for j := range f.Seats {
				if k, ok := next.Config.Package(j); ok && k.Epoch != listed(j)+1 {
					t.Errorf("the next round lists epoch %d of member %d", k.Epoch, j)
				}
			}
			everybody(t, f, f.Devices...)
			must(t, f.RunUntil("the next round is published", func() bool { return reached(f, next.ID, round.Published) }, 60))
			must(t, f.Finish())
		})
	}
}

// TestAllExpiredGivesBack: a decided round stays without its votes until the reveal deadline, and its devices may not
// contribute from its start again. When every listed member is back and says that it never revealed, the death is
// certain, the participation is given back, and the same devices are in the next round from the same start.
func TestAllExpiredGivesBack(t *testing.T) {
	f := story(t, Options{N: 4, F: 1, Devices: 4, Kind: charter.KindLoRA})
	f.Begin()
	v := openRound(t, f)
	everybody(t, f, f.Devices...)
	must(t, f.RunUntil("it is decided", func() bool {
		v, _ := f.observerRound(v.ID)
		return v.Decided
	}, 60))
	must(t, f.Lead(0))
	f.Seats[2].Held = true // hears of nothing: the log goes on, two votes are not three
	f.Seats[3].Crash()
	f.Advance(CloseAfter + AckAfter + RevealAfter)
	must(t, f.RunUntil("the round has expired", func() bool { return reached(f, v.ID, round.Dead) }, 60))
	now, _ := f.observerRound(v.ID)
	if now.Death != round.Expired || len(now.Reveals) != 0 {
		t.Fatalf("the round is %s %s with %d reveals", now.Phase, now.Death, len(now.Reveals))
	}
	ends := func(d *Device) (out []string) {
		list, err := d.Ledger()
		must(t, err)
		for _, e := range list {
			if e.Round == v.ID && e.Kind == participant.KindEnd {
				out = append(out, e.End)
			}
		}
		return out
	}
	for _, d := range f.Devices {
		for range 2 { // one member has not heard of it
			must(t, f.Contribute(d))
		}
		if got := ends(d); len(got) != 1 || got[0] != participant.EndExpired {
			t.Errorf("%s holds the round for %v", d.Name, got)
		}
	}
	f.Seats[2].Held = false
	must(t, f.Seats[3].Restart(false))
	must(t, f.RunUntil("its death is certain", func() bool {
		now, _ := f.observerRound(v.ID)
		return now.Death == round.Certified
	}, 60))
	if now, _ = f.observerRound(v.ID); len(now.Expired) != v.Config.Listed().Size() {
		t.Errorf("%d members say that they never revealed", len(now.Expired))
	}
	next := openRound(t, f)
	if next.Config.Start.Model != v.Config.Start.Model {
		t.Fatal("the next round has another start")
	}
	for range 2 { // the first check-in may bring the end of the round before, and the next the upload
		must(t, f.Contribute(f.Devices...))
	}
	for _, d := range f.Devices {
		if got := ends(d); len(got) != 2 || got[1] != participant.EndDead || !d.Acked(next.ID) {
			t.Errorf("%s holds the round for %v, is in the next: %v", d.Name, got, d.Acked(next.ID))
		}
	}
	must(t, f.RunUntil("the next is published", func() bool { return reached(f, next.ID, round.Published) }, 60))
	must(t, f.Finish())
}
