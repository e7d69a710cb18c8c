package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/vault"
)

// ErrEmpty says that the journal has no record.
var ErrEmpty = errors.New("the journal is empty")

// Split is a part of the journal.
type Split int

// The parts. All holds every record.
const (
	Train Split = iota + 1
	Validation
	Test
	All
)

func (s Split) String() string {
	switch s {
	case Train:
		return "train"
	case Validation:
		return "validation"
	case Test:
		return "test"
	case All:
		return "all"
	}
	return fmt.Sprintf("split %d", int(s))
}

// bounds gives the half-open range of a split in a journal of n records: see the package comment.
func (s Split) bounds(n int) (from, to int) {
	train, validation := 8*n/10, 9*n/10
	switch s {
	case Train:
		return 0, train
	case Validation:
		return train, validation
	case Test:
		return validation, n
	case All:
		return 0, n
	}
	return 0, 0
}

// Of gives the part of a whole journal's texts that belongs to s.
func (s Split) Of(all []string) []string {
	from, to := s.bounds(len(all))
	return all[from:to:to]
}

// Record is one thing that the owner said.
type Record struct {
	Seq        int       `json:"seq"` // from 0, in the order of time
	User       string    `json:"user"`
	Text       string    `json:"text"`
	ImportedAt time.Time `json:"imported_at"`
}

// Format hides the record from every verb of fmt.
func (Record) Format(f fmt.State, _ rune) { f.Write([]byte("journal.Record")) }

// LogValue hides the record from logs.
func (Record) LogValue() slog.Value { return slog.StringValue("journal.Record") }

// Options say where a journal lies.
type Options struct {
	Dir    string
	Key    *vault.Key
	Now    func() time.Time
	Logger *slog.Logger // the store's warnings; nil drops them
}

// Journal is the open private store. It is safe for concurrent use.
type Journal struct {
	db  store
	dir string
	now func() time.Time

	mu    sync.Mutex // guards count, and makes imports one after the other
	count int
}

// store is what a Journal needs of a vault; tests interrupt it.
type store interface {
	Get(key []byte) ([]byte, error)
	Batch(fill func(*vault.Batch) error) error
	Scan(prefix, from []byte, fn func(key, value []byte) error) error
	MaxBatchBytes() int
	MaxBatchCount() int
	Close() error
}

// Keys: "r" and the record's place, "d" and the digest of a text, "head" the number of records.
var (
	recordPrefix = []byte("r")
	headKey      = []byte("head")
)

func recordKey(seq int) []byte { return binary.BigEndian.AppendUint64([]byte("r"), uint64(seq)) }

func digestKey(sum [32]byte) []byte { return append([]byte("d"), sum[:]...) }

// Open opens the journal in a folder, which it makes if need be. It fails with an error that wraps durable.ErrLocked
// while another process has it open. A Journal that comes with an error could not be closed, as *vault.FullError says: it
// has the folder, and is good for nothing but another Close.
func Open(o Options) (*Journal, error) {
	db, err := vault.Open(vault.Options{Dir: filepath.Join(o.Dir, "records"), Key: o.Key, Profile: vault.Device, Logger: o.Logger})
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return openOn(db, o.Dir, o.Now)
}

func openOn(db store, dir string, now func() time.Time) (*Journal, error) {
	j := &Journal{db: db, dir: dir, now: now}
	err := j.settle()
	if err == nil && Stamp(dir) != strconv.Itoa(j.count) { // a crash between the last import and its stamp
		err = j.writeStamp()
	}
	if err == nil {
		return j, nil
	}
	closing := j.Close()
	if !errors.As(closing, new(*vault.FullError)) {
		j = nil
	}
	return j, errors.Join(err, closing)
}

// settle reads how many records there are and removes what lies behind them.
func (j *Journal) settle() error {
	b, err := j.db.Get(headKey)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		j.count = 0
	case err != nil:
		return fmt.Errorf("journal: %w", err)
	case len(b) != 8 || binary.BigEndian.Uint64(b) > RecordsMax:
		return errors.New("journal: the number of records is damaged")
	default:
		j.count = int(binary.BigEndian.Uint64(b))
	}
	return j.cleanTail()
}

// Close gives the folder back. Where it fails with *vault.FullError the journal is open still, and can be closed once
// there is room.
func (j *Journal) Close() error { return j.db.Close() }

// Count is the number of records.
func (j *Journal) Count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.count
}

// Records calls each for every record of a split, in the order of time. It fails with ErrEmpty on an empty journal.
func (j *Journal) Records(s Split, each func(Record) error) error {
	n := j.Count()
	if n == 0 {
		return ErrEmpty
	}
	from, to := s.bounds(n)
	if from >= to {
		return nil
	}
	want := from
	err := j.db.Scan(recordPrefix, recordKey(from), func(k, v []byte) error {
		if want == to {
			return vault.Stop
		}
		r, err := decodeRecord(k, v)
		if err != nil {
			return err
		}
		if r.Seq != want {
			return fmt.Errorf("record %d is missing", want)
		}
		want++
		return each(r)
	})
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if want != to {
		return fmt.Errorf("journal: record %d is missing", want)
	}
	return nil
}

// Texts gives the texts of a split in the order of time, perhaps none; ErrEmpty says that the whole journal is empty.
func (j *Journal) Texts(s Split) ([]string, error) {
	var out []string
	err := j.Records(s, func(r Record) error {
		out = append(out, r.Text)
		return nil
	})
	return out, err
}

const recordVersion = 1

// encodeRecord: version, imported_at in milliseconds, the user's length, user, text.
func encodeRecord(r Record) (key, value []byte, err error) {
	if len(r.User) > UserBytesMax || len(r.Text) > LineBytesMax {
		return nil, nil, fmt.Errorf("record has a user of %d bytes, limit %d, and a text of %d, limit %d", len(r.User), UserBytesMax, len(r.Text), LineBytesMax)
	}
	value = []byte{recordVersion}
	value = binary.BigEndian.AppendUint64(value, uint64(r.ImportedAt.UnixMilli()))
	value = binary.BigEndian.AppendUint16(value, uint16(len(r.User)))
	value = append(value, r.User...)
	return recordKey(r.Seq), append(value, r.Text...), nil
}

func decodeRecord(key, value []byte) (Record, error) {
	if len(key) != 9 || key[0] != 'r' {
		return Record{}, errors.New("a record has another kind of key")
	}
	seq := binary.BigEndian.Uint64(key[1:])
	if seq > RecordsMax {
		return Record{}, fmt.Errorf("record %d is beyond the limit %d", seq, RecordsMax)
	}
	if len(value) < 11 || value[0] != recordVersion {
		return Record{}, fmt.Errorf("record %d is not of version %d", seq, recordVersion)
	}
	at, n := int64(binary.BigEndian.Uint64(value[1:])), int(binary.BigEndian.Uint16(value[9:]))
	if n > UserBytesMax || n > len(value)-11 {
		return Record{}, fmt.Errorf("record %d is cut off", seq)
	}
	return Record{Seq: int(seq), User: string(value[11 : 11+n]), Text: string(value[11+n:]), ImportedAt: time.UnixMilli(at).UTC()}, nil
}

// Stamp changes whenever the journal in a folder does. It can be read while another process has the journal open, so
// that nobody opens it only to see that nothing is new. Empty if there is no journal.
func Stamp(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "stamp.json"))
	if err != nil {
		return ""
	}
	var s stamp
	if json.Unmarshal(b, &s) != nil {
		return ""
	}
	return strconv.Itoa(s.Records)
}

type stamp struct {
	Records int `json:"records"`
}

func (j *Journal) writeStamp() error {
	b, err := json.Marshal(stamp{j.count})
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(j.dir, "stamp.json"), append(b, '\n'), 0o600)
}
