package epoch

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/seal"
	"github.com/ruche-federation/ruche/storage/fault"
)

// VersionError is a file of a later release. It is not damage: the epoch is left alone and not opened.
type VersionError struct {
	File      string
	Got, Want uint16
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("epoch file %s has version %d, this program reads version %d", e.File, e.Got, e.Want)
}

// The stored form of the key file, integers big-endian:
//
//	magic[8] version[2] epoch[8] seal seed[32] vote seed[32] H("epoch", all before)[32]
const (
	keysMagic   = "rucheepk"
	keysVersion = 1
	keysBody    = 8 + 2 + 8 + seal.PrivateSize + identity.KeySize
	keysSize    = keysBody + label.Size
)

func encodeKeys(epoch uint64, sealKey *seal.PrivateKey, voteKey *identity.Key) []byte {
	b := make([]byte, 0, keysSize)
	b = append(b, keysMagic...)
	b = binary.BigEndian.AppendUint16(b, keysVersion)
	b = binary.BigEndian.AppendUint64(b, epoch)
	b = append(b, sealKey.Bytes()...)
	b = append(b, voteKey.Bytes()...)
	sum := label.Sum(label.TagEpochFile, b)
	return append(b, sum[:]...)
}

func parseKeys(b []byte, epoch uint64) (*seal.PrivateKey, *identity.Key, error) {
	if len(b) >= 10 && string(b[:8]) == keysMagic {
		if v := binary.BigEndian.Uint16(b[8:]); v > keysVersion {
			return nil, nil, &VersionError{File: keysName, Got: v, Want: keysVersion}
		}
	}
	if len(b) != keysSize {
		return nil, nil, fmt.Errorf("key file has %d bytes, want %d", len(b), keysSize)
	}
	sum := label.Sum(label.TagEpochFile, b[:keysBody])
	if subtle.ConstantTimeCompare(sum[:], b[keysBody:]) != 1 {
		return nil, nil, fmt.Errorf("key file does not match its checksum")
	}
	if string(b[:8]) != keysMagic || binary.BigEndian.Uint16(b[8:]) != keysVersion {
		return nil, nil, fmt.Errorf("key file begins with %x", b[:10])
	}
	if got := binary.BigEndian.Uint64(b[10:]); got != epoch {
		return nil, nil, fmt.Errorf("key file belongs to epoch %d, not %d", got, epoch)
	}
	sealKey, err := seal.ParsePrivateKey(b[18 : 18+seal.PrivateSize])
	if err != nil {
		return nil, nil, err
	}
	voteKey, err := identity.ParseKey(b[18+seal.PrivateSize : keysBody])
	if err != nil {
		return nil, nil, err
	}
	return sealKey, voteKey, nil
}

// Kind is what a record promises.
type Kind byte

// Kinds of records.
const (
	kindBegin   Kind = 0 // first in the file: whose records these are
	KindVote    Kind = 1
	KindReveal  Kind = 2
	KindExpired Kind = 3
)

// String names the kind as the statement it is signed as.
func (k Kind) String() string {
	switch k {
	case kindBegin:
		return "begin"
	case KindVote:
		return "vote"
	case KindReveal:
		return "reveal"
	case KindExpired:
		return "expired"
	}
	return fmt.Sprintf("kind %d", byte(k))
}

// step is the durable write of a record of this kind.
func (k Kind) step(path string, write func() error) error {
	switch k {
	case KindVote:
		return fault.Step("vote", path, write)
	case KindReveal:
		return fault.Step("reveal", path, write)
	}
	return fault.Step("expired", path, write)
}

// The stored form of a record: version[1] kind[1], then of a begin record epoch[8] vote public key[32], of the others
// round[32] value[32], the value of an expired record being zero.
const (
	recordVersion = 1
	beginSize     = 2 + 8 + identity.PublicSize
	recordSize    = 2 + 2*label.Size
)

// record is one promise.
type record struct {
	kind  Kind
	round label.Hash
	value label.Hash
}

func (r record) encode() []byte {
	b := append(make([]byte, 0, recordSize), recordVersion, byte(r.kind))
	b = append(b, r.round[:]...)
	return append(b, r.value[:]...)
}

func encodeBegin(epoch uint64, vote identity.Public) []byte {
	b := append(make([]byte, 0, beginSize), recordVersion, byte(kindBegin))
	b = binary.BigEndian.AppendUint64(b, epoch)
	return append(b, vote...)
}

func checkBegin(b []byte, epoch uint64, vote identity.Public) error {
	if err := checkRecordVersion(b); err != nil {
		return err
	}
	if !bytes.Equal(b, encodeBegin(epoch, vote)) {
		return fmt.Errorf("vote file does not begin with epoch %d and its vote key", epoch)
	}
	return nil
}

func parseRecord(b []byte) (record, error) {
	if err := checkRecordVersion(b); err != nil {
		return record{}, err
	}
	if len(b) != recordSize {
		return record{}, fmt.Errorf("record has %d bytes, want %d", len(b), recordSize)
	}
	r := record{kind: Kind(b[1]), round: label.Hash(b[2 : 2+label.Size]), value: label.Hash(b[2+label.Size:])}
	switch r.kind {
	case KindVote, KindReveal:
		if r.value.IsZero() {
			return record{}, fmt.Errorf("%v record without a value", r.kind)
		}
	case KindExpired:
		if !r.value.IsZero() {
			return record{}, fmt.Errorf("expired record with a value")
		}
	default:
		return record{}, fmt.Errorf("record of %v", r.kind)
	}
	if r.round.IsZero() {
		return record{}, fmt.Errorf("%v record without a round", r.kind)
	}
	return r, nil
}

func checkRecordVersion(b []byte) error {
	if len(b) < 2 {
		return fmt.Errorf("record has %d bytes", len(b))
	}
	if b[0] > recordVersion {
		return &VersionError{File: votesName, Got: uint16(b[0]), Want: recordVersion}
	}
	if b[0] != recordVersion {
		return fmt.Errorf("record has version %d", b[0])
	}
	return nil
}
