package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/crypto/label"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// alone founds a consortium of one, whose member process needs nobody else, and returns its folder and charter file.
func alone(t *testing.T, name string) (home *coordinator.Home, file string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	home, err := coordinator.InitHome(dir, coordinator.HomeOptions{Name: name, DeviceURL: "https://127.0.0.1:7420", MeshAddr: "127.0.0.1:7421"}, rand.Reader)
	must(t, err)
	return home, charterOf(t, "Solo", home.Card, home)
}

// charterOf signs a charter of one member with the given card.
func charterOf(t *testing.T, consortium string, card charter.Card, home *coordinator.Home) string {
	t.Helper()
	body := draftOf(t, consortium, card)
	sig, err := charter.Sign(body, home.Identity)
	must(t, err)
	data, err := charter.Assemble(body, []charter.Signature{sig})
	must(t, err)
	file := filepath.Join(t.TempDir(), "charter.json")
	must(t, os.WriteFile(file, data, 0o600))
	return file
}

func draftOf(t *testing.T, consortium string, card charter.Card) []byte {
	t.Helper()
	l, err := layout.Vector("steps", 4, nil)
	must(t, err)
	task := charter.NewTask("steps", charter.KindVector)
	task.Layout, task.Window, task.InitSeed = l, "once", label.Sum(label.TagTask, []byte("seed"))
	task.Encoding, task.Cohort = charter.Encoding{CReal: 1, C: 2253}, charter.Cohort{NMin: 3, NMax: 10}
	minute := charter.Duration(time.Minute)
	task.Timings = charter.Timings{CloseAfter: minute, AckTimeout: minute, AckAfter: minute}
	body, err := charter.Draft([]charter.Card{card}, charter.Options{Consortium: consortium, Demo: true, MinContributors: 3, Tasks: []charter.Task{task},
		Timing: charter.Timing{EpochLife: 60 * minute, Slack: minute, Tick: charter.Duration(100 * time.Millisecond), Profile: charter.ProfileLoopback}})
	must(t, err)
	return body
}

func TestACharterIsPinnedOnce(t *testing.T) {
	home, file := alone(t, "alpha")
	_, strange := alone(t, "beta")
	moved := home.Card
	moved.DeviceURL = "https://127.0.0.1:1"
	other := charterOf(t, "Other", home.Card, home)
	for _, c := range []struct {
		name, file, word string
	}{
		{"none yet", "", "no_charter"},
		{"of others", strange, "not_a_member"},
		{"with another address for this member", charterOf(t, "Solo", moved, home), "other_card"},
		{"its own", file, ""},
		{"the same again", file, ""},
		{"none given: the pinned one", "", ""},
		{"another one", other, "other_charter"},
		{"one of others", strange, "other_charter"},
	} {
		ch, err := pinCharter(home.Dir, c.file)
		switch {
		case c.word == "" && (err != nil || ch == nil || ch.Consortium != "Solo"):
			t.Errorf("%s: %v", c.name, err)
		case c.word != "":
			if e := cli.Classify(err); e == nil || e.Word != c.word || e.Hint == "" {
				t.Errorf("%s: %v, want %s", c.name, err, c.word)
			}
		}
	}
	want, err := os.ReadFile(file)
	must(t, err)
	got, err := os.ReadFile(filepath.Join(home.Dir, "charter.json"))
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("the pinned charter is not the file, byte for byte")
	}
	must(t, os.WriteFile(filepath.Join(home.Dir, "charter.json"), want[:len(want)/2], 0o600))
	if _, err := pinCharter(home.Dir, file); err == nil {
		t.Error("a damaged pinned charter is silently replaced")
	}
}

// TestTimingIsTheCharters: a member whose clocks are its own would stand for election against leaders that are well.
func TestTimingIsTheCharters(t *testing.T) {
	home, file := alone(t, "alpha")
	must(t, os.Remove(file))
	body := bytes.Replace(draftOf(t, "Solo", home.Card), []byte(`"demo": true`), []byte(`"demo": false`), 1)
	body = bytes.Replace(body, []byte(`"profile": "loopback"`), []byte(`"profile": "wan"`), 1)
	body = bytes.ReplaceAll(body, []byte(`"n_min": 3`), []byte(`"n_min": 20`))
	body = bytes.ReplaceAll(body, []byte(`"n_max": 10`), []byte(`"n_max": 20`))
	body = bytes.Replace(body, []byte(`"min_contributors": 3`), []byte(`"min_contributors": 20`), 1)
	sig, err := charter.Sign(body, home.Identity)
	must(t, err)
	data, err := charter.Assemble(body, []charter.Signature{sig})
	must(t, err)
	must(t, os.WriteFile(file, data, 0o600))
	var out, errs bytes.Buffer
	code := cli.Run(t.Context(), newApp(), []string{"ruche-coordinator", "--dir", home.Dir, "run", "--charter", file, "--timing", "loopback"}, &out, &errs)
	if code != cli.Usage || !strings.Contains(errs.String(), "--timing is for demo charters") {
		t.Errorf("exit %d, %s", code, errs.String())
	}
	err = coordinator.Run(t.Context(), coordinator.RunOptions{Dir: home.Dir, Timing: "lan", Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "charter's profile") {
		t.Error(err)
	}
}

func TestStatusSaysWhetherTheProcessLives(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		state string
		age   time.Duration
		held  bool // a process has the folder
		want  condition
		role  string
		word  string
	}{
		{"running", time.Second, true, running, "leader", ""},
		{"running", time.Second, false, gone, "none", "gone"}, // killed a moment ago, whoever has its number now
		{"running", time.Minute, true, stale, "none", "stale"},
		{"running", -time.Minute, true, stale, "none", "stale"},
		{"running", time.Hour, false, gone, "none", "gone"},
		{"starting", time.Minute, true, starting, "none", ""}, // a long log
		{"starting", time.Minute, false, gone, "none", "gone"},
		{"stopping", time.Second, true, stopping, "leader", ""},
		{"stopping", time.Second, false, gone, "none", "gone"},
		{"stopped", time.Hour, false, stopped, "none", "stopped"},
		{"stopped", time.Hour, true, starting, "none", ""}, // the next process has not written yet
		{"failed", time.Hour, false, failed, "none", "failed"},
	} {
		r := &statusReport{Status: coordinator.Status{Name: "alpha", State: c.state, Consortium: "Solo", Demo: true, Leader: "alpha", Leading: true, Alive: []string{"alpha"}, Needed: 1,
			Written: at.Add(-c.age), PID: 42, Reason: "log_short", Message: "entries are gone", Do: "rejoin"}}
		r.judge(c.held, at)
		e := cli.Classify(r.verdict())
		if r.Condition != c.want || r.Role != c.role || (e == nil) != (c.word == "") || e != nil && (e.Word != c.word || e.Code != cli.Failed) {
			t.Errorf("%s, %s old, held %v: %s, %s, %v", c.state, c.age, c.held, r.Condition, r.Role, e)
		}
		if c.want != running && c.want != stopping && (r.Leader != "" || len(r.Alive) > 0) {
			t.Errorf("%s, held %v: led by %q, up %v", c.state, c.held, r.Leader, r.Alive)
		}
		var out bytes.Buffer
		must(t, r.print(&out, &cli.Output{}))
		if !strings.Contains(out.String(), cli.DemoLabel) || !strings.Contains(out.String(), string(c.want)) {
			t.Errorf("printed\n%s", out.String())
		}
	}
}

// TestStatusWithoutQuorum: a member that lost the others says so, since when, and what its rounds wait for.
func TestStatusWithoutQuorum(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	r := &statusReport{Status: coordinator.Status{Name: "alpha", State: "running", LeaderSeconds: 42, Applied: 17, AppliedAge: 43, Alive: []string{"alpha", "beta"}, Needed: 3, Written: at, PID: 42,
		Waits: []coordinator.RoundWait{{Task: "steps", Seq: 4, Phase: "acked", What: "votes", Have: 2, Need: 3, Lacks: []string{"beta", "gamma"}}}}}
	r.judge(true, at)
	if r.Condition != running || r.Role != "without leader" {
		t.Errorf("%s, %s", r.Condition, r.Role)
	}
	var out bytes.Buffer
	must(t, r.print(&out, &cli.Output{}))
	for _, want := range []string{"none heard for 42s", "17, 43s before", "alpha, beta: 2 of the 3 members needed", "steps/4, acked: 2 of 3 votes; lacks beta, gamma (not up)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}

// TestAMemberRunsAndStops runs a consortium of one as a user would, in a process of its own, issues a token beside it and
// interrupts it.
func TestAMemberRunsAndStops(t *testing.T) {
	home, file := alone(t, "alpha")
	// TestMain has put this program into PATH.
	var errs bytes.Buffer
	begin := func() (*exec.Cmd, chan error) {
		errs.Reset()
		c := exec.Command("ruche-coordinator", "run", "--dir", home.Dir, "--charter", file, "--log-level", "warn",
			"--listen-device", "127.0.0.1:0", "--listen-mesh", "127.0.0.1:0")
		c.Stderr = &errs
		must(t, c.Start())
		t.Cleanup(func() { c.Process.Kill() })
		done := make(chan error, 1)
		go func() { done <- c.Wait() }()
		return c, done
	}
	member, done := begin()
	ruche := func(args ...string) (int, string) {
		var out, errs bytes.Buffer
		code := cli.Run(context.Background(), newApp(), append([]string{"ruche-coordinator", "--dir", home.Dir}, args...), &out, &errs)
		return code, out.String() + errs.String()
	}
	waitLeader := func() {
		t.Helper()
		deadline := time.Now().Add(5 * time.Minute)
		for {
			code, said := ruche("status")
			if code == 0 && strings.Contains(said, "role          leader") {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("no leader: %s", said)
			}
			select {
			case err := <-done:
				t.Fatalf("ended with %v: %s", err, errs.String())
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	waitLeader()
	if code, said := ruche("run"); code != cli.Failed || !strings.Contains(said, "this member runs already") {
		t.Errorf("a second process: exit %d, %s", code, said)
	}
	if code, said := ruche("token", "--count", "2"); code != 0 || strings.Count(said, "\n") != 3 {
		t.Errorf("token beside the running member: exit %d, %s", code, said)
	}
	must(t, member.Process.Signal(os.Interrupt))
	select {
	case err := <-done:
		if err != nil || !strings.Contains(errs.String(), cli.DemoLabel) {
			t.Errorf("ended with %v: %s", err, errs.String())
		}
	case <-time.After(5 * time.Minute):
		t.Fatal("did not stop")
	}
	if code, said := ruche("status"); code != cli.Failed || !strings.Contains(said, "stopped") {
		t.Errorf("after the end: exit %d, %s", code, said)
	}
	// Killed, it cannot say so; the status does all the same, at once, though the number may be another program's by now.
	member, done = begin()
	waitLeader()
	must(t, member.Process.Kill())
	<-done
	if code, said := ruche("status"); code != cli.Failed || !strings.Contains(said, "gone") || strings.Contains(said, "role          leader") {
		t.Errorf("after a kill: exit %d, %s", code, said)
	}
	// Its guard file is gone: it says why it does not start, where the operator looks, and what to do.
	must(t, os.Remove(filepath.Join(home.Dir, "raft", "log", "guard")))
	member, done = begin()
	if err := <-done; err == nil || !strings.Contains(errs.String(), "guard_lost") {
		t.Errorf("without a guard it ends with %v: %s", err, errs.String())
	}
	if code, said := ruche("status"); code != cli.Failed || !strings.Contains(said, "guard_lost") || !strings.Contains(said, "ruche-coordinator rejoin") {
		t.Errorf("after a start without a guard: exit %d, %s", code, said)
	}
	alarms, err := coordinator.ReadAlarms(home.Dir)
	if err != nil || len(alarms) != 1 || alarms[0].What != coordinator.AlarmStopped {
		t.Errorf("alarms: %v, %v", alarms, err)
	}
}
