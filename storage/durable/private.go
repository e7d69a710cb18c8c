package durable

import (
	"fmt"
	"io/fs"
	"runtime"
)

// CheckPrivate refuses the file of a secret that others on this machine can read. On Windows modes say nothing of that.
func CheckPrivate(path string, info fs.FileInfo) error {
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s: mode %04o lets others read it, want 0600", path, info.Mode().Perm())
	}
	return nil
}
