package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/node"
	"github.com/ruche-federation/ruche/storage/durable"
)

// TestStatusSaysWhatWorksInTheFolder: `run` and `contribute` have a file each and the folder's lock in common.
func TestStatusSaysWhatWorksInTheFolder(t *testing.T) {
	commons := func(state string, pid int) *node.Status { return &node.Status{Task: "commons", State: state, PID: pid} }
	average := func(state string, pid int) *node.Status { return &node.Status{Task: "average", State: state, PID: pid} }
	for _, c := range []struct {
		name                   string
		held                   bool // a process has the folder
		commons, average       *node.Status
		commonsAge, averageAge time.Duration

		task, state string
		pid         int
		word, shown string
	}{
		{"run works", true, commons("training", 41), nil, 0, 0, "commons", "training", 41, "", "training, process 41"},
		{"only contribute ever ran, and works", true, nil, average("waiting", 42), 0, 0, "average", "waiting", 42, "", "waiting, process 42"},
		{"only contribute ever ran", false, nil, average("stopped", 0), 0, time.Hour, "average", "stopped", 0, "stopped", ""},
		{"run was killed, contribute works", true, commons("training", 41), average("idle", 42), 2 * time.Second, 0, "average", "idle", 42, "", "commons: stopped, last heard 2s ago"},
		{"contribute was killed, run works", true, commons("idle", 41), average("waiting", 42), 0, time.Minute, "commons", "idle", 41, "", "average: stopped, last heard 1m ago"},
		{"both were killed", false, commons("training", 41), average("idle", 42), time.Second, 0, "average", "stopped", 0, "stopped", "commons: stopped"},
		{"run is suspended", true, commons("training", 41), average("stopped", 0), 10 * time.Second, time.Hour, "commons", "stale", 41, "stale", "stale, process 41"},
		{"the clock was set back", true, commons("training", 41), average("idle", 42), -time.Hour, 0, "average", "idle", 42, "", ""},
		{"the clock was set back and run is suspended", true, commons("training", 41), nil, -time.Hour, 0, "commons", "stale", 41, "stale", ""},
		{"nothing was written since the start: the disk is full", true, commons("stopped", 0), nil, time.Hour, 0, "commons", "stale", 0, "stale", ""},
	} {
		dir := filepath.Join(t.TempDir(), "device")
		if code, _, errs := ruche(t, "", "--dir", dir, "init"); code != cli.OK {
			t.Fatal(errs)
		}
		put := func(name string, s *node.Status, age time.Duration) {
			if s == nil {
				return
			}
			at := time.Now().Add(-age)
			s.Version, s.Updated = 1, at.UTC()
			b, err := json.Marshal(s)
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
			must(t, os.Chtimes(filepath.Join(dir, name), at, at))
		}
		put("status.json", c.commons, c.commonsAge)
		put("status.average.json", c.average, c.averageAge)
		if c.held {
			lock, err := durable.Lock(filepath.Join(dir, "lock"))
			must(t, err)
			t.Cleanup(func() { lock.Close() })
		}
		code, out, errs := ruche(t, "", "--dir", dir, "--format", "json", "status")
		var e struct {
			Word string `json:"error_code"`
			Data struct {
				Task, State string
				PID         int
				Age         *float64      `json:"age_seconds"`
				Others      []node.Status `json:"other_tasks"`
			}
		}
		must(t, json.Unmarshal([]byte(out), &e))
		if e.Data.Task != c.task || e.Data.State != c.state || e.Data.PID != c.pid || e.Data.Age == nil || e.Word != c.word || (code == cli.OK) != (c.word == "") {
			t.Errorf("%s: exit %d, %s%s", c.name, code, out, errs)
		}
		for _, s := range e.Data.Others {
			if s.State != "stopped" || s.PID != 0 {
				t.Errorf("%s: the other task %s is %s, process %d", c.name, s.Task, s.State, s.PID)
			}
		}
		if _, out, _ := ruche(t, "", "--dir", dir, "status"); !strings.Contains(out, c.shown) {
			t.Errorf("%s: printed\n%s", c.name, out)
		}
	}
}
