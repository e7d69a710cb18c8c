package replica

import (
	"errors"
	"fmt"
)

var (
	// ErrNotLeader matches every *NotLeaderError.
	ErrNotLeader = errors.New("not the leader")
	// ErrUnknownOutcome says that a command may or may not be applied, now or later: commands are idempotent for
	// this, so propose it again.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrTooLarge matches every *TooLargeError.
	ErrTooLarge = errors.New("command too large")
	// ErrClosed says that the replica is closed, or has failed; the command was not proposed.
	ErrClosed = errors.New("replica is closed")
	// ErrNotApplied says that EnsureApplied was asked about an entry that this member has not applied.
	ErrNotApplied = errors.New("entry is not applied here")
	// ErrNoSnapshot says that what came before the log's first entry is gone: the store is to be set aside.
	ErrNoSnapshot = errors.New("the snapshot that the log goes on from is missing")
	// ErrNoLog says that snapshots lie beside a log that never had a term: term, vote and what came after them are gone,
	// and the store is to be set aside.
	ErrNoLog = errors.New("the log that the snapshots belong to is missing")
	// ErrNoPlace says that a log was not looked at, for want of a place for its copy. It says nothing of the log.
	ErrNoPlace = errors.New("no place for a copy of the log")
	// ErrOldSnapshot says that somebody sent a snapshot older than what this member has applied.
	ErrOldSnapshot = errors.New("snapshot is older than the applied state")
)

// NotLeaderError says that the command was not proposed because another member leads.
type NotLeaderError struct {
	Leader string // the leader's id, empty while none is known
}

func (e *NotLeaderError) Error() string {
	if e.Leader == "" {
		return "not the leader, none is known"
	}
	return "not the leader, that is " + e.Leader
}

// Is makes errors.Is(err, ErrNotLeader) hold.
func (e *NotLeaderError) Is(target error) bool { return target == ErrNotLeader }

// TooLargeError says that a command exceeds MaxEntry.
type TooLargeError struct{ Bytes int }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("command has %d bytes, limit %d", e.Bytes, MaxEntry)
}

// Is makes errors.Is(err, ErrTooLarge) hold.
func (e *TooLargeError) Is(target error) bool { return target == ErrTooLarge }

// Halt is what an FSM's Apply returns when it must not go on: for a command of a later version, say, which to
// skip would mean to diverge. The replica stops; nothing after that entry is applied.
type Halt struct{ Err error }

func (h Halt) Error() string { return "state machine halted: " + h.Err.Error() }

// Unwrap gives the FSM's reason.
func (h Halt) Unwrap() error { return h.Err }
