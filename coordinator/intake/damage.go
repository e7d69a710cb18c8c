package intake

import (
	"errors"
	"fmt"
	"syscall"
)

// DamageError says that what lies on the shelf is not what was written there. It alone is a reason to drop a copy: a
// system that lacks a file handle or memory now gives the copy later.
type DamageError struct{ err error }

func (e *DamageError) Error() string { return e.err.Error() }
func (e *DamageError) Unwrap() error { return e.err }

func damaged(format string, args ...any) error { return &DamageError{fmt.Errorf(format, args...)} }

// unreadable tells what the disk cannot read any more, which is how most rot shows, from what the system refuses.
func unreadable(err error) error {
	if errors.Is(err, syscall.EIO) {
		return &DamageError{err}
	}
	return err
}

// ShelfError is trouble of this member's own disk. It says nothing of a contribution, nor of who sent it.
type ShelfError struct{ err error }

func (e *ShelfError) Error() string { return e.err.Error() }
func (e *ShelfError) Unwrap() error { return e.err }
