package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/node/participant"
	"github.com/ruche-federation/ruche/storage/durable"
)

// enrolled is a device of a consortium whose commons is for its base.
func enrolled(t testing.TB, records []string, alter func(*charter.Options)) (string, *Home, *consortium) {
	t.Helper()
	base := writeModel(t, 1)
	dir, h := device(t, base, records)
	l, err := h.Language()
	must(t, err)
	c := newConsortium(t, h.Info.Base.SHA256, modulesOf(l.Model), alter)
	j, err := join(t, c, dir, "org-1", c.tokenText())
	must(t, err)
	for _, task := range j.Tasks[:2] {
		if !task.Ready {
			t.Fatalf("not ready: %s", task.Reason)
		}
	}
	return dir, h, c
}

// eventually waits until the device's status is as cond wants it.
func eventually(t testing.TB, dir string, cond func(Status) bool) Status {
	t.Helper()
	var s Status
	for begin := time.Now(); time.Since(begin) < 5*time.Minute; time.Sleep(20 * time.Millisecond) {
		var err error
		if s, err = ReadStatus(dir); err == nil && cond(s) {
			return s
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	t.Fatalf("the status stays %+v", s)
	return s
}

// running starts Run and returns what stops it.
func running(t testing.TB, dir string, o RunOptions) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, dir, o) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				t.Errorf("the run ended with %v", err)
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

func TestADeviceRunsThroughARound(t *testing.T) {
	records := append(sayings(20), "the secret of hive nine is xyzzy")
	dir, _, c := enrolled(t, records, nil)
	var log bytes.Buffer
	o := runOptions()
	o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	o.KeepEncoded = true
	stop := running(t, dir, o)
	s := eventually(t, dir, func(s Status) bool { return s.State == StateIdle })
	if len(s.Evaluations) != 1 || s.Evaluations[0].Seq != 0 || s.Evaluations[0].Tokens == 0 || s.Label != DemoLabel || s.PID != os.Getpid() {
		t.Fatalf("at rest the status is %+v", s)
	}
	if up, err := Running(dir); err != nil || !up {
		t.Fatalf("running: %v, %v", up, err)
	}
	if err := Run(t.Context(), dir, runOptions()); !errors.Is(err, durable.ErrLocked) {
		t.Fatalf("a second process: %v", err)
	}

	rc := c.show("commons", 1)
	s = eventually(t, dir, func(s Status) bool { return s.State == StateWaiting })
	if s.Contributions != 1 || s.Acknowledged != 1 || len(s.TrainMs) != 1 {
		t.Fatalf("after the upload the status is %+v", s)
	}
	task, _ := c.ch.Task("commons")
	values := make([]float32, task.Layout.D())
	for i := range values {
		values[i] = float32(i%3) / 30
	}
	m := c.publish(rc, values)
	s = eventually(t, dir, func(s Status) bool { return s.State == StateIdle && s.Seq == 1 })
	if s.Published != 1 || s.Adapter != m.Hash() || len(s.Evaluations) != 2 || s.Evaluations[1].Adapter != m.Hash() || s.LastError != "" {
		t.Fatalf("after the round the status is %+v", s)
	}
	stop()
	if s, err := ReadStatus(dir); err != nil || s.State != StateStopped || len(s.Evaluations) != 2 {
		t.Fatalf("at the end: %+v, %v", s, err)
	}
	if up, err := Running(dir); err != nil || up {
		t.Fatalf("running: %v, %v", up, err)
	}
	entries, err := participant.ReadLedger(filepath.Join(dir, LedgerFile))
	must(t, err)
	if len(entries) != 3 {
		t.Fatalf("%d entries in the ledger", len(entries))
	}

	// A restart measures nothing twice.
	stop = running(t, dir, runOptions())
	s = eventually(t, dir, func(s Status) bool { return s.State == StateIdle })
	if s.Seq != 1 || len(s.Evaluations) != 2 || s.Contributions != 1 {
		t.Fatalf("after a restart: %+v", s)
	}
	stop()

	// What must stand nowhere, and what must.
	if !strings.Contains(log.String(), DemoLabel) {
		t.Error("the log does not say that this is a demo")
	}
	device := s.Device.String()
	for _, secret := range []string{"xyzzy", "hive", device} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, statusFile))
	must(t, err)
	if bytes.Contains(b, []byte("hive")) {
		t.Error("the status quotes the journal")
	}

	var answer bytes.Buffer
	must(t, Ask(t.Context(), dir, "the bees", &answer, AskOptions{Tokens: 12}))
	if answer.Len() == 0 {
		t.Error("no answer")
	}
	h, err := OpenHome(dir)
	must(t, err)
	l, err := h.Language()
	must(t, err)
	if a, err := h.commons(l.Model); err != nil || a == nil || a.Rank != 4 {
		t.Fatalf("the answer came without the commons: %v", err)
	}
	if err := Ask(t.Context(), dir, strings.Repeat("long ", 20), &answer, AskOptions{}); err == nil || !strings.Contains(err.Error(), "context 64") {
		t.Fatalf("a text longer than the context: %v", err)
	}
}

func TestAnObserverFollowsAndSendsNothing(t *testing.T) {
	dir, _, c := enrolled(t, sayings(12), nil)
	o := runOptions()
	o.Observe = true
	rc := c.show("commons", 1)
	running(t, dir, o)
	eventually(t, dir, func(s Status) bool { return s.State == StateIdle })
	task, _ := c.ch.Task("commons")
	c.publish(rc, make([]float32, task.Layout.D()))
	s := eventually(t, dir, func(s Status) bool { return s.Seq == 1 && len(s.Evaluations) == 2 })
	if n, _ := c.seen(); s.Contributions != 0 || s.Evaluations[1].Split != "all" || n != 0 {
		t.Fatalf("the observer's status is %+v", s)
	}
}

func TestAnImportWorksWhileTheDeviceRuns(t *testing.T) {
	dir, _, c := enrolled(t, nil, nil)
	running(t, dir, runOptions())
	eventually(t, dir, func(s Status) bool { return s.State == StateIdle })
	c.show("commons", 1) // sits it out: nothing to learn from yet
	var lines bytes.Buffer
	for _, r := range sayings(20) {
		lines.WriteString(`{"user":"amelie","text":"` + r + `"}` + "\n")
	}
	c.asked(2)
	_, n, err := ImportData(t.Context(), dir, &lines, "", time.Now, quiet())
	must(t, err)
	if n != 20 {
		t.Fatalf("%d records", n)
	}
	c.show("commons", 2)
	eventually(t, dir, func(s Status) bool { return s.Acknowledged == 1 })
}

// TestWhatWasHalfWrittenGoes: the process that has the folder removes what one that was killed left of a write, and no
// other does.
func TestWhatWasHalfWrittenGoes(t *testing.T) {
	dir, _, _ := enrolled(t, nil, nil)
	half := filepath.Join(dir, "."+statusFile+".tmp-1")
	must(t, os.WriteFile(half, []byte("half"), 0o600))
	lock, err := durable.Lock(filepath.Join(dir, lockFile))
	must(t, err)
	if err := Run(t.Context(), dir, runOptions()); !errors.Is(err, durable.ErrLocked) {
		t.Fatalf("a second process: %v", err)
	}
	if _, err := os.Stat(half); err != nil {
		t.Fatalf("a process without the folder removed what another may be writing: %v", err)
	}
	must(t, lock.Close())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = Run(ctx, dir, runOptions())
	if _, err := os.Stat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("what was half written stays: %v", err)
	}
}

func TestWhatDoesNotRun(t *testing.T) {
	dir, h, c := enrolled(t, nil, func(o *charter.Options) {
		foreign := o.Tasks[0]
		foreign.ID, foreign.Base = "foreign", someBase()
		o.Tasks = append(o.Tasks, foreign)
	}) // the device is not ready for one of the tasks
	_ = c
	for _, s := range []struct {
		name string
		o    func(*RunOptions)
		want string
	}{
		{"two tasks of the kind", func(*RunOptions) {}, "several tasks of kind lora: name one; it has commons (lora), average (vector), foreign (lora)"},
		{"no such task", func(o *RunOptions) { o.Task = "poetry" }, `no task "poetry"`},
		{"a task of another kind", func(o *RunOptions) { o.Task = "average" }, "of kind vector, this command is for kind lora"},
		{"a task for another base", func(o *RunOptions) { o.Task = "foreign" }, "is for the base model " + someBase()},
	} {
		o := runOptions()
		s.o(&o)
		err := Run(t.Context(), dir, o)
		var task *TaskError
		if !errors.As(err, &task) || !strings.Contains(err.Error(), s.want) {
			t.Errorf("%s: got %v, want ...%s...", s.name, err, s.want)
		}
	}
	alone, _ := device(t, h.BasePath(), nil)
	if err := Run(t.Context(), alone, runOptions()); !errors.Is(err, ErrNotJoined) {
		t.Errorf("a device without consortium: %v", err)
	}
}

func TestContributingAVector(t *testing.T) {
	dir, _, c := enrolled(t, nil, nil)
	file := writeVector(t, map[string]string{"examples": "3"}, meanValues(1, 2, 3, 4, 5, 6))
	rc := c.show("average", 1)
	c.afterUpload(func() { c.publish(rc, make([]float32, 6)) })
	got, err := Contribute(t.Context(), dir, ContributeOptions{RunOptions: runOptions(), Vector: file, Once: true})
	must(t, err)
	if got.Seq != 1 || got.Round != rc.ID() || len(got.Receipts) != 3 || got.End != participant.EndPublished || got.Bytes == 0 || got.Label != DemoLabel || len(got.Model) != 64 {
		t.Fatalf("got %+v", got)
	}
	if _, err := Contribute(t.Context(), dir, ContributeOptions{RunOptions: runOptions(), Vector: file}); !errors.Is(err, ErrContributed) {
		t.Fatalf("again: %v", err)
	}
	if _, err := ReadStatus(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the commons' status was written: %v", err)
	}
}

// TestAVectorIsContributedOnce: the end of its round and the next open round may come in one answer. What was acknowledged
// is not given again.
func TestAVectorIsContributedOnce(t *testing.T) {
	dir, _, c := enrolled(t, nil, func(o *charter.Options) {
		for i := range o.Tasks {
			if o.Tasks[i].Kind == charter.KindVector {
				o.Tasks[i].Window = "1s"
			}
		}
	})
	rc := c.showAt("average", 1, time.Now().Add(-time.Minute))
	c.afterUpload(func() {
		c.publish(rc, make([]float32, 6))
		c.show("average", 2)
	})
	got, err := Contribute(t.Context(), dir, ContributeOptions{RunOptions: runOptions(), Vector: writeVector(t, nil, meanValues(1, 2, 3, 4, 5, 6)), Once: true})
	must(t, err)
	if n, _ := c.seen(); got.Seq != 1 || got.End != participant.EndPublished || n != 1 {
		t.Fatalf("after %d uploads: %+v", n, got)
	}
}

func TestAContributionWaitsForItsRoundAndForItsAckOnly(t *testing.T) {
	dir, _, c := enrolled(t, nil, nil)
	file := writeVector(t, nil, meanValues(1, 2, 3, 4, 5, 6))
	go func() {
		c.asked(2)
		c.show("average", 1)
	}()
	got, err := Contribute(t.Context(), dir, ContributeOptions{RunOptions: runOptions(), Vector: file})
	must(t, err)
	if got.End != "" || len(got.Receipts) != 3 {
		t.Fatalf("got %+v", got)
	}

	// No round, no patience; and a wrong file before any round.
	dir, _, idle := enrolled(t, nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		idle.asked(3)
		cancel()
	}()
	if got, err := Contribute(ctx, dir, ContributeOptions{RunOptions: runOptions(), Vector: file}); !errors.Is(err, context.Canceled) || got != nil {
		t.Fatalf("got %+v, %v", got, err)
	}
	if _, err := Contribute(t.Context(), dir, ContributeOptions{RunOptions: runOptions(), Vector: writeVector(t, nil, meanValues(1))}); err == nil || !strings.Contains(err.Error(), "has shape [1]") {
		t.Fatalf("a wrong file: %v", err)
	}
}

func TestARefusedRoundEndsAContribution(t *testing.T) {
	dir, _, c := enrolled(t, nil, nil)
	c.show("average", 1)
	o := ContributeOptions{RunOptions: runOptions(), Vector: writeVector(t, nil, meanValues(1, 2, 3, 4, 5, 6))}
	o.Floor = 50
	_, err := Contribute(t.Context(), dir, o)
	var refusal *participant.RefusalError
	if !errors.As(err, &refusal) || !strings.Contains(err.Error(), "the owner's minimum is 50") {
		t.Fatalf("got %v", err)
	}
	if n, _ := c.seen(); n != 0 {
		t.Fatal("something was sent")
	}
}

// TestTheFileSaysThatTheProcessLives: by its time, every second. A file that does not hold the last word says nothing of
// the kind.
func TestTheFileSaysThatTheProcessLives(t *testing.T) {
	key, err := identity.NewKey(rand.Reader)
	must(t, err)
	h, now := &Home{Dir: t.TempDir(), Key: key}, time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	path := filepath.Join(h.Dir, statusFile)
	r := newReporter(h, &charter.Charter{}, &charter.Task{ID: "commons"}, false, func() time.Time { return now }, quiet())
	r.set(func(s *Status) { s.State = StateTraining })
	before, err := os.ReadFile(path)
	must(t, err)
	now = now.Add(time.Hour)
	if !r.alive() {
		t.Fatal("not alive in training")
	}
	after, err := os.ReadFile(path)
	must(t, err)
	if s, err := ReadStatus(h.Dir); err != nil || !s.Updated.Equal(now) || !bytes.Equal(before, after) {
		t.Fatalf("an hour later: %+v, %v", s, err)
	}

	// What cannot be written is not touched, and written as soon as it can be.
	must(t, os.Remove(path))
	must(t, os.Mkdir(path, 0o700))
	made, err := os.Stat(path)
	must(t, err)
	r.set(func(s *Status) { s.State = StateUploading })
	r.alive()
	if still, err := os.Stat(path); err != nil || !still.ModTime().Equal(made.ModTime()) {
		t.Fatalf("another's file was touched: %v", err)
	}
	must(t, os.Remove(path))
	r.alive()
	if s, err := ReadStatus(h.Dir); err != nil || s.State != StateUploading {
		t.Fatalf("when it can be written: %+v, %v", s, err)
	}

	// The end is the last word.
	r.set(func(s *Status) { s.State = StateStopped })
	ended := now
	now = now.Add(time.Hour)
	if r.alive() {
		t.Fatal("alive after the end")
	}
	if s, err := ReadStatus(h.Dir); err != nil || !s.Updated.Equal(ended) {
		t.Fatalf("after the end: %+v, %v", s, err)
	}
}

func TestAStatusOfALaterVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, statusFile), []byte(`{"version":2}`), 0o600))
	if _, err := ReadStatus(dir); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Fatalf("got %v", err)
	}
}
