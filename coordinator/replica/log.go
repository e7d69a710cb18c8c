package replica

import (
	"errors"

	"github.com/hashicorp/raft"

	"github.com/ruche-federation/ruche/storage/raftlog"
	"github.com/ruche-federation/ruche/storage/vault"
)

// Log keeps the entries, raft's term and vote, and the guard over what was applied. *raftlog.Store is one.
type Log interface {
	raft.LogStore
	raft.StableStore
	// SetApplied makes durable that entries up to index were applied; Applied is the last such index, also from before a
	// restart.
	SetApplied(index uint64) error
	Applied() uint64
	// SetSnapshot says that entries up to index are in a durable snapshot.
	SetSnapshot(index uint64)
	// RecordLast makes durable how long the log is.
	RecordLast() error
}

var _ Log = (*raftlog.Store)(nil)

var currentTerm = []byte("CurrentTerm") // raft's name for it in the StableStore

// watched is a Log that stops the replica when raft is made to rewrite what was applied, and when a write has failed and
// the log takes no other: raft itself only logs it, and the member would stay, and be counted on, for nothing.
type watched struct {
	Log
	replica *Replica
}

// StoreLog is raft.LogStore's.
func (w *watched) StoreLog(entry *raft.Log) error { return w.StoreLogs([]*raft.Log{entry}) }

// StoreLogs is raft.LogStore's.
func (w *watched) StoreLogs(entries []*raft.Log) error {
	err := w.check(w.Log.StoreLogs(entries))
	if errors.As(err, new(*vault.FullError)) {
		w.replica.full.CompareAndSwap(0, 1)
	} else {
		w.replica.full.Store(0)
	}
	return err
}

// DeleteRange is raft.LogStore's.
func (w *watched) DeleteRange(low, high uint64) error { return w.check(w.Log.DeleteRange(low, high)) }

// Set is raft.StableStore's.
func (w *watched) Set(key, value []byte) error { return w.check(w.Log.Set(key, value)) }

// SetUint64 is raft.StableStore's.
func (w *watched) SetUint64(key []byte, value uint64) error {
	return w.check(w.Log.SetUint64(key, value))
}

// IsMonotonic is raft.MonotonicLogStore's.
func (w *watched) IsMonotonic() bool {
	m, ok := w.Log.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

func (w *watched) check(err error) error {
	if errors.Is(err, raftlog.ErrAppliedRewrite) {
		w.replica.fail(err)
	}
	return w.replica.failBroken(err)
}
