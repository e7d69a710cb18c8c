package vault

import (
	"fmt"
	"log/slog"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// Profile is a fixed set of options.
type Profile int

const (
	// Log is for a raft log: few large sequential writes.
	Log Profile = iota + 1
	// Device is for a person's device: the smallest memory.
	Device
)

func (p Profile) String() string {
	switch p {
	case Log:
		return "log"
	case Device:
		return "device"
	}
	return fmt.Sprintf("profile %d", int(p))
}

// badgerOptions gives the whole option set of a profile. Both are the small set that was measured (8 MiB memtable, one
// at a time, 2 MiB and 1 MiB of cache) and differ in the size of the value log's file only, which stays empty.
func badgerOptions(dir string, key *Key, p Profile, logger *slog.Logger) (badger.Options, error) {
	o := badger.DefaultOptions(dir)
	switch p {
	case Log:
		o.ValueLogFileSize = 32 << 20
	case Device:
		o.ValueLogFileSize = 16 << 20
	default:
		return o, fmt.Errorf("unknown %v", p)
	}
	o.SyncWrites = true
	o.MemTableSize = memTableSize
	o.NumMemtables = 1
	o.BaseTableSize = 1 << 20
	o.NumLevelZeroTables = 1
	o.NumLevelZeroTablesStall = 3
	o.NumCompactors = 2 // one is an error
	o.NumGoroutines = 1
	o.BlockCacheSize = 2 << 20 // encryption without a block cache panics
	o.IndexCacheSize = 1 << 20
	o.ValueThreshold = valueThreshold
	o.Compression = options.None
	o.ChecksumVerificationMode = options.OnBlockRead
	o.MetricsEnabled = false
	o.DetectConflicts = false // one writer
	o.EncryptionKey = key.b[:]
	o.Logger = logAdapter{logger.With("vault", dir)}
	return o, nil
}

// logAdapter passes badger's warnings and errors on and drops the rest.
type logAdapter struct{ l *slog.Logger }

func (a logAdapter) Errorf(f string, v ...any)   { a.l.Error(trimmed(f, v)) }
func (a logAdapter) Warningf(f string, v ...any) { a.l.Warn(trimmed(f, v)) }
func (logAdapter) Infof(string, ...any)          {}
func (logAdapter) Debugf(string, ...any)         {}
