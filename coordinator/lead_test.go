package coordinator

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
)

// contradicted are peers whose clocks are not this member's.
type contradicted struct {
	nobody
	limit time.Duration // what was asked with
	alive statement.Mask
	apart map[int]statement.Mask // by whose clock
}

func (c *contradicted) Alive() statement.Mask { return c.alive }

func (c *contradicted) Apart(member int, limit time.Duration) statement.Mask {
	c.limit = limit
	return c.apart[member]
}

// TestAWrongClockStampsNothing: a leader whose clock more than f members contradict would hold all rounds up. It stamps and
// proposes nothing, says so once, and goes on when its clock is set.
func TestAWrongClockStampsNothing(t *testing.T) {
	r := newRig(t)
	r.until(round.Open)
	peers := &contradicted{alive: 1, apart: map[int]statement.Mask{0: 2}}
	r.m.peers = peers
	right, entries := r.now, r.log.size()
	r.now = right.AddDate(1, 0, 0)
	for range 300 {
		r.m.lead(t.Context())
		r.now = r.now.Add(r.ch.Timing.Tick.D())
	}
	if got := r.log.size(); got != entries || r.m.machine.TimeMs() > right.UnixMilli() {
		t.Errorf("%d entries of %d, log time %d at %d", got, entries, r.m.machine.TimeMs(), right.UnixMilli())
	}
	if peers.limit < r.ch.Timing.Slack.D() {
		t.Errorf("a difference of %s counts, the charter tolerates %s", peers.limit, r.ch.Timing.Slack.D())
	}
	list, err := ReadAlarms(r.home.Dir)
	must(t, err)
	if len(list) != 1 || list[0].What != AlarmClock {
		t.Errorf("alarms: %+v", list)
	}
	if n := strings.Count(r.logs.String(), "ALARM"); n != 1 {
		t.Errorf("%d lines in the log", n)
	}
	r.now = r.now.Add(alarmAgain)
	if r.m.lead(t.Context()); strings.Count(r.logs.String(), "ALARM") != 2 {
		t.Error("an alarm whose cause lasts is not said again")
	}
	r.now, peers.apart = right.Add(time.Minute), nil
	r.m.ticked = time.Time{}
	if r.m.lead(t.Context()); r.m.machine.TimeMs() != r.now.UnixMilli() {
		t.Errorf("with the clock set, log time %d at %d", r.m.machine.TimeMs(), r.now.UnixMilli())
	}
}

// TestAWrongClockLeadsNobody: that leader hands leadership over, to a member whose clock the others do not contradict, not
// at once and not again and again. A clock that was set keeps it.
func TestAWrongClockLeadsNobody(t *testing.T) {
	r := newRig(t)
	r.ch.Members = append(r.ch.Members, r.ch.Members[0], r.ch.Members[0], r.ch.Members[0])
	peers := &contradicted{alive: 0b1101, apart: map[int]statement.Mask{0: 0b1100, 2: 0b0001}}
	r.m.peers = peers
	lead := func(d time.Duration, want ...int) {
		t.Helper()
		for end := r.now.Add(d); r.now.Before(end); r.now = r.now.Add(workEvery) {
			r.m.lead(t.Context())
		}
		if !slices.Equal(r.log.handed, want) {
			t.Errorf("leadership was handed to %v, want %v", r.log.handed, want)
		}
	}
	lead(aliveFor)
	peers.apart = nil // set in time
	lead(time.Second)
	peers.apart = map[int]statement.Mask{0: 0b1100, 2: 0b0001} // nobody contradicts member 3
	lead(aliveFor)
	lead(time.Second, 3)
	lead(yieldEvery-time.Second, 3)
	lead(time.Second, 3, 3)
}

// TestAClockBeyondTheHorizon: a leader whose clock is later than any member's keys reach stamps nothing, whatever it hears
// of the others' clocks. It is an alarm when it lasts: after a standstill keys are published within seconds.
func TestAClockBeyondTheHorizon(t *testing.T) {
	r := newRig(t)
	r.until(round.Open)
	right, entries := r.now, len(r.log.entries)
	lead := func(alarms int) {
		t.Helper()
		r.m.lead(t.Context())
		if list, err := ReadAlarms(r.home.Dir); err != nil || len(list) != alarms {
			t.Errorf("alarms: %v, %v", list, err)
		}
		if got := len(r.log.entries); got != entries || r.m.machine.TimeMs() > right.UnixMilli() {
			t.Errorf("%d entries of %d, log time %d at %d", got, entries, r.m.machine.TimeMs(), right.UnixMilli())
		}
	}
	r.now = right.AddDate(1, 0, 0)
	lead(0)
	r.now = r.now.Add(beyondFor / 2)
	lead(0)
	r.now = r.now.Add(beyondFor / 2)
	lead(1)
	r.now = right.Add(time.Minute)
	if r.m.lead(t.Context()); r.m.machine.TimeMs() != r.now.UnixMilli() {
		t.Errorf("with the clock set, log time %d at %d", r.m.machine.TimeMs(), r.now.UnixMilli())
	}
	// A week's standstill: the same member, before and after it has published keys.
	r.now = r.now.AddDate(0, 0, 7)
	if r.m.lead(t.Context()); r.m.machine.TimeMs() == r.now.UnixMilli() {
		t.Error("the time went on without anybody's keys")
	}
	r.m.Work(t.Context())
	if r.m.lead(t.Context()); r.m.machine.TimeMs() != r.now.UnixMilli() {
		t.Errorf("after a standstill, log time %d at %d", r.m.machine.TimeMs(), r.now.UnixMilli())
	}
}

// TestKeysOfTheFuture: a member whose clock was far ahead when it drew its keys publishes others once it is set: no round
// would list the first for as long.
func TestKeysOfTheFuture(t *testing.T) {
	r := newRig(t)
	right := r.now
	r.now = right.AddDate(1, 0, 0)
	r.m.Work(t.Context())
	if k := r.known(); k.Epoch != 1 || k.NotBeforeMs != r.now.UnixMilli() {
		t.Fatalf("epoch %d begins at %d", k.Epoch, k.NotBeforeMs)
	}
	// The log of one member has no other word for its time: it stands at that member's lie.
	r.m.machine = round.New(r.ch)
	r.log.entries, r.log.applied = nil, 0
	future := r.now
	r.now = future.Add(-r.ch.Timing.Slack.D() - time.Second)
	must(t, r.m.publishEpoch(t.Context(), future.UnixMilli(), nil, false))
	r.m.publishLater = time.Time{}
	r.m.keepEpochs(t.Context())
	if k := r.known(); k.Epoch != 2 || k.NotBeforeMs != r.now.UnixMilli() {
		t.Errorf("with the clock set, epoch %d begins at %d, now is %d", k.Epoch, k.NotBeforeMs, r.now.UnixMilli())
	}
}

// known is the member's newest key package in the log.
func (r *rig) known() *statement.KeyPackage {
	r.t.Helper()
	_, k, ok := r.m.machine.KeyPackage(0)
	if !ok {
		r.t.Fatal("no key package is in the log")
	}
	return k
}

// TestApart: who answered of late with a clock that is further away than the limit; who says nothing of its clock, as an
// earlier version does, contradicts nobody.
func TestApart(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	p := &meshPeers{me: 0, heard: make([]atomic.Pointer[heard], 7), now: func() time.Time { return now }}
	hear := func(i int, ago, ahead time.Duration) {
		at := now.Add(-ago)
		p.heard[i].Store(&heard{at, &coordpb.MemberStatus{ClockMs: at.Add(ahead).UnixMilli()}})
	}
	hear(1, time.Second, 0)
	hear(2, time.Second, time.Minute)
	hear(3, 2*time.Second, 61*time.Second)
	hear(4, time.Second, -2*time.Minute)
	hear(5, aliveFor, time.Hour)
	p.heard[6].Store(&heard{now, &coordpb.MemberStatus{}})
	if got, want := p.Apart(0, time.Minute), statement.Mask(1<<3|1<<4); got != want {
		t.Errorf("apart: %v, want %v", got.Members(), want.Members())
	}
	if got, want := p.Apart(4, time.Minute), statement.Mask(1|1<<1|1<<2|1<<3); got != want {
		t.Errorf("apart from member 4: %v, want %v", got.Members(), want.Members())
	}
	if got := p.Apart(6, time.Minute); got != 0 {
		t.Errorf("apart from who says nothing: %v", got.Members())
	}
	if got, want := p.Alive(), statement.Mask(1|1<<1|1<<2|1<<3|1<<4|1<<6); got != want {
		t.Errorf("alive: %v, want %v", got.Members(), want.Members())
	}
}
