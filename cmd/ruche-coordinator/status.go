package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator"
)

// staleAfter is several times as long as a running member waits between two status files, and less than the five seconds
// within which what this says has to be true.
const staleAfter = 4 * time.Second

// condition is what status says: what the file says, where a process holds the folder, else how that process ended.
type condition string

const (
	starting condition = coordinator.StateStarting
	running  condition = coordinator.StateRunning
	stopping condition = coordinator.StateStopping
	stopped  condition = coordinator.StateStopped // as it was told to
	failed   condition = coordinator.StateFailed  // by itself, and said why
	stale    condition = "stale"                  // a process has the folder and has not written of late
	gone     condition = "gone"                   // it ended without a word: killed, or the machine went down
)

type statusReport struct {
	coordinator.Status
	Condition  condition `json:"condition"`
	Role       string    `json:"role"`
	AgeSeconds float64   `json:"age_seconds"`
}

func statusCommand() *urfave.Command {
	return &urfave.Command{
		Name: "status", Usage: "how the member in this folder fares; exit status 1 unless it runs",
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c, 0, 0, ""); err != nil {
				return err
			}
			dir, err := cli.Dir(c)
			if err != nil {
				return err
			}
			r, err := readStatus(dir, time.Now())
			if err != nil {
				return err
			}
			return cli.Out(c).Verdict(r, func(w io.Writer) error { return r.print(w, cli.Out(c)) }, r.verdict())
		},
	}
}

// readStatus reads status.json and judges it at now. Whether a process works in the folder, the folder's lock tells: the
// number in the file may be another program's by now.
func readStatus(dir string, now time.Time) (*statusReport, error) {
	held, err := coordinator.Running(dir)
	if err != nil {
		return nil, err
	}
	r := &statusReport{}
	r.Status, err = coordinator.ReadStatus(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, cli.Fail("never_ran", "start it with `ruche-coordinator run`", "no member has run in %s yet", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("the status of %s: %w", dir, err)
	}
	r.judge(held, now)
	return r, nil
}

func (r *statusReport) judge(held bool, now time.Time) {
	age := now.Sub(r.Written)
	r.AgeSeconds = float64(age.Milliseconds()) / 1000
	ended := r.State == coordinator.StateStopped || r.State == coordinator.StateFailed
	switch {
	case held && ended:
		r.Condition = starting // the next process has the folder and has not written yet
	case held && r.State != coordinator.StateStarting && (age > staleAfter || age < -staleAfter):
		r.Condition = stale
	case held || ended:
		r.Condition = condition(r.State)
	default:
		r.Condition = gone
	}
	// A leader, peers and waits are of a living member only.
	if r.Condition != running && r.Condition != stopping {
		r.Leader, r.Leading, r.Alive, r.Waits = "", false, nil, nil
	}
	switch {
	case r.Condition != running && r.Condition != stopping:
		r.Role = "none"
	case r.Leading:
		r.Role = "leader"
	case r.Leader == "":
		r.Role = "without leader"
	default:
		r.Role = "follower"
	}
}

func (r *statusReport) verdict() error {
	age := cli.Age(time.Duration(r.AgeSeconds * float64(time.Second)))
	switch r.Condition {
	case stopped:
		return cli.Fail("stopped", "start it with `ruche-coordinator run`", "the member stopped %s ago", age)
	case failed:
		return cli.Fail("failed", r.Do+"; `ruche-coordinator doctor` looks at the folder", "the member stopped by itself %s ago (%s): %s", age, r.Reason, r.Message)
	case stale:
		return cli.Fail("stale", "look at its log: is its disk full, or the machine overloaded?", "process %d has the folder and has written no status for %s", r.PID, age)
	case gone:
		return cli.Fail("gone", "look at its log for the reason, then start it with `ruche-coordinator run`", "process %d is gone; its last status is %s old", r.PID, age)
	}
	return nil
}

func (r *statusReport) print(w io.Writer, o *cli.Output) error {
	t := &cli.Table{Columns: []string{"FIELD", "VALUE"}}
	if r.Demo {
		t.Add("privacy", o.Bad(cli.DemoLabel))
	}
	t.Add("member", fmt.Sprintf("%s (index %d)", r.Name, r.Index))
	t.Add("consortium", r.Consortium)
	t.Add("charter", r.Charter)
	state := string(r.Condition)
	if r.Condition == running {
		state = o.Good(state)
	} else {
		state = o.Bad(state)
	}
	t.Add("state", fmt.Sprintf("%s, process %d, written %s ago", state, r.PID, cli.Age(time.Duration(r.AgeSeconds*float64(time.Second)))))
	if r.Message != "" {
		t.Add("reason", fmt.Sprintf("%s: %s", r.Reason, r.Message))
		t.Add("means", r.Means)
		t.Add("do", r.Do)
	}
	t.Add("role", r.Role)
	heard := r.Leader
	if r.Role == "without leader" {
		heard = o.Bad("none heard yet")
		if r.LeaderSeconds >= 0 {
			heard = o.Bad("none heard for " + seconds(r.LeaderSeconds))
		}
	}
	t.Add("leader", heard)
	t.Add("term", r.Term)
	t.Add("committed", r.Committed)
	applied := fmt.Sprint(r.Applied)
	if r.unread() {
		applied = o.Bad(fmt.Sprintf("%d of %d: the log is not read again yet since the start, which needs a leader", r.Applied, r.ReadsTo))
	} else if r.AppliedAge >= 0 {
		applied += fmt.Sprintf(", %s before", seconds(r.AppliedAge))
	}
	t.Add("applied", applied)
	if r.Role != "none" {
		up := fmt.Sprintf("%s: %d of the %d members needed", strings.Join(r.Alive, ", "), len(r.Alive), r.Needed)
		if len(r.Alive) < r.Needed {
			up = o.Bad(up)
		}
		t.Add("up", up)
		for _, w := range r.Waits {
			t.Add("waits", fmt.Sprintf("%s/%d, %s: %s", w.Task, w.Seq, w.Phase, r.lacking(w)))
		}
	}
	epoch, open := fmt.Sprintf("%d, erased to %d", r.Epoch, r.Erased), fmt.Sprint(r.OpenRounds)
	if r.unread() {
		epoch, open = "not known yet", "not known yet"
	}
	t.Add("epoch", epoch)
	if r.Alarms > 0 {
		t.Add("alarms", o.Bad(fmt.Sprintf("%d: see `ruche-coordinator doctor`", r.Alarms)))
	}
	t.Add("open rounds", open)
	t.Add("log", fmt.Sprintf("%s, store %s", r.Status.Role, r.Store))
	t.Add("copies", fmt.Sprintf("%d lacking here, %d with fewer known holders than n-f", r.Lacking, r.Under))
	return t.Write(w, false)
}

// unread reports that the member runs and has not read its log again since it started.
func (r *statusReport) unread() bool { return r.Condition == running && r.ReadsTo > 0 }

// lacking is what a round waits for, and why each missing word is missing.
func (r *statusReport) lacking(w coordinator.RoundWait) string {
	var names []string
	for _, name := range w.Lacks {
		if !slices.Contains(r.Alive, name) {
			name += " (not up)"
		}
		names = append(names, name)
	}
	out := fmt.Sprintf("%d of %d %s", w.Have, w.Need, w.What)
	if len(names) > 0 {
		out += "; lacks " + strings.Join(names, ", ")
	}
	return out
}

func seconds(s float64) string { return cli.Age(time.Duration(s * float64(time.Second))) }
