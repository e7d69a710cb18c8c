package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
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
	l, err := layout.Vector("steps", 4, nil)
	must(t, err)
	task := charter.NewTask("steps", charter.KindVector)
	task.Layout, task.Window, task.InitSeed = l, "once", label.Sum(label.TagTask, []byte("seed"))
	task.Encoding, task.Cohort = charter.Encoding{CReal: 1, C: 2253}, charter.Cohort{NMin: 3, NMax: 10}
	minute := charter.Duration(time.Minute)
	task.Timings = charter.Timings{CloseAfter: minute, AckTimeout: minute, AckAfter: minute}
	body, err := charter.Draft([]charter.Card{card}, charter.Options{Consortium: consortium, Demo: true, MinContributors: 3, Tasks: []charter.Task{task},
		Timing: charter.Timing{EpochLife: 60 * minute, Slack: minute, Tick: charter.Duration(100 * time.Millisecond)}})
	must(t, err)
	sig, err := charter.Sign(body, home.Identity)
	must(t, err)
	data, err := charter.Assemble(body, []charter.Signature{sig})
	must(t, err)
	file := filepath.Join(t.TempDir(), "charter.json")
	must(t, os.WriteFile(file, data, 0o600))
	return file
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

func TestStatusSaysWhetherTheProcessLives(t *testing.T) {
	dir := t.TempDir()
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		state string
		age   time.Duration
		alive bool
		want  condition
		word  string
	}{
		{"running", time.Second, true, running, ""},
		{"running", time.Second, false, running, ""}, // another machine's process number
		{"running", time.Minute, true, stale, "stale"},
		{"running", time.Hour, false, gone, "gone"},
		{"stopped", time.Hour, false, stopped, "stopped"},
	} {
		b, err := json.Marshal(coordinator.Status{Name: "alpha", State: c.state, Consortium: "Solo", Demo: true, Leader: "alpha", Leading: true, Alive: []string{"alpha"}, Written: at.Add(-c.age), PID: 42})
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, "status.json"), b, 0o600))
		r, err := readStatus(dir, at, func(pid int) bool { return pid == 42 && c.alive })
		must(t, err)
		e := cli.Classify(r.verdict())
		if r.Condition != c.want || r.Role != "leader" || (e == nil) != (c.word == "") || e != nil && (e.Word != c.word || e.Code != cli.Failed) {
			t.Errorf("%s, %s old, alive %v: %s, %v", c.state, c.age, c.alive, r.Condition, e)
		}
		var out bytes.Buffer
		must(t, r.print(&out, &cli.Output{}))
		if !strings.Contains(out.String(), cli.DemoLabel) || !strings.Contains(out.String(), string(c.want)) {
			t.Errorf("printed\n%s", out.String())
		}
	}
	if alive(os.Getpid()) != true || alive(0) || alive(-1) {
		t.Error("alive does not know this process")
	}
}

// TestAMemberRunsAndStops runs a consortium of one as a user would, in a process of its own, issues a token beside it and
// interrupts it.
func TestAMemberRunsAndStops(t *testing.T) {
	home, file := alone(t, "alpha")
	// TestMain has put this program into PATH.
	member := exec.Command("ruche-coordinator", "run", "--dir", home.Dir, "--charter", file, "--timing", "loopback", "--log-level", "warn",
		"--listen-device", "127.0.0.1:0", "--listen-mesh", "127.0.0.1:0")
	var errs bytes.Buffer
	member.Stderr = &errs
	must(t, member.Start())
	done := make(chan error, 1)
	go func() { done <- member.Wait() }()
	defer member.Process.Kill()
	ruche := func(args ...string) (int, string) {
		var out, errs bytes.Buffer
		code := cli.Run(context.Background(), newApp(), append([]string{"ruche-coordinator", "--dir", home.Dir}, args...), &out, &errs)
		return code, out.String() + errs.String()
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		code, said := ruche("status")
		if code == 0 && strings.Contains(said, "role          leader") {
			break
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
	if code, said := ruche("run", "--timing", "loopback"); code != cli.Failed || !strings.Contains(said, "this member runs already") {
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
	case <-time.After(30 * time.Second):
		t.Fatal("did not stop")
	}
	if code, said := ruche("status"); code != cli.Failed || !strings.Contains(said, "stopped") {
		t.Errorf("after the end: exit %d, %s", code, said)
	}
}
