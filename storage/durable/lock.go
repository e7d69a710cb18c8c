package durable

import (
	"errors"
	"fmt"
	"os"
)

// ErrLocked says that another process, or another holder in this one, has the lock.
var ErrLocked = errors.New("held by another process")

// FileLock is a lock on a file, held until Close or the end of the process, however it ends.
type FileLock struct {
	f *os.File
}

// Lock takes the exclusive lock on the file at path, which it makes if need be and never removes, or returns an error
// that names the path and wraps ErrLocked.
func Lock(path string) (*FileLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := lockFile(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &FileLock{f}, nil
}

// Close gives the lock back. The file stays: removing it would let two processes hold "the" lock.
func (l *FileLock) Close() error { return l.f.Close() }
