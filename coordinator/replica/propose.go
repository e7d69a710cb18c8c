package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// Propose puts a command into the log and returns, at the leader, what the FSM's Apply returned for it, and its index.
// The command's bytes must not change any more. After ErrUnknownOutcome, which an ended context is as well, the command may
// or may not be applied; after every other error it was not and will not be.
func (r *Replica) Propose(ctx context.Context, command []byte) (result any, index uint64, err error) {
	if len(command) > MaxEntry {
		return nil, 0, &TooLargeError{len(command)}
	}
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	if !r.IsLeader() {
		return nil, 0, r.notLeader()
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	var applied raft.ApplyFuture
	err = r.await(ctx, func() raft.Future {
		applied = r.raft.Apply(command, 0)
		return applied
	})
	if err != nil {
		return nil, 0, err
	}
	if h, ok := applied.Response().(Halt); ok {
		return nil, 0, h
	}
	return applied.Response(), applied.Index(), nil
}

// await begins something in raft and waits for the end of it or of the context, whichever comes first.
func (r *Replica) await(ctx context.Context, begin func() raft.Future) error {
	r.mu.Lock()
	if r.closing || r.err != nil {
		r.mu.Unlock()
		return ErrClosed
	}
	r.pending.Add(1) // under the lock: Close waits for no more than began before it
	r.mu.Unlock()
	answer := make(chan error, 1)
	go func() {
		defer r.pending.Done()
		answer <- r.translate(begin().Error())
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, ctx.Err())
	case <-r.failed:
	case <-r.done:
	}
	select { // the answer may have come at the same moment
	case err := <-answer:
		return err
	default:
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, ErrClosed)
	}
}

// translate says which of raft's errors leave a command's fate open (raft's api.go at Apply).
func (r *Replica) translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return r.notLeader()
	case errors.Is(err, raft.ErrNothingNewToSnapshot):
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}

func (r *Replica) notLeader() error {
	leader, _ := r.Leader()
	if leader == r.opts.Self {
		leader = "" // it leads no more, and nobody else is known
	}
	return &NotLeaderError{leader}
}
