package doctor

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/epoch"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lived runs a member alone in a consortium until so much was seen, and stops it.
func lived(t *testing.T, closeAfter time.Duration, seen func(dir string) bool) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "alpha")
	home, err := coordinator.InitHome(dir, coordinator.HomeOptions{Name: "alpha", DeviceURL: "https://127.0.0.1:7420", MeshAddr: "127.0.0.1:7421"}, rand.Reader)
	must(t, err)
	l, err := layout.Vector("steps", 4, nil)
	must(t, err)
	task := charter.NewTask("steps", charter.KindVector)
	task.Layout, task.Window, task.InitSeed = l, "once", label.Sum(label.TagTask, []byte("seed"))
	task.Encoding, task.Cohort = charter.Encoding{CReal: 1, C: 2253}, charter.Cohort{NMin: 3, NMax: 10}
	hour := charter.Duration(time.Hour)
	task.Timings = charter.Timings{CloseAfter: charter.Duration(closeAfter), AckTimeout: hour, AckAfter: hour}
	body, err := charter.Draft([]charter.Card{home.Card}, charter.Options{Consortium: "Solo", Demo: true, MinContributors: 3, Tasks: []charter.Task{task},
		Timing: charter.Timing{EpochLife: 24 * hour, Slack: hour / 60, Tick: charter.Duration(100 * time.Millisecond), Profile: charter.ProfileLoopback}})
	must(t, err)
	sig, err := charter.Sign(body, home.Identity)
	must(t, err)
	file, err := charter.Assemble(body, []charter.Signature{sig})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "charter.json"), file, 0o600))
	stop, done := begin(t, dir)
	for end := time.Now().Add(5 * time.Minute); !seen(dir); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-done:
			t.Fatalf("ended with %v", err)
		default:
		}
		if time.Now().After(end) {
			t.Fatal("it takes too long")
		}
	}
	stop()
	must(t, <-done)
	return dir
}

func openRound(dir string) bool {
	s, err := coordinator.ReadStatus(dir)
	return err == nil && s.State == coordinator.StateRunning && s.OpenRounds == 1 && s.Epoch > 0
}

func begin(t *testing.T, dir string) (stop func(), done chan error) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done = make(chan error, 1)
	go func() {
		done <- coordinator.Run(ctx, coordinator.RunOptions{Dir: dir, ListenDevice: "127.0.0.1:0", ListenMesh: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	}()
	return stop, done
}

// contents is every name below dir, with the hash of each file.
func contents(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	out := map[string][32]byte{}
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			out[path] = [32]byte{}
			return err
		}
		b, err := os.ReadFile(path)
		out[path] = sha256.Sum256(b)
		return err
	}))
	return out
}

// examine looks twice, and sees that nothing changed.
func examine(t *testing.T, dir string) *Examination {
	t.Helper()
	before := contents(t, dir)
	x, err := Examine(dir, time.Now())
	must(t, err)
	after := contents(t, dir)
	if len(before) != len(after) {
		t.Errorf("%d files and folders before, %d after", len(before), len(after))
	}
	for path, sum := range before {
		if after[path] != sum {
			t.Errorf("%s was changed", path)
		}
	}
	return x
}

func (x *Examination) has(level Level, word string) bool {
	for _, f := range x.Findings {
		if f.Level == level && f.Word == word {
			return true
		}
	}
	return false
}

// copyOf is the folder again, for a test to damage.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	must(t, os.CopyFS(to, os.DirFS(dir)))
	must(t, filepath.WalkDir(to, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		return os.Chmod(path, 0o600)
	}))
	return to
}

// TestExamination: a sound folder, then each damage to a copy of it, is found by its word, with what to do; nothing is
// changed by looking.
func TestExamination(t *testing.T) {
	dir := lived(t, time.Hour, openRound)
	x := examine(t, dir)
	if x.Worst() != Note || x.Log == nil || x.Log.Applied == 0 || len(x.Rounds) != 1 || len(x.Epochs) != 1 || x.Epochs[0].State != "whole" {
		t.Fatalf("a sound folder: %s\n%+v", x.Worst(), x.Findings)
	}
	path := func(dir string, name ...string) string { return filepath.Join(append([]string{dir}, name...)...) }
	flip := func(t *testing.T, path string, at int) {
		b, err := os.ReadFile(path)
		must(t, err)
		b[(at+len(b))%len(b)] ^= 1
		must(t, os.WriteFile(path, b, 0o600))
	}
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		level  Level
		word   string
	}{
		{"no card", func(t *testing.T, dir string) { must(t, os.Remove(path(dir, "card.json"))) }, Problem, "no_member"},
		{"no identity key", func(t *testing.T, dir string) { must(t, os.Remove(path(dir, "keys", "identity.key"))) }, Problem, "key_missing"},
		{"no storage key", func(t *testing.T, dir string) { must(t, os.Remove(path(dir, "keys", "storage.key"))) }, Problem, "key_missing"},
		{"another's TLS key", func(t *testing.T, dir string) { flip(t, path(dir, "keys", "tls.key"), 3) }, Problem, "keys_wrong"},
		{"no charter", func(t *testing.T, dir string) { must(t, os.Remove(path(dir, "charter.json"))) }, Note, "no_charter"},
		{"a charter cut short", func(t *testing.T, dir string) { must(t, os.Truncate(path(dir, "charter.json"), 100)) }, Problem, "charter_wrong"},
		{"no raft folder", func(t *testing.T, dir string) { must(t, os.RemoveAll(path(dir, "raft"))) }, Problem, "log_gone"},
		{"no store id", func(t *testing.T, dir string) { must(t, os.Remove(path(dir, "raft", "store"))) }, Problem, "log_incomplete"},
		{"no log beside a snapshot", func(t *testing.T, dir string) {
			must(t, os.RemoveAll(path(dir, "raft", "log")))
			must(t, os.MkdirAll(path(dir, "raft", "snapshots", "2-9-1"), 0o700))
		}, Problem, "log_incomplete"},
		{"no guard", func(t *testing.T, dir string) { must(t, os.Remove(path(dir, "raft", "log", "guard"))) }, Problem, "guard_lost"},
		{"no log beside the guard", func(t *testing.T, dir string) { must(t, os.RemoveAll(path(dir, "raft", "log", "log"))) }, Problem, "log_short"},
		{"no place for a copy of the log", func(t *testing.T, dir string) { t.Setenv("TMPDIR", path(dir, "none")) }, Warning, "log_not_copied"},
		{"no epoch folder", func(t *testing.T, dir string) { must(t, os.RemoveAll(path(dir, "epochs"))) }, Warning, "no_say"},
		{"no vote file", func(t *testing.T, dir string) { must(t, os.Remove(path(dir, "epochs", "1", "votes"))) }, Warning, "epoch_damaged"},
		{"a flipped byte in the vote file", func(t *testing.T, dir string) { flip(t, path(dir, "epochs", "1", "votes"), 60) }, Warning, "epoch_damaged"},
		{"a flipped byte in the keys", func(t *testing.T, dir string) { flip(t, path(dir, "epochs", "1", "keys"), 60) }, Warning, "epoch_damaged"},
		{"keys of a later version", func(t *testing.T, dir string) { flip(t, path(dir, "epochs", "1", "keys"), 8) }, Problem, "epoch_unreadable"},
		{"a clock that is behind", func(t *testing.T, dir string) {}, Problem, "clock_behind"},
		{"a damaged list of alarms", func(t *testing.T, dir string) { flip(t, path(dir, "alarms"), 3) }, Warning, "alarms_damaged"},
		{"a member that stopped by itself", func(t *testing.T, dir string) {
			must(t, os.Remove(path(dir, "raft", "log", "guard")))
			_, done := begin(t, dir)
			if err := <-done; err == nil {
				t.Error("it starts")
			}
		}, Warning, "guard_lost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := copyOf(t, dir)
			c.damage(t, dir)
			x := examine(t, dir)
			if c.word == "clock_behind" {
				var err error
				x, err = Examine(dir, time.Now().Add(-2*time.Hour))
				must(t, err)
			}
			if !x.has(c.level, c.word) {
				t.Errorf("no %s %q in %+v", c.level, c.word, x.Findings)
			}
			for _, f := range x.Findings {
				if f.Level == Problem && (f.Do == "" || f.Means == "") {
					t.Errorf("%s does not say what it means or what to do", f.Word)
				}
			}
			if c.word == "log_not_copied" && x.Worst() != Warning {
				t.Errorf("a sound folder: %+v", x.Findings)
			}
			if strings.Contains(c.name, "by itself") && !x.has(Warning, coordinator.AlarmStopped) {
				t.Errorf("no alarm in %+v", x.Findings)
			}
		})
	}
	if x, err := Examine(filepath.Join(dir, "card.json"), time.Now()); err == nil {
		t.Errorf("a file is examined: %+v", x)
	}
}

// TestAVoteThatTheFileLacks: the vote file shows what was promised; cut back to before a vote that the log shows, the
// examination says so.
func TestAVoteThatTheFileLacks(t *testing.T) {
	dir := lived(t, 200*time.Millisecond, func(dir string) bool { // rounds without contributions die, one after the other
		list, err := epoch.Inspect(filepath.Join(dir, "epochs"))
		return err == nil && len(list) == 1 && len(list[0].Promises) >= 3
	})
	x := examine(t, dir)
	if x.Worst() == Problem || len(x.Epochs) != 1 || len(x.Epochs[0].Promises) < 3 || x.Epochs[0].Promises[0].Voted == "" {
		t.Fatalf("%+v, %+v", x.Findings, x.Epochs)
	}
	votes := filepath.Join(dir, "epochs", "1", "votes")
	info, err := os.Stat(votes)
	must(t, err)
	const record = 112 // bytes of a vote in the file
	must(t, os.Truncate(votes, info.Size()-record*int64(len(x.Epochs[0].Promises)-1)))
	if x = examine(t, dir); len(x.Epochs[0].Promises) != 1 || !x.has(Problem, coordinator.AlarmWitness) {
		t.Errorf("%+v, %+v", x.Findings, x.Epochs)
	}
}

// TestWhileItRuns says so, and looks at what it may.
func TestWhileItRuns(t *testing.T) {
	dir := lived(t, time.Hour, openRound)
	lock, err := durable.Lock(filepath.Join(dir, "lock"))
	must(t, err)
	defer lock.Close()
	x := examine(t, dir)
	if !x.Running || !x.has(Note, "running") || x.Log != nil || len(x.Epochs) != 1 {
		t.Errorf("%+v", x.Findings)
	}
}
