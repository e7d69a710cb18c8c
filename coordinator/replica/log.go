package replica

import (
	"errors"

	"github.com/hashicorp/raft"

	"github.com/ruche-federation/ruche/storage/raftlog"
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

// watched is a Log that stops the replica when raft is made to rewrite what was applied: raft itself only logs it.
type watched struct {
	Log
	replica *Replica
}

// StoreLog is raft.LogStore's.
func (w *watched) StoreLog(entry *raft.Log) error { return w.StoreLogs([]*raft.Log{entry}) }

// StoreLogs is raft.LogStore's.
func (w *watched) StoreLogs(entries []*raft.Log) error { return w.check(w.Log.StoreLogs(entries)) }

// DeleteRange is raft.LogStore's.
func (w *watched) DeleteRange(low, high uint64) error { return w.check(w.Log.DeleteRange(low, high)) }

// IsMonotonic is raft.MonotonicLogStore's.
func (w *watched) IsMonotonic() bool {
	m, ok := w.Log.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

func (w *watched) check(err error) error {
	if errors.Is(err, raftlog.ErrAppliedRewrite) {
		w.replica.fail(err)
	}
	return err
}
