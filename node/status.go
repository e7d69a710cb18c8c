package node

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/node/participant"
	"github.com/ruche-federation/ruche/storage/durable"
)

// States of a device.
const (
	StateStarting  = "starting"
	StateIdle      = "idle"      // no round that this device takes part in
	StateTraining  = "training"  // makes an update
	StateUploading = "uploading" // sends it
	StateWaiting   = "waiting"   // acknowledged; the round goes on
	StateStopped   = "stopped"
	StateStale     = "stale" // a process has the folder and has not said of late that it lives; never in a file
)

// Status is what a device says of itself, in status.json or status.TASK.json. It holds nothing of the owner's text.
type Status struct {
	Version       int          `json:"version"`
	PID           int          `json:"pid"`
	State         string       `json:"state"`
	Label         string       `json:"label,omitempty"` // DEMO, NOT PRIVATE
	Demo          bool         `json:"demo"`
	Device        label.Hash   `json:"device_id"`
	Consortium    string       `json:"consortium"`
	Charter       label.Hash   `json:"charter"`
	Task          string       `json:"task"`
	Observe       bool         `json:"observe"`
	Seq           uint64       `json:"seq"`     // round whose state is adopted, 0: the public start
	Adapter       label.Hash   `json:"adapter"` // hash of that state
	Evaluations   []Evaluation `json:"evaluations,omitempty"`
	Contributions int          `json:"contributions"` // uploads in the ledger
	Acknowledged  int          `json:"acknowledged"`
	Published     int          `json:"published"`
	TrainMs       []int64      `json:"train_ms,omitempty"` // of the last rounds, newest last
	LastError     string       `json:"last_error,omitempty"`
	PeakRSSBytes  int64        `json:"peak_rss_bytes,omitempty"`
	Updated       time.Time    `json:"updated"` // when the process said last that it lives
}

const statusVersion = 1

// Evaluation is the loss under one published adapter: on the test split, or on every record for an observer.
type Evaluation struct {
	Seq     uint64     `json:"seq"`
	Adapter label.Hash `json:"adapter"`
	Split   string     `json:"split"`
	LossSum float64    `json:"loss_sum"` // nats
	Tokens  int        `json:"tokens"`
	Loss    float64    `json:"loss"` // nats per token
}

// Statuses is how a device fares at now, by task: what its processes said of themselves last, and whether that still
// holds. First comes the process that has the folder, or the last that had it; every other is stopped. It fails with an
// error that wraps fs.ErrNotExist before the first run.
func Statuses(dir string, now time.Time) ([]Status, error) {
	held, err := Running(dir) // before the files are read, so that a process that ends now has its last word
	if err != nil {
		return nil, err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []Status
	for _, f := range files {
		if strings.HasPrefix(f.Name(), "status.") && strings.HasSuffix(f.Name(), ".json") {
			s, err := readStatus(filepath.Join(dir, f.Name()))
			if err != nil {
				return nil, err
			}
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(dir, statusFile), Err: fs.ErrNotExist}
	}
	// Nearest to now rather than newest: the clock may have been set back since a process was killed.
	age := func(s Status) time.Duration { return now.Sub(s.Updated).Abs() }
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(age(a), age(b)) })
	for i := range all {
		switch s := &all[i]; {
		case i > 0 || !held:
			s.State, s.PID = StateStopped, 0 // whatever it said last
		case age(*s) > staleAfter:
			s.State = StateStale
		}
	}
	return all, nil
}

// ReadStatus reads what the process of the commons last said of itself. It fails with an error that wraps fs.ErrNotExist
// before the first run.
func ReadStatus(dir string) (Status, error) { return readStatus(filepath.Join(dir, statusFile)) }

func readStatus(path string) (Status, error) {
	var s Status
	b, err := readBounded(path, statusFileMax)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	if s.Version != statusVersion {
		return s, fmt.Errorf("%s has version %d, this program reads %d", path, s.Version, statusVersion)
	}
	info, err := os.Stat(path)
	if err != nil {
		return s, err
	}
	s.Updated = info.ModTime().UTC()
	return s, nil
}

// Running is whether a process works in a device's folder now.
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

// reporter keeps a status file true. The file's time says that the process lives: that needs no write, and nothing that a
// power cut could tear.
type reporter struct {
	path   string
	now    func() time.Time
	logger *slog.Logger

	mu      sync.Mutex // guards s, written and the file
	s       Status
	written bool // the file holds s
}

// newReporter begins a status. Evaluations of an earlier run of the same task under the same charter are kept.
// A task of kind vector has a file of its own: its process comes and goes beside that of the commons.
func newReporter(h *Home, ch *charter.Charter, task *charter.Task, observe bool, now func() time.Time, logger *slog.Logger) *reporter {
	r := &reporter{path: filepath.Join(h.Dir, statusFile), now: now, logger: logger}
	if task.Kind == charter.KindVector {
		r.path = filepath.Join(h.Dir, "status."+task.ID+".json")
	}
	r.s = Status{Version: statusVersion, PID: os.Getpid(), State: StateStarting, Label: demoLabel(ch), Demo: ch.Demo, Device: h.Device(),
		Consortium: ch.Consortium, Charter: ch.Hash(), Task: task.ID, Observe: observe}
	if old, err := ReadStatus(h.Dir); err == nil && old.Charter == r.s.Charter && old.Task == task.ID && old.Observe == observe {
		r.s.Evaluations, r.s.TrainMs = old.Evaluations, old.TrainMs
	}
	return r
}

// set changes the status and writes it. A status that cannot be written is logged: it is for onlookers, and the device
// does its work without it.
func (r *reporter) set(change func(*Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.s)
	r.put()
}

func (r *reporter) put() {
	r.s.Updated, r.s.PeakRSSBytes = r.now().UTC(), peakRSS()
	b, err := json.MarshalIndent(&r.s, "", "  ")
	if err == nil {
		err = durable.WriteFile(r.path, append(b, '\n'), 0o600)
	}
	if err == nil {
		err = os.Chtimes(r.path, time.Time{}, r.s.Updated)
	}
	if r.written = err == nil; err != nil {
		r.logger.Warn("the status was not written", "error", err)
	}
}

// keep says every statusEvery that the process lives, until the status says that it does not.
func (r *reporter) keep() {
	for range time.Tick(statusEvery) {
		if !r.alive() {
			return
		}
	}
}

// alive touches the file. One that does not hold what was set last is written: touched, it would pass a word of before,
// or of a dead process, for one of now.
func (r *reporter) alive() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.s.State == StateStopped {
		return false
	}
	if !r.written || os.Chtimes(r.path, time.Time{}, r.now()) != nil {
		r.put()
	}
	return true
}

// counts takes over what the ledger says, and the state that follows from it.
func (s *Status) counts(entries []participant.Entry) {
	s.Contributions, s.Acknowledged, s.Published = 0, 0, 0
	open := map[label.Hash]bool{}
	for _, e := range entries {
		switch e.Kind {
		case participant.KindContribution:
			s.Contributions++
		case participant.KindAck:
			s.Acknowledged++
			open[e.Round] = true
		case participant.KindEnd:
			if e.End == participant.EndPublished {
				s.Published++
			}
			delete(open, e.Round)
		}
	}
	if s.State = StateIdle; len(open) > 0 {
		s.State = StateWaiting
	}
}

// measured is whether the status has an evaluation of this adapter.
func (r *reporter) measured(seq uint64, adapter label.Hash) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.s.Evaluations {
		if e.Seq == seq && e.Adapter == adapter {
			return true
		}
	}
	return false
}

// peakRSS is the largest resident set of this process so far, 0 where the system does not say.
func peakRSS() int64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10
		}
	}
	return 0
}
