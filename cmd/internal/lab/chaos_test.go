package lab

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
)

// TestChaos lets chance decide who dies, returns, lags, leads and contributes, and how time passes. Whatever happens the
// invariants hold, and when everybody is back the next round is published. RUCHE_LAB_SEEDS runs more seeds.
func TestChaos(t *testing.T) {
	seeds := 2
	if testing.Short() {
		seeds = 1
	}
	if n, err := strconv.Atoi(os.Getenv("RUCHE_LAB_SEEDS")); err == nil {
		seeds = n
	}
	for _, s := range []struct{ n, f int }{{1, 0}, {2, 1}, {3, 1}, {4, 1}, {5, 2}, {7, 2}} {
		for seed := range seeds {
			t.Run(fmt.Sprintf("(%d,%d) %d", s.n, s.f, seed), func(t *testing.T) {
				t.Parallel()
				f := story(t, Options{N: s.n, F: s.f, Devices: 5, NMax: 12, Kind: charter.KindLoRA, Seed: uint64(1000*s.n + seed + 1), Patience: 300 * time.Millisecond})
				f.Begin()
				chaos(t, f, 60)
				calm(t, f)
				must(t, f.Finish())
				t.Logf("%d steps, %d turns, %d entries, %d vectors fetched; rounds: %v", f.Steps(), f.Turns(), f.Last(f.log()), len(f.Served()), fates(f))
			})
		}
	}
}

// chaos runs steps in which anything may happen.
func chaos(t testing.TB, f *Federation, steps int) {
	t.Helper()
	chance := rand.New(rand.NewPCG(f.opts.Seed, 5))
	often := func(percent int) bool { return chance.IntN(100) < percent }
	somebody := func() *Seat { return f.Seats[chance.IntN(len(f.Seats))] }
	commands := []string{"key_package", "propose", "round_signature", "accepts", "close", "ack", "vote", "expired", "reveal", "result", "tick_unix_ms"}
	for range steps {
		if often(8) {
			somebody().Crash()
		}
		if often(2) { // the lights go out
			for _, s := range f.Seats {
				s.Crash()
			}
		}
		if s := somebody(); often(35) && !s.running() {
			must(t, s.Restart(often(50)))
		}
		if often(6) {
			f.CrashAt(CrashPoint{Whoever, commands[chance.IntN(len(commands))], often(50)})
		}
		if s := somebody(); often(5) && s.running() {
			must(t, f.Lead(s.Index))
		}
		if often(5) {
			somebody().Held = true
		}
		if often(30) {
			somebody().Held = false
		}
		somebody().Pace = uint64(chance.IntN(3))
		switch {
		case often(1):
			f.Advance(7 * time.Hour)
		case often(3):
			f.Advance(CloseAfter + AckAfter + RevealAfter)
		case often(3):
			f.Advance(AckAfter)
		case often(10):
			f.Advance(time.Duration(chance.IntN(60)) * time.Second)
		}
		if often(10) {
			mischief(t, f, chance)
		}
		contributeAtRandom(t, f, chance)
		must(t, f.Step())
	}
}

// mischief is what a leader may do that lies to nobody: it repeats old entries, and closes rounds with members of its
// choice, when it likes.
func mischief(t testing.TB, f *Federation, chance *rand.Rand) {
	t.Helper()
	f.mu.Lock()
	old := f.views[0].entries[chance.IntN(len(f.views[0].entries))]
	closing := &statement.Close{Active: statement.Mask(chance.IntN(1 << len(f.Seats)))}
	if v, ok := f.views[0].observer.Newest(TaskID); ok {
		closing.Round = v.ID
		var candidates []statement.Contributor
		for _, c := range f.views[0].observer.Candidates(v.ID) {
			candidates = append(candidates, statement.Contributor{Device: c.Device, Header: c.Header})
		}
		closing.Candidates = statement.HashCandidates(v.ID, candidates)
	}
	f.mu.Unlock()
	cmd, err := round.ParseCommand(old)
	must(t, err)
	_, _ = f.Inject(cmd) // there may be no leader
	if !closing.Round.IsZero() {
		_, _ = f.Inject(round.CloseCommand(closing))
	}
	must(t, f.Check())
}

// fates counts how rounds ended, and those with more than one Close.
func fates(f *Federation) map[string]int {
	out := map[string]int{}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range f.views[0].observer.Rounds() {
		out[strings.TrimSpace(v.Phase.String()+" "+v.Death.String())]++
		if len(v.Closes) > 1 {
			out["several closes"]++
		}
	}
	return out
}

// contributeAtRandom lets some devices take a step, some of which die in it. What goes wrong for a device is not looked
// at: only the invariants are.
func contributeAtRandom(t testing.TB, f *Federation, chance *rand.Rand) {
	t.Helper()
	v, ok := f.Round()
	if !ok {
		return
	}
	for _, d := range f.Devices {
		if v.Phase == round.Open && d.Acked(v.ID) || chance.IntN(100) > 15 {
			continue
		}
		if chance.IntN(100) < 20 {
			d.Fault = Fault(chance.IntN(int(BeforeAck) + 1))
		}
		_ = f.Contribute(d)
		must(t, f.Check())
	}
}

// calm brings everybody back and expects the next round to be published. New devices are there for the case that the old
// ones may not contribute from the start any more.
func calm(t testing.TB, f *Federation) {
	t.Helper()
	f.mu.Lock()
	f.crashes = nil
	f.mu.Unlock()
	for _, s := range f.Seats {
		s.Held, s.Pace = false, 0
		if !s.running() {
			must(t, s.Restart(false))
		}
	}
	must(t, f.Step())
	for range 4 {
		d, err := f.AddDevice()
		must(t, err)
		must(t, d.enrol())
	}
	for _, d := range f.Devices {
		d.Fault = None
	}
	f.opts.Patience = 0
	began, _ := f.Round()
	for i := range 150 {
		if v, ok := f.latest(); ok && (began.Config == nil || v.Config.Seq > began.Config.Seq) {
			return
		}
		v, ok := f.Round()
		if ok && v.Phase == round.Open {
			for _, d := range f.Devices {
				if !d.Acked(v.ID) {
					_ = f.Contribute(d)
				}
			}
			f.Advance(time.Minute) // not all devices may come: the close deadline has to pass
		}
		if i%50 == 49 {
			f.Advance(RevealAfter)
		}
		must(t, f.Step())
	}
	v, _ := f.Round()
	t.Fatalf("no further round is published: round %d is %s %s (%s) with %d accepted", v.Config.Seq, v.Phase, v.Death, v.Reason, v.Accepted)
}
