package blob

import (
	"errors"
	"fmt"

	"github.com/ruche-federation/ruche/crypto/label"
)

var (
	// ErrBusy says that another Writer of the same blob is open.
	ErrBusy = errors.New("another writer is at this blob")
	// ErrExists says that the blob is complete already.
	ErrExists = errors.New("blob is there already")

	errNoSpace = errors.New("no space left")
)

// FullError says that the disk has no room for a blob. Nothing of it was written.
type FullError struct {
	Path            string
	Need, Available uint64 // bytes still to be written, and free
}

func (e *FullError) Error() string {
	return fmt.Sprintf("blob %s: disk is full: %d bytes needed, %d available", e.Path, e.Need, e.Available)
}

// DigestError is content that does not have the digest it is named by.
type DigestError struct {
	Path      string
	Want, Got label.Hash
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("blob %s: content has digest %v, want %v", e.Path, e.Got, e.Want)
}
