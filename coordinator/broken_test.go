package coordinator

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/replica"
	"github.com/ruche-federation/ruche/storage/durable"
)

// brokenLog is a log whose guard takes nothing once it is broken.
type brokenLog struct {
	replica.Log
	broken atomic.Bool
}

func (l *brokenLog) RecordLast() error {
	if l.broken.Load() {
		return &durable.BrokenError{Path: "guard", Err: errors.New("input/output error")}
	}
	return l.Log.RecordLast()
}

func (l *brokenLog) IsMonotonic() bool { return true }

// TestAMemberWithABrokenLogEnds: with an error that has a name, so that its supervisor starts it anew; then it goes on. A
// disk that is full is no such thing: it is told once, and waited for.
func TestAMemberWithABrokenLogEnds(t *testing.T) {
	var text strings.Builder
	logs := &locked{w: &text}
	home := newHomes(t, 1, 0, time.Hour)[0]
	var log *brokenLog
	var full func()
	p := runTuned(t, home, logs, func(o *replica.Options) {
		log = &brokenLog{Log: o.Log}
		o.Log, full = log, o.OnFull
	})
	full()
	full()
	log.broken.Store(true)
	err := <-p.done
	if !errors.As(err, new(*durable.BrokenError)) || CauseOf(err, 1).Word != "write_failed" {
		t.Fatalf("ended: %v", err)
	}
	s, err := ReadStatus(home.Dir)
	if err != nil || s.State != StateFailed || s.Reason != "write_failed" || s.Do == "" {
		t.Errorf("%+v, %v", s, err)
	}
	list, err := ReadAlarms(home.Dir)
	if err != nil || len(list) != 2 || list[0].What != AlarmDisk || list[1].What != AlarmStopped {
		t.Errorf("%+v, %v", list, err)
	}
	logs.mu.Lock()
	if n := strings.Count(text.String(), "what="+AlarmDisk); n != 1 {
		t.Errorf("the full disk was told %d times", n)
	}
	logs.mu.Unlock()
	again := run(t, home, logs)
	eventually(t, "it leads", func() bool { return again.m.log.Leading() })
	again.end(t)
}
