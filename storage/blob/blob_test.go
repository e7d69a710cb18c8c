package blob

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
)

const tag = label.TagContribution

var errBroken = errors.New("injected")

func mustOpen(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func content(n int) ([]byte, label.Hash) {
	b := bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n]
	return b, label.Sum(tag, b)
}

func mustCreate(t testing.TB, s *Store, group string, digest label.Hash, size int) *Writer {
	t.Helper()
	w, err := s.Create(group, digest, tag, int64(size))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func mustWrite(t testing.TB, w *Writer, p []byte) {
	t.Helper()
	if n, err := w.Write(p); err != nil || n != len(p) {
		t.Fatalf("wrote %d: %v", n, err)
	}
}

func wantBlob(t testing.TB, s *Store, group string, b []byte, digest label.Hash) {
	t.Helper()
	got, err := s.Read(group, digest, tag)
	if err != nil || !bytes.Equal(got, b) || !s.Has(group, digest) {
		t.Fatalf("blob of %d bytes: read %d, %v", len(b), len(got), err)
	}
}

func files(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		name := e.Name()
		if len(name) > 64 {
			name = "blob" + name[64:]
		} else if len(name) == 64 {
			name = "blob"
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

// TestUploadResumes follows one contribution: begun, cut off, gone on with by another process, complete.
func TestUploadResumes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blobs")
	s := mustOpen(t, dir)
	b, digest := content(700_000)
	w := mustCreate(t, s, "round-1", digest, len(b))
	mustWrite(t, w, b[:300_000])
	if _, err := s.Create("round-1", digest, tag, int64(len(b))); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), digest.String()) {
		t.Fatalf("second writer: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if s.Has("round-1", digest) {
		t.Fatal("half a blob is there")
	}
	if _, err := w.Write(b); !errors.Is(err, fs.ErrClosed) {
		t.Fatalf("write after Close: %v", err)
	}
	s.Close()
	s = mustOpen(t, dir)
	w = mustCreate(t, s, "round-1", digest, len(b))
	if w.Offset() != 300_000 {
		t.Fatalf("resumes at %d", w.Offset())
	}
	if err := w.Commit(); err == nil || !strings.Contains(err.Error(), "has 300000 bytes, declared size 700000") {
		t.Fatalf("early commit: %v", err)
	}
	w = mustCreate(t, s, "round-1", digest, len(b)) // and nothing is lost by it
	mustWrite(t, w, b[w.Offset():])
	if _, err := w.Write([]byte("x")); err == nil || !strings.Contains(err.Error(), "pass the declared size") {
		t.Fatalf("too much: %v", err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	wantBlob(t, s, "round-1", b, digest)
	if _, err := s.Create("round-1", digest, tag, int64(len(b))); !errors.Is(err, ErrExists) {
		t.Fatalf("again: %v", err)
	}
	if err := w.Commit(); !errors.Is(err, fs.ErrClosed) {
		t.Fatalf("commit twice: %v", err)
	}
	f, size, err := s.Open("round-1", digest)
	if err != nil || size != int64(len(b)) {
		t.Fatalf("%d, %v", size, err)
	}
	defer f.Close()
	f.Seek(1000, io.SeekStart)
	if rest, err := io.ReadAll(f); err != nil || !bytes.Equal(rest, b[1000:]) {
		t.Fatalf("from an offset: %v", err)
	}
	if got := files(t, filepath.Join(dir, "round-1")); got != "blob" {
		t.Fatalf("folder holds %s", got)
	}
}

// TestChecksum: however a blob is cut, written or resumed, its Writer's checksum is the CRC32C of its bytes.
func TestChecksum(t *testing.T) {
	data := make([]byte, 3*bufferSize+77)
	rand.NewChaCha8([32]byte{1}).Read(data)
	want := crc32.Checksum(data, castagnoli)
	digest := label.Sum(label.TagContribution, data)
	for _, cuts := range [][]int{{}, {bufferSize, 2 * bufferSize, 3 * bufferSize}, {1}, {bufferSize - 1, 2*bufferSize - 1}, {bufferSize, 2*bufferSize + 5, 3*bufferSize + 5}, {10, bufferSize + 10}} {
		for _, resumed := range []bool{false, true} {
			s, err := Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			w, err := s.Create("g", digest, label.TagContribution, int64(len(data)))
			if err != nil {
				t.Fatal(err)
			}
			at := 0
			for _, cut := range append(cuts, len(data)) {
				if _, err := w.WriteSummed(data[at:cut], crc32.Checksum(data[at:cut], castagnoli)); err != nil {
					t.Fatal(err)
				}
				if at = cut; !resumed || at == len(data) {
					continue
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				if w, err = s.Create("g", digest, label.TagContribution, int64(len(data))); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Commit(); err != nil {
				t.Fatal(err)
			}
			if w.Checksum() != want {
				t.Errorf("cut at %v, resumed %v: %08x, want %08x", cuts, resumed, w.Checksum(), want)
			}
			s.Close()
		}
	}
}

func TestPutListRemove(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	want := map[label.Hash]int{}
	for _, n := range []int{0, 1, 5000} {
		b, digest := content(n)
		for range 2 { // twice is fine
			if err := s.Put("results", digest, tag, b); err != nil {
				t.Fatal(err)
			}
		}
		wantBlob(t, s, "results", b, digest)
		want[digest] = n
	}
	b, digest := content(10)
	if err := s.Put("results", digest, tag, b[:9]); !errors.As(err, new(*DigestError)) {
		t.Fatalf("wrong digest: %v", err)
	}
	w := mustCreate(t, s, "results", digest, 10) // a part is not listed
	list, err := s.List("results")
	if err != nil || len(list) != len(want) {
		t.Fatalf("%v, %v", list, err)
	}
	for i, info := range list {
		if int64(want[info.Digest]) != info.Size || i > 0 && list[i-1].Digest.String() >= info.Digest.String() {
			t.Errorf("%v", info)
		}
	}
	if err := s.Put("results", digest, tag, b); !errors.Is(err, ErrBusy) {
		t.Fatalf("put over a writer: %v", err)
	}
	w.Close()
	if err := s.Put("results", digest, tag, b); err != nil { // over a part
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Remove("results", digest); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Read("results", digest, tag); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("removed: %v", err)
	}
	if groups, err := s.Groups(); err != nil || fmt.Sprint(groups) != "[results]" {
		t.Fatalf("%v, %v", groups, err)
	}
	for range 2 {
		if err := s.RemoveGroup("results"); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := s.List("results"); err != nil || len(list) != 0 {
		t.Fatalf("%v, %v", list, err)
	}
	if got := files(t, dir); got != "lock" {
		t.Fatalf("folder holds %s", got)
	}
}

func TestInterruptedRemovalIsFinishedByOpen(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	b, digest := content(100)
	if err := s.Put("round-1", digest, tag, b); err != nil {
		t.Fatal(err)
	}
	s.sys.syncDir = func(string) error { return errBroken }
	if err := s.RemoveGroup("round-1"); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	s.Close()
	s = mustOpen(t, dir)
	if got := files(t, dir); got != "lock" {
		t.Fatalf("folder holds %s", got)
	}
	s.sys.rename = func(string, string) error { return errBroken }
	if err := s.RemoveGroup("round-1"); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
}

func TestOneProcessPerStore(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir)
	if _, err := Open(dir); !errors.Is(err, durable.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Fatal(err)
	}
}

func TestNamesAndSizesAreChecked(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	_, digest := content(1)
	for _, group := range []string{"", ".", "..", "../x", "a/b", "a\\b", ".gone-x", "lock", "A", "a.", "-a", "a b", "a\x00", strings.Repeat("a", maxGroup+1)} {
		if _, err := s.Create(group, digest, tag, 1); err == nil {
			t.Errorf("group %q was taken", group)
		}
		if err := s.RemoveGroup(group); err == nil {
			t.Errorf("group %q was removed", group)
		}
	}
	for _, size := range []int64{-1, MaxSize + 1} {
		if _, err := s.Create("g", digest, tag, size); err == nil || !strings.Contains(err.Error(), "declared size") {
			t.Errorf("size %d: %v", size, err)
		}
	}
}

// TestWrongContentIsDropped: a lying or broken device gets *DigestError, keeps no space, and may start again.
func TestWrongContentIsDropped(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	b, digest := content(1000)
	w := mustCreate(t, s, "g", digest, len(b))
	mustWrite(t, w, bytes.Repeat([]byte("x"), len(b)))
	var wrong *DigestError
	if err := w.Commit(); !errors.As(err, &wrong) || wrong.Want != digest {
		t.Fatal(err)
	}
	if got := files(t, filepath.Join(dir, "g")); got != "" || s.Has("g", digest) {
		t.Fatalf("folder holds %q", got)
	}
	if err := s.Put("g", digest, tag, b); err != nil {
		t.Fatal(err)
	}
	// The other tag is another digest.
	if _, err := s.Read("g", digest, label.TagHeader); !errors.As(err, &wrong) {
		t.Fatalf("other tag: %v", err)
	}
}

// TestRottenBlobIsSetAside: damage is found at reading, the blob is not there any more, and can be fetched again.
func TestRottenBlobIsSetAside(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	b, digest := content(1000)
	path := filepath.Join(dir, "g", digest.String())
	rot := func() {
		t.Helper()
		bad := bytes.Clone(b)
		bad[500] ^= 1
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Put("g", digest, tag, b); err != nil {
		t.Fatal(err)
	}
	rot()
	var wrong *DigestError
	if _, err := s.Read("g", digest, tag); !errors.As(err, &wrong) || s.Has("g", digest) {
		t.Fatalf("%v", err)
	}
	if got := files(t, filepath.Join(dir, "g")); got != "blob.bad" {
		t.Fatalf("folder holds %q", got)
	}
	w := mustCreate(t, s, "g", digest, len(b))
	mustWrite(t, w, b)
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	rot()
	if err := s.Put("g", digest, tag, b); err != nil { // Put notices by itself
		t.Fatal(err)
	}
	wantBlob(t, s, "g", b, digest)
	// Where it cannot be set aside, the error says both.
	rot()
	s.sys.rename = func(string, string) error { return errBroken }
	if _, err := s.Read("g", digest, tag); !errors.As(err, &wrong) || !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	if err := s.Put("g", digest, tag, b); !errors.As(err, &wrong) {
		t.Fatal(err)
	}
}

// TestOneRottenBlobIsKept: of all that rots in a group the last one is kept, also where many are found at once; what was
// found in another group stays.
func TestOneRottenBlobIsKept(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	rotten := func(group string, n int) label.Hash {
		t.Helper()
		b, digest := content(n)
		if err := s.Put(group, digest, tag, b); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		if err := os.WriteFile(filepath.Join(dir, group, digest.String()), b, 0o600); err != nil {
			t.Fatal(err)
		}
		return digest
	}
	found := func(group string, digest label.Hash) {
		t.Helper()
		if _, err := s.Read(group, digest, tag); !errors.As(err, new(*DigestError)) || s.Has(group, digest) {
			t.Errorf("read: %v", err)
		}
	}
	other := rotten("other", 100)
	found("other", other)
	var last label.Hash
	for n := range 5 {
		last = rotten("g", 200+n)
		found("g", last)
	}
	for group, digest := range map[string]label.Hash{"g": last, "other": other} {
		if list, err := filepath.Glob(filepath.Join(dir, group, "*")); err != nil || len(list) != 1 || filepath.Base(list[0]) != digest.String()+badSuffix {
			t.Errorf("%s: %v, %v", group, list, err)
		}
	}
	var all sync.WaitGroup
	for n := range 8 {
		digest := rotten("g", 300+n)
		all.Go(func() { found("g", digest) })
	}
	all.Wait()
	if list, err := os.ReadDir(filepath.Join(dir, "g")); err != nil || len(list) != 1 {
		t.Errorf("%d files, %v", len(list), err)
	}
}

// TestEveryStepOfCommitCanFail: a blob that Commit did not acknowledge is not there, now and after a restart, and the
// upload can be brought to its end.
func TestEveryStepOfCommitCanFail(t *testing.T) {
	b, digest := content(5000)
	for _, c := range []struct {
		name   string
		broken func(*system)
		part   bool // whether the part is kept
	}{
		{"write, a part done", func(y *system) {
			y.writeAt = func(f *os.File, p []byte, off int64) (int, error) {
				n, _ := f.WriteAt(p[:len(p)/2], off)
				return n, errBroken
			}
		}, true},
		{"write, done", func(y *system) {
			y.writeAt = func(f *os.File, p []byte, off int64) (int, error) { n, _ := f.WriteAt(p, off); return n, errBroken }
		}, true},
		{"fsync, not done", func(y *system) { y.sync = func(*os.File) error { return errBroken } }, false},
		{"fsync, done", func(y *system) { y.sync = func(f *os.File) error { f.Sync(); return errBroken } }, false},
		{"rename, not done", func(y *system) { y.rename = func(string, string) error { return errBroken } }, true},
		{"folder fsync, not done", func(y *system) { y.syncDir = func(string) error { return errBroken } }, true},
		{"folder fsync, done", func(y *system) { y.syncDir = func(d string) error { durable.SyncDir(d); return errBroken } }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, dir)
			w := mustCreate(t, s, "g", digest, len(b))
			c.broken(&s.sys)
			w.Write(b)
			if err := w.Commit(); !errors.Is(err, errBroken) {
				t.Fatalf("commit: %v", err)
			}
			list, err := s.List("g")
			if s.Has("g", digest) || len(list) != 0 || err != nil {
				t.Fatal("an unacknowledged blob is there")
			}
			if got := files(t, filepath.Join(dir, "g")); (got == "blob.part") != c.part || got != "" && !c.part {
				t.Fatalf("folder holds %q", got)
			}
			s.Close()
			s = mustOpen(t, dir)
			if s.Has("g", digest) {
				t.Fatal("there after a restart")
			}
			w = mustCreate(t, s, "g", digest, len(b))
			mustWrite(t, w, b[w.Offset():])
			if err := w.Commit(); err != nil {
				t.Fatal(err)
			}
			wantBlob(t, s, "g", b, digest)
		})
	}
}

// TestCrashBetweenRenameAndFolderSync: the process dies after the rename. The next one sees the name and must not rely
// on it before the folder is synced.
func TestCrashBetweenRenameAndFolderSync(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	b, digest := content(5000)
	w := mustCreate(t, s, "g", digest, len(b))
	mustWrite(t, w, b)
	s.sys.syncDir = func(string) error {
		if s.Has("g", digest) {
			t.Error("the blob is there before its folder is synced")
		}
		if _, _, err := s.Open("g", digest); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open before the folder is synced: %v", err)
		}
		if list, _ := s.List("g"); len(list) != 0 {
			t.Error("listed before its folder is synced")
		}
		s.sys.rename = func(string, string) error { return errBroken } // dead: the name is not taken back
		return errBroken
	}
	if err := w.Commit(); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	// A process that lives on with uncertain names shows and takes nothing.
	if s.Has("g", digest) {
		t.Fatal("there")
	}
	if _, err := s.Create("g", label.Hash{}, tag, 1); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	if _, err := s.List("g"); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	if err := s.Err(); !errors.As(err, new(*durable.BrokenError)) {
		t.Fatalf("it is not told: %v", err)
	}
	s.Close()

	sys, synced := hostSystem(), []string{}
	sys.syncDir = func(d string) error { synced = append(synced, filepath.Base(d)); return durable.SyncDir(d) }
	s, err := open(dir, sys)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(synced, " ") != "g "+filepath.Base(dir) {
		t.Fatalf("opening synced %v", synced)
	}
	wantBlob(t, s, "g", b, digest)
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	s.Close()
	sys.syncDir = func(string) error { return errBroken }
	if _, err := open(dir, sys); !errors.Is(err, errBroken) {
		t.Fatalf("open without a sync: %v", err)
	}
}

func TestPartsExpire(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	now := time.Now()
	var digests []label.Hash
	for i := range 3 {
		b, digest := content(100 + i)
		w := mustCreate(t, s, fmt.Sprintf("g%d", i), digest, len(b))
		mustWrite(t, w, b[:50])
		if i != 2 {
			w.Close()
		} // the third is still being written
		digests = append(digests, digest)
	}
	old, _ := s.path("g0", digests[0])
	if err := os.Chtimes(old+partSuffix, now, now.Add(-2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	b, digest := content(7)
	if err := s.Put("g0", digest, tag, b); err != nil {
		t.Fatal(err)
	}
	if n, err := s.ExpireParts(now, time.Hour); n != 1 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if n, err := s.ExpireParts(now.Add(2*time.Hour), time.Hour); n != 1 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	wantBlob(t, s, "g0", b, digest)
	for i, want := range []int64{0, 0} {
		w := mustCreate(t, s, fmt.Sprintf("g%d", i), digests[i], 100+i)
		if w.Offset() != want {
			t.Errorf("part %d goes on at %d", i, w.Offset())
		}
		w.Abort()
	}
}

// TestFullDisk uses a real file system of 1 MiB: too large an upload is refused before its first byte, and what was
// there stays.
func TestFullDisk(t *testing.T) {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("needs root on Linux to mount a small file system")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("mounting a small file system is not permitted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	s, err := Open(filepath.Join(dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	small, smallDigest := content(200_000)
	if err := s.Put("g", smallDigest, tag, small); err != nil {
		t.Fatal(err)
	}
	half, halfDigest := content(400_000)
	w := mustCreate(t, s, "g", halfDigest, len(half))
	mustWrite(t, w, half[:100_000])
	large, largeDigest := content(600_000)
	var full *FullError
	if _, err := s.Create("g", largeDigest, tag, int64(len(large))); !errors.As(err, &full) || full.Need != 600_000 || full.Available == 0 || full.Available >= 600_000 || !strings.Contains(err.Error(), largeDigest.String()) {
		t.Fatalf("too large: %v", err)
	}
	if got := files(t, filepath.Join(dir, "blobs", "g")); strings.Count(got, "part") != 1 {
		t.Fatalf("a refused upload left something: %s", got)
	}
	if err := s.Put("g", largeDigest, tag, large); !errors.As(err, &full) {
		t.Fatalf("put: %v", err)
	}
	// The upload in progress has its room, whatever others take.
	if err := os.WriteFile(filepath.Join(dir, "greedy"), make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	mustWrite(t, w, half[100_000:])
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	wantBlob(t, s, "g", half, halfDigest)
	wantBlob(t, s, "g", small, smallDigest)
	// With room again the refused one goes through.
	os.Remove(filepath.Join(dir, "greedy"))
	if err := s.Remove("g", halfDigest); err != nil {
		t.Fatal(err)
	}
	if err := s.Put("g", largeDigest, tag, large); err != nil {
		t.Fatal(err)
	}
}

// TestFullDiskWithoutFallocate: other systems look at the free space.
func TestFullDiskWithoutFallocate(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	b, digest := content(1000)
	free := uint64(999)
	s.sys.reserve = func(*os.File, int64) error { return errors.ErrUnsupported }
	s.sys.free = func(string) (uint64, error) { return free, nil }
	var full *FullError
	if _, err := s.Create("g", digest, tag, 1000); !errors.As(err, &full) || full.Available != 999 {
		t.Fatal(err)
	}
	free = 1000
	w := mustCreate(t, s, "g", digest, 1000)
	mustWrite(t, w, b[:600])
	w.Close()
	free = 300
	if _, err := s.Create("g", digest, tag, 1000); !errors.As(err, &full) || full.Need != 400 {
		t.Fatalf("resumed: %v", err)
	}
	free = 400 // the part was kept
	w = mustCreate(t, s, "g", digest, 1000)
	if w.Offset() != 600 {
		t.Fatalf("offset %d", w.Offset())
	}
	w.Abort()
	s.sys.reserve = func(*os.File, int64) error { return errBroken }
	if _, err := s.Create("g", digest, tag, 1000); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
}

// TestManyTogetherLeaveRoom: of many that begin at once none takes what another has looked at as free.
func TestManyTogetherLeaveRoom(t *testing.T) {
	const size, leave = 1000, 5500
	s := mustOpen(t, t.TempDir())
	var mu sync.Mutex
	free := uint64(10_200)
	s.sys.free = func(string) (uint64, error) {
		mu.Lock()
		defer mu.Unlock()
		return free, nil
	}
	s.sys.reserve = func(*os.File, int64) error {
		time.Sleep(time.Millisecond) // for the others to look
		mu.Lock()
		defer mu.Unlock()
		free -= size
		return nil
	}
	var wg sync.WaitGroup
	var begun, refused atomic.Int32
	for i := range 16 {
		wg.Go(func() {
			w, err := s.CreateLeaving(leave, "g", label.Hash{byte(i)}, tag, size)
			if errors.As(err, new(*FullError)) {
				refused.Add(1)
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			begun.Add(1)
			if err := w.Abort(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if begun.Load() != 4 || refused.Load() != 12 || free < leave {
		t.Fatalf("%d begun, %d refused, %d bytes are free", begun.Load(), refused.Load(), free)
	}
	b, digest := content(size)
	var full *FullError
	if err := s.PutLeaving(leave, "g", digest, tag, b); !errors.As(err, &full) || full.Need != size || full.Available != 700 {
		t.Errorf("put: %v", err)
	}
	if err := s.PutLeaving(leave-300, "g", digest, tag, b); err != nil {
		t.Error(err)
	}
	if _, err := s.CreateLeaving(1<<63, "g", label.Hash{99}, tag, size); !errors.As(err, &full) || full.Available != 0 {
		t.Errorf("more than there is: %v", err)
	}
	if got := files(t, filepath.Join(s.dir, "g")); got != "blob" {
		t.Errorf("left: %s", got)
	}
}

// FuzzGroup: an accepted name stays one element below the store.
func FuzzGroup(f *testing.F) {
	for _, g := range []string{"round-1", "..", "a/b", "lock", "con", "0f"} {
		f.Add(g)
	}
	f.Fuzz(func(t *testing.T, g string) {
		if checkGroup(g) == nil && (!filepath.IsLocal(g) || filepath.Base(g) != g || strings.ContainsAny(g, `/\:`) || strings.HasPrefix(g, ".")) {
			t.Fatalf("%q was accepted", g)
		}
	})
}

func BenchmarkUpload(b *testing.B) {
	for _, size := range []int{400 << 10, 4 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s := mustOpen(b, b.TempDir())
			data, _ := content(size)
			b.SetBytes(int64(size))
			i := 0
			for b.Loop() {
				i++
				data[0], data[1], data[2] = byte(i), byte(i>>8), byte(i>>16)
				digest := label.Sum(tag, data)
				w := mustCreate(b, s, "g", digest, size)
				for rest := data; len(rest) > 0; {
					n := min(len(rest), 256<<10)
					mustWrite(b, w, rest[:n])
					rest = rest[n:]
				}
				if err := w.Commit(); err != nil {
					b.Fatal(err)
				}
				if err := s.Remove("g", digest); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
