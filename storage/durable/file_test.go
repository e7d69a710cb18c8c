package durable

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

var errBroken = errors.New("injected")

// breakAt returns a disk whose step fails, either before it has happened or after it has.
func breakAt(step string, after bool) disk {
	d := hostDisk()
	fail := func(did error) error {
		if did != nil {
			return did
		}
		return errBroken
	}
	switch step {
	case "write":
		real := d.writeAt
		d.writeAt = func(f *os.File, p []byte, off int64) (int, error) {
			if !after {
				n, _ := real(f, p[:len(p)/2], off) // a full disk takes a part
				return n, errBroken
			}
			n, err := real(f, p, off)
			return n, fail(err)
		}
	case "sync":
		real := d.sync
		d.sync = func(f *os.File) error {
			if !after {
				return errBroken
			}
			return fail(real(f))
		}
	case "rename":
		real := d.rename
		d.rename = func(from, to string) error {
			if !after {
				return errBroken
			}
			return fail(real(from, to))
		}
	case "dirsync":
		real := d.syncDir
		d.syncDir = func(dir string) error {
			if !after {
				return errBroken
			}
			return fail(real(dir))
		}
	case "mkdir":
		real := d.mkdir
		d.mkdir = func(path string, perm fs.FileMode) error {
			if !after {
				return errBroken
			}
			return fail(real(path, perm))
		}
	case "remove":
		real := d.remove
		d.remove = func(path string) error {
			if !after {
				return errBroken
			}
			return fail(real(path))
		}
	default:
		panic("no step " + step)
	}
	return d
}

func mustWrite(t *testing.T, path, content string) {
	t.Helper()
	if err := WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWriteFileReplacesWholeContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	for _, content := range []string{"first and rather long", "second", ""} {
		mustWrite(t, path, content)
		if got := read(t, path); got != content {
			t.Fatalf("read %q, want %q", got, content)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v", info.Mode())
	}
}

func TestWriteFileTakesWhatShortWritesLeave(t *testing.T) {
	d := hostDisk()
	calls := 0
	d.writeAt = func(f *os.File, p []byte, off int64) (int, error) {
		calls++
		return f.WriteAt(p[:min(3, len(p))], off)
	}
	path := filepath.Join(t.TempDir(), "f")
	if err := d.writeFile(path, []byte("ten bytes."), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got != "ten bytes." || calls != 4 {
		t.Fatalf("read %q after %d writes", got, calls)
	}
	d.writeAt = func(*os.File, []byte, int64) (int, error) { return 0, nil }
	if err := d.writeFile(path, []byte("x"), 0o600); err == nil {
		t.Fatal("a disk that takes nothing was believed")
	}
}

// TestWriteFileFailures breaks every step before and after it happened: the file always holds the old content or the
// new one, whole, and the error says which is possible.
func TestWriteFileFailures(t *testing.T) {
	for _, c := range []struct {
		step  string
		after bool
		want  string
	}{
		{"write", false, "old"}, {"write", true, "old"},
		{"sync", false, "old"}, {"sync", true, "old"},
		{"rename", false, "old"}, {"rename", true, "new"},
		{"dirsync", false, "new"}, {"dirsync", true, "new"},
	} {
		name := c.step + map[bool]string{false: " failed and not done", true: " done and then failed"}[c.after]
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "f")
			mustWrite(t, path, "old")
			err := breakAt(c.step, c.after).writeFile(path, []byte("new"), 0o600)
			if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), path) {
				t.Fatalf("error %v", err)
			}
			if got := read(t, path); got != c.want {
				t.Fatalf("file holds %q, want %q", got, c.want)
			}
			if entries, _ := os.ReadDir(dir); len(entries) != 1 {
				t.Fatalf("left behind: %v", entries)
			}
			mustWrite(t, path, "newer") // and a retry is all it takes
			if got := read(t, path); got != "newer" {
				t.Fatalf("after the retry: %q", got)
			}
		})
	}
}

func TestRemoveTempsFindsWhatACrashLeft(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, filepath.Join(dir, "kept"), "x")
	d := breakAt("rename", false)
	d.remove = func(string) error { return errBroken } // the crash: nobody cleans up
	if err := d.writeFile(filepath.Join(dir, "f"), []byte("new"), 0o600); err == nil {
		t.Fatal("no error")
	}
	if n, err := RemoveTemps(dir); n != 1 || err != nil {
		t.Fatalf("removed %d, %v", n, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 || entries[0].Name() != "kept" {
		t.Fatalf("left: %v", entries)
	}
}

func TestMkdirAllSyncsEveryParent(t *testing.T) {
	root := t.TempDir()
	var synced []string
	d := hostDisk()
	d.syncDir = func(dir string) error {
		rel, err := filepath.Rel(root, dir)
		synced = append(synced, rel)
		if err != nil {
			return err
		}
		return syncDir(dir)
	}
	if err := d.mkdirAll(filepath.Join(root, "a", "b", "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	// First the entry of the deepest folder that existed, then of each new one.
	if got, want := strings.Join(synced, " "), ".. . a "+filepath.Join("a", "b"); got != want {
		t.Fatalf("synced %q, want %q", got, want)
	}
	mustWrite(t, filepath.Join(root, "a", "file"), "")
	if err := MkdirAll(filepath.Join(root, "a", "file"), 0o700); err == nil {
		t.Fatal("a file was taken for a folder")
	}
	for _, step := range []string{"mkdir", "dirsync"} {
		for _, after := range []bool{false, true} {
			path := filepath.Join(root, "x", step+map[bool]string{true: "-after"}[after])
			if err := breakAt(step, after).mkdirAll(path, 0o700); !errors.Is(err, errBroken) {
				t.Fatalf("%s, after=%v: error %v", step, after, err)
			}
			if err := MkdirAll(path, 0o700); err != nil {
				t.Fatalf("retry after %s: %v", step, err)
			}
		}
	}
}

func TestRemoveAndRenameReportEveryStep(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "f"), filepath.Join(dir, "g")
	for _, step := range []string{"remove", "dirsync"} {
		for _, after := range []bool{false, true} {
			mustWrite(t, path, "x")
			if err := breakAt(step, after).removeSynced(path); !errors.Is(err, errBroken) {
				t.Fatalf("remove broken at %s, after=%v: %v", step, after, err)
			}
			if err := Remove(path); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Fatal("still there")
			}
		}
	}
	for _, step := range []string{"rename", "dirsync"} {
		mustWrite(t, path, "x")
		if err := breakAt(step, false).renameSynced(path, other); !errors.Is(err, errBroken) {
			t.Fatalf("rename broken at %s: %v", step, err)
		}
	}
	mustWrite(t, path, "y")
	if err := Rename(path, other); err != nil || read(t, other) != "y" {
		t.Fatalf("rename: %v", err)
	}
}

func TestLockAdmitsOneHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(path); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) {
		t.Fatalf("second holder in this process: %v", err)
	}
	child := exec.Command(os.Args[0], "-test.run=^TestLockFromAnotherProcess$", "-test.v")
	child.Env = append(os.Environ(), "RUCHE_TEST_LOCK="+path)
	out, err := child.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("held by another process")) {
		t.Fatalf("other process: %v\n%s", err, out)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = Lock(path); err != nil {
		t.Fatalf("after Close: %v", err)
	}
	l.Close()
}

func TestLockFromAnotherProcess(t *testing.T) {
	path := os.Getenv("RUCHE_TEST_LOCK")
	if path == "" {
		return // the other half of TestLockAdmitsOneHolder
	}
	_, err := Lock(path)
	t.Log(err)
	if !errors.Is(err, ErrLocked) {
		t.Fatal("got the lock")
	}
}
