package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/ruche-federation/ruche/storage/fault"
)

// Applied is the index of the last command or configuration that the FSM has seen.
func (r *Replica) Applied() uint64 { return r.machine.applied.Load() }

// WaitApplied returns when this member's FSM has seen the entry at index, which must be a proposal's.
func (r *Replica) WaitApplied(ctx context.Context, index uint64) error {
	return r.machine.wait(ctx, index)
}

// EnsureApplied returns when it is durable on this member that the entry at index is applied: from then on no leader
// can take it back here, and a receipt or an ack may rest on it. Callers at the same time share one fsync.
func (r *Replica) EnsureApplied(index uint64) error {
	if r.durable.Load() >= index {
		return nil
	}
	r.guardMu.Lock()
	defer r.guardMu.Unlock()
	if r.durable.Load() >= index { // whoever had the lock before did it for us
		return nil
	}
	applied := r.machine.applied.Load()
	if applied < index {
		return fmt.Errorf("%w: index %d, applied %d", ErrNotApplied, index, applied)
	}
	if err := fault.Step("applied", r.opts.Dir, func() error { return r.opts.Log.SetApplied(applied) }); err != nil {
		return r.failBroken(fmt.Errorf("guarding index %d: %w", applied, err))
	}
	r.durable.Store(applied)
	return nil
}

// floor is what no snapshot may fall below: applied in this process, or guarded by an earlier one.
func (r *Replica) floor() uint64 { return max(r.machine.applied.Load(), r.opts.Log.Applied()) }

// Barrier returns when the FSM at this member holds everything that was committed anywhere before the call. It fails at a
// follower. coordinator.md 1.3: an entry of the own term is committed, the leadership is confirmed by a majority, the
// term is still the same, and what was committed is applied.
func (r *Replica) Barrier(ctx context.Context) error {
	term := r.raft.CurrentTerm()
	if r.readTerm.Load() != term {
		// A new leader does not know yet which of its predecessors' entries are committed; an own entry tells.
		if err := r.await(ctx, func() raft.Future { return r.raft.Barrier(0) }); err != nil {
			return err
		}
		if r.raft.CurrentTerm() != term {
			return r.notLeader()
		}
		r.readTerm.Store(term)
		return nil
	}
	committed := r.raft.CommitIndex()
	if err := r.await(ctx, r.raft.VerifyLeader); err != nil {
		return err
	}
	if r.raft.CurrentTerm() != term {
		return r.notLeader()
	}
	// Raft's own entries (a barrier, a new leader's first) never reach the FSM: wait for the last that does.
	for index := committed; index > r.Applied(); index-- {
		var entry raft.Log
		err := r.opts.Log.GetLog(index, &entry)
		if errors.Is(err, raft.ErrLogNotFound) {
			return nil // compacted, so it is in a snapshot of what was applied
		}
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		if entry.Type == raft.LogCommand || entry.Type == raft.LogConfiguration {
			return r.WaitApplied(ctx, index)
		}
	}
	return nil
}
