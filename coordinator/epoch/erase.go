package epoch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// alarm destroys the keys of an epoch, keeps its votes under another name, and says so.
func (d disk) alarm(root string, number uint64, reason error) *AlarmError {
	return &AlarmError{Epoch: number, Reason: reason, Erase: d.erase(root, number, true)}
}

// erase makes an epoch unopenable, overwrites and removes its keys, and removes its folder, or with keepVotes leaves the
// vote file in a folder of another name. Every step may be repeated; a crash in between is finished by Load.
func (d disk) erase(root string, number uint64, keepVotes bool) error {
	dir, gone := folder(root, "", number), folder(root, gonePrefix, number)
	if _, err := os.Stat(gone); err == nil {
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
	return d.wipe(gone)
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
	if err := d.wipeKeys(dir); err != nil {
		return err
	}
	if _, err := os.Stat(dir); err == nil {
		if err := d.remove(filepath.Join(dir, votesName)); err != nil {
			return err
		}
	}
	return d.remove(dir)
}
