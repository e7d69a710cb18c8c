package committee

import (
	"encoding/binary"
	"fmt"

	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/seal"
)

// NonceSize is the length of an upload nonce in bytes.
const NonceSize = 16

// Nonce is drawn by the device for each upload.
type Nonce = [NonceSize]byte

// Recipient is a member that the round lists, with the epoch key its box is sealed to.
type Recipient struct {
	Member  int
	Epoch   uint64
	SealKey []byte // seal.PublicSize bytes
}

// Round is what the masked sum needs to know of a certified RoundConfig.
type Round struct {
	ID     label.Hash  // H(RC)
	N, F   int         // the committee
	Len    int         // lanes of every vector of the round
	Listed []Recipient // ascending by Member; at least F+1 of them, so that every subset has a listed holder
}

// Validate refuses a round that no device could serve.
func (r Round) Validate() error {
	if err := checkSize(r.N, r.F); err != nil {
		return err
	}
	if r.ID.IsZero() {
		return fmt.Errorf("round has no id")
	}
	if r.Len < 1 || r.Len > LenMax {
		return fmt.Errorf("round has %d lanes, limit %d", r.Len, LenMax)
	}
	if len(r.Listed) < r.F+1 {
		return fmt.Errorf("round lists %d members, at least %d must hold seeds", len(r.Listed), r.F+1)
	}
	last := -1
	for _, p := range r.Listed {
		if p.Member <= last || p.Member >= r.N {
			return fmt.Errorf("round lists member %d after %d, of %d", p.Member, last, r.N)
		}
		last = p.Member
		if err := seal.CheckPublic(p.SealKey); err != nil {
			return fmt.Errorf("member %d: %w", p.Member, err)
		}
	}
	return nil
}

// recipient returns the listing of a member.
func (r Round) recipient(member int) (Recipient, bool) {
	for _, p := range r.Listed {
		if p.Member == member {
			return p, true
		}
	}
	return Recipient{}, false
}

// BoxIndex is the position of a member's box in Sealed.Boxes, or −1 where the round does not list the member.
func (r Round) BoxIndex(member int) int {
	for i, p := range r.Listed {
		if p.Member == member {
			return i
		}
	}
	return -1
}

// BoxSize is the length of every box of a round: the seeds of one member's subsets, sealed.
func BoxSize(n, f int) int { return seal.Overhead + 32*Count(n-1, f) }

// maskContext is H(RC) ‖ device_id ‖ upload_nonce ‖ T: the context of a seed's expansion and, behind it, of its
// commitment. Every field has a fixed length, so the concatenation is unambiguous.
func maskContext(round, device label.Hash, nonce Nonce, t Mask) []byte {
	out := make([]byte, 0, 2*label.Size+NonceSize+4)
	out = append(out, round[:]...)
	out = append(out, device[:]...)
	out = append(out, nonce[:]...)
	return binary.BigEndian.AppendUint32(out, uint32(t))
}

// boxInfo is the HPKE info of a member's box: "ruche/secagg/v1/box" ‖ H(RC) ‖ j ‖ e.
func boxInfo(round label.Hash, member int, epoch uint64) []byte {
	out := make([]byte, 0, len(label.BoxInfo)+label.Size+4+8)
	out = append(out, label.BoxInfo...)
	out = append(out, round[:]...)
	out = binary.BigEndian.AppendUint32(out, uint32(member))
	return binary.BigEndian.AppendUint64(out, epoch)
}
