//go:build !windows

package durable

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockFile takes a flock, which belongs to the open file: a second open in the same process is refused too.
func lockFile(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch err {
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return ErrLocked
		default:
			return err
		}
	}
}
