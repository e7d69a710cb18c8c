package vault

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/dgraph-io/badger/v4"

	"github.com/ruche-federation/ruche/storage/durable"
)

var (
	// ErrNotFound says that a key has no value.
	ErrNotFound = errors.New("key not found")
	// ErrWrongKey says that the folder was written under another at-rest key.
	ErrWrongKey = errors.New("the at-rest key does not open this folder")
	// ErrBatchFull says that a batch would pass MaxBatchBytes or MaxBatchCount; nothing of it was written.
	ErrBatchFull = errors.New("batch is full")
	// ErrClosed says that the vault is closed.
	ErrClosed = errors.New("vault is closed")
	// Stop, returned by the function given to Scan or ScanBack, ends the scan without an error.
	Stop = errors.New("stop the scan")
)

// FullError says that the file system has less room than a write may need. Nothing was written, and writing goes on
// once there is room again.
type FullError struct {
	Dir             string
	Available, Need uint64
}

func (e *FullError) Error() string {
	return fmt.Sprintf("vault %s: disk is full: %d bytes free, %d needed before a write", e.Dir, e.Available, e.Need)
}

// Options says where a vault lies and what for.
type Options struct {
	Dir     string
	Key     *Key         // required: there is no unencrypted vault
	Profile Profile      // required
	Logger  *slog.Logger // badger's warnings and errors; nil drops them
}

func (o *Options) validate() error {
	switch {
	case o.Dir == "":
		return errors.New("vault: Dir is empty")
	case o.Key == nil:
		return fmt.Errorf("vault %s: Key is missing", o.Dir)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// DB is an open vault. It is safe for concurrent use; writes are made one after the other.
type DB struct {
	dir        string
	db         *badger.DB
	lock       *durable.FileLock
	free       func(dir string) (uint64, error) // replaced by tests
	syncDir    func(dir string) error           // replaced by tests
	maxBytes   int
	maxEntries int

	gate   sync.Mutex // guards closed, and the first Add of inUse against Close
	closed bool
	inUse  sync.WaitGroup // calls under way

	write  sync.Mutex // guards what follows, and makes writes one after the other
	broken error
	names  map[string]bool // the files whose folder entries are synced
}

// Open opens the vault in a folder, which it makes if need be. It fails with ErrWrongKey, with an error that wraps
// durable.ErrLocked when another process has it open, or with *FullError.
func Open(o Options) (*DB, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	bo, err := badgerOptions(o.Dir, o.Key, o.Profile, o.Logger)
	if err != nil {
		return nil, fmt.Errorf("vault %s: %w", o.Dir, err)
	}
	return open(o.Dir, bo, durable.FreeBytes)
}

func open(dir string, bo badger.Options, free func(string) (uint64, error)) (_ *DB, err error) {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("vault %s: %w", dir, err)
	}
	// badger locks the folder too, but tells so in prose only.
	lock, err := durable.Lock(filepath.Join(dir, "vault.lock"))
	if err != nil {
		return nil, fmt.Errorf("vault %s: %w", dir, err)
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	v := &DB{dir: dir, lock: lock, free: free, syncDir: durable.SyncDir, names: map[string]bool{}}
	if err := v.room(reserve); err != nil {
		return nil, err
	}
	if v.db, err = openBadger(bo); err != nil {
		if errors.Is(err, badger.ErrEncryptionKeyMismatch) {
			err = ErrWrongKey
		}
		return nil, fmt.Errorf("vault %s: %w", dir, err)
	}
	defer func() {
		if err != nil {
			v.db.Close()
		}
	}()
	if got := v.db.Opts(); !got.SyncWrites || got.ValueThreshold <= MaxValue {
		return nil, fmt.Errorf("vault %s: opened with SyncWrites %v and value threshold %d", dir, got.SyncWrites, got.ValueThreshold)
	}
	// Split well before badger refuses: its bounds count bytes that are not the caller's.
	v.maxBytes, v.maxEntries = int(v.db.MaxBatchSize()*8/10), int(v.db.MaxBatchCount()*8/10)
	if err := v.syncNewNames(); err != nil {
		return nil, err
	}
	return v, nil
}

// openBadger turns what badger panics about at opening into an error.
func openBadger(bo badger.Options) (db *badger.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, fmt.Errorf("badger cannot open it: %v", r)
		}
	}()
	if err := checkTables(bo); err != nil {
		return nil, err
	}
	return badger.Open(bo)
}

// room refuses to write where the next sparse page might not get its block.
func (v *DB) room(need uint64) error {
	available, err := v.free(v.dir)
	if err != nil {
		return fmt.Errorf("vault %s: free space: %w", v.dir, err)
	}
	if available < need {
		return &FullError{v.dir, available, need}
	}
	return nil
}

// syncNewNames syncs the folder if badger has made a file since the last time.
func (v *DB) syncNewNames() error {
	f, err := os.Open(v.dir)
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	names, err := f.Readdirnames(-1)
	f.Close()
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	fresh := false
	for _, n := range names {
		fresh = fresh || !v.names[n]
	}
	if fresh {
		if err := v.syncDir(v.dir); err != nil {
			return fmt.Errorf("vault: %w", err)
		}
	}
	if fresh || len(names) != len(v.names) {
		v.names = make(map[string]bool, len(names))
		for _, n := range names {
			v.names[n] = true
		}
	}
	return nil
}

// use keeps Close away until inUse.Done.
func (v *DB) use() error {
	v.gate.Lock()
	defer v.gate.Unlock()
	if v.closed {
		return fmt.Errorf("vault %s: %w", v.dir, ErrClosed)
	}
	v.inUse.Add(1)
	return nil
}

// Get returns a copy of the value of a key, or ErrNotFound.
func (v *DB) Get(key []byte) (value []byte, err error) {
	if err := v.use(); err != nil {
		return nil, err
	}
	defer v.inUse.Done()
	if len(key) == 0 || len(key) > MaxKey {
		return nil, ErrNotFound
	}
	err = v.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return err
		}
		value, err = item.ValueCopy([]byte{})
		return err
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("vault %s: get: %w", v.dir, err)
	}
	return value, nil
}

// Set writes one value.
func (v *DB) Set(key, value []byte) error {
	return v.Batch(func(b *Batch) error { return b.Set(key, value) })
}

// Delete removes one key; a key that is not there is no error.
func (v *DB) Delete(key []byte) error {
	return v.Batch(func(b *Batch) error { return b.Delete(key) })
}

// MaxBatchBytes bounds the sum of BatchCost over one batch, MaxBatchCount the number of its entries.
func (v *DB) MaxBatchBytes() int { return v.maxBytes }

// MaxBatchCount is the number of entries that fit into one batch.
func (v *DB) MaxBatchCount() int { return v.maxEntries }

// BatchCost is what an entry counts towards MaxBatchBytes: its bytes, and those that badger adds.
func BatchCost(key, value int) int { return key + value + 16 }

// Batch is a set of changes that are written together or not at all.
type Batch struct {
	txn          *badger.Txn
	bytes, count int
	maxBytes     int
	maxEntries   int
	err          error // the first refusal, which fails the whole batch
}

// Batch runs fill and writes what it has set and deleted in one synced transaction. Keys and values must stay unchanged
// until Batch returns, and fill must not use the vault itself. After an error other than a refusal (a bound, a full
// disk, fill's own error) the changes may or may not be on the disk, and the vault refuses every later write with the same
// *durable.BrokenError.
func (v *DB) Batch(fill func(*Batch) error) error {
	if err := v.use(); err != nil {
		return err
	}
	defer v.inUse.Done()
	v.write.Lock()
	defer v.write.Unlock()
	if v.broken != nil {
		return v.broken
	}
	if err := v.room(reserve); err != nil {
		return err
	}
	txn := v.db.NewTransaction(true)
	defer txn.Discard()
	b := &Batch{txn: txn, maxBytes: v.maxBytes, maxEntries: v.maxEntries}
	if err := fill(b); err != nil {
		return err
	}
	if b.err != nil {
		return fmt.Errorf("vault %s: %w", v.dir, b.err)
	}
	if b.count == 0 {
		return nil
	}
	err := txn.Commit()
	if err == nil {
		err = v.syncNewNames()
	}
	if err != nil {
		v.broken = fmt.Errorf("vault: %w", &durable.BrokenError{Path: v.dir, Err: err})
		return v.broken
	}
	return nil
}

// Set adds a value to the batch.
func (b *Batch) Set(key, value []byte) error {
	if len(value) > MaxValue {
		return b.refuse(fmt.Errorf("value has %d bytes, limit %d", len(value), MaxValue))
	}
	if err := b.admit(key, len(value)); err != nil {
		return err
	}
	return b.refuse(b.txn.Set(key, value))
}

// Delete adds the removal of a key to the batch.
func (b *Batch) Delete(key []byte) error {
	if err := b.admit(key, 0); err != nil {
		return err
	}
	return b.refuse(b.txn.Delete(key))
}

func (b *Batch) admit(key []byte, value int) error {
	if len(key) == 0 || len(key) > MaxKey {
		return b.refuse(fmt.Errorf("key has %d bytes, limit %d, at least 1", len(key), MaxKey))
	}
	b.bytes, b.count = b.bytes+BatchCost(len(key), value), b.count+1
	if b.bytes > b.maxBytes || b.count > b.maxEntries {
		return b.refuse(fmt.Errorf("%w: %d bytes, limit %d, in %d entries, limit %d", ErrBatchFull, b.bytes, b.maxBytes, b.count, b.maxEntries))
	}
	return nil
}

func (b *Batch) refuse(err error) error {
	if b.err == nil {
		b.err = err
	}
	return err
}

// Scan calls fn for every key with the prefix, in ascending order, starting at from (a whole key; nil for the first).
// It sees the vault as it was when Scan began. Key and value are valid during the call only; fn may write to the vault.
func (v *DB) Scan(prefix, from []byte, fn func(key, value []byte) error) error {
	seek := prefix
	if bytes.Compare(from, prefix) > 0 {
		seek = from
	}
	return v.scan(prefix, seek, false, fn)
}

// ScanBack is Scan in descending order: from is the largest key to be given, nil for the last.
func (v *DB) ScanBack(prefix, from []byte, fn func(key, value []byte) error) error {
	// The largest key with the prefix: badger looks for the last key at or before it.
	seek := append(bytes.Clone(prefix), bytes.Repeat([]byte{0xff}, MaxKey+1)...)
	if from != nil && bytes.Compare(from, seek) < 0 {
		seek = from
	}
	return v.scan(prefix, seek, true, fn)
}

func (v *DB) scan(prefix, seek []byte, reverse bool, fn func(key, value []byte) error) error {
	if err := v.use(); err != nil {
		return err
	}
	defer v.inUse.Done()
	err := v.db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Prefix, o.Reverse, o.PrefetchValues = prefix, reverse, false
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Seek(seek); it.ValidForPrefix(prefix); it.Next() {
			item := it.Item()
			if err := item.Value(func(val []byte) error { return fn(item.Key(), val) }); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, Stop) {
		return nil
	}
	return err
}

// Close waits for the calls under way, writes out what badger holds and gives the folder back. On a disk too full for
// that it fails with *FullError and the vault stays open: everything is in the synced log already, and the caller may
// make room and close again, or exit.
func (v *DB) Close() error {
	v.gate.Lock()
	if v.closed {
		v.gate.Unlock()
		return nil
	}
	if err := v.room(closeReserve); err != nil {
		v.gate.Unlock()
		return err
	}
	v.closed = true
	v.gate.Unlock()
	v.inUse.Wait()
	err := v.db.Close()
	if unlocked := v.lock.Close(); err == nil {
		err = unlocked
	}
	if err != nil {
		return fmt.Errorf("vault %s: close: %w", v.dir, err)
	}
	return nil
}

func trimmed(f string, v []any) string { return strings.TrimSpace(fmt.Sprintf(f, v...)) }
