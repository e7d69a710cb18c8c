package blob

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// reserve takes the blocks for size bytes from the file system without changing the file's size.
func reserve(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
		switch {
		case err == unix.EINTR:
		case err == unix.EOPNOTSUPP || err == unix.ENOSYS:
			return errors.ErrUnsupported
		case err == unix.ENOSPC || err == unix.EDQUOT:
			return errNoSpace
		default:
			return err
		}
	}
}
