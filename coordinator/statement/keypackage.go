package statement

import (
	"errors"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

const keyPackageVersion = 1

// KeyPackage is one epoch's public keys of one member, signed by its identity key (SA 2.1).
type KeyPackage struct {
	Charter     label.Hash
	Member      int
	Epoch       uint64 // strictly increasing per member, from 1
	SealKey     []byte // X-Wing, 1216 bytes
	VoteKey     identity.Public
	NotBeforeMs int64
	NotAfterMs  int64
}

// Bytes is the canonical encoding, which is what is signed.
func (k *KeyPackage) Bytes() []byte {
	e := encodeHead(typeKeyPackage, keyPackageVersion)
	e.hash(k.Charter)
	e.u32(uint32(k.Member))
	e.u64(k.Epoch)
	e.bytes(k.SealKey)
	e.bytes(k.VoteKey)
	e.i64(k.NotBeforeMs)
	e.i64(k.NotAfterMs)
	return e.b
}

// ParseKeyPackage reads what Bytes wrote and checks what holds for every KeyPackage.
func ParseKeyPackage(b []byte) (*KeyPackage, error) {
	d := decode("key package", b, typeKeyPackage, keyPackageVersion)
	k := &KeyPackage{Charter: d.hash(), Member: d.member(), Epoch: d.u64(), SealKey: d.bytes("seal key", SealPublicSize),
		VoteKey: d.bytes("vote key", VotePublicSize), NotBeforeMs: d.time("nbf"), NotAfterMs: d.time("naf")}
	if err := d.end(); err != nil {
		return nil, err
	}
	switch {
	case k.Epoch == 0:
		return nil, errors.New("key package has epoch 0, epochs begin at 1")
	case len(k.SealKey) != SealPublicSize:
		return nil, errors.New("key package has a seal key of another size")
	case len(k.VoteKey) != VotePublicSize:
		return nil, errors.New("key package has a vote key of another size")
	case k.NotAfterMs <= k.NotBeforeMs:
		return nil, errors.New("key package ends before it begins")
	case k.NotAfterMs-k.NotBeforeMs > charter.EpochLifeMax.Milliseconds():
		return nil, errors.New("key package lives longer than 24 h")
	}
	return k, nil
}

// HalfMs is the end of the first half of k's life: no round proposed later lists it.
func (k *KeyPackage) HalfMs() int64 { return k.NotBeforeMs + (k.NotAfterMs-k.NotBeforeMs)/2 }

// VerifyKeyPackage parses s and checks that the member it names signed it under this charter.
func VerifyKeyPackage(ch *charter.Charter, s Signed) (*KeyPackage, error) {
	k, err := ParseKeyPackage(s.Body)
	if err != nil {
		return nil, err
	}
	switch {
	case k.Charter != ch.Hash():
		return nil, errors.New("key package is of another charter")
	case k.Member >= ch.N:
		return nil, errors.New("key package is of no member")
	case k.NotAfterMs-k.NotBeforeMs > ch.Timing.EpochLife.Milliseconds():
		return nil, errors.New("key package lives longer than the charter's epoch_life")
	}
	if err := ch.Members[k.Member].Identity.Verify(label.StmtKeyPackage, s.Body, s.Signature); err != nil {
		return nil, err
	}
	return k, nil
}
