package replica

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// FSM is the replicated state. The replica calls it from one goroutine at a time.
type FSM interface {
	// Apply carries out a committed command: deterministic, never failing, and without changing the bytes. What it
	// returns is what Propose gives to the proposer. It is called once per entry and process, in order, for all of the
	// log since the last snapshot. A Halt stops the replica.
	Apply(index uint64, command []byte) any
	// Snapshot gives the whole state, in bytes that Apply does not touch any more.
	Snapshot() ([]byte, error)
	// Check says what Restore would, and changes nothing. It may be called beside everything else.
	Check(state []byte) error
	// Restore replaces the whole state, or changes nothing and returns an error. The bytes may come from another member:
	// they are to be believed as little as their leader.
	Restore(state []byte) error
}

// machine is raft's view of the FSM: it counts what is applied and puts the index into snapshots.
type machine struct {
	fsm     FSM
	replica *Replica

	applied atomic.Uint64 // the last entry that the FSM has seen
	halted  *Halt         // owned by raft's FSM goroutine

	mu     sync.Mutex
	notify chan struct{} // closed and replaced when applied grows
}

var _ raft.BatchingFSM = (*machine)(nil)

// ApplyBatch is raft.BatchingFSM's: commands and configurations, in order.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	for i, entry := range logs {
		if m.halted == nil && entry.Type == raft.LogCommand {
			out[i] = m.fsm.Apply(entry.Index, entry.Data)
			if h, ok := out[i].(Halt); ok {
				m.halted = &h
				m.replica.fail(fmt.Errorf("entry %d: %w", entry.Index, h))
			}
		}
		if m.halted != nil {
			out[i] = *m.halted
			continue
		}
		m.advance(entry.Index)
	}
	if len(logs) > 0 && m.replica.opts.OnApplied != nil {
		m.replica.opts.OnApplied(m.applied.Load())
	}
	return out
}

// Apply is raft.FSM's; raft prefers ApplyBatch.
func (m *machine) Apply(entry *raft.Log) any { return m.ApplyBatch([]*raft.Log{entry})[0] }

func (m *machine) advance(index uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.applied.Store(index)
	close(m.notify)
	m.notify = make(chan struct{})
}

// wait returns when the FSM has seen the entry at index, or never will.
func (m *machine) wait(ctx context.Context, index uint64) error {
	for {
		m.mu.Lock()
		notify := m.notify
		m.mu.Unlock()
		if m.applied.Load() >= index {
			return nil
		}
		select {
		case <-notify:
		case <-m.replica.failed:
			return m.replica.Err()
		case <-m.replica.done:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Snapshot is raft.FSM's.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if m.halted != nil {
		return nil, *m.halted
	}
	state, err := m.fsm.Snapshot()
	if err != nil {
		return nil, err
	}
	if len(state) > snapshotMax {
		return nil, fmt.Errorf("snapshot has %d bytes, limit %d", len(state), snapshotMax)
	}
	return &localSnapshot{index: m.applied.Load(), state: state}, nil
}

// check stops the replica where a leader's state is refused. Raft stores a snapshot before it restores it: without this
// the refused one would be the newest on disk, and its own state, by which this member knew better, gone at the next start.
func (m *machine) check(index uint64, state []byte) error {
	err := m.fsm.Check(state)
	if err != nil {
		err = fmt.Errorf("the leader's snapshot of index %d: %w", index, err)
		m.replica.fail(err)
	}
	return err
}

// Restore is raft.FSM's: at start from this member's own disk, later from what a leader sent, which the snapshot store has
// admitted.
func (m *machine) Restore(source io.ReadCloser) error {
	defer source.Close()
	index, state, err := readSnapshot(source)
	if err != nil {
		return err
	}
	if applied := m.applied.Load(); index < applied {
		err = fmt.Errorf("%w: it is of index %d, %d is applied", ErrOldSnapshot, index, applied)
	} else {
		err = m.fsm.Restore(state)
	}
	if err != nil {
		err = fmt.Errorf("restoring the snapshot of index %d: %w", index, err)
		if m.replica.started.Load() { // at start raft goes on to the snapshot before it
			m.replica.fail(err)
		}
		return err
	}
	m.advance(index)
	if m.replica.opts.OnApplied != nil {
		m.replica.opts.OnApplied(index)
	}
	return nil
}
