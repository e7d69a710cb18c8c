package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/vault"
)

var noon = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testKey(t testing.TB) *vault.Key {
	t.Helper()
	k, err := vault.NewKey(bytes.NewReader(bytes.Repeat([]byte{7}, 64)))
	must(t, err)
	return k
}

func open(t testing.TB, dir string) *Journal {
	t.Helper()
	j, err := Open(Options{Dir: dir, Key: testKey(t), Now: func() time.Time { return noon }})
	must(t, err)
	t.Cleanup(func() { j.Close() })
	return j
}

func lines(user string, texts ...string) string {
	var b strings.Builder
	for _, text := range texts {
		line, _ := json.Marshal(map[string]string{"user": user, "text": text})
		b.Write(append(line, '\n'))
	}
	return b.String()
}

func numbered(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("sentence number %d", i)
	}
	return out
}

func TestWhatWasImportedIsThereAfterReopening(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	done, err := j.Import(t.Context(), strings.NewReader(lines("amelie", "one", "two")+"\n"+lines("amelie", "three")), "")
	must(t, err)
	if done != (Imported{User: "amelie", Lines: 3, Added: 3}) {
		t.Fatalf("import said %+v", done)
	}
	must(t, j.Close())
	j = open(t, dir)
	var got []Record
	must(t, j.Records(All, func(r Record) error { got = append(got, r); return nil }))
	if len(got) != 3 || got[2] != (Record{Seq: 2, User: "amelie", Text: "three", ImportedAt: noon}) {
		t.Fatalf("%d records came back, the last is not the third", len(got))
	}
}

func TestExactRepeatsAreKeptOnce(t *testing.T) {
	j := open(t, t.TempDir())
	first, err := j.Import(t.Context(), strings.NewReader(lines("a", "x", "y", "x")), "")
	must(t, err)
	if first.Added != 2 || first.Repeats != 1 {
		t.Fatalf("import said %+v", first)
	}
	second, err := j.Import(t.Context(), strings.NewReader(lines("a", "y", "z", "x", "y ")), "a")
	must(t, err)
	if second.Added != 2 || second.Repeats != 2 {
		t.Fatalf("second import said %+v", second)
	}
	texts, err := j.Texts(All)
	must(t, err)
	if strings.Join(texts, "|") != "x|y|z|y " {
		t.Fatalf("kept %q", texts)
	}
}

func TestWhoseRecordsAreTaken(t *testing.T) {
	two := lines("amelie", "prune") + lines("ben", "quince", "quince again")
	for _, c := range []struct {
		name, file, user string
		want             Imported
		asked            string // of the refusal
		users            int
	}{
		{name: "the only user is implied", file: lines("ben", "a"), want: Imported{User: "ben", Lines: 1, Added: 1}},
		{name: "the only user may be named", file: lines("ben", "a"), user: "ben", want: Imported{User: "ben", Lines: 1, Added: 1}},
		{name: "one of two", file: two, user: "ben", want: Imported{User: "ben", Lines: 3, Others: 1, Added: 2}},
		{name: "two, none named", file: two, users: 2},
		{name: "a stranger", file: two, user: "carl", asked: "carl", users: 2},
		{name: "names are exact", file: two, user: "Ben", asked: "Ben", users: 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := open(t, t.TempDir())
			got, err := j.Import(t.Context(), strings.NewReader(c.file), c.user)
			if c.users > 0 {
				var refusal *UserError
				if !errors.As(err, &refusal) || refusal.Users != c.users || refusal.Asked != c.asked {
					t.Fatalf("got %v", err)
				}
				for _, secret := range []string{"amelie", "ben", "prune", "quince"} {
					if strings.Contains(err.Error(), secret) {
						t.Fatalf("the refusal quotes the file: %v", err)
					}
				}
				if j.Count() != 0 {
					t.Fatalf("%d records were added", j.Count())
				}
				return
			}
			must(t, err)
			if got != c.want {
				t.Fatalf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestABadLineAddsNothingAndIsNamedWithoutQuoting(t *testing.T) {
	const secret = "xyzzy" // stands in every bad line and may stand in no error
	for _, c := range []struct{ name, line, reason string }{
		{"not JSON", secret, "not a JSON object"},
		{"an array", `["xyzzy"]`, "not a JSON object"},
		{"cut off", `{"user":"xyzzy","text":"a`, "not a string"},
		{"no closing brace", `{"user":"a","text":"xyzzy"`, "not a JSON object"},
		{"two objects", `{"user":"a","text":"xyzzy"}{"user":"a","text":"b"}`, "after the object"},
		{"another field", `{"user":"a","text":"b","xyzzy":"c"}`, "other than user and text"},
		{"another spelling", `{"User":"a","text":"xyzzy"}`, "other than user and text"},
		{"a field twice", `{"user":"a","text":"xyzzy","text":"b"}`, "text stands twice"},
		{"a number", `{"user":"a","text":12,"xyzzy":1}`, "text is not a string"},
		{"null", `{"user":null,"text":"xyzzy"}`, "user is not a string"},
		{"no user", `{"text":"xyzzy"}`, "user is missing"},
		{"no text", `{"user":"xyzzy"}`, "text is missing"},
		{"blank text", `{"user":"xyzzy","text":" \n"}`, "text is missing"},
		{"not UTF-8", "{\"user\":\"a\",\"text\":\"xyzzy\xff\"}", "not UTF-8"},
		{"long name", `{"user":"` + strings.Repeat("xyzzy", 100) + `","text":"a"}`, "user has 500 bytes"},
		{"long line", `{"user":"a","text":"` + strings.Repeat("xyzzy", LineBytesMax/5) + `"}`, "longer than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := open(t, t.TempDir())
			_, err := j.Import(t.Context(), strings.NewReader(lines("a", "good")+c.line+"\n"+lines("a", "also good")), "")
			var bad *LineError
			if !errors.As(err, &bad) || bad.Line != 2 || !strings.Contains(bad.Reason, c.reason) {
				t.Fatalf("got %v, want line 2: ...%s...", err, c.reason)
			}
			if strings.Contains(err.Error(), secret) {
				t.Fatalf("the error quotes the file: %v", err)
			}
			if j.Count() != 0 {
				t.Fatalf("%d records were added", j.Count())
			}
		})
	}
}

func TestAFileWithoutRecordsIsRefused(t *testing.T) {
	j := open(t, t.TempDir())
	if _, err := j.Import(t.Context(), strings.NewReader("\n \n"), ""); err == nil {
		t.Fatal("nothing was imported, and nobody said so")
	}
}

func TestSplitsAreChronologicalAndNeverMix(t *testing.T) {
	j := open(t, t.TempDir())
	if _, err := j.Texts(Train); !errors.Is(err, ErrEmpty) {
		t.Fatalf("an empty journal says %v", err)
	}
	trained := map[string]bool{}
	for n, text := range numbered(31) {
		_, err := j.Import(t.Context(), strings.NewReader(lines("a", text)), "")
		must(t, err)
		var whole []string
		for _, s := range []Split{Train, Validation, Test} {
			texts, err := j.Texts(s)
			must(t, err)
			if n+1 >= 10 && len(texts) == 0 {
				t.Fatalf("%d records leave %v empty", n+1, s)
			}
			for _, x := range texts {
				if s != Train && trained[x] {
					t.Fatalf("at %d records a text that was trained on is in %v", n+1, s)
				}
				if s == Train {
					trained[x] = true
				}
			}
			all, err := j.Texts(All)
			must(t, err)
			if strings.Join(s.Of(all), "|") != strings.Join(texts, "|") {
				t.Fatalf("at %d records %v has two meanings", n+1, s)
			}
			whole = append(whole, texts...)
		}
		all, err := j.Texts(All)
		must(t, err)
		if strings.Join(whole, "|") != strings.Join(all, "|") || len(all) != n+1 {
			t.Fatalf("at %d records the splits are not the journal in order", n+1)
		}
	}
	for _, c := range []struct{ n, train, validation, test int }{{1, 0, 0, 1}, {9, 7, 1, 1}, {10, 8, 1, 1}, {19, 15, 2, 2}, {100, 80, 10, 10}, {205, 164, 20, 21}} {
		for s, want := range map[Split]int{Train: c.train, Validation: c.validation, Test: c.test} {
			if from, to := s.bounds(c.n); to-from != want {
				t.Errorf("%v of %d has %d records, want %d", s, c.n, to-from, want)
			}
		}
	}
}

// interrupted fails every batch after the first few, as a process that is killed does.
type interrupted struct {
	store
	left int
}

var errKilled = errors.New("killed")

func (s *interrupted) Batch(fill func(*vault.Batch) error) error {
	if s.left--; s.left < 0 {
		return errKilled
	}
	return s.store.Batch(fill)
}

// small makes many batches of an import.
func (s *interrupted) MaxBatchBytes() int { return 600 }

func TestAnInterruptedImportLeavesNothing(t *testing.T) {
	before, more := numbered(5), numbered(40)
	for after := 0; ; after++ {
		dir := t.TempDir()
		j := open(t, dir)
		_, err := j.Import(t.Context(), strings.NewReader(lines("a", before...)), "")
		must(t, err)
		j.db = &interrupted{j.db, after}
		_, err = j.Import(t.Context(), strings.NewReader(lines("a", more...)), "")
		if err == nil {
			if after < 3 {
				t.Fatalf("the import made %d batches; the test needs more", after)
			}
			return
		}
		if !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		must(t, j.Close())
		j = open(t, dir)
		texts, err := j.Texts(All)
		must(t, err)
		if strings.Join(texts, "|") != strings.Join(before, "|") {
			t.Fatalf("killed at batch %d: %d records are there, want the %d from before", after, len(texts), len(before))
		}
		// The same file goes in as if nothing had happened: no digest of the interrupted import is left.
		done, err := j.Import(t.Context(), strings.NewReader(lines("a", more...)), "")
		must(t, err)
		if done.Added != len(more)-len(before) || done.Repeats != len(before) {
			t.Fatalf("killed at batch %d: the second try said %+v", after, done)
		}
		must(t, j.Close())
	}
}

func TestAFailedImportCanBeTriedAgainInTheSameProcess(t *testing.T) {
	j := open(t, t.TempDir())
	real := j.db
	j.db = &interrupted{real, 2}
	if _, err := j.Import(t.Context(), strings.NewReader(lines("a", numbered(40)...)), ""); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	j.db = real
	done, err := j.Import(t.Context(), strings.NewReader(lines("a", numbered(40)...)), "")
	must(t, err)
	if done.Added != 40 || j.Count() != 40 {
		t.Fatalf("the second try said %+v", done)
	}
}

// stuck is a store that a full disk does not let close at first, and that cannot be read.
type stuck struct {
	store
	full int
}

func (s *stuck) Get([]byte) ([]byte, error) { return nil, errKilled }

func (s *stuck) Close() error {
	if s.full--; s.full >= 0 {
		return &vault.FullError{}
	}
	return s.store.Close()
}

// TestAJournalThatDidNotOpenGivesItsFolderBack: at once, or once the disk has room.
func TestAJournalThatDidNotOpenGivesItsFolderBack(t *testing.T) {
	for full := range 3 {
		dir := t.TempDir()
		whole := open(t, dir)
		j, err := openOn(&stuck{whole.db, full}, dir, time.Now)
		if !errors.Is(err, errKilled) || errors.As(err, new(*vault.FullError)) != (full > 0) || (j != nil) != (full > 0) {
			t.Fatalf("full %d times: %v, %v", full, j, err)
		}
		for range full - 1 {
			if err := j.Close(); !errors.As(err, new(*vault.FullError)) {
				t.Fatalf("full %d times: %v", full, err)
			}
		}
		if j != nil {
			must(t, j.Close())
		}
		must(t, open(t, dir).Close())
	}
}

func TestACancelledImportAddsNothing(t *testing.T) {
	j := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := j.Import(ctx, strings.NewReader(lines("a", "x")), ""); !errors.Is(err, context.Canceled) || j.Count() != 0 {
		t.Fatalf("%d records, %v", j.Count(), err)
	}
}

func TestTheStampTellsThatSomethingIsNew(t *testing.T) {
	dir := t.TempDir()
	if Stamp(dir) != "" {
		t.Fatal("a stamp without a journal")
	}
	j := open(t, dir)
	empty := Stamp(dir)
	_, err := j.Import(t.Context(), strings.NewReader(lines("a", "x")), "")
	must(t, err)
	one := Stamp(dir)
	if one == empty {
		t.Fatal("the stamp did not change")
	}
	must(t, j.Close())
	must(t, os.Remove(filepath.Join(dir, "stamp.json"))) // a crash before it was written
	open(t, dir)
	if Stamp(dir) != one {
		t.Fatal("opening did not write the stamp again")
	}
}

func TestNothingOfATextIsOnTheDiskInClear(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	_, err := j.Import(t.Context(), strings.NewReader(lines("amelie-the-owner", "the code is 481 927")), "")
	must(t, err)
	must(t, j.Close())
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte("481 927")) || bytes.Contains(b, []byte("amelie-the-owner")) {
			t.Errorf("%s holds the owner's words", filepath.Base(path))
		}
		return err
	}))
}

func TestTheWrongKeyOpensNothing(t *testing.T) {
	dir := t.TempDir()
	must(t, open(t, dir).Close())
	other, err := vault.NewKey(bytes.NewReader(bytes.Repeat([]byte{8}, 64)))
	must(t, err)
	if _, err := Open(Options{Dir: dir, Key: other, Now: time.Now}); !errors.Is(err, vault.ErrWrongKey) {
		t.Fatalf("got %v", err)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := Open(Options{Dir: dir, Key: testKey(t), Now: time.Now}); !errors.Is(err, durable.ErrLocked) {
		t.Fatalf("got %v", err)
	}
}

func TestARecordPrintsAsItsType(t *testing.T) {
	r := Record{Text: "secret"}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "record", r)
	for _, got := range []string{fmt.Sprint(r), fmt.Sprintf("%+v %#v", r, r), log.String()} {
		if strings.Contains(got, "secret") {
			t.Errorf("printed %s", got)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	for _, s := range []string{`{"user":"a","text":"b"}`, `{"text":"\ud800","user":"é"}`, `{"user":"a"}`, `{}`, `[`, ``, `{"user":"a","text":"b"} x`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		user, text, err := parseLine(line)
		if err != nil {
			return
		}
		// Whatever is accepted is what the standard decoder reads, and survives the journal's own form.
		var want struct{ User, Text string }
		d := json.NewDecoder(bytes.NewReader(line))
		if err := d.Decode(&want); err != nil || want.User != user || want.Text != text {
			t.Fatalf("read %q, %q; the standard decoder %q, %q, %v", user, text, want.User, want.Text, err)
		}
		if len(text) > LineBytesMax {
			return
		}
		r := Record{Seq: 3, User: user, Text: text, ImportedAt: noon}
		k, v, err := encodeRecord(r)
		must(t, err)
		if back, err := decodeRecord(k, v); err != nil || back != r {
			t.Fatal("a record does not come back")
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	k, v, err := encodeRecord(Record{Seq: 1, User: "u", Text: "t", ImportedAt: noon})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(k, v)
	f.Fuzz(func(t *testing.T, k, v []byte) {
		r, err := decodeRecord(k, v)
		if err != nil {
			return
		}
		k2, v2, err := encodeRecord(r)
		if err == nil && (!bytes.Equal(k, k2) || !bytes.Equal(v, v2)) {
			t.Fatal("one record has two encodings")
		}
	})
}

func TestAnEndlessFileIsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: reads a quarter of a GiB")
	}
	j := open(t, t.TempDir())
	endless := io.MultiReader(strings.NewReader(lines("a", "x")), &blank{FileBytesMax})
	if _, err := j.Import(t.Context(), endless, ""); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Fatalf("got %v", err)
	}
}

// blank is n bytes of blank lines.
type blank struct{ n int }

func (b *blank) Read(p []byte) (int, error) {
	if b.n == 0 {
		return 0, io.EOF
	}
	n := min(len(p), b.n)
	copy(p[:n], bytes.Repeat([]byte{' '}, n))
	p[n-1] = '\n'
	b.n -= n
	return n, nil
}
