//go:build !windows

package durable

import "golang.org/x/sys/unix"

// FreeBytes tells how much an ordinary process may still write to the file system of dir.
func FreeBytes(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil
}
