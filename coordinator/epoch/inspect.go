package epoch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
)

// Promise is what a vote file holds of one round.
type Promise struct {
	Round    label.Hash
	Voted    label.Hash // zero: no vote
	Revealed label.Hash // zero: no reveal
	Expired  bool
}

// Report is what the folder of one epoch looks like to somebody who changes nothing in it.
type Report struct {
	Number   uint64
	Vote     identity.Public // nil where the keys cannot be read
	Promises []Promise       // in the order in which they were first made
	Damage   error           // what makes Open destroy the keys; nil: none
	Err      error           // what makes Open fail and leave everything; nil: nothing
}

// Holds reports whether a promise of this kind and value is among the records.
func (r *Report) Holds(kind Kind, round, value label.Hash) bool {
	for _, p := range r.Promises {
		if p.Round == round {
			return kind == KindVote && p.Voted == value || kind == KindReveal && p.Revealed == value || kind == KindExpired && p.Expired
		}
	}
	return false
}

// Inspect reads every epoch below root as Load would, ascending, and changes nothing: no torn record is cut off, no
// damaged key is destroyed, nothing half done is finished.
func Inspect(root string) ([]Report, error) {
	found, err := scan(root)
	if err != nil {
		return nil, fmt.Errorf("inspecting epochs: %w", err)
	}
	var out []Report
	for _, number := range found.epochs {
		r := Report{Number: number}
		err := r.read(folder(root, "", number))
		if d := (*damageError)(nil); errors.As(err, &d) {
			r.Damage = d.reason
		} else {
			r.Err = err
		}
		out = append(out, r)
	}
	return out, nil
}

func (r *Report) read(dir string) error {
	raw, err := os.ReadFile(filepath.Join(dir, keysName))
	defer clear(raw)
	if errors.Is(err, fs.ErrNotExist) {
		return damage("its key file is missing")
	} else if err != nil {
		return err
	}
	sealKey, voteKey, err := parseKeys(raw, r.Number)
	if err != nil {
		return orLater(err)
	}
	r.Vote = voteKey.Public()
	sealKey.Erase()
	voteKey.Erase()
	records, err := durable.ReadRecords(filepath.Join(dir, votesName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return damage("its vote file is missing")
	case err != nil && isDamage(err):
		return damage("%w", err)
	case err != nil:
		return err
	case len(records) == 0:
		return damage("its vote file is empty")
	}
	if err := checkBegin(records[0], r.Number, r.Vote); err != nil {
		return orLater(err)
	}
	known := newPromises()
	for i, b := range records[1:] {
		rec, err := parseRecord(b)
		if err != nil {
			return orLater(fmt.Errorf("vote file: record %d: %w", i+1, err))
		}
		if _, err := known.allows(rec); err != nil {
			return damage("vote file: record %d contradicts an earlier one: %w", i+1, err)
		}
		known.add(rec)
		r.add(rec)
	}
	return nil
}

func (r *Report) add(rec record) {
	at := -1
	for i := range r.Promises {
		if r.Promises[i].Round == rec.round {
			at = i
		}
	}
	if at < 0 {
		at = len(r.Promises)
		r.Promises = append(r.Promises, Promise{Round: rec.round})
	}
	switch p := &r.Promises[at]; rec.kind {
	case KindVote:
		p.Voted = rec.value
	case KindReveal:
		p.Revealed = rec.value
	case KindExpired:
		p.Expired = true
	}
}
