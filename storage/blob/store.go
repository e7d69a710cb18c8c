package blob

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
)

// Names in a group's folder: <digest>, <digest>.part while it is being written, <digest>.bad when it was found damaged:
// the last such of a group stays, for whoever wants to know what happened to it.
// Names in the store's folder: the groups, "lock", and .gone-<group> for a group that is being removed.
const (
	partSuffix = ".part"
	badSuffix  = ".bad"
	gonePrefix = ".gone-"
	lockName   = "lock"
)

// system is the door to the operating system, so that a test can break each step.
type system struct {
	reserve func(f *os.File, size int64) error
	free    func(dir string) (uint64, error)
	writeAt func(f *os.File, p []byte, off int64) (int, error)
	sync    func(f *os.File) error
	rename  func(from, to string) error
	syncDir func(dir string) error
}

func hostSystem() system {
	return system{
		reserve: reserve,
		free:    durable.FreeBytes,
		writeAt: func(f *os.File, p []byte, off int64) (int, error) { return f.WriteAt(p, off) },
		sync:    func(f *os.File) error { return f.Sync() },
		rename:  os.Rename,
		syncDir: durable.SyncDir,
	}
}

// Store is a folder of blobs. It is safe for concurrent use.
type Store struct {
	dir  string
	sys  system
	lock *durable.FileLock

	aside sync.Mutex // one blob at a time is set aside
	room  sync.Mutex // one writer at a time looks at the free space and takes of it

	mu     sync.Mutex // guards what follows
	busy   map[string]bool
	broken error // why names on the disk are uncertain; then nothing is there and nothing is written
}

// Open opens the store in a folder, which it makes if need be. It finishes interrupted removals, and syncs every group,
// so that what an earlier process renamed but did not sync is on the disk before anybody relies on it.
func Open(dir string) (*Store, error) { return open(dir, hostSystem()) }

func open(dir string, sys system) (_ *Store, err error) {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("blob store: %w", err)
	}
	lock, err := durable.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("blob store: %w", err)
	}
	s := &Store{dir: dir, sys: sys, lock: lock, busy: map[string]bool{}}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("blob store: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case e.IsDir() && strings.HasPrefix(e.Name(), gonePrefix):
			err = os.RemoveAll(path)
		case e.IsDir():
			err = sys.syncDir(path)
		}
		if err != nil {
			return nil, fmt.Errorf("blob store: %w", err)
		}
	}
	if err := sys.syncDir(dir); err != nil {
		return nil, fmt.Errorf("blob store: %w", err)
	}
	return s, nil
}

// Err is why nothing is shown and nothing written any more: a *durable.BrokenError, or nil while the store works.
func (s *Store) Err() error { return s.hidden("") }

// Close gives the folder's lock back. Open Writers stay usable only until another process opens the store: close them
// first.
func (s *Store) Close() error { return s.lock.Close() }

// checkGroup accepts names that are one path element everywhere and none of ours: lower case letters, digits, and - or
// _ or . inside.
func checkGroup(group string) error {
	if group == "" || len(group) > maxGroup {
		return fmt.Errorf("blob group name has %d bytes, limit %d, at least 1", len(group), maxGroup)
	}
	for i, c := range []byte(group) {
		ok := c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || i > 0 && i < len(group)-1 && (c == '-' || c == '_' || c == '.')
		if !ok {
			return fmt.Errorf("blob group %q: byte %d is not allowed", group, i)
		}
	}
	if group == lockName {
		return fmt.Errorf("blob group %q: the name is taken", group)
	}
	return nil
}

func (s *Store) path(group string, digest label.Hash) (string, error) {
	if err := checkGroup(group); err != nil {
		return "", err
	}
	return filepath.Join(s.dir, group, digest.String()), nil
}

// hidden tells why the blob at path must not be shown even if its name is there: the names are uncertain, or its writer
// has given it the name and not synced the folder yet.
func (s *Store) hidden(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil && s.busy[path] {
		return fmt.Errorf("blob %s: not complete: %w", path, fs.ErrNotExist)
	}
	return s.broken
}

func exists(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode().IsRegular()
}

// acquire makes the caller the only writer at path.
func (s *Store) acquire(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return s.broken
	}
	if s.busy[path] {
		return fmt.Errorf("blob %s: %w", path, ErrBusy)
	}
	s.busy[path] = true
	return nil
}

func (s *Store) release(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, path)
}

// Has tells whether a blob is there: complete, and on the disk. It does not read the content.
func (s *Store) Has(group string, digest label.Hash) bool {
	path, err := s.path(group, digest)
	return err == nil && s.hidden(path) == nil && exists(path)
}

// Open gives the content of a blob and its size, unverified. The error wraps fs.ErrNotExist where there is none.
func (s *Store) Open(group string, digest label.Hash) (io.ReadSeekCloser, int64, error) {
	path, err := s.path(group, digest)
	if err != nil {
		return nil, 0, err
	}
	if err := s.hidden(path); err != nil {
		return nil, 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("blob: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("blob: %w", err)
	}
	return f, info.Size(), nil
}

// Read returns the content of a blob after checking its digest. Damaged content is set aside under another name, so
// that the blob is not there any more and can be fetched again, and the error is *DigestError. Of a group only what was
// set aside last is kept.
func (s *Store) Read(group string, digest label.Hash, tag string) ([]byte, error) {
	f, size, err := s.Open(group, digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	path, _ := s.path(group, digest)
	if size > MaxSize {
		return nil, fmt.Errorf("blob %s: has %d bytes, limit %d", path, size, MaxSize)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("blob %s: %w", path, err)
	}
	if got := label.Sum(tag, b); got != digest {
		return nil, errors.Join(&DigestError{path, digest, got}, s.quarantine(path))
	}
	return b, nil
}

// OpenChecked is Open of content whose digest was checked just now, as Read checks it, without holding it in memory.
func (s *Store) OpenChecked(group string, digest label.Hash, tag string) (_ io.ReadSeekCloser, size int64, err error) {
	f, size, err := s.Open(group, digest)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	path, _ := s.path(group, digest)
	h := label.New(tag)
	if _, err := io.Copy(h, f); err != nil {
		return nil, 0, fmt.Errorf("blob %s: %w", path, err)
	}
	if got := label.Hash(h.Sum(nil)); got != digest {
		return nil, 0, errors.Join(&DigestError{path, digest, got}, s.quarantine(path))
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, 0, fmt.Errorf("blob %s: %w", path, err)
	}
	return f, size, nil
}

// quarantine takes a damaged blob out of the way, in the place of what was set aside in its group before.
func (s *Store) quarantine(path string) error {
	s.aside.Lock()
	defer s.aside.Unlock()
	dir, bad := filepath.Dir(path), path+badSuffix
	if err := s.sys.rename(path, bad); err != nil {
		return fmt.Errorf("blob %s: set aside: %w", path, err)
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, badSuffix) && name != filepath.Base(bad) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, name)))
		}
	}
	return errors.Join(err, s.sys.syncDir(dir))
}

// Info is one blob of a group.
type Info struct {
	Digest   label.Hash
	Size     int64
	Modified time.Time // when it was written
}

// List gives the blobs of a group in the order of their digests; none where there is no such group.
func (s *Store) List(group string) ([]Info, error) {
	if err := checkGroup(group); err != nil {
		return nil, err
	}
	if err := s.hidden(""); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, group))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	var out []Info
	for _, e := range entries {
		digest, err := label.ParseHash(e.Name())
		if err != nil || !e.Type().IsRegular() || s.hidden(filepath.Join(s.dir, group, e.Name())) != nil {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return nil, fmt.Errorf("blob: %w", err)
		}
		out = append(out, Info{digest, info.Size(), info.ModTime()})
	}
	return out, nil
}

// Groups gives the names of the groups, in order.
func (s *Store) Groups() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && checkGroup(e.Name()) == nil {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Remove deletes one blob durably; one that is not there is no error.
func (s *Store) Remove(group string, digest label.Hash) error {
	path, err := s.path(group, digest)
	if err != nil {
		return err
	}
	if err := durable.Remove(path); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	return nil
}

// RemoveGroup deletes a group with all that is in it. The group is renamed first: once that is on the disk it is gone,
// and Open finishes what a crash leaves. Writers in the group fail at Commit.
func (s *Store) RemoveGroup(group string) error {
	if err := checkGroup(group); err != nil {
		return err
	}
	gone := filepath.Join(s.dir, gonePrefix+group)
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	err := s.sys.rename(filepath.Join(s.dir, group), gone)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob: %w", err)
	}
	if err := s.sys.syncDir(s.dir); err != nil {
		return fmt.Errorf("blob: remove group %s: %w", group, err)
	}
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	return nil
}

// ExpireParts deletes the parts that nobody has written to since ttl before now and nobody is writing, and says how
// many those were.
func (s *Store) ExpireParts(now time.Time, ttl time.Duration) (int, error) {
	groups, err := s.Groups()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, g := range groups {
		entries, err := os.ReadDir(filepath.Join(s.dir, g))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return n, fmt.Errorf("blob: %w", err)
		}
		for _, e := range entries {
			name, isPart := strings.CutSuffix(e.Name(), partSuffix)
			if !isPart {
				continue
			}
			done, err := s.expire(filepath.Join(s.dir, g, name), now.Add(-ttl))
			if err != nil {
				return n, err
			}
			if done {
				n++
			}
		}
	}
	return n, nil
}

// expire removes the part of a blob, unless it is being written or was after the given time.
func (s *Store) expire(path string, since time.Time) (bool, error) {
	if err := s.acquire(path); err != nil {
		if errors.Is(err, ErrBusy) {
			return false, nil
		}
		return false, err
	}
	defer s.release(path)
	info, err := os.Lstat(path + partSuffix)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.ModTime().After(since) {
		return false, nil
	}
	if err == nil {
		err = os.Remove(path + partSuffix)
	}
	if err != nil {
		return false, fmt.Errorf("blob: %w", err)
	}
	return true, nil
}
