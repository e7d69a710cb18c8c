package statement

import (
	"errors"
	"fmt"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

// TimeMax bounds every time in a statement: the end of the year 9999, in milliseconds.
const TimeMax = 253402300799999

// Mask is a set of members: bit i is member i.
type Mask = committee.Mask

// Signed is the exact bytes of a statement and one signature over them.
type Signed struct {
	Body      []byte
	Signature []byte
}

const signedVersion = 1

// Bytes encodes s for storage or for signing inside another body.
func (s Signed) Bytes() []byte {
	e := encodeHead(typeSigned, signedVersion)
	e.bytes(s.Body)
	e.bytes(s.Signature)
	return e.b
}

// ParseSigned reads what Bytes wrote. It verifies nothing.
func ParseSigned(b []byte) (Signed, error) {
	d := decode("signed statement", b, typeSigned, signedVersion)
	s := Signed{Body: d.bytes("body", BodyBytesMax), Signature: d.bytes("signature", SignatureMax)}
	return s, d.end()
}

// SignMember signs body with a member's identity key.
func SignMember(key *identity.Member, stmt string, body []byte) Signed {
	return Signed{Body: body, Signature: key.Sign(stmt, body)}
}

// SignKey signs body with a vote, authority or device key.
func SignKey(key *identity.Key, stmt string, body []byte) Signed {
	return Signed{Body: body, Signature: key.Sign(stmt, body)}
}

// MemberSignature is one member's signature over a body that stands elsewhere.
type MemberSignature struct {
	Member    int
	Signature []byte
}

// MemberStatement is one member's signed statement.
type MemberStatement struct {
	Member    int
	Statement Signed
}

var errZeroHash = errors.New("a hash is zero")

func nonzero(what string, hashes ...label.Hash) error {
	for _, h := range hashes {
		if h.IsZero() {
			return fmt.Errorf("%s: %w", what, errZeroHash)
		}
	}
	return nil
}
