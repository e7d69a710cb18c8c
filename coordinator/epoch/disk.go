package epoch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/ruche-federation/ruche/storage/durable"
)

// votes is the open vote file: Append returns nil when the record is on the disk and was read back.
type votes interface {
	Append(record []byte) error
	Torn() int64
	Close() error
}

// disk is every durable step of an epoch, narrow enough that a test can break each: before it has happened, or after.
// Steps return nil when their effect, names in folders included, is on the disk.
type disk struct {
	mkdirAll    func(path string, perm fs.FileMode) error
	writeFile   func(path string, data []byte, perm fs.FileMode) error
	openRecords func(path string, opts durable.RecordsOptions) (votes, [][]byte, error)
	rename      func(from, to string) error
	overwrite   func(path string) error // zeros over the content
	remove      func(path string) error // of a file or an empty folder; what is not there is removed
}

func hostDisk() disk {
	return disk{
		mkdirAll:  durable.MkdirAll,
		writeFile: durable.WriteFile,
		openRecords: func(path string, opts durable.RecordsOptions) (votes, [][]byte, error) {
			r, records, err := durable.OpenRecords(path, opts)
			if err != nil {
				return nil, nil, err
			}
			return r, records, nil
		},
		rename:    durable.Rename,
		overwrite: overwrite,
		remove:    durable.Remove,
	}
}

// overwrite writes zeros over a file and syncs it, in place: a new file would leave the old blocks as they are.
func overwrite(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("overwrite: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("overwrite: %w", err)
	}
	zeros := make([]byte, 4096)
	for at := int64(0); at < info.Size(); at += int64(len(zeros)) {
		n := min(int64(len(zeros)), info.Size()-at)
		if _, err := f.WriteAt(zeros[:n], at); err != nil {
			return fmt.Errorf("overwrite: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("overwrite %s: fsync: %w", path, err)
	}
	return nil
}
