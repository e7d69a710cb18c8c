//go:build faults

package replica

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/storage/fault"
)

// TestFaultInAReplica: the leader or a follower fails at a write of raft's, or of the index that receipts rest on, with an
// error or for good, and comes back. Every proposal that was answered is in every diary, in one order, and an index that
// was said to be guarded stays so. The guard itself has its test in storage/raftlog: raft panics where it cannot be
// written, so that the process ends.
func TestFaultInAReplica(t *testing.T) {
	cases := 0
	for _, name := range (fault.Points{"entries", "applied", "snapshot"}) {
		for _, moment := range []fault.Moment{fault.Before, fault.After} {
			for _, dies := range []bool{false, true} {
				for _, leads := range []bool{false, true} {
					nth := 1 + 2*((cases/3)%2)
					cases++
					t.Run(fmt.Sprintf("%s %s dies %v leads %v passing %d", moment, name, dies, leads, nth), func(t *testing.T) {
						inVirtualTime(t, func(t *testing.T) { faultInCluster(t, fault.Passing{Name: name, Moment: moment}, nth, dies, leads) })
					})
				}
			}
		}
	}
	t.Logf("2 points, %d cases", cases) // entries are storage/raftlog's
}

func faultInCluster(t *testing.T, at fault.Passing, nth int, dies, leads bool) {
	c := newCluster(t, 3, func(o *Options) { o.TrailingLogs = 2 })
	c.propose("first")
	target, _ := c.leader()
	if !leads {
		target = (target + 1) % 3
	}
	var dead atomic.Bool
	plan := &fault.Plan{At: at, Nth: nth, Strike: func(string) { dead.Store(dies) }}
	t.Cleanup(fault.Install(c.dirs[target], func(name string, m fault.Moment, path string) error {
		if dead.Load() {
			return fault.ErrInjected // the dead write nothing more
		}
		return plan.Handle(name, m, path)
	}))
	said := []string{"first"}
	var guarded, last uint64
	down := 0
	for i := range 24 {
		line := fmt.Sprintf("line %d", i)
		if _, m := c.leader(); m != nil {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			if _, index, err := m.Propose(ctx, []byte(line)); err == nil {
				said, last = append(said, line), index
			}
			cancel()
		}
		if m := c.members[target]; m != nil {
			if applied := m.Applied(); m.EnsureApplied(applied) == nil && !dead.Load() {
				guarded = applied
			}
			if i%4 == 3 {
				time.Sleep(time.Millisecond) // raft names snapshots by the time
				_ = m.Snapshot(t.Context())
			}
		}
		if m := c.members[target]; dead.Load() && m != nil {
			c.members[target] = nil
			m.port.Close()
			_, _ = m.Close(), m.log.Close() // it cannot write its last words
		}
		if c.members[target] == nil {
			if down++; down == 4 {
				dead.Store(false)
				c.start(target)
				if got := c.members[target].log.Applied(); got < guarded {
					t.Fatalf("index %d was said to be guarded, %d is", guarded, got)
				}
			}
		}
	}
	if !plan.Struck() {
		t.Fatalf("%v is not reached: %d passings", at, plan.Count(at))
	}
	if c.members[target] == nil {
		dead.Store(false)
		c.start(target)
	}
	_, last = c.propose("last")
	lines := c.agree(last)
	at0 := -1
	for _, l := range append(said, "last") {
		i := slices.Index(lines, l)
		if i <= at0 {
			t.Fatalf("%q was answered and is not in the diary after the one before: %s", l, strings.Join(lines, ", "))
		}
		at0 = i
	}
	for i := range c.members { // and from the disk
		c.stop(i)
		c.start(i)
	}
	_, last = c.propose("again")
	if now := c.agree(last); strings.Join(now[:len(lines)], ",") != strings.Join(lines, ",") {
		t.Fatalf("after a restart %q, before %q", now, lines)
	}
}
