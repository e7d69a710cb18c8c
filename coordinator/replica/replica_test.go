package replica

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestAllMembersApplyTheSameInTheSameOrder(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 4, nil)
		_, leader := c.leader()
		var wg sync.WaitGroup
		var mu sync.Mutex
		last := uint64(0)
		for i := range 40 {
			wg.Go(func() {
				result, index, err := leader.Propose(t.Context(), fmt.Appendf(nil, "line %d", i))
				if err != nil {
					t.Error(err)
					return
				}
				if _, ok := result.(int); !ok {
					t.Errorf("result is a %T", result)
				}
				mu.Lock()
				last = max(last, index)
				mu.Unlock()
			})
		}
		wg.Wait()
		if lines := c.agree(last); len(lines) != 40 {
			t.Fatalf("%d lines", len(lines))
		}
		if s := leader.Stats(); s.Applied < last || s.Committed < last || s.Last < last || s.Term == 0 || s.State != "Leader" || s.Leader != leader.opts.Self {
			t.Fatalf("stats %+v after index %d", s, last)
		}
	})
}

func TestAFollowerSaysWhoLeads(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		i, _ := c.leader()
		follower := c.members[(i+1)%3]
		_, _, err := follower.Propose(t.Context(), []byte("x"))
		var not *NotLeaderError
		if !errors.Is(err, ErrNotLeader) || !errors.As(err, &not) || not.Leader != c.ids[i] {
			t.Fatalf("propose at a follower: %v", err)
		}
		if err := follower.Barrier(t.Context()); !errors.Is(err, ErrNotLeader) {
			t.Fatalf("barrier at a follower: %v", err)
		}
		if err := follower.Transfer(t.Context()); !errors.Is(err, ErrNotLeader) {
			t.Fatalf("transfer at a follower: %v", err)
		}
	})
}

func TestLeadershipGoesToWhomItIsGiven(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		for _, by := range []int{1, 2, 2} { // whoever is furthest, it is the one that is named
			i, leader := c.leader()
			to := (i + by) % 3
			if err := c.members[to].TransferTo(t.Context(), c.ids[i]); !errors.Is(err, ErrNotLeader) {
				t.Fatalf("transfer at a follower: %v", err)
			}
			if err := leader.TransferTo(t.Context(), c.ids[to]); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the one named leads", func() bool { return c.members[to].IsLeader() })
			c.propose("line")
		}
	})
}

func TestEntriesHaveALimit(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		_, leader := c.leader()
		if _, _, err := leader.Propose(t.Context(), make([]byte, MaxEntry)); err != nil {
			t.Fatalf("the largest entry: %v", err)
		}
		_, _, err := leader.Propose(t.Context(), make([]byte, MaxEntry+1))
		var large *TooLargeError
		if !errors.Is(err, ErrTooLarge) || !errors.As(err, &large) || large.Bytes != MaxEntry+1 {
			t.Fatalf("one byte more: %v", err)
		}
	})
}

func TestAKilledLeaderIsReplacedAndComesBackFromItsDisk(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 4, nil)
		c.propose("before")
		dead, _ := c.leader()
		changes := c.members[(dead+1)%4].LeaderChanges()
		select {
		case <-changes: // its own election, or a token from the first one
		default:
		}
		c.stop(dead)
		next, _ := c.leader()
		if next == dead {
			t.Fatal("the dead lead")
		}
		select {
		case <-changes:
		case <-time.After(10 * time.Second):
			t.Fatal("nobody told of the new leader")
		}
		_, index := c.propose("after")
		c.start(dead)
		lines := c.agree(index)
		if lines[0] != "before" || lines[len(lines)-1] != "after" {
			t.Fatalf("lines %q", lines)
		}
		// Everybody off, everybody on: nothing is lost, and nobody bootstraps anew.
		for i := range c.members {
			c.stop(i)
		}
		for i := range c.members {
			c.start(i)
		}
		_, index = c.propose("next day")
		if again := c.agree(index); len(again) < len(lines)+1 || again[0] != "before" {
			t.Fatalf("lines %q after a restart, %q before", again, lines)
		}
	})
}

func TestAMemberThatMissedTheLogCatchesUpFromASnapshot(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 3, func(o *Options) { o.TrailingLogs = 2 })
		c.propose("first")
		i, leader := c.leader()
		late := (i + 1) % 3
		c.stop(late)
		var index uint64
		for n := range 20 {
			_, index = c.propose(fmt.Sprintf("missed %d", n))
		}
		_, leader = c.leader()
		if err := leader.EnsureApplied(index); err != nil {
			t.Fatal(err)
		}
		if err := leader.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		if first := leader.Stats().First; first < 10 {
			t.Fatalf("the log still begins at %d: nothing to catch up by snapshot", first)
		}
		time.Sleep(time.Millisecond) // raft names snapshots by the time, which stands still otherwise
		if err := leader.Snapshot(t.Context()); err != nil {
			t.Fatalf("nothing new: %v", err)
		}
		c.start(late)
		c.agree(index)
		if c.members[late].diary.restores != 1 {
			t.Fatalf("%d snapshots restored", c.members[late].diary.restores)
		}
		_, index = c.propose("together")
		lines := c.agree(index)
		if lines[0] != "first" || lines[len(lines)-1] != "together" {
			t.Fatalf("lines %q", lines)
		}
		// The restored state survives a restart of its own, and so does the leader's compacted log.
		for i := range c.members {
			c.stop(i)
			c.start(i)
		}
		_, index = c.propose("and again")
		if again := c.agree(index); len(again) < len(lines)+1 {
			t.Fatalf("lines %q after a restart, %q before", again, lines)
		}
	})
}

func TestWithoutAMajorityTheOutcomeIsUnknown(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		i, leader := c.leader()
		c.stop((i + 1) % 3)
		c.stop((i + 2) % 3)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, _, err := leader.Propose(ctx, []byte("lost?"))
		if !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("context ended: %v", err)
		}
		_, _, err = leader.Propose(t.Context(), []byte("lost as well?"))
		if !errors.Is(err, ErrUnknownOutcome) && !errors.Is(err, ErrNotLeader) {
			t.Fatalf("leadership lost: %v", err)
		}
		eventually(t, "the leader to step down", func() bool { return !leader.IsLeader() })
		_, _, err = leader.Propose(t.Context(), []byte("never in"))
		if !errors.Is(err, ErrNotLeader) {
			t.Fatalf("after stepping down: %v", err)
		}
		// The first may have survived in the leader's log: whoever proposed it asks again, and the FSM knows it already.
		c.start((i + 1) % 3)
		_, index := c.propose("back")
		for _, line := range c.agree(index) {
			if line == "never in" {
				t.Fatal("a refused command was applied")
			}
		}
	})
}

func TestBarrierAtTheLeaderSeesWhatWasCommitted(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		for n := range 3 {
			_, index := c.propose(fmt.Sprintf("line %d", n))
			_, leader := c.leader()
			for range 2 { // the first of a term writes an entry, the next asks the others
				if err := leader.Barrier(t.Context()); err != nil {
					t.Fatal(err)
				}
				if leader.Applied() < index {
					t.Fatalf("applied %d after a barrier, index %d was committed", leader.Applied(), index)
				}
			}
			if err := leader.Transfer(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "another leader", func() bool { return !leader.IsLeader() })
		}
	})
}

func TestEnsureAppliedIsDurableAndShared(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		counted := map[string]*countingLog{}
		var mu sync.Mutex
		c := newCluster(t, 1, func(o *Options) {
			l := &countingLog{Log: o.Log}
			mu.Lock()
			counted[o.Self] = l
			mu.Unlock()
			o.Log = l
		})
		_, index := c.propose("one")
		_, m := c.leader()
		if err := m.EnsureApplied(index + 1); !errors.Is(err, ErrNotApplied) {
			t.Fatalf("an entry to come: %v", err)
		}
		for range 20 {
			_, index = c.propose("more")
		}
		l := counted[c.ids[0]]
		before := l.count()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if err := m.EnsureApplied(index); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := l.count() - before; n != 1 {
			t.Fatalf("%d fsyncs for 100 callers who want the same", n)
		}
		if m.log.Applied() < index || m.Stats().Guarded < index {
			t.Fatalf("guard at %d, want %d", m.log.Applied(), index)
		}
		c.stop(0)
		c.start(0)
		if err := c.members[0].EnsureApplied(index); err != nil {
			t.Fatalf("known from before the restart: %v", err)
		}
	})
}

type countingLog struct {
	Log
	mu sync.Mutex
	n  int
}

func (l *countingLog) SetApplied(index uint64) error {
	l.mu.Lock()
	l.n++
	l.mu.Unlock()
	return l.Log.SetApplied(index)
}

func (l *countingLog) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

func TestAHaltedStateMachineStopsItsReplica(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		c.propose("fine")
		_, m := c.leader()
		m.diary.mu.Lock()
		m.diary.haltOn = "version 2"
		m.diary.mu.Unlock()
		if _, _, err := m.Propose(t.Context(), []byte("version 2")); err == nil {
			t.Fatal("a command that halts was proposed without an error")
		}
		<-m.Failed()
		var halt Halt
		if !errors.As(m.Err(), &halt) || !strings.Contains(m.Err().Error(), "version 2") {
			t.Fatalf("failed with %v", m.Err())
		}
		if _, _, err := m.Propose(t.Context(), []byte("more")); err == nil {
			t.Fatal("a failed replica takes proposals")
		}
		if err := m.WaitApplied(t.Context(), 1<<40); !errors.As(err, &halt) {
			t.Fatalf("waiting at a failed replica: %v", err)
		}
		if lines := m.diary.read(); len(lines) != 1 {
			t.Fatalf("lines %q", lines)
		}
	})
}

func TestOnAppliedFollowsTheFSM(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var mu sync.Mutex
		var seen uint64
		c := newCluster(t, 1, func(o *Options) {
			o.OnApplied = func(index uint64) {
				mu.Lock()
				defer mu.Unlock()
				if index < seen {
					t.Errorf("applied %d after %d", index, seen)
				}
				seen = index
			}
		})
		_, index := c.propose("one")
		mu.Lock()
		defer mu.Unlock()
		if seen < index {
			t.Fatalf("told of %d, applied %d", seen, index)
		}
	})
}

func TestAClosedReplicaRefusesAndWaitersEnd(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		_, m := c.leader()
		waiting := make(chan error, 1)
		go func() { waiting <- m.WaitApplied(context.Background(), 1<<40) }()
		c.stop(0)
		if err := <-waiting; !errors.Is(err, ErrClosed) {
			t.Fatalf("waiter: %v", err)
		}
		if _, _, err := m.Propose(t.Context(), []byte("x")); !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrClosed) {
			t.Fatalf("propose: %v", err)
		}
		if err := m.Close(); err != nil {
			t.Fatalf("second close: %v", err)
		}
	})
}

func TestOptionsAreChecked(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 2, nil)
		c.stop(0)
		for _, tt := range []struct {
			name, want string
			tune       func(*Options)
		}{
			{"not a member", "not one of the members", func(o *Options) { o.Self = "stranger" }},
			{"twice", "two members", func(o *Options) { o.Members = append(o.Members, o.Members[0]) }},
			{"no id", "0 bytes", func(o *Options) { o.Members = append(o.Members, "") }},
			{"profile", "moon", func(o *Options) { o.Profile = "moon" }},
			{"no log", "required", func(o *Options) { o.Log = nil }},
			{"another consortium's log", "other members", func(o *Options) { o.Members[1] = "new/one" }},
			{"a new store founds", "none of those", func(o *Options) { o.Self = "org0/another" }},
		} {
			c.tune = func(o *Options) {
				o.Members = append([]string(nil), o.Members...)
				tt.tune(o)
			}
			if err := c.tryStart(0); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%s: started: %v", tt.name, err)
			}
		}
	})
}
