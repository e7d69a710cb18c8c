package statement

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

const (
	headerVersion  = 1
	acceptVersion  = 1
	receiptVersion = 1
)

// KindDevice is the only kind of contribution so far; members' noise will be another.
const KindDevice byte = 1

// Header is what a contribution says of itself (SA 2.3, 1).
type Header struct {
	Round       label.Hash
	Device      label.Hash
	Cert        label.Hash // HashDeviceCert of the device's certificate
	Kind        byte
	Nonce       [16]byte
	Len         uint32       // lanes of y
	Y           label.Hash   // H("y", y)
	Commitments []label.Hash // com_T, subsets in increasing mask order
	Boxes       label.Hash   // HashBoxes
	Bits        label.Hash   // of the norm check's bits; zero, since this version has none
}

// Bytes is the canonical encoding.
func (h *Header) Bytes() []byte {
	e := encodeHead(typeHeader, headerVersion)
	h.fields(e)
	e.hash(h.Boxes)
	return e.b
}

// fields writes all but the boxes' hash.
func (h *Header) fields(e *encoder) {
	e.hash(h.Round)
	e.hash(h.Device)
	e.hash(h.Cert)
	e.u8(h.Kind)
	e.fixed(h.Nonce[:])
	e.u32(h.Len)
	e.hash(h.Y)
	e.hashes(h.Commitments)
	e.hash(h.Bits)
}

// ParseHeader reads what Bytes wrote and checks what holds for every header of this version.
func ParseHeader(b []byte) (*Header, error) {
	d := decode("header", b, typeHeader, headerVersion)
	h := &Header{Round: d.hash(), Device: d.hash(), Cert: d.hash(), Kind: d.u8()}
	copy(h.Nonce[:], d.take(len(h.Nonce)))
	h.Len, h.Y, h.Commitments, h.Bits, h.Boxes = d.u32(), d.hash(), d.hashes("commitments", SubsetsMax), d.hash(), d.hash()
	if err := d.end(); err != nil {
		return nil, err
	}
	switch {
	case h.Kind != KindDevice:
		return nil, fmt.Errorf("header has kind %d, this version implements %d only", h.Kind, KindDevice)
	case !h.Bits.IsZero():
		return nil, errors.New("header has bits of a norm check, this version implements none")
	case h.Len == 0:
		return nil, errors.New("header has length 0")
	case len(h.Commitments) == 0:
		return nil, errors.New("header has no commitments")
	}
	return h, nil
}

// Hash is H(header), the contribution's name.
func (h *Header) Hash() label.Hash { return HashHeader(h.Bytes()) }

// HashHeader names the exact bytes of a header.
func HashHeader(body []byte) label.Hash { return label.Sum(label.TagHeader, body) }

// AAD is what every box of this contribution is bound to: the hash of all fields but the boxes' own hash, which the
// device knows before it seals.
func (h *Header) AAD() []byte {
	e := encodeHead(typeHeaderAAD, headerVersion)
	h.fields(e)
	sum := label.Sum(label.TagHeader, e.b)
	return sum[:]
}

// HashBoxes names the boxes of one contribution, in member order.
func HashBoxes(boxes [][]byte) label.Hash {
	w := label.New(label.TagBoxes)
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(boxes)))
	w.Write(n[:])
	for _, b := range boxes {
		binary.BigEndian.PutUint32(n[:], uint32(len(b)))
		w.Write(n[:])
		w.Write(b)
	}
	return label.Hash(w.Sum(nil))
}

// contributionBody is what a device signs: H(RC) ‖ H(header).
func contributionBody(round, header label.Hash) []byte {
	return append(append(make([]byte, 0, 2*label.Size), round[:]...), header[:]...)
}

// SignContribution is the device's signature over H(RC) ‖ H(header).
func SignContribution(key *identity.Key, round, header label.Hash) []byte {
	return key.Sign(label.StmtContribution, contributionBody(round, header))
}

// VerifyContribution checks SignContribution's signature.
func VerifyContribution(device identity.Public, round, header label.Hash, signature []byte) error {
	return device.Verify(label.StmtContribution, contributionBody(round, header), signature)
}

// Accept is the log's record of one stored contribution (SA 2.3, 2). Nobody signs it: it carries the device's signature.
type Accept struct {
	Round     label.Hash
	Header    label.Hash
	Device    label.Hash
	Authority int
	Size      uint64 // bytes of y and boxes
	Holders   Mask   // members that had it fsynced when it was proposed
	Signature []byte // SignContribution's
}

// Bytes is the canonical encoding.
func (a *Accept) Bytes() []byte {
	e := encodeHead(typeAccept, acceptVersion)
	e.hash(a.Round)
	e.hash(a.Header)
	e.hash(a.Device)
	e.u32(uint32(a.Authority))
	e.u64(a.Size)
	e.u32(uint32(a.Holders))
	e.bytes(a.Signature)
	return e.b
}

// ParseAccept reads what Bytes wrote.
func ParseAccept(b []byte) (*Accept, error) {
	d := decode("accept", b, typeAccept, acceptVersion)
	a := &Accept{Round: d.hash(), Header: d.hash(), Device: d.hash(), Authority: d.member(), Size: d.u64(),
		Holders: d.mask("holders"), Signature: d.bytes("signature", identity.KeySignatureSize)}
	if err := d.end(); err != nil {
		return nil, err
	}
	if len(a.Signature) != identity.KeySignatureSize {
		return nil, fmt.Errorf("accept has a signature of %d bytes, want %d", len(a.Signature), identity.KeySignatureSize)
	}
	return a, nil
}

// Receipt is one member's word that it holds a contribution and has its Accept applied (SA 2.3, 3). Signed by its vote key.
type Receipt struct {
	Round  label.Hash
	Header label.Hash
	Index  uint64 // log index of the Accept
}

// Bytes is the canonical encoding, which is what is signed.
func (r *Receipt) Bytes() []byte {
	e := encodeHead(typeReceipt, receiptVersion)
	e.hash(r.Round)
	e.hash(r.Header)
	e.u64(r.Index)
	return e.b
}

// ParseReceipt reads what Bytes wrote.
func ParseReceipt(b []byte) (*Receipt, error) {
	d := decode("receipt", b, typeReceipt, receiptVersion)
	r := &Receipt{Round: d.hash(), Header: d.hash(), Index: d.u64()}
	return r, d.end()
}
