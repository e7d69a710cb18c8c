//go:build faults

package lab

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/node/participant"
	"github.com/ruche-federation/ruche/storage/fault"
)

// The points that a federation passes, by who writes there. Those of a home, of raft and of a journal are their packages'.
var (
	memberPoints = fault.Points{"epoch", "config", "y", "head", "receipt", "vote", "reveal", "sum", "model", "derived", "erased", "expired"}
	devicePoints = fault.Points{"stage", "debit", "ack", "adapter", "current", "end"}
)

// strike is what happens at the points of one federation: it counts all passings, and at one of them somebody fails.
type strike struct {
	f      *Federation
	plan   *fault.Plan
	dies   bool
	fallen atomic.Pointer[Device] // died in the step that it is in

	mu     sync.Mutex
	passed map[string]int // by folder and point, before the write
}

// failAt lets whoever writes in dir fail at the nth passing of a point. With an empty name nobody does.
func failAt(t *testing.T, f *Federation, at fault.Passing, dir string, nth int, dies bool) *strike {
	s := &strike{f: f, dies: dies, passed: map[string]int{}}
	s.plan = &fault.Plan{At: at, Nth: nth, Where: func(path string) bool { return strings.HasPrefix(path, dir) }, Strike: s.kill}
	t.Cleanup(fault.Install(f.opts.Dir, s.handle))
	return s
}

// kill ends the process that writes: what it says from now on nobody hears.
func (s *strike) kill(path string) {
	if !s.dies {
		return
	}
	for _, seat := range s.f.Seats {
		if p := seat.process.Load(); p != nil && strings.HasPrefix(path, seat.Dir) {
			p.dead.Store(true)
		}
	}
	for _, d := range s.f.Devices {
		if strings.HasPrefix(path, d.Dir) {
			s.fallen.Store(d)
			d.stop(errFault)
		}
	}
}

// handle is the fault.Handler. The dead write nothing more.
func (s *strike) handle(name string, moment fault.Moment, path string) error {
	for _, seat := range s.f.Seats {
		if p := seat.process.Load(); p != nil && p.dead.Load() && strings.HasPrefix(path, seat.Dir) {
			return errDied
		}
	}
	if d := s.fallen.Load(); d != nil && strings.HasPrefix(path, d.Dir) {
		return errDied
	}
	if moment == fault.Before {
		s.mu.Lock()
		for _, dir := range s.folders() {
			if strings.HasPrefix(path, dir) {
				s.passed[dir+" "+name]++
			}
		}
		s.mu.Unlock()
	}
	return s.plan.Handle(name, moment, path)
}

func (s *strike) folders() (out []string) {
	for _, seat := range s.f.Seats {
		out = append(out, seat.Dir)
	}
	for _, d := range s.f.Devices {
		out = append(out, d.Dir)
	}
	return out
}

func (s *strike) count(dir, name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.passed[dir+" "+name]
}

// Who fails: the leader, another member, a device.
const (
	leads   = 0
	follows = 2
)

func faultFolder(f *Federation, who string) string {
	switch who {
	case "leader":
		return f.Seats[leads].Dir
	case "member":
		return f.Seats[follows].Dir
	}
	return f.Devices[1].Dir
}

// TestFaultAtEveryPoint: a member, the leader or a device fails at a durable step, before the write or after it, with an
// error or for good, at the first passing or a later one. Who died comes back. Every round is published with the plain
// sum over all devices, or is dead where its time ran out; all invariants hold after every turn; in the end all members
// have one state, every ack counts, and no device has sent twice.
func TestFaultAtEveryPoint(t *testing.T) {
	sizes := []struct{ n, f int }{{3, 1}, {4, 1}}
	const tries = 6
	cases := 0
	passings := map[[2]any]*strike{} // by size, and whether the round expires: what is passed when nobody fails
	for _, size := range sizes {
		for _, expires := range []bool{false, true} {
			passings[[2]any{size, expires}] = faultStory(t, size.n, size.f, 0, expires, fault.Passing{}, "", 0, false)
		}
	}
	for i, name := range slices.Concat(memberPoints, devicePoints) {
		targets := []string{"leader", "member"}
		if slices.Contains(devicePoints, name) {
			targets = []string{"device"}
		}
		for _, who := range targets {
			expires := name == "expired"
			for _, moment := range []fault.Moment{fault.Before, fault.After} {
				for _, dies := range []bool{false, true} {
					for _, later := range []bool{false, true} {
						size, nth := sizes[(i+cases)%len(sizes)], 1
						calm := passings[[2]any{size, expires}]
						times := calm.count(faultFolder(calm.f, who), name)
						if later && times < 2 {
							continue
						}
						if later {
							nth = 2 + rand.New(rand.NewPCG(uint64(i), uint64(cases))).IntN(times-1)
						}
						cases++
						t.Run(fmt.Sprintf("%s %s %s dies %v passing %d", who, moment, name, dies, nth), func(t *testing.T) {
							t.Parallel()
							for try := range uint64(tries) { // chance may have others do it first
								if nth == 1 { // anywhere
									size = sizes[(i+int(try))%len(sizes)]
								}
								if faultStory(t, size.n, size.f, try, expires, fault.Passing{Name: name, Moment: moment}, who, nth, dies).plan.Struck() {
									return
								}
							}
							t.Errorf("it is not reached in %d stories; in a calm one %d times", tries, times)
						})
					}
				}
			}
		}
	}
	t.Logf("%d points, %d cases", len(memberPoints)+len(devicePoints), cases)
}

// faultStory runs two rounds that build on each other, under new epochs, and the end of these epochs; or one round whose
// time runs out when its set is decided.
func faultStory(t *testing.T, n, of int, try uint64, expires bool, at fault.Passing, who string, nth int, dies bool) *strike {
	f := story(t, Options{N: n, F: of, Devices: 4, Kind: charter.KindLoRA, Seed: uint64(100+n) + 1000*try})
	dir := ""
	if who != "" {
		dir = faultFolder(f, who)
	}
	s := failAt(t, f, at, dir, nth, dies)
	must(t, f.Lead(leads))
	down := 0
	f.onTurn = func() {
		if s.plan.Struck() && f.Up().Size() < n {
			if down++; down > n { // later than everybody's next turn
				down = 0
				revive(t, f, rand.New(rand.NewPCG(f.opts.Seed, uint64(f.turns))))
			}
		}
	}
	var sure []round.View
	f.Advance(13 * time.Hour) // the second half of the epochs' life
	f.Begin()
	if expires {
		contributeAll(t, s, 1)
		until(t, f, round.Acked)
		hold(f, true) // nobody else votes, so nobody reveals
		f.Advance(CloseAfter + AckAfter + RevealAfter)
		v := until(t, f, round.Dead)
		hold(f, false)
		if v.Death != round.Expired && v.Death != round.Certified {
			t.Errorf("the round is %s %s", v.Phase, v.Death)
		}
		for range 8 {
			must(t, f.Step())
		}
		settled(t, s)
		return s
	}
	for seq := range uint64(2) {
		contributeAll(t, s, seq+1)
		must(t, f.RunUntil("the round is published", func() bool {
			v, ok := f.latest()
			return ok && v.Config.Seq == seq+1
		}, 120))
		v, _ := f.latest()
		if v.Contributors != len(f.Devices) {
			t.Errorf("round %d has %d contributors, %d devices were acknowledged", seq+1, v.Contributors, len(f.Devices))
		}
		sure = append(sure, v)
		adoptAll(t, s)
	}
	f.mu.Lock()
	f.leading = false // no third round: nothing needs the epochs any more
	f.mu.Unlock()
	f.Advance(13 * time.Hour)
	must(t, f.RunUntil("the old epochs are said to be erased", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for i := range f.Seats {
			if _, ok := f.views[0].observer.Erasure(i, 2); !ok {
				return false
			}
		}
		return true
	}, 60))
	settled(t, s)
	for _, v := range sure {
		for _, d := range f.Devices {
			if lines(t, d, v, participant.KindEnd) != 1 {
				t.Errorf("%s does not know that round %d has ended", d.Name, v.Config.Seq)
			}
		}
	}
	return s
}

// hold keeps entries from all but the leader, or no more.
func hold(f *Federation, held bool) {
	for _, s := range f.Seats {
		s.Held = held && s.Index != leads
	}
}

// lines counts a device's ledger entries of one kind for a round.
func lines(t *testing.T, d *Device, v round.View, kind string) (n int) {
	t.Helper()
	entries, err := d.Ledger()
	must(t, err)
	for _, e := range entries {
		if e.Kind == kind && e.Round == v.ID {
			n++
		}
	}
	return n
}

// contributeAll opens the round of a seq, if it is not open, and lets devices contribute until all have an ack. One that
// failed takes another step, one that died starts again.
func contributeAll(t *testing.T, s *strike, seq uint64) {
	t.Helper()
	f := s.f
	open := func() bool {
		v, ok := f.Round()
		return ok && v.Config.Seq == seq && v.Phase == round.Open
	}
	must(t, f.RunUntil("the round is open", open, 120))
	v, _ := f.Round()
	for range 40 {
		left := 0
		for _, d := range f.Devices {
			if !d.Acked(v.ID) {
				left++
				takeStep(t, s, d)
			}
		}
		if left == 0 {
			return
		}
		must(t, f.Step())
	}
	now, _ := f.observerRound(v.ID)
	t.Fatalf("not all devices have an ack: round %d is %s with %d accepted", seq, now.Phase, now.Accepted)
}

// takeStep lets a device take one step, whatever comes of it but a broken invariant.
func takeStep(t *testing.T, s *strike, d *Device) {
	t.Helper()
	_ = s.f.Contribute(d)
	s.fallen.Store(nil)
	must(t, s.f.Check())
}

// adoptAll lets devices check in until all use the newest state and know the end of the round.
func adoptAll(t *testing.T, s *strike) {
	t.Helper()
	f := s.f
	v, _ := f.latest()
	for range 20 {
		left := 0
		for _, d := range f.Devices {
			if d.Adopted().Hash() != v.Result.Model || lines(t, d, v, participant.KindEnd) == 0 {
				left++
				takeStep(t, s, d)
			}
		}
		if left == 0 {
			return
		}
		must(t, f.Step())
	}
	t.Fatalf("devices do not adopt round %d", v.Config.Seq)
}

// settled brings everybody back and compares: all members have the log's state, and each device's ledger has one
// contribution, and at most one ack and one end, for every round it took part in.
func settled(t *testing.T, s *strike) {
	t.Helper()
	f := s.f
	f.onTurn = nil
	revive(t, f, rand.New(rand.NewPCG(f.opts.Seed, 9)))
	must(t, f.settle())
	f.mu.Lock()
	want := f.views[0].observer.Snapshot()
	f.mu.Unlock()
	for _, seat := range f.Seats {
		got, err := seat.Member().Snapshot()
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("member %d has another state than the log", seat.Index)
		}
	}
	for _, d := range f.Devices {
		entries, err := d.Ledger()
		must(t, err)
		seen := map[string]int{}
		for _, e := range entries {
			key := e.Kind + " " + e.Round.String()
			if e.End == participant.EndExpired {
				continue // a certificate may follow
			}
			if seen[key]++; seen[key] > 1 {
				t.Errorf("the ledger of %s has two entries %s for round %d", d.Name, e.Kind, e.Seq)
			}
		}
	}
	if err := f.Finish(); err != nil {
		t.Error(err)
	}
}
