package raftlog

import (
	"os"

	"golang.org/x/sys/unix"
)

// datasync makes overwritten bytes durable; the file never changes its size.
func datasync(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return err
		}
	}
}
