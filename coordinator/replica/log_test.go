package replica

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/raftlog"
	"github.com/ruche-federation/ruche/storage/vault"
)

// failingLog is a Log whose calls fail with what a test says.
type failingLog struct {
	Log
	fails map[string]*atomic.Pointer[error]
}

var logCalls = []string{"StoreLogs", "DeleteRange", "Set", "SetUint64", "SetApplied", "RecordLast"}

func newFailingLog(l Log) *failingLog {
	f := &failingLog{l, map[string]*atomic.Pointer[error]{}}
	for _, name := range logCalls {
		f.fails[name] = new(atomic.Pointer[error])
	}
	return f
}

func (f *failingLog) or(name string, do func() error) error {
	if err := f.fails[name].Load(); err != nil {
		return *err
	}
	return do()
}

func (f *failingLog) StoreLogs(l []*raft.Log) error {
	return f.or("StoreLogs", func() error { return f.Log.StoreLogs(l) })
}

func (f *failingLog) DeleteRange(low, high uint64) error {
	return f.or("DeleteRange", func() error { return f.Log.DeleteRange(low, high) })
}

func (f *failingLog) Set(key, value []byte) error {
	return f.or("Set", func() error { return f.Log.Set(key, value) })
}

func (f *failingLog) SetUint64(key []byte, value uint64) error {
	return f.or("SetUint64", func() error { return f.Log.SetUint64(key, value) })
}

func (f *failingLog) SetApplied(index uint64) error {
	return f.or("SetApplied", func() error { return f.Log.SetApplied(index) })
}

func (f *failingLog) RecordLast() error { return f.or("RecordLast", f.Log.RecordLast) }

func (f *failingLog) IsMonotonic() bool { return true }

// TestABrokenLogStopsTheReplica: after a write whose fate is unknown the log takes no other, and only the next process
// reads what is there. A replica that stayed would be counted on for nothing.
func TestABrokenLogStopsTheReplica(t *testing.T) {
	broken := fmt.Errorf("wrapped: %w", &durable.BrokenError{Path: "log", Err: errors.New("injected")})
	for _, tt := range []struct {
		call string
		make func(ctx context.Context, m *member, w *watched)
	}{
		{"StoreLogs", func(ctx context.Context, m *member, _ *watched) {
			for end := time.Now().Add(time.Minute); time.Now().Before(end) && m.Err() == nil; time.Sleep(10 * time.Millisecond) {
				_, _, _ = m.Propose(ctx, []byte("two")) // it leads again and again
			}
		}},
		{"DeleteRange", func(_ context.Context, _ *member, w *watched) { _ = w.DeleteRange(1, 1) }},
		{"Set", func(_ context.Context, _ *member, w *watched) { _ = w.Set([]byte("key"), nil) }},
		{"SetUint64", func(_ context.Context, _ *member, w *watched) { _ = w.SetUint64([]byte("key"), 1) }},
		{"SetApplied", func(_ context.Context, m *member, _ *watched) { _ = m.EnsureApplied(m.Applied()) }},
		{"RecordLast", func(context.Context, *member, *watched) { time.Sleep(2 * time.Second) }},
	} {
		t.Run(tt.call, func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T) {
				var log *failingLog
				c := newCluster(t, 1, func(o *Options) {
					log = newFailingLog(o.Log)
					o.Log = log
				})
				c.propose("one")
				_, m := c.leader()
				other := errors.New("another error, which may pass")
				for _, err := range []*error{&other, &broken} {
					if m.Err() != nil {
						t.Fatalf("it has stopped: %v", m.Err())
					}
					log.fails[tt.call].Store(err)
					tt.make(t.Context(), m, &watched{log, m.Replica})
				}
				log.fails[tt.call].Store(nil)
				select {
				case <-m.Failed():
				default:
					t.Fatal("it has not stopped")
				}
				if !errors.As(m.Err(), new(*durable.BrokenError)) {
					t.Fatal(m.Err())
				}
			})
		})
	}
}

// TestALogThatFindsNoRoom: nobody is told of a moment, somebody is of a minute, and the replica goes on when there is room.
func TestALogThatFindsNoRoom(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var log *failingLog
		var told atomic.Int64
		c := newCluster(t, 1, func(o *Options) {
			log = newFailingLog(o.Log)
			o.Log, o.OnFull = log, func() { told.Add(1) }
		})
		c.propose("one")
		var full error = fmt.Errorf("wrapped: %w", &vault.FullError{})
		try := func(d time.Duration) { // as whoever leads does all the time
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
				if m := c.members[0]; m.IsLeader() {
					_, _, _ = m.Propose(t.Context(), []byte("full"))
				}
			}
		}
		log.fails["StoreLogs"].Store(&full)
		try(50 * time.Second)
		log.fails["StoreLogs"].Store(nil)
		c.propose("two")
		log.fails["StoreLogs"].Store(&full)
		try(50 * time.Second)
		if told.Load() > 0 {
			t.Fatalf("told %d times of less than a minute", told.Load())
		}
		try(20 * time.Second)
		n := told.Load()
		if n == 0 {
			t.Fatal("nobody is told")
		}
		log.fails["StoreLogs"].Store(nil)
		_, index := c.propose("three")
		time.Sleep(2 * time.Second)
		if n = told.Load(); n > 15 {
			t.Errorf("told %d times", n)
		}
		time.Sleep(5 * time.Second)
		if told.Load() != n || c.members[0].Err() != nil {
			t.Errorf("told %d times more, %v", told.Load()-n, c.members[0].Err())
		}
		c.agree(index)
	})
}

// TestInspectingNeedsAPlace: a log that cannot be copied is not a log whose disk is full.
func TestInspectingNeedsAPlace(t *testing.T) {
	dir := t.TempDir()
	key, err := vault.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	log, err := raftlog.Open(filepath.Join(dir, "log"), key, raftlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, MaxEntry)
	_, _ = rand.Read(noise)
	for i := range uint64(8) {
		if err := log.StoreLogs([]*raft.Log{{Index: i + 1, Term: 1, Data: noise}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	look := func() error {
		_, err := InspectLog(dir, key, func(uint64, []byte) {})
		return err
	}
	if err := look(); err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T) {
		if err := look(); !errors.Is(err, ErrNoPlace) || errors.Is(err, syscall.ENOSPC) || errors.As(err, new(*vault.FullError)) {
			t.Errorf("%v", err)
		}
	}
	t.Run("no folder", func(t *testing.T) {
		t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "none"))
		check(t)
	})
	t.Run("no room for the copy", func(t *testing.T) {
		t.Setenv("TMPDIR", smallDisk(t, 1<<20))
		check(t)
	})
	t.Run("no room to open it", func(t *testing.T) {
		t.Setenv("TMPDIR", smallDisk(t, 24<<20))
		check(t)
	})
}
