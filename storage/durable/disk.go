package durable

import (
	"io/fs"
	"os"
)

// disk is the door to the operating system, narrow enough that a test can break every step of a durable write: before
// it has happened, or after it has.
type disk struct {
	writeAt func(f *os.File, p []byte, off int64) (int, error)
	sync    func(f *os.File) error
	rename  func(from, to string) error
	remove  func(path string) error
	mkdir   func(path string, perm fs.FileMode) error
	syncDir func(dir string) error
}

func hostDisk() disk {
	return disk{
		writeAt: func(f *os.File, p []byte, off int64) (int, error) { return f.WriteAt(p, off) },
		sync:    func(f *os.File) error { return f.Sync() },
		rename:  os.Rename,
		remove:  os.Remove,
		mkdir:   os.Mkdir,
		syncDir: syncDir,
	}
}
