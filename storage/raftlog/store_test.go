package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/vault"
)

func testKey(t testing.TB) *vault.Key {
	t.Helper()
	k, err := vault.ParseKey(bytes.Repeat([]byte{9}, vault.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustOpen(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, testKey(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openFresh(t testing.TB) *Store {
	t.Helper()
	s := mustOpen(t, t.TempDir())
	t.Cleanup(func() { s.Close() })
	return s
}

func run(first, last, term uint64) []*raft.Log {
	var out []*raft.Log
	for i := first; i <= last; i++ {
		out = append(out, &raft.Log{Index: i, Term: term, Data: fmt.Appendf(nil, "entry %d of term %d", i, term)})
	}
	return out
}

func mustStore(t testing.TB, s *Store, logs []*raft.Log) {
	t.Helper()
	if err := s.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
}

func wantRange(t testing.TB, s *Store, first, last uint64) {
	t.Helper()
	f, err1 := s.FirstIndex()
	l, err2 := s.LastIndex()
	if f != first || l != last || err1 != nil || err2 != nil {
		t.Fatalf("log holds %d to %d (%v, %v), want %d to %d", f, l, err1, err2, first, last)
	}
}

func TestEntriesComeBackAsTheyWere(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	wantRange(t, s, 0, 0)
	want := []*raft.Log{
		{Index: 5, Term: 2, Type: raft.LogConfiguration, Data: []byte("data"), Extensions: []byte("ext"), AppendedAt: time.Unix(1700000000, 5)},
		{Index: 6, Term: 3, Type: raft.LogNoop},
		{Index: 7, Term: 3, Data: bytes.Repeat([]byte("x"), MaxEntry-1), Extensions: []byte("y")},
	}
	mustStore(t, s, want)
	for range 2 {
		wantRange(t, s, 5, 7)
		for _, w := range want {
			var got raft.Log
			if err := s.GetLog(w.Index, &got); err != nil {
				t.Fatal(err)
			}
			if got.Index != w.Index || got.Term != w.Term || got.Type != w.Type || !bytes.Equal(got.Data, w.Data) || !bytes.Equal(got.Extensions, w.Extensions) || !got.AppendedAt.Equal(w.AppendedAt) {
				t.Fatalf("entry %d came back different", w.Index)
			}
		}
		for _, i := range []uint64{0, 4, 8} {
			if err := s.GetLog(i, new(raft.Log)); err != raft.ErrLogNotFound {
				t.Fatalf("entry %d: %v", i, err)
			}
		}
		if err := s.Verify(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, dir)
	}
	s.Close()
}

func TestWhatStoreLogsRefuses(t *testing.T) {
	s := openFresh(t)
	mustStore(t, s, run(1, 3, 1))
	var large *EntryTooLargeError
	if err := s.StoreLog(&raft.Log{Index: 4, Data: make([]byte, MaxEntry), Extensions: []byte("x")}); !errors.As(err, &large) || large.Index != 4 || large.Bytes != MaxEntry+1 {
		t.Errorf("too large: %v", err)
	}
	var gap *GapError
	for name, logs := range map[string][]*raft.Log{
		"after a gap": run(5, 5, 1), "hole inside": append(run(4, 4, 1), run(6, 6, 1)...), "index 0": {{Index: 0}}, "backwards": append(run(5, 5, 1), run(4, 4, 1)...),
	} {
		if err := s.StoreLogs(logs); !errors.As(err, &gap) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.StoreLogs(nil); err != nil {
		t.Error(err)
	}
	if err := s.DeleteRange(2, 2); err == nil || !strings.Contains(err.Error(), "hole") {
		t.Errorf("a hole: %v", err)
	}
	wantRange(t, s, 1, 3)
}

// TestLargeAppendsAreSplitInOrder stores far more than one transaction holds, in bytes and in entries.
func TestLargeAppendsAreSplitInOrder(t *testing.T) {
	s := openFresh(t)
	big := run(1, 9, 1)
	for _, l := range big {
		l.Data = bytes.Repeat([]byte{byte(l.Index)}, MaxEntry)
	}
	mustStore(t, s, big)
	many := run(10, uint64(10+s.db.MaxBatchCount()*2), 1)
	mustStore(t, s, many)
	wantRange(t, s, 1, many[len(many)-1].Index)
	if err := s.Verify(); err != nil {
		t.Fatal(err)
	}
	for _, l := range big {
		var got raft.Log
		if err := s.GetLog(l.Index, &got); err != nil || !bytes.Equal(got.Data, l.Data) {
			t.Fatalf("entry %d: %v", l.Index, err)
		}
	}
}

// TestAppliedEntriesAreNeverRewritten is the reason for this package: a leader of a higher term may be lying.
func TestAppliedEntriesAreNeverRewritten(t *testing.T) {
	dir := t.TempDir()
	var told []*AppliedRewriteError
	s, err := Open(dir, testKey(t), Options{OnAppliedRewrite: func(e *AppliedRewriteError) { told = append(told, e) }})
	if err != nil {
		t.Fatal(err)
	}
	mustStore(t, s, run(1, 10, 1))
	if err := s.SetApplied(6); err != nil {
		t.Fatal(err)
	}
	refused := func(name string, err error) {
		t.Helper()
		var e *AppliedRewriteError
		if !errors.Is(err, ErrAppliedRewrite) || !errors.As(err, &e) || e.Applied != 6 || !strings.Contains(err.Error(), "applied index 6") {
			t.Fatalf("%s: %v", name, err)
		}
		wantRange(t, s, 1, 10)
		var l raft.Log
		if err := s.GetLog(6, &l); err != nil || l.Term != 1 {
			t.Fatalf("%s: entry 6 is of term %d, %v", name, l.Term, err)
		}
	}
	for range 2 { // and after a restart
		told = nil
		refused("truncate", s.DeleteRange(6, 10))
		refused("truncate all", s.DeleteRange(1, 10))
		refused("overwrite", s.StoreLogs(run(6, 12, 2)))
		refused("overwrite all", s.StoreLogs(run(1, 20, 2)))
		if len(told) != 4 || told[0].First != 6 || told[0].Last != 10 || told[0].Op != "truncate" {
			t.Fatalf("told: %v", told)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = Open(dir, testKey(t), Options{OnAppliedRewrite: func(e *AppliedRewriteError) { told = append(told, e) }}); err != nil {
			t.Fatal(err)
		}
		if s.Applied() != 6 {
			t.Fatalf("applied %d", s.Applied())
		}
	}
	// What is not applied yet may be replaced, by truncation or by storing over it.
	if err := s.DeleteRange(9, 10); err != nil {
		t.Fatal(err)
	}
	mustStore(t, s, run(7, 7, 2))
	wantRange(t, s, 1, 7)
	// Compaction of old entries goes on, applied or not.
	if err := s.DeleteRange(1, 4); err != nil {
		t.Fatal(err)
	}
	wantRange(t, s, 5, 7)
	// All of it may go once a snapshot covers what was applied.
	s.SetSnapshot(5)
	if err := s.DeleteRange(5, 7); !errors.Is(err, ErrAppliedRewrite) {
		t.Fatalf("a snapshot below the applied index: %v", err)
	}
	s.SetSnapshot(6)
	if err := s.DeleteRange(5, 7); err != nil {
		t.Fatal(err)
	}
	wantRange(t, s, 0, 0)
	if err := s.StoreLogs(run(6, 6, 3)); !errors.Is(err, ErrAppliedRewrite) {
		t.Fatalf("an applied entry after the log was emptied: %v", err)
	}
	mustStore(t, s, run(7, 8, 3))
	s.Close()
}

// TestLogGoesOnBehindASnapshot: raft continues after a snapshot's index even if the old log could not be removed.
func TestLogGoesOnBehindASnapshot(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	mustStore(t, s, run(1, 10, 1))
	if err := s.SetApplied(500); err != nil { // a restored snapshot
		t.Fatal(err)
	}
	var gap *GapError
	if err := s.StoreLogs(run(502, 502, 2)); !errors.As(err, &gap) {
		t.Fatalf("entry 501 is nowhere: %v", err)
	}
	mustStore(t, s, run(501, 503, 2))
	wantRange(t, s, 501, 503)
	s.Close()
	s = mustOpen(t, dir)
	defer s.Close()
	wantRange(t, s, 501, 503)
	if n := entriesStored(t, s); n != 3 {
		t.Fatalf("%d entries are stored, want 3: the old ones were not swept", n)
	}
}

func entriesStored(t testing.TB, s *Store) int {
	t.Helper()
	n := 0
	if err := s.db.Scan([]byte{'e'}, nil, func(_, _ []byte) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestCompactionIsOneWriteAndSweepsLater: the bounds move at once, the entries go a few at a time.
func TestCompactionIsOneWriteAndSweepsLater(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	mustStore(t, s, run(1, 1000, 1))
	if err := s.DeleteRange(1, 900); err != nil {
		t.Fatal(err)
	}
	wantRange(t, s, 901, 1000)
	if n := entriesStored(t, s); n != 1000-sweepPerBatch {
		t.Fatalf("%d entries stored right after compaction", n)
	}
	if err := s.GetLog(900, new(raft.Log)); err != raft.ErrLogNotFound {
		t.Fatalf("a dead entry: %v", err)
	}
	s.Close()
	s = mustOpen(t, dir)
	defer s.Close()
	for i := uint64(1001); entriesStored(t, s) > int(i-1-900); i++ {
		if i > 1100 {
			t.Fatal("the sweep does not end")
		}
		mustStore(t, s, run(i, i, 1))
	}
	if s.b.sweepTo != 0 {
		t.Fatalf("sweep %d to %d", s.b.sweepFrom, s.b.sweepTo)
	}
	// Truncating the whole, unapplied log and starting at the same index must not sweep the new entries.
	last, _ := s.LastIndex()
	if err := s.DeleteRange(901, last); err != nil {
		t.Fatal(err)
	}
	mustStore(t, s, run(901, 950, 2))
	for i := uint64(951); i < 1200; i++ {
		mustStore(t, s, run(i, i, 2))
	}
	if err := s.Verify(); err != nil {
		t.Fatal(err)
	}
}

// TestShorterLogIsRefused loses acknowledged entries the way bit rot in a write-ahead log does: the end is gone, and
// nothing else tells.
func TestShorterLogIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	mustStore(t, s, run(1, 10, 1))
	if err := s.RecordLast(); err != nil {
		t.Fatal(err)
	}
	rolledBack := bounds{first: 1, last: 7}
	if err := s.db.Set(boundsKey, rolledBack.encode()); err != nil {
		t.Fatal(err)
	}
	s.guard.f.Close()
	s.db.Close()
	var short *ShortLogError
	if _, err := Open(dir, testKey(t), Options{}); !errors.As(err, &short) || short.Have != 7 || short.Want != 10 || !strings.Contains(err.Error(), "rejoin as a wiped one") {
		t.Fatalf("%v", err)
	}
	if _, err := Open(dir, testKey(t), Options{}); !errors.As(err, &short) {
		t.Fatalf("the refusal lasts: %v", err)
	}
	// The whole log gone, guard still there.
	if err := os.RemoveAll(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, testKey(t), Options{}); !errors.As(err, &short) || short.Have != 0 {
		t.Fatalf("no log: %v", err)
	}
}

// TestTruncationIsNotMistakenForALoss crashes between every two steps of a truncation.
func TestTruncationIsNotMistakenForALoss(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	mustStore(t, s, run(1, 10, 1))
	if err := s.RecordLast(); err != nil {
		t.Fatal(err)
	}
	if err := s.lowerGuard(4); err != nil { // the guard goes first; then the crash
		t.Fatal(err)
	}
	s.guard.f.Close()
	s.db.Close()
	s = mustOpen(t, dir)
	wantRange(t, s, 1, 10)
	if err := s.DeleteRange(5, 10); err != nil {
		t.Fatal(err)
	}
	s.guard.f.Close() // no RecordLast
	s.db.Close()
	s = mustOpen(t, dir)
	wantRange(t, s, 1, 4)
	s.Close()
}

func TestGuardIsRequiredWhereThereIsALog(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	mustStore(t, s, run(1, 1, 1))
	s.Close()
	if err := os.Remove(filepath.Join(dir, "guard")); err != nil {
		t.Fatal(err)
	}
	var guardErr *GuardError
	if _, err := Open(dir, testKey(t), Options{}); !errors.As(err, &guardErr) {
		t.Fatalf("%v", err)
	}
}

func TestOpenRefusesASecondHolderAndAWrongKey(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	if _, err := Open(dir, testKey(t), Options{}); !errors.Is(err, durable.ErrLocked) {
		t.Fatalf("second holder: %v", err)
	}
	s.Close()
	other, _ := vault.ParseKey(make([]byte, vault.KeySize))
	if _, err := Open(dir, other, Options{}); !errors.Is(err, vault.ErrWrongKey) {
		t.Fatalf("wrong key: %v", err)
	}
}

func TestDamagedEntryIsNamed(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	mustStore(t, s, run(1, 5, 1))
	var damaged *DamagedError
	raw, _ := s.db.Get(entryKey(3))
	raw[20] ^= 1
	s.db.Set(entryKey(3), raw)
	if err := s.GetLog(3, new(raft.Log)); !errors.As(err, &damaged) || damaged.Index != 3 || !strings.Contains(err.Error(), "checksum") {
		t.Fatalf("flipped: %v", err)
	}
	other, _ := s.db.Get(entryKey(2)) // a whole entry, but another one
	s.db.Set(entryKey(3), other)
	if err := s.Verify(); !errors.As(err, &damaged) || !strings.Contains(err.Error(), "holds entry 2") {
		t.Fatalf("swapped: %v", err)
	}
	s.db.Delete(entryKey(5))
	s.Close()
	if _, err := Open(dir, testKey(t), Options{}); !errors.As(err, &damaged) || damaged.Index != 5 {
		t.Fatalf("missing: %v", err)
	}
}

func TestCommitIndexIsStoredWithTheEntries(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	want := func(commit uint64) {
		t.Helper()
		if got, err := s.GetCommitIndex(); got != commit || err != nil {
			t.Fatalf("commit index %d, %v, want %d", got, err, commit)
		}
	}
	want(0)
	s.StageCommitIndex(3)
	want(0)
	mustStore(t, s, run(1, 2, 1))
	want(2) // never above the last entry
	mustStore(t, s, run(3, 5, 1))
	want(3)
	s.StageCommitIndex(5)
	if err := s.DeleteRange(3, 5); err != nil {
		t.Fatal(err)
	}
	want(2)
	s.Close()
	s = mustOpen(t, dir)
	defer s.Close()
	want(2) // what was only staged is gone
}

// TestAgainstInmemStore does the same random things to a Store and to raft's in-memory one, with restarts, and wants
// the same answers. Applied entries are the one difference: there the Store must refuse and stay as it is.
func TestAgainstInmemStore(t *testing.T) {
	ops := 0
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		s := mustOpen(t, dir)
		defer func() { s.Close() }()
		model, applied, term := raft.NewInmemStore(), uint64(0), uint64(0)
		span := func() (uint64, uint64) {
			first, _ := model.FirstIndex()
			last, _ := model.LastIndex()
			return first, last
		}
		mustEqual := func() {
			first, last := span()
			f, _ := s.FirstIndex()
			l, _ := s.LastIndex()
			if f != first || l != last {
				rt.Fatalf("store holds %d to %d, model %d to %d", f, l, first, last)
			}
			probes := []uint64{first, last, last + 1, rapid.Uint64Range(first, last+1).Draw(rt, "probe")}
			for _, i := range probes {
				var got, want raft.Log
				err1, err2 := s.GetLog(i, &got), model.GetLog(i, &want)
				if err1 != err2 || got.Index != want.Index || got.Term != want.Term || !bytes.Equal(got.Data, want.Data) {
					rt.Fatalf("entry %d: %v and %v, terms %d and %d", i, err1, err2, got.Term, want.Term)
				}
			}
		}
		do := func(touchesFrom uint64, mine func() error, models func()) {
			err := mine()
			if touchesFrom <= applied && touchesFrom != 0 {
				if !errors.Is(err, ErrAppliedRewrite) {
					rt.Fatalf("change from %d with applied %d: %v", touchesFrom, applied, err)
				}
				return
			}
			if err != nil {
				rt.Fatal(err)
			}
			models()
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			ops++
			first, last := span()
			switch op := rapid.SampledFrom([]string{"append", "append", "append", "large", "over", "compact", "truncate", "all", "apply", "reopen"}).Draw(rt, "op"); {
			case op == "append" || op == "large" || last == 0 && op != "reopen":
				term++
				from := last + 1
				if last == 0 {
					from = applied + 1 + rapid.Uint64Range(0, 3).Draw(rt, "skip")
				}
				logs := run(from, from+rapid.Uint64Range(0, 30).Draw(rt, "n"), term)
				if op == "large" {
					for _, l := range logs {
						l.Data = bytes.Repeat([]byte{byte(l.Index)}, 60<<10)
					}
				}
				do(0, func() error { return s.StoreLogs(logs) }, func() { model.StoreLogs(logs) })
			case op == "over":
				term++
				from := rapid.Uint64Range(first, last).Draw(rt, "from")
				logs := run(from, from+rapid.Uint64Range(0, 5).Draw(rt, "n"), term)
				do(from, func() error { return s.StoreLogs(logs) }, func() { model.DeleteRange(from, last); model.StoreLogs(logs) })
			case op == "compact" && last > first:
				to := rapid.Uint64Range(first, last-1).Draw(rt, "to")
				do(0, func() error { return s.DeleteRange(first, to) }, func() { model.DeleteRange(first, to) })
			case op == "truncate":
				from := rapid.Uint64Range(first, last).Draw(rt, "from")
				do(from, func() error { return s.DeleteRange(from, last) }, func() { model.DeleteRange(from, last) })
			case op == "all":
				s.SetSnapshot(applied)
				do(0, func() error { return s.DeleteRange(first, last) }, func() { model.DeleteRange(first, last) })
				s.snapshot = 0
			case op == "apply":
				applied = max(applied, rapid.Uint64Range(first, last).Draw(rt, "applied"))
				do(0, func() error { return s.SetApplied(applied) }, func() {})
			case op == "reopen":
				if rapid.Bool().Draw(rt, "crash") { // no RecordLast
					s.guard.f.Close()
					s.db.Close()
				} else if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				s = mustOpen(t, dir)
			}
			mustEqual()
		}
		if err := s.Verify(); err != nil {
			rt.Fatal(err)
		}
	})
	t.Logf("%d operations", ops)
}
