package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator"
)

// staleAfter is several times as long as a running member waits between two status files.
const staleAfter = 10 * time.Second

// condition is what status says besides the file.
type condition string

const (
	running condition = "running"
	stopped condition = "stopped" // it said so
	stale   condition = "stale"   // the process lives and has not written of late
	gone    condition = "gone"    // it ended without a word
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
			r, err := readStatus(dir, time.Now(), alive)
			if err != nil {
				return err
			}
			return cli.Out(c).Verdict(r, func(w io.Writer) error { return r.print(w, cli.Out(c)) }, r.verdict())
		},
	}
}

// readStatus reads status.json and judges it at now.
func readStatus(dir string, now time.Time, alive func(pid int) bool) (*statusReport, error) {
	p := filepath.Join(dir, "status.json")
	b, err := os.ReadFile(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, cli.Fail("never_ran", "start it with `ruche-coordinator run`", "no member has run in %s yet", dir)
	}
	if err != nil {
		return nil, err
	}
	r := &statusReport{Role: "follower"}
	if err := json.Unmarshal(b, &r.Status); err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	if r.Leading {
		r.Role = "leader"
	} else if r.Leader == "" {
		r.Role = "without leader"
	}
	age := now.Sub(r.Written)
	r.AgeSeconds = float64(age.Milliseconds()) / 1000
	switch {
	case r.State != string(running):
		r.Condition = stopped
	case age < staleAfter:
		r.Condition = running
	case alive(r.PID):
		r.Condition = stale
	default:
		r.Condition = gone
	}
	return r, nil
}

func (r *statusReport) verdict() error {
	age := cli.Age(time.Duration(r.AgeSeconds * float64(time.Second)))
	switch r.Condition {
	case stopped:
		return cli.Fail("stopped", "start it with `ruche-coordinator run`", "the member stopped %s ago", age)
	case stale:
		return cli.Fail("stale", "look at its log: is its disk full, or the machine overloaded?", "process %d lives but has written no status for %s", r.PID, age)
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
	t.Add("role", r.Role)
	t.Add("leader", r.Leader)
	t.Add("term", r.Term)
	t.Add("committed", r.Committed)
	t.Add("applied", r.Applied)
	t.Add("alive", strings.Join(r.Alive, ", "))
	t.Add("epoch", r.Epoch)
	t.Add("open rounds", r.OpenRounds)
	return t.Write(w, false)
}

// alive reports whether a process of that number exists. Where the system cannot say, it is taken to be gone: it is
// asked only about a member that has been silent for long.
func alive(pid int) bool {
	if pid <= 0 {
		return false
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	err = p.Signal(syscall.Signal(0))
	return err == nil || errors.Is(err, fs.ErrPermission)
}
