package lab

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/crypto/label"
)

// TestDeathAtEveryProposal: a member dies as it proposes something, before or after the entry is in the log, and comes
// back at once, later or, where SA 2.2 lets it be missing, never. The round is published all the same.
func TestDeathAtEveryProposal(t *testing.T) {
	commands := []string{"key_package", "propose", "round_signature", "accepts", "close", "ack", "vote", "reveal", "result", "tick_unix_ms"}
	for _, s := range []struct{ n, f, missing int }{{1, 0, 0}, {3, 1, 0}, {4, 1, 1}} {
		if testing.Short() && s.n != 4 {
			continue
		}
		for i, command := range commands {
			for _, inTheLog := range []bool{false, true} {
				back := []string{"at once", "later", "never"}[i%(2+s.missing)]
				t.Run(fmt.Sprintf("(%d,%d) %s in the log %v back %s", s.n, s.f, command, inTheLog, back), func(t *testing.T) {
					t.Parallel()
					f := story(t, Options{N: s.n, F: s.f, Devices: 4})
					chance := rand.New(rand.NewPCG(f.opts.Seed, 3))
					point := CrashPoint{Whoever, command, inTheLog}
					if command == "key_package" {
						f.Advance(13 * time.Hour) // the second half of the epochs' life: all draw new ones
					}
					f.CrashAt(point)
					f.Begin()
					died := 0
					ends(t, f, func() {
						if f.Pending(point) {
							return
						}
						if died++; back == "at once" && died == 1 || back == "later" && died == 4 {
							revive(t, f, chance)
						}
					})
					if f.Pending(point) {
						t.Fatalf("nobody proposed a %s", command)
					}
					must(t, f.Finish())
				})
			}
		}
	}
}

// ends runs a round to its publication: devices contribute as long as they have no ack. each is called before each step.
func ends(t testing.TB, f *Federation, each func()) {
	t.Helper()
	for range 120 {
		each()
		if _, ok := f.latest(); ok {
			return
		}
		v, _ := f.Round()
		if v.Phase == round.Open {
			for _, d := range f.Devices {
				if !d.Acked(v.ID) {
					_ = f.Contribute(d) // a member that dies is an error here; the next step tries again
					must(t, f.Check())
				}
			}
		}
		must(t, f.Step())
	}
	v, _ := f.Round()
	t.Fatalf("the round does not end: it is %s %s with %d accepted, up are %v", v.Phase, v.Death, v.Accepted, f.Up())
}

// revive restarts everybody who is down, from the log or from a snapshot.
func revive(t testing.TB, f *Federation, chance *rand.Rand) {
	t.Helper()
	for _, s := range f.Seats {
		if !s.running() {
			must(t, s.Restart(chance.IntN(2) == 0))
		}
	}
}

// TestLeaderChanges: the leader dies, or hands over, in every phase.
func TestLeaderChanges(t *testing.T) {
	for _, s := range []struct{ n, f int }{{3, 1}, {4, 1}, {7, 2}} {
		if testing.Short() && s.n != 4 {
			continue
		}
		for p := round.Proposed; p <= round.Revealed; p++ {
			for _, dies := range []bool{false, true} {
				if dies && s.n == 3 {
					continue
				}
				t.Run(fmt.Sprintf("(%d,%d) %s dies %v", s.n, s.f, p, dies), func(t *testing.T) {
					t.Parallel()
					f := story(t, Options{N: s.n, F: s.f, Devices: 4})
					f.Begin()
					changed := false
					change := func() {
						if changed || !reached(f, label.Hash{}, p) {
							return
						}
						changed = true
						leader := f.Leader()
						if dies {
							f.Seats[leader].Crash()
							return
						}
						must(t, f.Lead((leader+1)%s.n))
					}
					f.onTurn = change
					ends(t, f, func() {})
					if !changed {
						t.Fatal("no change took place")
					}
					must(t, f.Finish())
				})
			}
		}
	}
}

// TestRestartInTheMiddleOfItsLog: a member whose epochs have changed while a round was open restarts and replays its log
// slowly. The keys that the open round lists must survive it: all members are needed to end the round.
func TestRestartInTheMiddleOfItsLog(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			f := story(t, Options{N: 3, F: 1, Devices: 4, Seed: 100 + seed})
			f.Advance(12*time.Hour - 5*time.Minute)
			f.Begin()
			until(t, f, round.Open)
			everybody(t, f, f.Devices[:3]...)
			f.Advance(6 * time.Minute)
			second := func() bool {
				f.mu.Lock()
				defer f.mu.Unlock()
				for i := range f.Seats {
					if _, k, ok := f.views[0].observer.KeyPackage(i); !ok || k.Epoch < 2 {
						return false
					}
				}
				return true
			}
			must(t, f.RunUntil("everybody has a second epoch", second, 20))
			for _, s := range f.Seats {
				s.Pace = 1 + seed
				must(t, s.Restart(false))
				must(t, f.Step())
				must(t, f.Step())
				s.Pace = 0
			}
			f.Advance(CloseAfter)
			until(t, f, round.Published)
			must(t, f.Finish())
		})
	}
}

// TestLora: rounds that build on each other. Members restart between and within them.
func TestLora(t *testing.T) {
	f := story(t, Options{N: 4, F: 1, Devices: 5, Kind: charter.KindLoRA})
	chance := rand.New(rand.NewPCG(f.opts.Seed, 4))
	f.Begin()
	for seq := uint64(1); seq <= 4; seq++ {
		must(t, f.RunUntil("the next round is open", func() bool {
			v, ok := f.Round()
			return ok && v.Config.Seq == seq && v.Phase == round.Open
		}, 100))
		f.Seats[chance.IntN(4)].Crash()
		everybody(t, f, f.Devices...)
		v := until(t, f, round.Published)
		revive(t, f, chance)
		adopted(t, f, f.Devices...)
		if v.Config.Seq != seq || v.Contributors != 5 {
			t.Fatalf("round %d has %d contributors", v.Config.Seq, v.Contributors)
		}
	}
	must(t, f.Finish())
}
