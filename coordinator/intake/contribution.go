package intake

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// Terms are what an upload to one round is checked against.
type Terms struct {
	Round committee.Round
}

// State is the replicated state as this member has applied it. Its methods are safe for concurrent use.
type State interface {
	// Await returns when a round is certified here and a device enrolled, or after a short while: a peer may know both a
	// little earlier.
	Await(ctx context.Context, round, device label.Hash)
	// Terms of a certified round that has not ended; false if the log knows none of that id.
	Terms(round label.Hash) (Terms, bool)
	// DeviceCert of an enrolled device; false if the log knows none.
	DeviceCert(device label.Hash) (*statement.DeviceCert, bool)
	// Acceptable says what the log would answer to an Accept of this contribution now: codeOK, codeDuplicate where it
	// holds the Accept, or why it takes none.
	Acceptable(round, device, header label.Hash) (code, detail string)
}

// What the log answers to an Accept that it holds afterwards.
const (
	codeOK        = "ok"
	codeDuplicate = "duplicate"
)

// What the log answers where it takes no more.
const (
	codeClosed = "round_closed"
	codeSecond = "second_header"
)

// Contribution is the checked head of a contribution: everything but y.
type Contribution struct {
	Header    *statement.Header
	Hash      label.Hash // H(header), its name
	Signature []byte     // the device's, over H(RC) and H(header)
	Boxes     [][]byte   // one per listed member, in member order
	Authority int
	Accepted  bool // the log held its Accept when it was checked

	body []byte // the header's exact bytes
	head []byte // as it travels, and begins on the shelf
	yCRC uint32 // CRC32C of y, of one from the shelf
}

// YBytes is the length of y.
func (c *Contribution) YBytes() int64 { return int64(c.Header.Len) * committee.LaneBytes }

// Size is what an Accept says: bytes of y and boxes.
func (c *Contribution) Size() uint64 {
	n := uint64(c.YBytes())
	for _, b := range c.Boxes {
		n += uint64(len(b))
	}
	return n
}

// Open gives the head as it travels.
func (c *Contribution) Open(offset uint64) *coordpb.UploadOpen {
	return &coordpb.UploadOpen{
		RoundId: c.Header.Round[:],
		Header:  &coordpb.Signed{Body: c.body, Signature: c.Signature},
		Boxes:   c.Boxes,
		Offset:  offset,
	}
}

// Check parses a head and checks everything that a member can check without its keys and without y: the round, the
// device's certificate and signature, sizes and hashes, and that the log would accept it or has. What is refused here
// costs no disk.
func Check(s State, open *coordpb.UploadOpen) (*Contribution, Terms, error) {
	var terms Terms
	// Rebuilt from its fields: what a sender adds to them is not kept.
	head, err := proto.MarshalOptions{Deterministic: true}.Marshal(&coordpb.UploadOpen{RoundId: open.GetRoundId(), Boxes: open.GetBoxes(),
		Header: &coordpb.Signed{Body: open.GetHeader().GetBody(), Signature: open.GetHeader().GetSignature()}})
	if err != nil {
		return nil, terms, refuse(CodeBadHeader, "%v", err)
	}
	if len(head) > headBytesMax {
		return nil, terms, refuse(CodeBadHeader, "head has %d bytes, limit %d", len(head), headBytesMax)
	}
	h, err := statement.ParseHeader(open.GetHeader().GetBody())
	if err != nil {
		return nil, terms, refuse(CodeBadHeader, "%v", err)
	}
	if string(open.GetRoundId()) != string(h.Round[:]) {
		return nil, terms, refuse(CodeBadHeader, "the upload and its header name different rounds")
	}
	terms, ok := s.Terms(h.Round)
	if !ok {
		// Of a round that has ended the log says that it takes no more, or that it took this: neither is a reason to try
		// again, here or elsewhere, for a device that was away meanwhile.
		switch code, _ := s.Acceptable(h.Round, h.Device, statement.HashHeader(open.GetHeader().GetBody())); code {
		case codeDuplicate, codeSecond, codeClosed:
			return nil, terms, refuse(codeClosed, "round %s has ended", h.Round)
		}
		return nil, terms, refuse(CodeUnknownRound, "round %s is not certified here", h.Round)
	}
	r := terms.Round
	switch {
	case int(h.Len) != r.Len:
		return nil, terms, refuse(CodeWrongLength, "y has %d lanes, round %s wants %d", h.Len, h.Round, r.Len)
	case len(h.Commitments) != committee.Count(r.N, r.F):
		return nil, terms, refuse(CodeBadHeader, "%d commitments, (n,f) = (%d,%d) wants %d", len(h.Commitments), r.N, r.F, committee.Count(r.N, r.F))
	case len(open.GetBoxes()) != len(r.Listed):
		return nil, terms, refuse(CodeBadBoxes, "%d boxes, the round lists %d members", len(open.GetBoxes()), len(r.Listed))
	}
	for i, b := range open.GetBoxes() {
		if len(b) != committee.BoxSize(r.N, r.F) {
			return nil, terms, refuse(CodeBadBoxes, "box %d has %d bytes, want %d", i, len(b), committee.BoxSize(r.N, r.F))
		}
	}
	if statement.HashBoxes(open.GetBoxes()) != h.Boxes {
		return nil, terms, refuse(CodeBadBoxes, "the boxes are not those of the signed header")
	}
	cert, ok := s.DeviceCert(h.Device)
	if !ok {
		return nil, terms, refuse(CodeUnknownDevice, "no certificate of this device in the log; enrol it again")
	}
	c := &Contribution{Header: h, Hash: statement.HashHeader(open.GetHeader().GetBody()), Signature: open.GetHeader().GetSignature(), Boxes: open.GetBoxes(),
		Authority: cert.Authority, body: open.GetHeader().GetBody(), head: head}
	if err := statement.VerifyContribution(cert.Public, h.Round, c.Hash, c.Signature); err != nil {
		return nil, terms, refuse(CodeBadSignature, "%v", err)
	}
	code, detail := s.Acceptable(h.Round, h.Device, c.Hash)
	c.Accepted = code == codeDuplicate
	// A certificate that was renewed since the log accepted the contribution, by the same device, changes nothing.
	if cert.Hash() != h.Cert && !c.Accepted {
		return nil, terms, refuse(CodeUnknownDevice, "the header names another device certificate than the log holds")
	}
	if code != codeOK && !c.Accepted {
		return nil, terms, &Refusal{Code: code, Detail: detail}
	}
	return c, terms, nil
}

// On the shelf a head is followed by the CRC32C of its y, as it was when y's hash was compared, and by the CRC32C of all
// that comes before: of what is in a head, the signature is in no hash. Both are little-endian.
const headTrailer = 2 * crc32.Size

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// shelved is the head as it lies on the shelf.
func (c *Contribution) shelved(yCRC uint32) []byte {
	b := binary.LittleEndian.AppendUint32(bytes.Clone(c.head), yCRC)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// ParseHead reads a head from the shelf. It was checked when it was written; its name is its hash.
func ParseHead(name label.Hash, shelved []byte) (*Contribution, error) {
	at := len(shelved) - headTrailer
	if at < 0 || at > headBytesMax {
		return nil, fmt.Errorf("head %s has %d bytes, at least %d and at most %d", name, len(shelved), headTrailer, headBytesMax+headTrailer)
	}
	if crc32.Checksum(shelved[:at+crc32.Size], castagnoli) != binary.LittleEndian.Uint32(shelved[at+crc32.Size:]) {
		return nil, fmt.Errorf("head %s is damaged: its checksum differs", name)
	}
	head := shelved[:at:at]
	var open coordpb.UploadOpen
	if err := proto.Unmarshal(head, &open); err != nil {
		return nil, fmt.Errorf("head %s: %w", name, err)
	}
	body := open.GetHeader().GetBody()
	if got := statement.HashHeader(body); got != name {
		return nil, fmt.Errorf("head %s holds the header %s", name, got)
	}
	h, err := statement.ParseHeader(body)
	if err != nil {
		return nil, fmt.Errorf("head %s: %w", name, err)
	}
	if statement.HashBoxes(open.GetBoxes()) != h.Boxes {
		return nil, fmt.Errorf("head %s: the boxes differ from the header's hash", name)
	}
	return &Contribution{Header: h, Hash: name, Signature: open.GetHeader().GetSignature(), Boxes: open.GetBoxes(), body: body, head: head,
		yCRC: binary.LittleEndian.Uint32(shelved[at:])}, nil
}
