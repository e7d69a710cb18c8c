package statement

import (
	"errors"
	"fmt"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/crypto/label"
)

const (
	rejoinVersion = 1
	storeBytes    = 36 // a UUID
)

// Rejoin says that a member's log lies on a new store, which knows nothing of what the one before it promised, and asks
// the others to take that store in. Signed by its identity key: it is about the member's own seat and no other.
type Rejoin struct {
	Charter label.Hash
	Member  int
	Store   string // the new store's id
	AtMs    int64
}

// Bytes is the canonical encoding, which is what is signed.
func (r *Rejoin) Bytes() []byte {
	e := encodeHead(typeRejoin, rejoinVersion)
	e.hash(r.Charter)
	e.u32(uint32(r.Member))
	e.string(r.Store)
	e.i64(r.AtMs)
	return e.b
}

// ParseRejoin reads what Bytes wrote.
func ParseRejoin(b []byte) (*Rejoin, error) {
	d := decode("rejoin", b, typeRejoin, rejoinVersion)
	r := &Rejoin{Charter: d.hash(), Member: d.member(), Store: d.string("store", storeBytes), AtMs: d.time("time")}
	if err := d.end(); err != nil {
		return nil, err
	}
	if !charter.IsUUID(r.Store) {
		return nil, fmt.Errorf("rejoin has store %q, which is not a lower-case UUID", r.Store)
	}
	return r, nil
}

// VerifyRejoin parses s and checks that the member it names signed it under this charter.
func VerifyRejoin(ch *charter.Charter, s Signed) (*Rejoin, error) {
	r, err := ParseRejoin(s.Body)
	if err != nil {
		return nil, err
	}
	switch {
	case r.Charter != ch.Hash():
		return nil, errors.New("rejoin is of another charter")
	case r.Member >= ch.N:
		return nil, errors.New("rejoin is of no member")
	}
	if err := ch.Members[r.Member].Identity.Verify(label.StmtRejoin, s.Body, s.Signature); err != nil {
		return nil, err
	}
	return r, nil
}
