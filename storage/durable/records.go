package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/ruche-federation/ruche/crypto/label"
)

// RecordsOptions says what a Records file is for.
type RecordsOptions struct {
	// Tag is the domain of the hash chain, one of the tags of package label; label.TagRecord when empty. It is stored
	// in the file, and opening a file of another tag is refused.
	Tag string
	// MaxRecord bounds one record; 64 KiB when zero, at most MaxRecord.
	MaxRecord int
}

func (o *RecordsOptions) validate() error {
	if o.Tag == "" {
		o.Tag = label.TagRecord
	}
	if len(o.Tag) > maxTag {
		return fmt.Errorf("tag %q has %d bytes, limit %d", o.Tag, len(o.Tag), maxTag)
	}
	if o.MaxRecord == 0 {
		o.MaxRecord = defaultMaxRecord
	}
	if o.MaxRecord < 0 || o.MaxRecord > MaxRecord {
		return fmt.Errorf("record bound is %d bytes, limit %d", o.MaxRecord, MaxRecord)
	}
	return nil
}

// Records is an append-only file of records, each bound to all before it by a hash chain. One process has it open for
// appending; others may read it at the same time. It is safe for concurrent use.
type Records struct {
	disk disk
	path string
	opts RecordsOptions

	mu     sync.Mutex // guards what follows
	f      *os.File
	head   label.Hash
	end    int64
	count  int
	torn   int64
	broken error // why nothing may be appended any more
}

// OpenRecords opens the file at path for appending, makes it if it is not there (mode 0600), and returns the records it
// holds. A torn last record, one that no Append returned success for, is cut off and Torn tells so. Any other damage is
// *CorruptError, and the file is left as it is. What it returns is on the disk when it returns, even if the last fsync
// of an earlier process failed.
func OpenRecords(path string, opts RecordsOptions) (*Records, [][]byte, error) {
	return hostDisk().openRecords(path, opts)
}

func (d disk) openRecords(path string, opts RecordsOptions) (_ *Records, _ [][]byte, err error) {
	if err := opts.validate(); err != nil {
		return nil, nil, fmt.Errorf("records %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		// A lock beside the file keeps two makers from replacing each other's file.
		maker, lockErr := Lock(path + ".lock")
		if lockErr != nil {
			return nil, nil, fmt.Errorf("records %s: %w", path, lockErr)
		}
		defer maker.Close()
		if f, err = os.OpenFile(path, os.O_RDWR, 0); errors.Is(err, fs.ErrNotExist) {
			if err := d.writeFile(path, encodeHeader(opts.Tag), 0o600); err != nil {
				return nil, nil, err
			}
			f, err = os.OpenFile(path, os.O_RDWR, 0)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("records: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := lockFile(f); err != nil {
		return nil, nil, fmt.Errorf("records %s: %w", path, err)
	}
	b, s, err := readAndParse(f, path, opts.MaxRecord)
	if err != nil {
		return nil, nil, err
	}
	if s.tag != opts.Tag {
		return nil, nil, fmt.Errorf("records %s: holds %q records, not %q", path, s.tag, opts.Tag)
	}
	if s.torn > 0 {
		if err := f.Truncate(int64(s.end)); err != nil {
			return nil, nil, fmt.Errorf("records %s: cut a torn record off at %d: %w", path, s.end, err)
		}
	}
	// The last frame is written once more over itself: if the fsync that should have kept it failed, the system may
	// hold its pages as clean, and only a new write brings them to the disk. The bytes are the same, so a cut now
	// leaves what was there.
	if err := d.writeAll(f, b[s.last:s.end], int64(s.last)); err != nil {
		return nil, nil, fmt.Errorf("records %s: settle the last record: %w", path, err)
	}
	if err := d.sync(f); err != nil {
		return nil, nil, fmt.Errorf("records %s: fsync: %w", path, err)
	}
	if err := d.syncDir(filepath.Dir(path)); err != nil {
		return nil, nil, fmt.Errorf("records %s: fsync folder: %w", path, err)
	}
	r := &Records{disk: d, path: path, opts: opts, f: f, head: s.head, end: int64(s.end), count: len(s.records), torn: int64(s.torn)}
	return r, s.records, nil
}

// ReadRecords reads the records of a file that this or another process may be appending to. It stops at a record that
// is not whole yet, and returns *CorruptError for any other damage.
func ReadRecords(path string) ([][]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("records: %w", err)
	}
	defer f.Close()
	_, s, err := readAndParse(f, path, MaxRecord)
	if err != nil {
		return nil, err
	}
	return s.records, nil
}

func readAndParse(f *os.File, path string, maxRecord int) ([]byte, scan, error) {
	b, err := io.ReadAll(io.LimitReader(f, MaxRecordsFile+1))
	if err != nil {
		return nil, scan{}, fmt.Errorf("records %s: %w", path, err)
	}
	if len(b) > MaxRecordsFile {
		return nil, scan{}, fmt.Errorf("records %s: file is larger than %d bytes", path, MaxRecordsFile)
	}
	s, err := parse(b, maxRecord)
	switch e := err.(type) {
	case *CorruptError:
		e.Path = path
	case *VersionError:
		e.Path = path
	}
	return b, s, err
}

// Append adds one record. When it returns nil the record is on the disk and was read back. When it returns an error
// the record may or may not be in the file, and every later Append fails with the same error: open the file again to
// learn which. A record that breaks a bound is refused before anything is written, and costs nothing.
func (r *Records) Append(rec []byte) error {
	if len(rec) == 0 {
		return fmt.Errorf("records %s: empty record", r.path)
	}
	if len(rec) > r.opts.MaxRecord {
		return fmt.Errorf("records %s: record has %d bytes, limit %d", r.path, len(rec), r.opts.MaxRecord)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken != nil {
		return r.broken
	}
	if r.end+int64(frameSize(len(rec))) > MaxRecordsFile {
		return fmt.Errorf("records %s: file would pass %d bytes", r.path, MaxRecordsFile)
	}
	frame, head := encodeFrame(r.opts.Tag, r.head, rec)
	if err := r.write(frame); err != nil {
		r.broken = fmt.Errorf("records %s: record %d at offset %d: %w", r.path, r.count, r.end, err)
		return r.broken
	}
	r.head, r.end, r.count = head, r.end+int64(len(frame)), r.count+1
	return nil
}

func (r *Records) write(frame []byte) error {
	if err := r.disk.writeAll(r.f, frame, r.end); err != nil {
		return err
	}
	if err := r.disk.sync(r.f); err != nil {
		return fmt.Errorf("fsync: %w", err)
	}
	back := make([]byte, len(frame))
	if _, err := r.f.ReadAt(back, r.end); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if !bytes.Equal(back, frame) {
		return errors.New("read back other bytes than were written")
	}
	return nil
}

// Head is the hash over all records so far.
func (r *Records) Head() label.Hash {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.head
}

// Len is the number of records.
func (r *Records) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// Torn is the number of bytes of a torn last record that opening cut off.
func (r *Records) Torn() int64 { return r.torn }

// Close gives the file and its lock back.
func (r *Records) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if errors.Is(r.broken, fs.ErrClosed) {
		return nil
	}
	r.broken = fmt.Errorf("records %s: %w", r.path, fs.ErrClosed)
	return r.f.Close()
}
