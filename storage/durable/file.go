package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const tempMark = ".tmp-"

// WriteFile replaces the file at path by data, atomically and durably. Several callers may write the same path; one of
// them wins. After an error the file holds the old content or the new one, whole in either case.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	return hostDisk().writeFile(path, data, perm)
}

func (d disk) writeFile(path string, data []byte, perm fs.FileMode) (err error) {
	dir, base := filepath.Split(filepath.Clean(path))
	if dir == "" {
		dir = "."
	}
	f, err := os.CreateTemp(dir, "."+base+tempMark+"*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	temp, renamed := f.Name(), false
	defer func() {
		if err != nil && !renamed {
			d.remove(temp) // the error below matters more; RemoveTemps finds what stays
		}
	}()
	if err = d.fill(f, data, perm); err != nil {
		f.Close()
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err = f.Close(); err != nil {
		return fmt.Errorf("write %s: close: %w", path, err)
	}
	if err = d.rename(temp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	renamed = true
	if err = d.syncDir(dir); err != nil {
		return fmt.Errorf("write %s: new content is visible but not certainly durable: fsync %s: %w", path, dir, err)
	}
	return nil
}

func (d disk) fill(f *os.File, data []byte, perm fs.FileMode) error {
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if err := d.writeAll(f, data, 0); err != nil {
		return err
	}
	if err := d.sync(f); err != nil {
		return fmt.Errorf("fsync: %w", err)
	}
	return nil
}

func (d disk) writeAll(f *os.File, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := d.writeAt(f, p, off)
		if err != nil {
			return err
		}
		if n <= 0 || n > len(p) {
			return io.ErrShortWrite
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// Rename moves a file whose content is already synced to its final name, and syncs the folders of both names. It
// replaces what stands there.
func Rename(from, to string) error { return hostDisk().renameSynced(from, to) }

func (d disk) renameSynced(from, to string) error {
	if err := d.rename(from, to); err != nil {
		return err
	}
	dir := filepath.Dir(to)
	if err := d.syncDir(dir); err != nil {
		return fmt.Errorf("rename %s: fsync %s: %w", to, dir, err)
	}
	if old := filepath.Dir(from); old != dir {
		if err := d.syncDir(old); err != nil {
			return fmt.Errorf("rename %s: fsync %s: %w", from, old, err)
		}
	}
	return nil
}

// Remove deletes a file, or an empty folder, and syncs its folder. A file that is not there is no error: the folder is
// synced all the same, since an earlier Remove may have been interrupted.
func Remove(path string) error { return hostDisk().removeSynced(path) }

func (d disk) removeSynced(path string) error {
	if err := d.remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir := filepath.Dir(path)
	if err := d.syncDir(dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("remove %s: fsync %s: %w", path, dir, err)
	}
	return nil
}

// RemoveTemps deletes what interrupted WriteFiles left in dir and says how many files that were. The caller must know
// that nobody writes there now.
func RemoveTemps(dir string) (int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, e := range entries {
		if !e.Type().IsRegular() || !strings.HasPrefix(e.Name(), ".") || !strings.Contains(e.Name(), tempMark) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// SyncDir makes the names in a folder durable.
func SyncDir(path string) error {
	if err := syncDir(path); err != nil {
		return fmt.Errorf("fsync folder %s: %w", path, err)
	}
	return nil
}

// MkdirAll makes a folder and the missing ones above it, and syncs the parent of each. The entry of the deepest folder
// that was there already is synced too, since whoever made it may have been killed before its sync.
func MkdirAll(path string, perm fs.FileMode) error { return hostDisk().mkdirAll(path, perm) }

func (d disk) mkdirAll(path string, perm fs.FileMode) error {
	path = filepath.Clean(path)
	parent := filepath.Dir(path)
	info, err := os.Stat(path)
	switch {
	case err == nil && !info.IsDir():
		return fmt.Errorf("mkdir %s: a file stands there", path)
	case err == nil:
		if parent == path {
			return nil
		}
		// A parent that may not be read was made by somebody else, who is trusted to have kept it.
		if err := d.syncDir(parent); err != nil && !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("mkdir %s: fsync %s: %w", path, parent, err)
		}
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("mkdir %s: %w", path, err)
	}
	if parent != path {
		if err := d.mkdirAll(parent, perm); err != nil {
			return err
		}
	}
	if err := d.mkdir(path, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("mkdir %s: %w", path, err)
	}
	if err := d.syncDir(parent); err != nil {
		return fmt.Errorf("mkdir %s: fsync %s: %w", path, parent, err)
	}
	return nil
}
