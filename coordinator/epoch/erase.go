package epoch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ruche-federation/ruche/storage/fault"
)

// alarm destroys the keys of an epoch, keeps its votes under another name, and says so.
func (d disk) alarm(root string, number uint64, reason error) *AlarmError {
	return &AlarmError{Epoch: number, Reason: reason, Erase: d.erase(root, number, true)}
}

// erase makes an epoch unopenable, overwrites and removes its keys, and leaves an empty folder that says so, or with
// keepVotes the vote file in a folder of another name. Every step may be repeated; a crash in between is finished by Load.
func (d disk) erase(root string, number uint64, keepVotes bool) error {
	dir, gone := folder(root, "", number), folder(root, gonePrefix, number)
	if _, err := os.Stat(dir); err == nil { // without it gone is this very epoch, of an erasure that was cut short
		if err := d.wipe(gone); err != nil {
			return err
		}
	}
	if err := d.rename(dir, gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if keepVotes {
		kept := folder(root, damagedPrefix, number)
		if _, err := os.Stat(kept); errors.Is(err, fs.ErrNotExist) {
			if err := d.wipeKeys(gone); err != nil {
				return err
			}
			if err := d.rename(gone, kept); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		}
	}
	return d.retire(root, number)
}

// retire empties the folder of an epoch that is being erased and gives it the name of one that is.
func (d disk) retire(root string, number uint64) error {
	gone, erased := folder(root, gonePrefix, number), folder(root, erasedPrefix, number)
	if _, err := os.Stat(gone); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if _, err := os.Stat(erased); err == nil { // of an earlier epoch of this number, which nobody saw
		return d.wipe(gone)
	}
	if err := d.empty(gone); err != nil {
		return err
	}
	return fault.Step("erased", root, func() error { return d.rename(gone, erased) })
}

// Erased lists the epochs of which root shows that their keys were erased, ascending: each until Forget, a damaged one
// for as long as its votes lie there. A folder that was lost with its keys is not among them.
func Erased(root string) ([]uint64, error) {
	found, err := scan(root)
	if err != nil {
		return nil, fmt.Errorf("erased epochs: %w", err)
	}
	return found.erased, nil
}

// Forget removes what Erased knows an epoch by, once the consortium knows it too. The votes of a damaged one stay; asked
// for that again and again, it costs the disk nothing.
func Forget(root string, number uint64) error { return hostDisk().forget(root, number) }

func (d disk) forget(root string, number uint64) error {
	dir := folder(root, erasedPrefix, number)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil // if a power cut brings it back, it is forgotten again
	}
	if err := d.remove(dir); err != nil {
		return fmt.Errorf("epoch %d: %w", number, err)
	}
	return nil
}

// wipeKeys overwrites and removes every file of a folder but the vote file: temporary files may hold keys as well.
func (d disk) wipeKeys(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() == votesName {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		if entry.Type().IsRegular() {
			if err := d.overwrite(path); err != nil {
				return err
			}
		}
		if err := d.remove(path); err != nil {
			return err
		}
	}
	return nil
}

// wipe removes a folder of an epoch, overwriting what may be secret. A folder that is not there is wiped.
func (d disk) wipe(dir string) error {
	if err := d.empty(dir); err != nil {
		return err
	}
	return d.remove(dir)
}

func (d disk) empty(dir string) error {
	if err := d.wipeKeys(dir); err != nil {
		return err
	}
	if _, err := os.Stat(dir); err == nil {
		return d.remove(filepath.Join(dir, votesName))
	}
	return nil
}
