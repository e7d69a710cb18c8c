package epoch

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/seal"
	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/fault"
)

const (
	keysName      = "keys"
	votesName     = "votes"
	newPrefix     = ".new-"
	gonePrefix    = ".gone-"
	erasedPrefix  = "erased-"
	damagedPrefix = "damaged-"
)

// ErrExists says that an epoch of this or a higher number is there: numbers only rise.
var ErrExists = errors.New("an epoch of this or a higher number exists")

// AlarmError says that an epoch was damaged and its keys were destroyed: the member has no authority over the rounds
// that list it. Somebody should learn why.
type AlarmError struct {
	Epoch  uint64
	Reason error
	Erase  error // why destroying the keys failed; nil when they are gone
}

func (e *AlarmError) Error() string {
	if e.Erase != nil {
		return fmt.Sprintf("epoch %d is damaged: %v; destroying its keys FAILED: %v", e.Epoch, e.Reason, e.Erase)
	}
	return fmt.Sprintf("epoch %d is damaged: %v; its keys were destroyed", e.Epoch, e.Reason)
}

func (e *AlarmError) Unwrap() []error {
	if e.Erase == nil {
		return []error{e.Reason}
	}
	return []error{e.Reason, e.Erase}
}

// Create draws the keys of epoch number from rand, seal seed first, and returns the epoch when its folder, both files
// and their names are on the disk. Only then may its KeyPackage be signed. After an error the folder may be there: Load
// finds it, and another attempt takes a higher number.
func Create(root string, number uint64, rand io.Reader) (*Epoch, error) {
	return hostDisk().create(root, number, rand)
}

func (d disk) create(root string, number uint64, rand io.Reader) (*Epoch, error) {
	fail := func(err error) (*Epoch, error) { return nil, fmt.Errorf("creating epoch %d: %w", number, err) }
	if err := d.mkdirAll(root, 0o700); err != nil {
		return fail(err)
	}
	found, err := scan(root)
	if err != nil {
		return fail(err)
	}
	for _, have := range found.epochs {
		if have >= number {
			return fail(fmt.Errorf("%w: %d", ErrExists, have))
		}
	}
	temp := folder(root, newPrefix, number)
	if err := d.wipe(temp); err != nil { // of an attempt that was cut short
		return fail(err)
	}
	if err := d.mkdirAll(temp, 0o700); err != nil {
		return fail(err)
	}
	sealKey, err := seal.GenerateKey(rand)
	if err != nil {
		return fail(err)
	}
	defer sealKey.Erase()
	voteKey, err := identity.NewKey(rand)
	if err != nil {
		return fail(err)
	}
	defer voteKey.Erase()
	keys := encodeKeys(number, sealKey, voteKey)
	defer clear(keys)
	if err := d.writeFile(filepath.Join(temp, keysName), keys, 0o600); err != nil {
		return fail(err)
	}
	v, _, err := d.openRecords(filepath.Join(temp, votesName), votesOptions())
	if err != nil {
		return fail(err)
	}
	if err := v.Append(encodeBegin(number, voteKey.Public())); err != nil {
		v.Close()
		return fail(err)
	}
	if err := v.Close(); err != nil {
		return fail(err)
	}
	if err := fault.Step("epoch", root, func() error { return d.rename(temp, folder(root, "", number)) }); err != nil {
		return fail(err)
	}
	return d.open(root, number)
}

func votesOptions() durable.RecordsOptions {
	return durable.RecordsOptions{Tag: label.TagVoteFile, MaxRecord: recordMax}
}

// Open opens an epoch that Create made. A torn last record is cut off, since it was never signed; any other damage
// destroys the keys and is *AlarmError. Other errors (no such epoch: fs.ErrNotExist; a folder that cannot be read;
// another process; a later release's files) leave everything as it is.
func Open(root string, number uint64) (*Epoch, error) { return hostDisk().open(root, number) }

func (d disk) open(root string, number uint64) (*Epoch, error) {
	e, err := d.tryOpen(root, number)
	if err == nil {
		return e, nil
	}
	if damaged := (*damageError)(nil); errors.As(err, &damaged) {
		return nil, d.alarm(root, number, damaged.reason)
	}
	return nil, fmt.Errorf("opening epoch %d: %w", number, err)
}

// damageError marks what must not be survived by the keys.
type damageError struct{ reason error }

func (e *damageError) Error() string { return e.reason.Error() }

func damage(format string, args ...any) error { return &damageError{fmt.Errorf(format, args...)} }

func (d disk) tryOpen(root string, number uint64) (*Epoch, error) {
	dir := folder(root, "", number)
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(dir, keysName))
	defer clear(raw)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, damage("its key file is missing")
	} else if err != nil {
		return nil, err
	}
	sealKey, voteKey, err := parseKeys(raw, number)
	if later := (*VersionError)(nil); errors.As(err, &later) {
		return nil, err
	} else if err != nil {
		return nil, damage("%w", err)
	}
	e := &Epoch{disk: d, root: root, number: number, sealKey: sealKey, voteKey: voteKey, votePublic: voteKey.Public(), promises: newPromises()}
	if err := e.readVotes(filepath.Join(dir, votesName)); err != nil {
		sealKey.Erase()
		voteKey.Erase()
		if e.votes != nil {
			e.votes.Close()
		}
		return nil, err
	}
	return e, nil
}

func (e *Epoch) readVotes(path string) error {
	// OpenRecords would make a file that is not there: an empty memory beside a key that has signed.
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return damage("its vote file is missing")
	} else if err != nil {
		return err
	}
	v, records, err := e.disk.openRecords(path, votesOptions())
	if err != nil {
		if isDamage(err) {
			return damage("%w", err)
		}
		return err
	}
	e.votes, e.torn = v, v.Torn()
	if len(records) == 0 {
		return damage("its vote file is empty")
	}
	if err := checkBegin(records[0], e.number, e.votePublic); err != nil {
		return orLater(err)
	}
	for i, b := range records[1:] {
		r, err := parseRecord(b)
		if err != nil {
			return orLater(fmt.Errorf("vote file: record %d: %w", i+1, err))
		}
		if _, err := e.promises.allows(r); err != nil {
			return damage("vote file: record %d contradicts an earlier one: %w", i+1, err)
		}
		e.promises.add(r)
	}
	return nil
}

// isDamage tells damage from the operating system refusing, another process holding, or a later release having written.
func isDamage(err error) bool {
	var later *durable.VersionError
	var path *fs.PathError
	var errno syscall.Errno
	return !errors.As(err, &later) && !errors.As(err, &path) && !errors.As(err, &errno) && !errors.Is(err, durable.ErrLocked)
}

func orLater(err error) error {
	if later := (*VersionError)(nil); errors.As(err, &later) {
		return err
	}
	return damage("%w", err)
}

// Load finishes what a crash interrupted and opens every epoch, ascending. Damaged epochs are left out and returned as
// alarms, their keys destroyed. A root that does not exist holds no epochs.
func Load(root string) ([]*Epoch, []*AlarmError, error) { return hostDisk().load(root) }

func (d disk) load(root string) (epochs []*Epoch, alarms []*AlarmError, err error) {
	defer func() {
		if err != nil {
			for _, e := range epochs {
				e.Close()
			}
			epochs = nil
		}
	}()
	found, err := scan(root)
	if err != nil {
		return nil, nil, fmt.Errorf("loading epochs: %w", err)
	}
	if len(found.epochs) > epochsMax {
		return nil, nil, fmt.Errorf("loading epochs: folder %s holds %d, limit %d", root, len(found.epochs), epochsMax)
	}
	for _, dir := range found.made {
		if err := d.wipe(dir); err != nil {
			return nil, nil, fmt.Errorf("loading epochs: %w", err)
		}
	}
	for _, number := range found.gone {
		if err := d.retire(root, number); err != nil {
			return nil, nil, fmt.Errorf("loading epochs: %w", err)
		}
	}
	for _, number := range found.epochs {
		e, err := d.open(root, number)
		var alarm *AlarmError
		switch {
		case err == nil:
			epochs = append(epochs, e)
		case errors.As(err, &alarm):
			alarms = append(alarms, alarm)
		default:
			return epochs, alarms, fmt.Errorf("loading epochs: %w", err)
		}
	}
	return epochs, alarms, nil
}

// contents is what a root holds.
type contents struct {
	epochs []uint64 // ascending
	made   []string // folders of epochs half made
	gone   []uint64 // half erased
	erased []uint64 // ascending, each once: erased, or damaged and its keys destroyed
}

func scan(root string) (contents, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return contents{}, nil
	} else if err != nil {
		return contents{}, err
	}
	var out contents
	for _, entry := range entries {
		name := entry.Name()
		if !entry.IsDir() {
			continue
		}
		if strings.HasPrefix(name, newPrefix) {
			out.made = append(out.made, filepath.Join(root, name))
		} else if n, ok := numbered(name, ""); ok {
			out.epochs = append(out.epochs, n)
		} else if n, ok := numbered(name, gonePrefix); ok {
			out.gone = append(out.gone, n)
		} else if n, ok := numbered(name, erasedPrefix); ok {
			out.erased = append(out.erased, n)
		} else if n, ok := numbered(name, damagedPrefix); ok {
			out.erased = append(out.erased, n)
		}
	}
	slices.Sort(out.epochs)
	slices.Sort(out.erased)
	out.erased = slices.Compact(out.erased)
	return out, nil
}

// numbered reads an epoch's number from the name that folder gives.
func numbered(name, prefix string) (uint64, bool) {
	digits, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil && strconv.FormatUint(n, 10) == digits
}

func folder(root, prefix string, number uint64) string {
	return filepath.Join(root, prefix+strconv.FormatUint(number, 10))
}
