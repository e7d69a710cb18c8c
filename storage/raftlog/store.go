package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/fault"
	"github.com/ruche-federation/ruche/storage/vault"
)

// Options are the optional parts of a Store.
type Options struct {
	Logger *slog.Logger // the vault's warnings and errors; nil drops them
	// OnAppliedRewrite is told of every refusal to rewrite applied entries, since raft hides it behind a log line. It
	// is called with the store's lock held: it must return at once and must not use the store.
	OnAppliedRewrite func(*AppliedRewriteError)
}

// Store is a raft log and stable store. It is safe for concurrent use, as raft wants.
type Store struct {
	dir  string
	opts Options
	db   *vault.DB

	mu       sync.RWMutex // guards what follows, and makes changes one after the other
	b        bounds
	staged   uint64 // commit index for the next StoreLogs
	snapshot uint64 // entries up to here are in a durable snapshot
	guard    *guard
}

var (
	_ raft.CommitTrackingLogStore = (*Store)(nil)
	_ raft.MonotonicLogStore      = (*Store)(nil)
	_ raft.StableStore            = (*Store)(nil)
)

var boundsKey = []byte{'b'}

func entryKey(index uint64) []byte { return binary.BigEndian.AppendUint64([]byte{'e'}, index) }

// Open opens the store in a folder, which it makes if need be. It fails with *ShortLogError or *GuardError where the
// member must not vote any more, and with *DamagedError where a checksum fails.
func Open(dir string, key *vault.Key, opts Options) (_ *Store, err error) {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("raft store: %w", err)
	}
	db, err := vault.Open(vault.Options{Dir: filepath.Join(dir, "log"), Key: key, Profile: vault.Log, Logger: opts.Logger})
	if err != nil {
		return nil, fmt.Errorf("raft store: %w", err)
	}
	s := &Store{dir: dir, opts: opts, db: db}
	defer func() {
		if err != nil {
			if s.guard != nil {
				s.guard.f.Close()
			}
			db.Close()
		}
	}()
	raw, err := db.Get(boundsKey)
	fresh := errors.Is(err, vault.ErrNotFound)
	if err != nil && !fresh {
		return nil, fmt.Errorf("raft store: %w", err)
	}
	if !fresh {
		if s.b, err = decodeBounds(raw); err != nil {
			return nil, &DamagedError{Dir: dir, Reason: err.Error()}
		}
	}
	// The guard is older than the first bounds, so it may be made only while there are none.
	if s.guard, err = openGuard(filepath.Join(dir, "guard"), fresh); err != nil {
		return nil, err
	}
	if want := s.guard.w.last; s.b.last < want {
		return nil, &ShortLogError{dir, s.b.last, want}
	}
	if s.b.last > 0 {
		for _, index := range []uint64{s.b.first, s.b.last} {
			if err := s.get(index, new(raft.Log)); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// IsMonotonic says that the log has no gaps, and that deleting all of it is cheap.
func (s *Store) IsMonotonic() bool { return true }

// FirstIndex is the index of the oldest entry, 0 for none.
func (s *Store) FirstIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.b.first, nil
}

// LastIndex is the index of the newest entry, 0 for none.
func (s *Store) LastIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.b.last, nil
}

// GetLog reads one entry, or returns raft.ErrLogNotFound outside of the bounds and *DamagedError inside of them.
func (s *Store) GetLog(index uint64, log *raft.Log) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.get(index, log)
}

func (s *Store) get(index uint64, log *raft.Log) error {
	if index == 0 || index < s.b.first || index > s.b.last {
		return raft.ErrLogNotFound
	}
	raw, err := s.db.Get(entryKey(index))
	if errors.Is(err, vault.ErrNotFound) {
		return &DamagedError{s.dir, index, "missing"}
	}
	if err != nil {
		return fmt.Errorf("raft store: entry %d: %w", index, err)
	}
	l, err := decodeEntry(raw)
	if err != nil {
		return &DamagedError{s.dir, index, err.Error()}
	}
	if l.Index != index {
		return &DamagedError{s.dir, index, fmt.Sprintf("holds entry %d", l.Index)}
	}
	*log = l
	return nil
}

// Verify reads the whole log and returns the first damage it finds.
func (s *Store) Verify() error {
	s.mu.RLock()
	first, last := s.b.first, s.b.last
	s.mu.RUnlock()
	var l raft.Log
	for i := max(first, 1); i <= last; i++ {
		if err := s.GetLog(i, &l); err != nil && !errors.Is(err, raft.ErrLogNotFound) {
			return err
		}
	}
	return nil
}

// StoreLog is StoreLogs of one entry.
func (s *Store) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs appends entries durably. They must be contiguous and follow the log; two exceptions are sound. Where the
// first one lies inside the log above the applied index, the log is truncated before it. Where it lies beyond the end
// and everything in between is at or below the applied index, it is in a snapshot, and the log starts again with it.
// After an error some of the entries may be stored, in order.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, l := range logs {
		if n := len(l.Data) + len(l.Extensions); n > MaxEntry {
			return &EntryTooLargeError{l.Index, n}
		}
		if want := logs[0].Index + uint64(i); l.Index != want || want == 0 {
			return &GapError{l.Index, max(want, 1)}
		}
	}
	b, err := s.admit(logs[0].Index)
	if err != nil {
		return err
	}
	for len(logs) > 0 {
		n, next := s.fit(logs), logs[0].Index
		b.last = next + uint64(n) - 1
		if b.first == 0 {
			b.first = next
			b.sweepTo = min(b.sweepTo, next-1) // what comes above is overwritten, not swept
			if b.sweepFrom > b.sweepTo {
				b.sweepFrom, b.sweepTo = 0, 0
			}
		}
		b.commit = max(b.commit, min(s.staged, b.last))
		if b, err = s.write(b, logs[:n]); err != nil {
			return err
		}
		s.b, logs = b, logs[n:]
	}
	return nil
}

// admit decides where a log that goes on with index stands before that entry, and refuses what would rewrite applied
// ones.
func (s *Store) admit(index uint64) (bounds, error) {
	b, applied := s.b, s.guard.w.applied
	switch {
	case index <= applied:
		return b, s.refuse(&AppliedRewriteError{"overwrite", index, max(index, b.last), applied})
	case b.last == 0 || index == b.last+1:
		return b, nil
	case index > b.last && index <= applied+1:
		return dropAll(b), s.lowerGuard(0)
	case index > b.last || index < b.first:
		return b, &GapError{index, b.last + 1}
	case index == b.first:
		return dropAll(b), s.lowerGuard(0)
	}
	b.last = index - 1
	b.commit = min(b.commit, b.last)
	return b, s.lowerGuard(b.last)
}

// fit counts how many entries go into one transaction beside the bounds and the sweep.
func (s *Store) fit(logs []*raft.Log) int {
	key := len(entryKey(0))
	bytes := vault.BatchCost(len(boundsKey), boundsSize) + sweepPerBatch*vault.BatchCost(key, 0)
	count := 1 + sweepPerBatch
	for i, l := range logs {
		size := entryExtra + len(l.Extensions) + len(l.Data)
		bytes += vault.BatchCost(key, size) + vault.BatchCost(key, 0) // the entry, and one more swept for it
		count += 2
		if i > 0 && (bytes > s.db.MaxBatchBytes() || count > s.db.MaxBatchCount()) {
			return i
		}
	}
	return len(logs)
}

// write stores entries, the bounds and a part of the sweep in one transaction, and returns the bounds it stored.
func (s *Store) write(b bounds, logs []*raft.Log) (bounds, error) {
	store := func(batch *vault.Batch) error {
		for _, l := range logs {
			if err := batch.Set(entryKey(l.Index), encodeEntry(l)); err != nil {
				return err
			}
		}
		for n := 0; n < sweepPerBatch+len(logs) && b.sweepTo != 0; n++ {
			if err := batch.Delete(entryKey(b.sweepFrom)); err != nil {
				return err
			}
			if b.sweepFrom++; b.sweepFrom > b.sweepTo {
				b.sweepFrom, b.sweepTo = 0, 0
			}
		}
		return batch.Set(boundsKey, b.encode())
	}
	if err := fault.Step("entries", s.dir, func() error { return s.db.Batch(store) }); err != nil {
		return b, fmt.Errorf("raft store: %w", err)
	}
	return b, nil
}

// DeleteRange drops the entries from low to high, both included, which must reach one end of the log or none of it. At
// the old end it compacts; at the new end it truncates, and refuses that at or below the applied index, unless
// everything applied is in a snapshot and the whole log goes.
func (s *Store) DeleteRange(low, high uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.b
	low = max(low, b.first)
	if b.last == 0 || low > high || low > b.last || high < b.first {
		return nil
	}
	applied := s.guard.w.applied
	switch {
	case high < b.last && low > b.first:
		return fmt.Errorf("raft store: deleting %d to %d would leave a hole in %d to %d", low, high, b.first, b.last)
	case high < b.last:
		b.first = high + 1
		b.sweepTo = high
		if b.sweepFrom == 0 {
			b.sweepFrom = low
		}
	case low <= applied && !(low == b.first && s.snapshot >= applied):
		return s.refuse(&AppliedRewriteError{"truncate", low, b.last, applied})
	case low == b.first:
		b = dropAll(b)
	default:
		b.last = low - 1
		b.commit = min(b.commit, b.last)
	}
	if err := s.lowerGuard(b.last); err != nil {
		return err
	}
	b, err := s.write(b, nil)
	if err != nil {
		return err
	}
	s.b = b
	return nil
}

// dropAll gives the bounds of an empty log whose old entries wait for the sweep.
func dropAll(b bounds) bounds {
	from := b.first
	if b.sweepFrom != 0 {
		from = b.sweepFrom
	}
	return bounds{sweepFrom: from, sweepTo: b.last}
}

// lowerGuard takes the guard's last index back before the log loses its end: a crash in between must not look like a
// loss.
func (s *Store) lowerGuard(last uint64) error {
	w := s.guard.w
	if w.last <= last {
		return nil
	}
	w.last = last
	return s.guard.set(w)
}

func (s *Store) refuse(e *AppliedRewriteError) error {
	if s.opts.OnAppliedRewrite != nil {
		s.opts.OnAppliedRewrite(e)
	}
	return e
}

// StageCommitIndex keeps a commit index for the next StoreLogs, which stores it together with the entries.
func (s *Store) StageCommitIndex(index uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.staged = index
	return nil
}

// GetCommitIndex is the newest stored commit index, at most LastIndex, 0 for none.
func (s *Store) GetCommitIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.b.commit, nil
}

// SetApplied makes durable that the entries up to index were applied: from now on they are never rewritten. It comes
// before anything that rests on them leaves this member. An index below the known one changes nothing.
func (s *Store) SetApplied(index uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if index <= s.guard.w.applied {
		return nil
	}
	w := s.guard.w
	w.applied, w.last = index, s.b.last
	return s.guard.set(w)
}

// Applied is the index of the last SetApplied, from this process or an earlier one.
func (s *Store) Applied() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.guard.w.applied
}

// SetSnapshot says that the entries up to index are in a snapshot that is on the disk: if that covers everything
// applied, the whole log may be deleted. It holds for this process only.
func (s *Store) SetSnapshot(index uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.snapshot = max(s.snapshot, index)
}

// RecordLast makes the guard know the log's last index.
func (s *Store) RecordLast() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recordLast()
}

func (s *Store) recordLast() error {
	if s.guard.w.last == s.b.last {
		return nil
	}
	w := s.guard.w
	w.last = s.b.last
	return s.guard.set(w)
}

// Close records the last index and closes guard and vault.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.recordLast(), s.guard.close(), s.db.Close())
}
