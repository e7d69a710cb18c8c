package statement

import (
	"errors"
	"fmt"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/crypto/label"
)

const (
	voteVersion    = 1
	expiredVersion = 1
	revealVersion  = 1
	resultVersion  = 1
	abortVersion   = 1
	erasureVersion = 1
)

// Dead is the value of a vote for DEAD. It is a hash under a tag of its own, so no set has it.
func Dead() label.Hash { return label.Sum(label.TagDead) }

// Vote is a member's one vote in one round, for a set or for Dead (SA 2.3, 6). Signed by its vote key.
type Vote struct {
	Round label.Hash
	Value label.Hash // H(S) or Dead()
}

// Bytes is the canonical encoding, which is what is signed.
func (v *Vote) Bytes() []byte {
	e := encodeHead(typeVote, voteVersion)
	e.hash(v.Round)
	e.hash(v.Value)
	return e.b
}

// ParseVote reads what Bytes wrote.
func ParseVote(b []byte) (*Vote, error) {
	d := decode("vote", b, typeVote, voteVersion)
	v := &Vote{Round: d.hash(), Value: d.hash()}
	return v, d.end()
}

// Expired says that the reveal deadline passed and that its signer never revealed in this round and never will (SA 2.3,
// 7). Signed by its vote key.
type Expired struct{ Round label.Hash }

// Bytes is the canonical encoding, which is what is signed.
func (x *Expired) Bytes() []byte {
	e := encodeHead(typeExpired, expiredVersion)
	e.hash(x.Round)
	return e.b
}

// ParseExpired reads what Bytes wrote.
func ParseExpired(b []byte) (*Expired, error) {
	d := decode("expired", b, typeExpired, expiredVersion)
	x := &Expired{Round: d.hash()}
	return x, d.end()
}

// TSum names the sum over S of one subset's expanded seeds.
type TSum struct {
	Subset Mask
	Hash   label.Hash
}

// Reveal names what one member computed for the certified set (SA 2.3, 8). Signed by its vote key.
type Reveal struct {
	Round label.Hash
	Set   label.Hash
	SumY  label.Hash
	TSums []TSum // of every subset the member belongs to, in increasing mask order
}

// Bytes is the canonical encoding, which is what is signed.
func (r *Reveal) Bytes() []byte {
	e := encodeHead(typeReveal, revealVersion)
	e.hash(r.Round)
	e.hash(r.Set)
	e.hash(r.SumY)
	e.u32(uint32(len(r.TSums)))
	for _, t := range r.TSums {
		e.u32(uint32(t.Subset))
		e.hash(t.Hash)
	}
	return e.b
}

// ParseReveal reads what Bytes wrote.
func ParseReveal(b []byte) (*Reveal, error) {
	d := decode("reveal", b, typeReveal, revealVersion)
	r := &Reveal{Round: d.hash(), Set: d.hash(), SumY: d.hash()}
	for i := range d.length("sums", SubsetsMax) {
		r.TSums = append(r.TSums, TSum{Subset: d.mask("subset"), Hash: d.hash()})
		if d.err == nil && i > 0 && r.TSums[i-1].Subset >= r.TSums[i].Subset {
			d.fail("has subsets out of order")
		}
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	return r, nil
}

// Result is the opened sum and the model it gives (SA 2.3, 9). Signed by identity keys.
type Result struct {
	Round label.Hash
	Set   label.Hash
	X     label.Hash // of the opened sum
	Model label.Hash // of the state devices load next
}

// Bytes is the canonical encoding, which is what is signed.
func (r *Result) Bytes() []byte {
	e := encodeHead(typeResult, resultVersion)
	e.hash(r.Round)
	e.hash(r.Set)
	e.hash(r.X)
	e.hash(r.Model)
	return e.b
}

// ParseResult reads what Bytes wrote.
func ParseResult(b []byte) (*Result, error) {
	d := decode("result", b, typeResult, resultVersion)
	r := &Result{Round: d.hash(), Set: d.hash(), X: d.hash(), Model: d.hash()}
	if err := d.end(); err != nil {
		return nil, err
	}
	return r, nonzero("result", r.Set, r.X, r.Model)
}

// HashResult names the exact bytes of a Result: what the next start rests on.
func HashResult(body []byte) label.Hash { return label.Sum(label.TagResult, body) }

// Abort is a member's wish that an undecided round die (SA 2.3, Set rule). Signed by its identity key: a member
// without vote key may say it too.
type Abort struct {
	Round  label.Hash
	Reason string // for operators
}

// Bytes is the canonical encoding, which is what is signed.
func (a *Abort) Bytes() []byte {
	e := encodeHead(typeAbort, abortVersion)
	e.hash(a.Round)
	e.string(a.Reason)
	return e.b
}

// ParseAbort reads what Bytes wrote.
func ParseAbort(b []byte) (*Abort, error) {
	d := decode("abort", b, typeAbort, abortVersion)
	a := &Abort{Round: d.hash(), Reason: d.string("reason", ReasonBytesMax)}
	if err := d.end(); err != nil {
		return nil, err
	}
	for _, r := range a.Reason {
		if r < ' ' || r == 0x7f {
			return nil, fmt.Errorf("abort has a control character in its reason")
		}
	}
	return a, nil
}

// Erasure says that a member erased one epoch's keys (SA 2.6). Signed by its identity key.
type Erasure struct {
	Charter label.Hash
	Member  int
	Epoch   uint64
	AtMs    int64
}

// Bytes is the canonical encoding, which is what is signed.
func (x *Erasure) Bytes() []byte {
	e := encodeHead(typeErasure, erasureVersion)
	e.hash(x.Charter)
	e.u32(uint32(x.Member))
	e.u64(x.Epoch)
	e.i64(x.AtMs)
	return e.b
}

// ParseErasure reads what Bytes wrote.
func ParseErasure(b []byte) (*Erasure, error) {
	d := decode("erasure", b, typeErasure, erasureVersion)
	x := &Erasure{Charter: d.hash(), Member: d.member(), Epoch: d.u64(), AtMs: d.time("time")}
	if err := d.end(); err != nil {
		return nil, err
	}
	if x.Epoch == 0 {
		return nil, errors.New("erasure has epoch 0, epochs begin at 1")
	}
	return x, nil
}

// VerifyErasure parses s and checks that the member it names signed it under this charter.
func VerifyErasure(ch *charter.Charter, s Signed) (*Erasure, error) {
	x, err := ParseErasure(s.Body)
	if err != nil {
		return nil, err
	}
	switch {
	case x.Charter != ch.Hash():
		return nil, errors.New("erasure is of another charter")
	case x.Member >= ch.N:
		return nil, errors.New("erasure is of no member")
	}
	if err := ch.Members[x.Member].Identity.Verify(label.StmtErasure, s.Body, s.Signature); err != nil {
		return nil, err
	}
	return x, nil
}
