package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ruche-federation/ruche/storage/durable"
)

// States of a member's process, as status.json has them. Whether the process lives, only the folder's lock tells.
const (
	StateStarting = "starting" // opens its stores, replays the log
	StateRunning  = "running"
	StateStopping = "stopping" // hands leadership over, lets calls end
	StateStopped  = "stopped"  // as it was told to
	StateFailed   = "failed"   // by itself: Reason says why
)

// Status is what the running process writes to status.json, atomically, every second and at its end.
type Status struct {
	Name       string `json:"name"`
	Index      int    `json:"index"`
	Consortium string `json:"consortium"`
	Demo       bool   `json:"demo"`
	Charter    string `json:"charter"`
	State      string `json:"state"`
	Reason     string `json:"reason,omitempty"`  // why it failed: a stable word
	Message    string `json:"message,omitempty"` // and in full
	Means      string `json:"means,omitempty"`
	Do         string `json:"do,omitempty"`

	Leader        string      `json:"leader"` // whom this member hears as the leader; empty: nobody
	Leading       bool        `json:"leading"`
	LeaderSeconds float64     `json:"leader_age_seconds"` // since a leader was heard last; -1: never since the start
	Term          uint64      `json:"term"`
	Applied       uint64      `json:"applied"`
	AppliedAge    float64     `json:"applied_age_seconds"` // since the last entry was applied; -1: none since the start
	Committed     uint64      `json:"committed"`
	ReadsTo       uint64      `json:"reads_to"` // not 0: started again and the log is not applied again so far: epoch, waits and open rounds are not known
	Alive         []string    `json:"alive"`
	Needed        int         `json:"needed"` // members that must be up for rounds to go on
	Waits         []RoundWait `json:"waits"`  // what the rounds wait for
	Epoch         uint64      `json:"epoch"`
	Erased        uint64      `json:"erased"` // highest epoch whose erasure the log shows
	OpenRounds    uint32      `json:"open_rounds"`
	Store         string      `json:"store_id"`         // of the log
	Role          string      `json:"role_in_log"`      // voter, catching up, waiting
	Lacking       uint32      `json:"lacking"`          // accepted contributions of live rounds that are not here
	Under         uint32      `json:"under_replicated"` // of all of them, with fewer than n-f known holders
	Alarms        int         `json:"alarms"`           // in the list of alarms, earlier runs' included

	Written time.Time `json:"written"`
	PID     int       `json:"pid"`
}

const statusFile = "status.json"

// ReadStatus reads what a member last said of itself. It fails with an error that wraps fs.ErrNotExist before the first
// run.
func ReadStatus(dir string) (Status, error) {
	var s Status
	b, err := os.ReadFile(filepath.Join(dir, statusFile))
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(b, &s)
}

// Running reports whether a process works in a member's folder now: whether it holds the folder's lock, whatever its
// number is and whoever has that number today.
func Running(dir string) (bool, error) {
	path := filepath.Join(dir, lockFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	lock, err := durable.Lock(path)
	if errors.Is(err, durable.ErrLocked) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, lock.Close()
}

// lockDir takes the folder for this process. It tries for a moment: Running holds the lock while it looks.
func lockDir(ctx context.Context, dir string) (*durable.FileLock, error) {
	for try := 1; ; try++ {
		lock, err := durable.Lock(filepath.Join(dir, lockFile))
		if !errors.Is(err, durable.ErrLocked) || try == lockTries {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lockWait):
		}
	}
}

// reporter keeps status.json true. It remembers what it wrote last, so that the end can be said when nothing else of the
// member is left. A status that cannot be written is logged: the member does its work without it.
type reporter struct {
	dir     string
	logger  *slog.Logger
	members int // of the charter, 0 before it is read

	mu   sync.Mutex // guards last and the file
	last Status
}

func (r *reporter) write(s Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.put(s)
}

func (r *reporter) put(s Status) {
	r.last = s
	b, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = durable.WriteFile(filepath.Join(r.dir, statusFile), b, 0o644)
	}
	if err != nil {
		r.logger.Warn("status.json was not written", "error", err)
	}
}

// say writes what the member is now; an empty state is the last one.
func (r *reporter) say(m *Member, state string) {
	s := m.statusFile()
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.State = state; state == "" {
		s.State = r.last.State
	}
	r.put(s)
}

// end says that nobody is at work any more, and why.
func (r *reporter) end(now time.Time, reason error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.last
	s.State, s.Leader, s.Leading, s.Alive, s.Waits, s.Written = StateStopped, "", false, nil, nil, now.UTC()
	if reason != nil {
		c := CauseOf(reason, r.members)
		s.State, s.Reason, s.Message, s.Means, s.Do = StateFailed, c.Word, reason.Error(), c.Means, c.Do
	}
	r.put(s)
}

// keep writes the status every second until the context ends.
func (r *reporter) keep(ctx context.Context, m *Member) {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.say(m, "")
		}
	}
}

func (m *Member) statusFile() Status {
	s, l, now := m.status(), m.log.Status(), m.cfg.Now()
	at := s.GetStanding()
	out := Status{Name: s.GetName(), Index: m.me, Consortium: m.ch.Consortium, Demo: m.ch.Demo, Charter: m.ch.Hash().String(),
		Leader: at.GetLeader(), Leading: s.GetLeader(), LeaderSeconds: float64(at.GetAgeMs()) / 1000, Term: l.Term, Applied: l.Applied, Committed: l.Committed, ReadsTo: at.GetReadsTo(),
		Needed: m.ch.Needed(), Waits: m.roundWaits(), Epoch: s.GetEpoch(), Erased: s.GetErased(), OpenRounds: s.GetOpenRounds(),
		Store: s.GetStoreId(), Role: s.GetRole(), Lacking: s.GetLacking(), Under: s.GetUnderReplicated(), Alarms: m.alarms.count(),
		Written: now.UTC(), PID: os.Getpid()}
	if at.GetAgeMs() < 0 {
		out.LeaderSeconds = -1
	}
	m.mu.Lock()
	out.AppliedAge = age(now, m.appliedAt)
	m.mu.Unlock()
	for _, i := range m.peers.Alive().Members() {
		out.Alive = append(out.Alive, m.ch.Members[i].Name)
	}
	return out
}
