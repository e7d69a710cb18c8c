package vault

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/storage/durable"
)

func testKey(t testing.TB) *Key {
	t.Helper()
	k, err := ParseKey(bytes.Repeat([]byte{7}, KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustOpen(t testing.TB, dir string, p Profile) *DB {
	t.Helper()
	v, err := Open(Options{Dir: dir, Key: testKey(t), Profile: p})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

func mustSet(t testing.TB, v *DB, key, value string) {
	t.Helper()
	if err := v.Set([]byte(key), []byte(value)); err != nil {
		t.Fatal(err)
	}
}

func TestValuesComeBackAfterReopening(t *testing.T) {
	for _, p := range []Profile{Log, Device} {
		t.Run(p.String(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "vault")
			v := mustOpen(t, dir, p)
			if _, err := v.Get([]byte("k")); !errors.Is(err, ErrNotFound) {
				t.Fatalf("empty vault: %v", err)
			}
			mustSet(t, v, "k", "v1")
			mustSet(t, v, "k", "v2")
			mustSet(t, v, "empty", "")
			mustSet(t, v, "gone", "x")
			if err := v.Delete([]byte("gone")); err != nil {
				t.Fatal(err)
			}
			if err := v.Delete([]byte("never there")); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if got, err := v.Get([]byte("k")); err != nil || string(got) != "v2" {
					t.Fatalf("k = %q, %v", got, err)
				}
				if got, err := v.Get([]byte("empty")); err != nil || got == nil || len(got) != 0 {
					t.Fatalf("empty = %v, %v", got, err)
				}
				if _, err := v.Get([]byte("gone")); !errors.Is(err, ErrNotFound) {
					t.Fatalf("deleted: %v", err)
				}
				if err := v.Close(); err != nil {
					t.Fatal(err)
				}
				if err := v.Set([]byte("k"), nil); !errors.Is(err, ErrClosed) {
					t.Fatalf("after Close: %v", err)
				}
				v = mustOpen(t, dir, p)
			}
		})
	}
}

func TestScanInBothDirections(t *testing.T) {
	v := mustOpen(t, t.TempDir(), Device)
	for _, k := range []string{"a", "b", "b1", "b2", "b\xff", "b\xff\xff\xffz", "c"} {
		mustSet(t, v, k, "value of "+k)
	}
	for _, c := range []struct {
		prefix, from string
		back         bool
		want         string
	}{
		{"b", "", false, "b b1 b2 b\xff b\xff\xff\xffz"},
		{"b", "b2", false, "b2 b\xff b\xff\xff\xffz"},
		{"b", "a", false, "b b1 b2 b\xff b\xff\xff\xffz"},
		{"b", "c", false, ""},
		{"", "", false, "a b b1 b2 b\xff b\xff\xff\xffz c"},
		{"b", "", true, "b\xff\xff\xffz b\xff b2 b1 b"},
		{"b", "b1x", true, "b1 b"},
		{"b", "z", true, "b\xff\xff\xffz b\xff b2 b1 b"},
		{"b", "a", true, ""},
		{"x", "", true, ""},
	} {
		var got []string
		collect := func(k, val []byte) error {
			if string(val) != "value of "+string(k) {
				t.Errorf("%s = %q", k, val)
			}
			got = append(got, string(k))
			return nil
		}
		scan, from := v.Scan, []byte(nil)
		if c.back {
			scan = v.ScanBack
		}
		if c.from != "" {
			from = []byte(c.from)
		}
		if err := scan([]byte(c.prefix), from, collect); err != nil {
			t.Fatal(err)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("scan %q from %q back=%v: %q, want %q", c.prefix, c.from, c.back, strings.Join(got, " "), c.want)
		}
	}
	seen, odd := 0, errors.New("odd")
	if err := v.Scan(nil, nil, func(_, _ []byte) error { seen++; return Stop }); err != nil || seen != 1 {
		t.Fatalf("Stop: %d, %v", seen, err)
	}
	if err := v.Scan(nil, nil, func(_, _ []byte) error { return odd }); !errors.Is(err, odd) {
		t.Fatalf("own error: %v", err)
	}
	// A scan may write, and does not see what it writes.
	if err := v.Scan([]byte("b"), nil, func(k, _ []byte) error { seen++; return v.Set(append([]byte("b9"), k...), []byte("x")) }); err != nil || seen != 6 {
		t.Fatalf("writing scan: %d, %v", seen, err)
	}
}

func TestBatchIsWrittenTogetherOrNotAtAll(t *testing.T) {
	v := mustOpen(t, t.TempDir(), Log)
	own := errors.New("changed my mind")
	if err := v.Batch(func(b *Batch) error { b.Set([]byte("k"), []byte("v")); return own }); !errors.Is(err, own) {
		t.Fatal(err)
	}
	refused := func(name, want string, fill func(*Batch) error) {
		t.Helper()
		err := v.Batch(func(b *Batch) error {
			b.Set([]byte("k"), []byte("v"))
			fill(b) // its error is lost here, and the batch fails all the same
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), v.dir) {
			t.Fatalf("%s: %v", name, err)
		}
	}
	refused("no key", "key has 0 bytes", func(b *Batch) error { return b.Set(nil, nil) })
	refused("long key", "key has 513 bytes, limit 512", func(b *Batch) error { return b.Delete(make([]byte, 513)) })
	refused("large value", "value has 786433 bytes, limit 786432", func(b *Batch) error { return b.Set([]byte("x"), make([]byte, MaxValue+1)) })
	refused("badger's own key", "reserved", func(b *Batch) error { return b.Set([]byte("!badger!x"), nil) })
	refused("full", "batch is full", func(b *Batch) error {
		b.Set([]byte("x"), make([]byte, MaxValue))
		return b.Set([]byte("y"), make([]byte, MaxValue))
	})
	if _, err := v.Get([]byte("k")); !errors.Is(err, ErrNotFound) {
		t.Fatalf("a refused batch left a key: %v", err)
	}
	if err := v.Batch(func(*Batch) error { return nil }); err != nil {
		t.Fatal(err)
	}
}

// TestBatchBoundsAreBelowBadgers fills a batch to both bounds exactly: badger takes it.
func TestBatchBoundsAreBelowBadgers(t *testing.T) {
	v := mustOpen(t, t.TempDir(), Device)
	for name, entries := range map[string]int{"many": v.MaxBatchCount(), "large": 3} {
		value := make([]byte, min(MaxValue, v.MaxBatchBytes()/entries-BatchCost(6, 0)))
		if err := v.Batch(func(b *Batch) error {
			for i := range entries {
				if err := b.Set(fmt.Appendf(nil, "%06d", i), value); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatalf("%s: %d entries of %d bytes: %v", name, entries, len(value), err)
		}
	}
	if v.MaxBatchBytes() < MaxValue+BatchCost(MaxKey, 0) {
		t.Fatalf("one largest value does not fit: %d", v.MaxBatchBytes())
	}
}

func TestNothingReachesTheValueLog(t *testing.T) {
	dir := t.TempDir()
	v := mustOpen(t, dir, Log)
	for i := range 12 {
		if err := v.Set(fmt.Appendf(nil, "%d", i), make([]byte, MaxValue)); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.vlog"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Size() > 64 {
			t.Fatalf("%s has %d bytes, %v: more than its header", f, info.Size(), err)
		}
	}
}

func TestOpenRefusesAndSaysWhy(t *testing.T) {
	dir := t.TempDir()
	v := mustOpen(t, dir, Device)
	mustSet(t, v, "k", "a secret that must not lie in the clear")
	if _, err := Open(Options{Dir: dir, Key: testKey(t), Profile: Device}); !errors.Is(err, durable.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("open twice: %v", err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	other, err := NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: dir, Key: other, Profile: Device}); !errors.Is(err, ErrWrongKey) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("wrong key: %v", err)
	}
	v = mustOpen(t, dir, Device) // the failed attempts have left no lock and no damage
	if got, err := v.Get([]byte("k")); err != nil || len(got) == 0 {
		t.Fatalf("%q, %v", got, err)
	}
	v.Close()
	for name, o := range map[string]Options{
		"Dir is empty": {Key: other, Profile: Log}, "Key is missing": {Dir: dir, Profile: Log}, "unknown profile 0": {Dir: dir, Key: other},
	} {
		if _, err := Open(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if b, err := os.ReadFile(p); err == nil && bytes.Contains(b, []byte("in the clear")) {
			t.Errorf("%s holds the value unencrypted", p)
		}
		return nil
	})
}

func TestFullDiskIsAnErrorNotASignal(t *testing.T) {
	v := mustOpen(t, t.TempDir(), Device)
	mustSet(t, v, "k", "v")
	room := uint64(reserve - 1)
	v.free = func(string) (uint64, error) { return room, nil }
	var full *FullError
	if err := v.Set([]byte("k"), []byte("w")); !errors.As(err, &full) || full.Available != room || full.Need != reserve || full.Dir != v.dir {
		t.Fatalf("full: %v", err)
	}
	if got, err := v.Get([]byte("k")); err != nil || string(got) != "v" {
		t.Fatalf("reading goes on: %q, %v", got, err)
	}
	room = 0
	if err := v.Close(); !errors.As(err, &full) {
		t.Fatalf("close: %v", err)
	}
	room = reserve
	mustSet(t, v, "k", "w") // and writing too, once there is room
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	bo, err := badgerOptions(v.dir, testKey(t), Device, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(v.dir, bo, func(string) (uint64, error) { return 1, nil }); !errors.As(err, &full) {
		t.Fatalf("open: %v", err)
	}
}

// TestNoWriteAfterAFailedOne: the write that failed may be on the disk or not, and no later one is taken on top.
func TestNoWriteAfterAFailedOne(t *testing.T) {
	dir := t.TempDir()
	v := mustOpen(t, dir, Log)
	mustSet(t, v, "before", "x")
	broken := errors.New("injected")
	v.syncDir = func(string) error { return broken } // badger has written, then the folder fails
	v.names = map[string]bool{}
	if err := v.Set([]byte("doubtful"), []byte("x")); !errors.Is(err, broken) || !errors.As(err, new(*durable.BrokenError)) {
		t.Fatal(err)
	}
	v.syncDir = durable.SyncDir
	if err := v.Set([]byte("after"), []byte("x")); !errors.Is(err, broken) {
		t.Fatalf("a write after a failure went through: %v", err)
	}
	v.Close()
	v = mustOpen(t, dir, Log)
	for key, want := range map[string]bool{"before": true, "doubtful": true, "after": false} {
		if _, err := v.Get([]byte(key)); (err == nil) != want {
			t.Errorf("%s: %v", key, err)
		}
	}
	// And the other half: badger refuses, nothing is written.
	v.db.Close()
	if err := v.Set([]byte("never"), []byte("x")); !errors.As(err, new(*durable.BrokenError)) {
		t.Fatal(err)
	}
	v.Close()
	if _, err := mustOpen(t, dir, Log).Get([]byte("never")); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
}

// TestANewLogFileHasItsNameSynced writes past one memtable: the folder is synced before the write that rotated returns.
func TestANewLogFileHasItsNameSynced(t *testing.T) {
	v := mustOpen(t, t.TempDir(), Log)
	synced := map[string]bool{}
	note := func(dir string) error {
		mem, err := filepath.Glob(filepath.Join(dir, "*.mem"))
		for _, m := range mem {
			synced[m] = true
		}
		return err
	}
	note(v.dir)
	v.syncDir = note
	for i := range 40 {
		if err := v.Set(fmt.Appendf(nil, "%d", i), make([]byte, 512<<10)); err != nil {
			t.Fatal(err)
		}
		mem, _ := filepath.Glob(filepath.Join(v.dir, "*.mem"))
		for _, m := range mem {
			if !synced[m] {
				t.Fatalf("write %d returned before the entry of %s was synced", i, m)
			}
		}
	}
	if len(synced) < 2 {
		t.Fatal("no file was rotated")
	}
}

// TestAcknowledgedWritesSurviveKill9 kills a writing process at an arbitrary moment, several times over one folder.
func TestAcknowledgedWritesSurviveKill9(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		child := exec.Command(os.Args[0], "-test.run=^TestWriterProcess$")
		child.Env = append(os.Environ(), "RUCHE_TEST_VAULT="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		begun, said := make(chan struct{}), make(chan string)
		go func() {
			var b bytes.Buffer
			bufio.NewReader(io.TeeReader(out, &b)).ReadString('\n')
			close(begun)
			b.ReadFrom(out)
			said <- b.String()
		}()
		<-begun // however long its start takes
		time.Sleep(time.Duration(mrand.IntN(400)) * time.Millisecond)
		child.Process.Kill()
		lines := strings.Fields(<-said)
		child.Wait()
		if len(lines) == 0 {
			t.Fatal("the writer acknowledged nothing")
		}
		last, _ := strconv.Atoi(lines[len(lines)-1])
		v := mustOpen(t, dir, Log)
		for i := 0; i <= last; i++ {
			if _, err := v.Get(fmt.Appendf(nil, "%08d", i)); err != nil {
				t.Fatalf("acknowledged write %d of %d: %v", i, last, err)
			}
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWriterProcess(t *testing.T) {
	dir := os.Getenv("RUCHE_TEST_VAULT")
	if dir == "" {
		return // the other half of TestAcknowledgedWritesSurviveKill9
	}
	v := mustOpen(t, dir, Log)
	next := 0
	v.ScanBack(nil, nil, func(k, _ []byte) error { next, _ = strconv.Atoi(string(k)); return Stop })
	for i := next; ; i++ {
		if err := v.Set(fmt.Appendf(nil, "%08d", i), make([]byte, 20<<10)); err != nil {
			t.Fatal(err)
		}
		fmt.Println(i)
	}
}

func TestLogCarriesWarningsAndErrorsOnly(t *testing.T) {
	var b bytes.Buffer
	a := logAdapter{slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	a.Debugf("debug")
	a.Infof("info")
	a.Warningf("warning %d\n", 1)
	a.Errorf("error")
	if got := b.String(); strings.Contains(got, "debug") || strings.Contains(got, "info") || !strings.Contains(got, `level=WARN msg="warning 1"`) || !strings.Contains(got, "level=ERROR msg=error") {
		t.Fatal(got)
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "vault.key")
	k, err := LoadOrCreateKey(path, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadOrCreateKey(path, strings.NewReader("")) // needs no randomness any more
	if err != nil || again.b != k.b {
		t.Fatalf("%v", err)
	}
	if _, err := LoadOrCreateKey(filepath.Join(t.TempDir(), "k"), strings.NewReader("short")); err == nil {
		t.Fatal("a short source of randomness was taken")
	}
	good, _ := os.ReadFile(path)
	for name, bad := range map[string][]byte{
		"not a key file": []byte("0123456789"), "has 45 bytes": good[:45], "has 47 bytes": append(bytes.Clone(good), 0),
		"checksum": append(bytes.Clone(good[:45]), good[45]^1), "version 2": append([]byte("ruchekey\x00\x02"), good[10:]...),
	} {
		os.WriteFile(path, bad, 0o600)
		if _, err := LoadOrCreateKey(path, rand.Reader); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if runtime.GOOS != "windows" {
		os.WriteFile(path, good, 0o600)
		if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v", info.Mode())
		}
		os.Chmod(path, 0o640)
		if _, err := LoadOrCreateKey(path, rand.Reader); err == nil || !strings.Contains(err.Error(), "lets others read it") {
			t.Errorf("mode 0640: %v", err)
		}
	}
}

func TestKeyIsNeverPrinted(t *testing.T) {
	k := testKey(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		for _, x := range []any{k, *k, Options{Key: k}} {
			if got := fmt.Sprintf(verb, x); strings.Contains(got, "0707") || strings.Contains(got, "7 7") || strings.Contains(got, "\a\a") {
				t.Errorf("%s of %T prints %s", verb, x, got)
			}
		}
	}
}

// FuzzKeyFile: what is accepted is exactly what encoding it gives.
func FuzzKeyFile(f *testing.F) {
	f.Add(encodeKeyFile(&Key{}))
	f.Add([]byte("ruchekey\x00\x02"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := decodeKeyFile(b); err == nil && !bytes.Equal(encodeKeyFile(k), b) {
			t.Fatal("accepted another encoding")
		}
	})
}

func BenchmarkSet(b *testing.B) {
	for _, p := range []Profile{Log, Device} {
		for _, size := range []int{256, 4096} {
			b.Run(fmt.Sprintf("%v/%d", p, size), func(b *testing.B) {
				v := mustOpen(b, b.TempDir(), p)
				value, i := make([]byte, size), 0
				for b.Loop() {
					i++
					if err := v.Set(fmt.Appendf(nil, "%d", i%5000), value); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
