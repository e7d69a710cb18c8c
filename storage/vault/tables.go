package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"google.golang.org/protobuf/proto"
)

// TableError is a table that is not what was written. The vault does not open.
type TableError struct {
	Path   string
	Reason string
}

func (e *TableError) Error() string { return fmt.Sprintf("table %s is damaged: %s", e.Path, e.Reason) }

// checkTables reads every table of a vault that is about to be opened. badger would read them too, but panics about
// some damage, in goroutines of its own, where nothing can be caught: the process would end without a word of what and
// where, and end again at each start.
func checkTables(o badger.Options) (err error) {
	f, err := os.Open(filepath.Join(o.Dir, badger.ManifestFilename))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a new one, or badger says what is wrong
	}
	if err != nil {
		return err
	}
	defer f.Close()
	manifest, _, err := badger.ReplayManifestFile(f, o.ExternalMagicVersion, o)
	if err != nil {
		return err
	}
	if len(manifest.Tables) == 0 {
		return nil
	}
	keys, err := badger.OpenKeyRegistry(badger.KeyRegistryOptions{Dir: o.Dir, ReadOnly: true, EncryptionKey: o.EncryptionKey,
		EncryptionKeyRotationDuration: o.EncryptionKeyRotationDuration})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	for id, t := range manifest.Tables {
		path := table.NewFilename(id, o.Dir)
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		key, err := keys.DataKey(t.KeyID)
		if err != nil {
			return fmt.Errorf("table %s: %w", path, err)
		}
		if err := checkTable(b, key); err != nil {
			return &TableError{path, err.Error()}
		}
	}
	return nil
}

var errTable = errors.New("lengths do not fit")

// checkTable reads a table as badger v4 lays it out: blocks, index, length of the index, checksum, its length. Index and
// blocks are encrypted, each with its initial vector behind it.
func checkTable(b []byte, key *pb.DataKey) error {
	rest, sum, err := cutChecksum(b)
	if err != nil {
		return fmt.Errorf("footer: %w", err)
	}
	rest, n, err := cutLength(rest)
	if err != nil || n > len(rest) {
		return fmt.Errorf("index: %w", errTable)
	}
	stored := rest[len(rest)-n:]
	if err := y.VerifyChecksum(stored, sum); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	plain, err := decrypt(stored, key)
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	index := fb.GetRootAsTableIndex(plain, 0) // its checksum holds: it is what badger wrote
	for i := range index.OffsetsLength() {
		var at fb.BlockOffset
		index.Offsets(&at, i)
		from, to := uint64(at.Offset()), uint64(at.Offset())+uint64(at.Len())
		if to > uint64(len(b)) {
			return fmt.Errorf("block %d: %w", i, errTable)
		}
		block, err := decrypt(b[from:to], key)
		if err != nil {
			return fmt.Errorf("block %d: %w", i, err)
		}
		// A block's checksum covers everything before it, the number of entries and their places included.
		block, sum, err := cutChecksum(block)
		if err == nil {
			err = y.VerifyChecksum(block, sum)
		}
		if err != nil {
			return fmt.Errorf("block %d: %w", i, err)
		}
	}
	return nil
}

// cutChecksum takes a checksum and its length off the end.
func cutChecksum(b []byte) ([]byte, *pb.Checksum, error) {
	b, n, err := cutLength(b)
	if err != nil || n > len(b) {
		return nil, nil, errTable
	}
	sum := new(pb.Checksum)
	if err := proto.Unmarshal(b[len(b)-n:], sum); err != nil {
		return nil, nil, err
	}
	if _, known := pb.Checksum_Algorithm_name[int32(sum.Algo)]; !known {
		return nil, nil, fmt.Errorf("checksum of kind %d", sum.Algo)
	}
	return b[:len(b)-n], sum, nil
}

func cutLength(b []byte) ([]byte, int, error) {
	if len(b) < 4 {
		return nil, 0, errTable
	}
	return b[:len(b)-4], int(y.BytesToU32(b[len(b)-4:])), nil
}

func decrypt(b []byte, key *pb.DataKey) ([]byte, error) {
	const vector = 16
	if key == nil {
		return b, nil
	}
	if len(b) < vector {
		return nil, errTable
	}
	return y.XORBlockAllocate(b[:len(b)-vector], key.Data, b[len(b)-vector:])
}
