package durable

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/crypto/label"
)

func openFresh(t *testing.T) (*Records, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "votes")
	r, recs, err := OpenRecords(path, RecordsOptions{Tag: label.TagVoteFile})
	if err != nil || len(recs) != 0 {
		t.Fatalf("open: %d records, %v", len(recs), err)
	}
	t.Cleanup(func() { r.Close() })
	return r, path
}

func appendAll(t *testing.T, r *Records, recs ...string) {
	t.Helper()
	for _, rec := range recs {
		if err := r.Append([]byte(rec)); err != nil {
			t.Fatal(err)
		}
	}
}

func reopen(t *testing.T, path string) (*Records, []string) {
	t.Helper()
	r, recs, err := OpenRecords(path, RecordsOptions{Tag: label.TagVoteFile})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, texts(recs)
}

func texts(recs [][]byte) []string {
	out := make([]string, len(recs))
	for i, rec := range recs {
		out[i] = string(rec)
	}
	return out
}

func TestRecordsComeBackInOrder(t *testing.T) {
	r, path := openFresh(t)
	want := []string{"vote for round 1", "x", strings.Repeat("long", 3000), "last"}
	for i, rec := range want {
		appendAll(t, r, rec)
		// A reader in another process sees each record as soon as Append has returned.
		got, err := ReadRecords(path)
		if err != nil || len(got) != i+1 || string(got[i]) != rec {
			t.Fatalf("reader sees %d records, %v", len(got), err)
		}
	}
	head := r.Head()
	if r.Len() != len(want) {
		t.Fatalf("%d records", r.Len())
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	again, got := reopen(t, path)
	if fmt.Sprint(got) != fmt.Sprint(want) || again.Head() != head || again.Torn() != 0 {
		t.Fatalf("came back as %d records, head %v, torn %d", len(got), again.Head(), again.Torn())
	}
	if err := r.Append([]byte("x")); !errors.Is(err, fs.ErrClosed) {
		t.Fatalf("append after Close: %v", err)
	}
}

func TestRecordsHaveOneWriterAndOneTag(t *testing.T) {
	r, path := openFresh(t)
	if _, _, err := OpenRecords(path, RecordsOptions{Tag: label.TagVoteFile}); !errors.Is(err, ErrLocked) {
		t.Fatalf("second writer: %v", err)
	}
	r.Close()
	if _, _, err := OpenRecords(path, RecordsOptions{Tag: label.TagEpochFile}); err == nil || !strings.Contains(err.Error(), `holds "votes" records, not "epoch"`) {
		t.Fatalf("other tag: %v", err)
	}
}

func TestRecordBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r")
	if _, _, err := OpenRecords(path, RecordsOptions{MaxRecord: MaxRecord + 1}); err == nil {
		t.Fatal("a bound above the limit was taken")
	}
	if _, _, err := OpenRecords(path, RecordsOptions{Tag: strings.Repeat("t", 33)}); err == nil {
		t.Fatal("a long tag was taken")
	}
	r, _, err := OpenRecords(path, RecordsOptions{MaxRecord: 10})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Append(make([]byte, 11)); err == nil || !strings.Contains(err.Error(), "record has 11 bytes, limit 10") {
		t.Fatalf("too long: %v", err)
	}
	if err := r.Append(nil); err == nil {
		t.Fatal("an empty record was taken")
	}
	if err := r.Append(make([]byte, 10)); err != nil {
		t.Fatalf("a refused record must cost nothing: %v", err)
	}
	r.Close()
	var corrupt *CorruptError
	if _, _, err := OpenRecords(path, RecordsOptions{MaxRecord: 9}); !errors.As(err, &corrupt) {
		t.Fatalf("a record above the bound: %v", err)
	}
}

// TestTornTailIsCutOff cuts the file at every byte of its last record: all records before it come back, the piece is
// reported, and appending goes on.
func TestTornTailIsCutOff(t *testing.T) {
	r, path := openFresh(t)
	appendAll(t, r, "one", "two")
	before := r.end
	appendAll(t, r, strings.Repeat("three", 10))
	r.Close()
	whole := []byte(read(t, path))
	for cut := int(before); cut < len(whole); cut++ {
		p := filepath.Join(t.TempDir(), "votes")
		if err := os.WriteFile(p, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadRecords(p); err != nil || len(got) != 2 {
			t.Fatalf("cut at %d: reader sees %d, %v", cut, len(got), err)
		}
		r, got := reopen(t, p)
		if fmt.Sprint(got) != "[one two]" || r.Torn() != int64(cut)-before {
			t.Fatalf("cut at %d: %v, torn %d", cut, got, r.Torn())
		}
		appendAll(t, r, "four")
		r.Close()
		if r, got := reopen(t, p); fmt.Sprint(got) != "[one two four]" || r.Torn() != 0 {
			t.Fatalf("cut at %d, after an append: %v", cut, got)
		}
	}
}

// TestSectorThatNeverArrivedIsATornTail: the size of the file can reach the disk before all of its sectors do.
func TestSectorThatNeverArrivedIsATornTail(t *testing.T) {
	r, path := openFresh(t)
	appendAll(t, r, "one")
	start := int(r.end)
	appendAll(t, r, strings.Repeat("r", 3*sector))
	r.Close()
	whole := []byte(read(t, path))
	for at := start; at < len(whole); at += sector - at%sector {
		lost := bytes.Clone(whole)
		clear(lost[at:min(at+sector-at%sector, len(lost))])
		if err := os.WriteFile(path, lost, 0o600); err != nil {
			t.Fatal(err)
		}
		r, got := reopen(t, path)
		if fmt.Sprint(got) != "[one]" || r.Torn() == 0 {
			t.Fatalf("lost sector at %d: %d records, torn %d", at, len(got), r.Torn())
		}
		r.Close()
	}
}

// TestAnyFlippedBitIsFound: no bit of the file, the last record included, can change without *CorruptError or, in the
// version field, *VersionError. The file is left as it is.
func TestAnyFlippedBitIsFound(t *testing.T) {
	r, path := openFresh(t)
	appendAll(t, r, "one", "a second record of some length", "the last one")
	r.Close()
	whole := []byte(read(t, path))
	for i := range whole {
		for bit := range 8 {
			bad := bytes.Clone(whole)
			bad[i] ^= 1 << bit
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			var corrupt *CorruptError
			var version *VersionError
			_, _, err := OpenRecords(path, RecordsOptions{Tag: label.TagVoteFile})
			if !errors.As(err, &corrupt) && !(errors.As(err, &version) && (i == 8 || i == 9)) {
				t.Fatalf("byte %d bit %d: %v", i, bit, err)
			}
			if !strings.Contains(err.Error(), path) {
				t.Fatalf("error does not name the file: %v", err)
			}
			if got := []byte(read(t, path)); !bytes.Equal(got, bad) {
				t.Fatal("a damaged file was changed")
			}
		}
	}
}

// TestRemovedOrSwappedRecordsAreFound: whole frames that move keep their checksums; the chain tells.
func TestRemovedOrSwappedRecordsAreFound(t *testing.T) {
	r, path := openFresh(t)
	ends := []int64{r.end}
	for _, rec := range []string{"aaa", "bbb", "ccc"} {
		appendAll(t, r, rec)
		ends = append(ends, r.end)
	}
	r.Close()
	b := []byte(read(t, path))
	head, f1, f2, f3 := b[:ends[0]], b[ends[0]:ends[1]], b[ends[1]:ends[2]], b[ends[2]:]
	for name, parts := range map[string][][]byte{
		"first removed": {head, f2, f3}, "middle removed": {head, f1, f3}, "swapped": {head, f2, f1, f3}, "repeated": {head, f1, f1},
	} {
		var corrupt *CorruptError
		if _, err := parse(bytes.Join(parts, nil), MaxRecord); !errors.As(err, &corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNextVersionIsRefused(t *testing.T) {
	b := encodeHeader(label.TagRecord)
	b[9]++
	path := filepath.Join(t.TempDir(), "r")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	var version *VersionError
	if _, _, err := OpenRecords(path, RecordsOptions{}); !errors.As(err, &version) || version.Got != 2 || version.Path != path {
		t.Fatalf("version 2: %v", err)
	}
}

// TestGoldenEncoding holds the stored form of version 1.
func TestGoldenEncoding(t *testing.T) {
	header := encodeHeader(label.TagRecord)
	frame, head := encodeFrame(label.TagRecord, label.Sum(label.TagRecord, header), []byte("golden"))
	const want = "7275636872656373000100067265636f72640000000000000000000000000000000000000000000000000000def8e554" + // header
		"00000006064f299a676f6c64656e0000" + // length, its checksum, the record and its padding
		"2b475ef6be639a3e755ed16bc7e0d2b76e4b9ab385314493bc232420a45bd38e" // head
	if got := hex.EncodeToString(append(header, frame...)); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	if hex.EncodeToString(frame[len(frame)-32:]) != head.String() {
		t.Fatal("a frame ends with its head")
	}
}

// TestAppendFailures breaks every step of Append: it reports it, refuses everything after, and opening the file again
// gives the acknowledged records and at most the one in question.
func TestAppendFailures(t *testing.T) {
	for _, c := range []struct {
		step  string
		after bool
		want  string
	}{
		{"write", false, "[one]"}, {"write", true, "[one two]"},
		{"sync", false, "[one two]"}, {"sync", true, "[one two]"},
	} {
		r, path := openFresh(t)
		appendAll(t, r, "one")
		head := r.Head()
		r.disk = breakAt(c.step, c.after)
		if err := r.Append([]byte("two")); !errors.Is(err, errBroken) {
			t.Fatalf("%v: %v", c, err)
		}
		r.disk = hostDisk()
		if err := r.Append([]byte("three")); !errors.Is(err, errBroken) {
			t.Fatalf("%v: an append after a failure went through: %v", c, err)
		}
		if r.Head() != head || r.Len() != 1 {
			t.Fatalf("%v: the failed record counts", c)
		}
		r.Close()
		if _, got := reopen(t, path); fmt.Sprint(got) != c.want {
			t.Fatalf("%v: came back as %v, want %s", c, got, c.want)
		}
	}
	r, _ := openFresh(t)
	r.disk.writeAt = func(f *os.File, p []byte, off int64) (int, error) { // a disk that writes something else
		return f.WriteAt(bytes.Repeat([]byte{'x'}, len(p)), off)
	}
	if err := r.Append([]byte("one")); err == nil || !strings.Contains(err.Error(), "read back") {
		t.Fatalf("other bytes: %v", err)
	}
}

// TestOpenWritesTheLastRecordAgain: after a failed fsync the pages may be clean and lost; opening must bring them to
// the disk before it reports the record.
func TestOpenWritesTheLastRecordAgain(t *testing.T) {
	r, path := openFresh(t)
	appendAll(t, r, "one")
	start := r.end
	appendAll(t, r, "two")
	r.Close()
	var steps []string
	d := hostDisk()
	d.writeAt = func(f *os.File, p []byte, off int64) (int, error) {
		steps = append(steps, fmt.Sprintf("write %d at %d", len(p), off-start))
		return f.WriteAt(p, off)
	}
	d.sync = func(f *os.File) error { steps = append(steps, "fsync"); return f.Sync() }
	d.syncDir = func(dir string) error { steps = append(steps, "fsync folder"); return syncDir(dir) }
	again, _, err := d.openRecords(path, RecordsOptions{Tag: label.TagVoteFile})
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if got := strings.Join(steps, ", "); got != "write 48 at 0, fsync, fsync folder" {
		t.Fatalf("opening did: %s", got)
	}
	for _, step := range []string{"write", "sync", "dirsync"} {
		if _, _, err := breakAt(step, false).openRecords(path, RecordsOptions{Tag: label.TagVoteFile}); !errors.Is(err, errBroken) {
			t.Fatalf("open with a broken %s: %v", step, err)
		}
	}
}

func TestCreationFailuresLeaveNoHalfFile(t *testing.T) {
	for _, step := range []string{"write", "sync", "rename", "dirsync"} {
		path := filepath.Join(t.TempDir(), "votes")
		if _, _, err := breakAt(step, false).openRecords(path, RecordsOptions{}); !errors.Is(err, errBroken) {
			t.Fatalf("%s: %v", step, err)
		}
		r, recs, err := OpenRecords(path, RecordsOptions{})
		if err != nil || len(recs) != 0 {
			t.Fatalf("after a broken %s: %d records, %v", step, len(recs), err)
		}
		r.Close()
	}
}

// FuzzParse: no input panics, and what is accepted is exactly what encoding the records gives, up to a torn tail.
func FuzzParse(f *testing.F) {
	header := encodeHeader(label.TagRecord)
	one, head := encodeFrame(label.TagRecord, label.Sum(label.TagRecord, header), []byte("one"))
	two, _ := encodeFrame(label.TagRecord, head, make([]byte, 600))
	f.Add(header)
	f.Add(bytes.Join([][]byte{header, one}, nil))
	f.Add(bytes.Join([][]byte{header, one, two}, nil))
	f.Add(bytes.Join([][]byte{header, one, two[:300]}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parse(b, 4096)
		if err != nil {
			return
		}
		want := encodeHeader(s.tag)
		prev := label.Sum(s.tag, want)
		for _, rec := range s.records {
			var frame []byte
			frame, prev = encodeFrame(s.tag, prev, rec)
			want = append(want, frame...)
		}
		if !bytes.Equal(b[:s.end], want) || prev != s.head || s.end+s.torn != len(b) {
			t.Fatalf("accepted bytes are not the encoding of their records")
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	r, _, err := OpenRecords(filepath.Join(b.TempDir(), "r"), RecordsOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	rec := make([]byte, 128)
	for b.Loop() {
		if err := r.Append(rec); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteFile(b *testing.B) {
	path := filepath.Join(b.TempDir(), "f")
	data := make([]byte, 4096)
	for b.Loop() {
		if err := WriteFile(path, data, 0o600); err != nil {
			b.Fatal(err)
		}
	}
}
