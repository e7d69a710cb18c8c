package coordinator

import (
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
	apart statement.Mask
}

func (c *contradicted) Apart(limit time.Duration) statement.Mask {
	c.limit = limit
	return c.apart
}

// TestAWrongClockStampsNothing: a leader whose clock more than f members contradict would carry the log's time into a
// future from which it never comes back. It stamps and proposes nothing, says so once, and goes on when its clock is set.
func TestAWrongClockStampsNothing(t *testing.T) {
	r := newRig(t)
	r.until(round.Open)
	peers := &contradicted{apart: 2}
	r.m.peers = peers
	right, entries := r.now, r.log.size()
	r.now = right.AddDate(1, 0, 0)
	for range 3 {
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
	r.now, peers.apart = right.Add(time.Minute), 0
	r.m.ticked = time.Time{}
	if r.m.lead(t.Context()); r.m.machine.TimeMs() != r.now.UnixMilli() {
		t.Errorf("with the clock set, log time %d at %d", r.m.machine.TimeMs(), r.now.UnixMilli())
	}
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
	if got, want := p.Apart(time.Minute), statement.Mask(1<<3|1<<4); got != want {
		t.Errorf("apart: %v, want %v", got.Members(), want.Members())
	}
	if got, want := p.Alive(), statement.Mask(1|1<<1|1<<2|1<<3|1<<4|1<<6); got != want {
		t.Errorf("alive: %v, want %v", got.Members(), want.Members())
	}
}
