package blob

import (
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"sync"

	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
)

// Writer writes one blob, in order. It is for one goroutine.
type Writer struct {
	s      *Store
	path   string // of the finished blob
	digest label.Hash
	size   int64
	f      *os.File
	hash   hash.Hash
	crc    uint32
	off    int64
	err    error // why it takes nothing more
	closed bool
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC32C of all bytes up to the Offset. Whoever keeps it with a blob's name can look for rot at a tenth
// of the digest's cost, once Commit has compared the digest.
func (w *Writer) Checksum() uint32 { return w.crc }

// Create begins a blob of a declared size, or goes on with its part: Offset tells from where. tag is the domain of the
// digest. It fails with ErrExists where the blob is complete, ErrBusy where another Writer has it, *FullError where the
// disk has no room for all of it; in the last case nothing is left behind that was not there before.
func (s *Store) Create(group string, digest label.Hash, tag string, size int64) (*Writer, error) {
	return s.create(group, digest, tag, size, 0, true)
}

// CreateLeaving is Create of a blob that leaves so many bytes of the file system free; *FullError where it would not.
// However many begin at once, together they leave as much.
func (s *Store) CreateLeaving(free uint64, group string, digest label.Hash, tag string, size int64) (*Writer, error) {
	return s.create(group, digest, tag, size, free, true)
}

func (s *Store) create(group string, digest label.Hash, tag string, size int64, leave uint64, resume bool) (_ *Writer, err error) {
	path, err := s.path(group, digest)
	if err != nil {
		return nil, err
	}
	if size < 0 || size > MaxSize {
		return nil, fmt.Errorf("blob %s: declared size %d, limit %d", path, size, MaxSize)
	}
	if err := s.acquire(path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.release(path)
		}
	}()
	if exists(path) {
		return nil, fmt.Errorf("blob %s: %w", path, ErrExists)
	}
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	f, err := os.OpenFile(path+partSuffix, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	w := &Writer{s: s, path: path, digest: digest, size: size, f: f, hash: label.New(tag)}
	if err := w.begin(leave, resume); err != nil {
		f.Close()
		if w.off == 0 {
			os.Remove(path + partSuffix) // the error matters more, and an empty part says nothing
		}
		return nil, err
	}
	return w, nil
}

// begin takes up what the part holds and reserves the rest.
func (w *Writer) begin(leave uint64, resume bool) error {
	info, err := w.f.Stat()
	if err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	w.off = info.Size()
	if !resume || w.off > w.size {
		if err := w.f.Truncate(0); err != nil {
			return fmt.Errorf("blob: %w", err)
		}
		w.off = 0
	}
	if err := w.reserve(leave); err != nil {
		return err
	}
	n, err := io.CopyBuffer(writerFunc(w.digested), io.LimitReader(w.f, w.off), make([]byte, min(bufferSize, w.off+1)))
	if err == nil && n != w.off {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("blob %s: read the part again: %w", w.path, err)
	}
	return nil
}

// overPiece is what bufferSize zero bytes make of each bit of a checksum.
var overPiece = sync.OnceValue(func() (to [32]uint32) {
	zeros := make([]byte, bufferSize)
	for i := range to {
		to[i] = ^crc32.Update(^uint32(1<<i), castagnoli, zeros)
	}
	return to
})

// joinCRC is the CRC32C of what a belongs to, followed by a piece of bufferSize bytes whose own is b. A CRC is linear, so
// that of a moves over a fixed length bit by bit.
func joinCRC(a, b uint32) uint32 {
	for to := overPiece(); a != 0; a &= a - 1 {
		b ^= to[bits.TrailingZeros32(a)]
	}
	return b
}

// digested takes bytes that are in the part now.
func (w *Writer) digested(p []byte) (int, error) {
	w.crc = crc32.Update(w.crc, castagnoli, p)
	return w.hash.Write(p)
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// reserve takes what the blob still needs and leaves so much free.
func (w *Writer) reserve(leave uint64) error {
	w.s.room.Lock()
	defer w.s.room.Unlock()
	need := uint64(w.size - w.off)
	if leave > 0 {
		available, err := w.s.sys.free(filepath.Dir(w.path))
		if err != nil {
			return fmt.Errorf("blob %s: free space: %w", w.path, err)
		}
		if available -= min(available, leave); available < need {
			return &FullError{w.path, need, available}
		}
	}
	err := w.s.sys.reserve(w.f, w.size)
	if err == nil {
		return nil
	}
	if !errors.Is(err, errNoSpace) && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("blob %s: reserve %d bytes: %w", w.path, w.size, err)
	}
	full := errors.Is(err, errNoSpace)
	if full {
		w.f.Truncate(w.off) // gives back what was reserved of it; the error below matters more
	}
	available, err := w.s.sys.free(filepath.Dir(w.path))
	if err != nil {
		return fmt.Errorf("blob %s: free space: %w", w.path, err)
	}
	if available -= min(available, leave); full || available < need {
		return &FullError{w.path, need, available}
	}
	return nil
}

// Offset is the number of bytes there are; the next Write goes there.
func (w *Writer) Offset() int64 { return w.off }

// Write adds bytes. More than the declared size is refused and changes nothing. After any other error the Writer takes
// nothing more; close it and create it again to go on from what was written.
func (w *Writer) Write(p []byte) (int, error) { return w.write(p, func(p []byte) { w.digested(p) }) }

// WriteSummed is Write of bytes whose CRC32C the caller has just compared.
func (w *Writer) WriteSummed(p []byte, crc uint32) (int, error) {
	if len(p) != bufferSize {
		return w.Write(p)
	}
	return w.write(p, func(written []byte) {
		if len(written) < len(p) {
			w.digested(written)
			return
		}
		w.hash.Write(p)
		w.crc = joinCRC(w.crc, crc)
	})
}

func (w *Writer) write(p []byte, digest func(written []byte)) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if int64(len(p)) > w.size-w.off {
		return 0, fmt.Errorf("blob %s: %d bytes at offset %d pass the declared size %d", w.path, len(p), w.off, w.size)
	}
	for done := 0; done < len(p); {
		n, err := w.s.sys.writeAt(w.f, p[done:], w.off)
		if err == nil && n <= 0 {
			err = io.ErrShortWrite
		}
		digest(p[done : done+n])
		done, w.off = done+n, w.off+int64(n)
		if err != nil {
			w.err = fmt.Errorf("blob %s: write at %d: %w", w.path, w.off, err)
			return done, w.err
		}
	}
	return len(p), nil
}

// Commit checks size and digest and makes the blob durable. Until it has returned nil the blob is not there. A short
// blob keeps its part. Wrong content is *DigestError and the part is dropped, and so it is when the fsync fails, since
// nobody knows then what the disk holds. The Writer is closed in every case.
func (w *Writer) Commit() error {
	if w.closed {
		return w.err
	}
	if w.err != nil {
		return errors.Join(w.err, w.Close())
	}
	if w.off != w.size {
		return errors.Join(fmt.Errorf("blob %s: has %d bytes, declared size %d", w.path, w.off, w.size), w.Close())
	}
	if got := label.Hash(w.hash.Sum(nil)); got != w.digest {
		return errors.Join(&DigestError{w.path, w.digest, got}, w.Abort())
	}
	if err := w.s.sys.sync(w.f); err != nil {
		return errors.Join(fmt.Errorf("blob %s: fsync: %w", w.path, err), w.Abort())
	}
	if err := w.f.Close(); err != nil { // before the rename: some systems do not rename open files
		return errors.Join(fmt.Errorf("blob %s: close: %w", w.path, err), w.Abort())
	}
	err := w.s.publish(w.path)
	w.end()
	return err
}

// publish gives a synced part its final name. If the folder cannot be synced the name is taken back: a blob that is
// there must be there for ever.
func (s *Store) publish(path string) error {
	if err := s.sys.rename(path+partSuffix, path); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	err := s.sys.syncDir(filepath.Dir(path))
	if err == nil {
		return nil
	}
	err = fmt.Errorf("blob %s: %w", path, err)
	if back := s.sys.rename(path, path+partSuffix); back != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.broken = fmt.Errorf("blob store: %w", &durable.BrokenError{Path: s.dir, Err: errors.Join(err, back)})
		return s.broken
	}
	return err
}

// Close ends writing and keeps the part for a later Create.
func (w *Writer) Close() error {
	if w.closed {
		return nil
	}
	defer w.end()
	return w.f.Close()
}

// Abort ends writing and drops the part.
func (w *Writer) Abort() error {
	if w.closed {
		return nil
	}
	defer w.end()
	err := w.f.Close()
	if errors.Is(err, fs.ErrClosed) {
		err = nil
	}
	removed := os.Remove(w.path + partSuffix)
	if errors.Is(removed, fs.ErrNotExist) {
		removed = nil
	}
	return errors.Join(err, removed)
}

// end lets others write the blob.
func (w *Writer) end() {
	w.closed = true
	if w.err == nil {
		w.err = fmt.Errorf("blob %s: writer: %w", w.path, fs.ErrClosed)
	}
	w.s.release(w.path)
}

// Put stores a blob that is in memory. One that is there already, undamaged, is no error.
func (s *Store) Put(group string, digest label.Hash, tag string, data []byte) error {
	return s.PutLeaving(0, group, digest, tag, data)
}

// PutLeaving is Put of a blob that leaves so many bytes of the file system free; *FullError where it would not.
func (s *Store) PutLeaving(free uint64, group string, digest label.Hash, tag string, data []byte) error {
	path, err := s.path(group, digest)
	if err != nil {
		return err
	}
	if s.Has(group, digest) {
		if got := label.Sum(tag, data); got != digest { // otherwise Commit finds it
			return &DigestError{path, digest, got}
		}
		_, err := s.Read(group, digest, tag)
		var damaged *DigestError
		if setAside := errors.As(err, &damaged) && !s.Has(group, digest); !setAside {
			return err
		}
	}
	w, err := s.create(group, digest, tag, int64(len(data)), free, false)
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return errors.Join(err, w.Abort())
	}
	return w.Commit()
}
