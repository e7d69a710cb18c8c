package epoch

import (
	"fmt"

	"github.com/ruche-federation/ruche/crypto/label"
)

// ConflictError says that a record would break an earlier promise of the same round. Nothing was recorded or signed.
type ConflictError struct {
	Round label.Hash
	Want  Kind       // what was asked for
	Value label.Hash // and its value; zero for expired
	Have  Kind       // the promise that stands against it
	Old   label.Hash // and its value
}

func (e *ConflictError) Error() string {
	if e.Have == KindExpired {
		return fmt.Sprintf("round %v: %v of %v refused: the round is recorded as expired", e.Round, e.Want, e.Value)
	}
	return fmt.Sprintf("round %v: %v of %v refused: a %v of %v is recorded", e.Round, e.Want, e.Value, e.Have, e.Old)
}

// promises is what the records of an epoch amount to.
type promises struct {
	votes   map[label.Hash]label.Hash
	reveals map[label.Hash]label.Hash
	expired map[label.Hash]bool
}

func newPromises() promises {
	return promises{votes: map[label.Hash]label.Hash{}, reveals: map[label.Hash]label.Hash{}, expired: map[label.Hash]bool{}}
}

// allows says whether r may be recorded, and whether it is recorded already. Rules (SA 2.3, vote and reveal; 8.1, 8.2):
// one vote per round and one value for vote and reveal; no reveal after expired; expired may follow a reveal, since it
// ends the serving of vectors, but is not signed then.
func (p promises) allows(r record) (already bool, err error) {
	conflict := func(have Kind, old label.Hash) error {
		return &ConflictError{Round: r.round, Want: r.kind, Value: r.value, Have: have, Old: old}
	}
	if r.kind == KindExpired {
		return p.expired[r.round], nil
	}
	if r.kind == KindReveal && p.expired[r.round] {
		return false, conflict(KindExpired, label.Hash{})
	}
	if old, ok := p.votes[r.round]; ok {
		if old != r.value {
			return false, conflict(KindVote, old)
		}
		already = r.kind == KindVote
	}
	if old, ok := p.reveals[r.round]; ok {
		if old != r.value {
			return false, conflict(KindReveal, old)
		}
		already = already || r.kind == KindReveal
	}
	return already, nil
}

// add takes over a record that is on the disk.
func (p promises) add(r record) {
	switch r.kind {
	case KindVote:
		p.votes[r.round] = r.value
	case KindReveal:
		p.reveals[r.round] = r.value
	case KindExpired:
		p.expired[r.round] = true
	}
}

// holds reports whether exactly this record is among the promises.
func (p promises) holds(r record) bool {
	switch r.kind {
	case KindVote:
		return p.votes[r.round] == r.value && !r.value.IsZero()
	case KindReveal:
		return p.reveals[r.round] == r.value && !r.value.IsZero()
	case KindExpired:
		return p.expired[r.round]
	}
	return false
}
