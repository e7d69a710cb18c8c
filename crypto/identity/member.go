package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"

	"github.com/ruche-federation/ruche/crypto/internal/hidden"
	"github.com/ruche-federation/ruche/crypto/label"
)

// Sizes of a Member in bytes.
const (
	MemberSize          = KeySize + mldsa65.SeedSize
	MemberPublicSize    = PublicSize + mldsa65.PublicKeySize
	MemberSignatureSize = KeySignatureSize + mldsa65.SignatureSize
)

// Member is an organisation's composite private key. It prints as its type only.
type Member struct {
	key     *Key
	lattice hidden.Value[lattice]
	public  MemberPublic
}

type lattice struct {
	seed [mldsa65.SeedSize]byte
	key  *mldsa65.PrivateKey
}

// NewMember draws two 32-byte seeds from rand and nothing else, Ed25519's first: same bytes, same key.
func NewMember(rand io.Reader) (*Member, error) {
	var seeds [MemberSize]byte
	if _, err := io.ReadFull(rand, seeds[:]); err != nil {
		return nil, fmt.Errorf("drawing a member key: %w", err)
	}
	defer clear(seeds[:])
	return ParseMember(seeds[:])
}

// ParseMember reads what Bytes returned.
func ParseMember(b []byte) (*Member, error) {
	if len(b) != MemberSize {
		return nil, fmt.Errorf("member key has %d bytes, want %d", len(b), MemberSize)
	}
	key, err := ParseKey(b[:KeySize])
	if err != nil {
		return nil, err
	}
	l := &lattice{seed: [mldsa65.SeedSize]byte(b[KeySize:])}
	pk, sk := mldsa65.NewKeyFromSeed(&l.seed)
	l.key = sk
	public := append(MemberPublic(key.Public()), pk.Bytes()...)
	return &Member{key: key, lattice: hidden.Of(l), public: public}, nil
}

// Bytes returns a copy of the two secret seeds.
func (m *Member) Bytes() []byte { return append(m.key.Bytes(), m.lattice().seed[:]...) }

// Public returns the public half.
func (m *Member) Public() MemberPublic { return append(MemberPublic(nil), m.public...) }

// Sign signs the exact bytes body as a statement of type stmt: Ed25519 ‖ ML-DSA-65, both deterministic.
func (m *Member) Sign(stmt string, body []byte) []byte {
	sig := make([]byte, MemberSignatureSize)
	signing := label.Signing(stmt, body) // once for both: bodies of 35 kB cost more to hash than to sign
	copy(sig, ed25519.Sign(m.key.ed()[:], signing))
	if err := mldsa65.SignTo(m.lattice().key, signing, label.Context(stmt), false, sig[KeySignatureSize:]); err != nil {
		panic("identity: " + err.Error()) // only for contexts beyond 255 bytes; statement types are constants
	}
	return sig
}

// Equal compares in constant time.
func (m *Member) Equal(other *Member) bool {
	if m == nil || other == nil {
		return m == other
	}
	return subtle.ConstantTimeCompare(m.key.ed()[:], other.key.ed()[:])&
		subtle.ConstantTimeCompare(m.lattice().seed[:], other.lattice().seed[:]) == 1
}

// MemberPublic is Ed25519 ‖ ML-DSA-65.
type MemberPublic []byte

// Check refuses keys of another length.
func (p MemberPublic) Check() error {
	if len(p) != MemberPublicSize {
		return fmt.Errorf("member public key has %d bytes, want %d", len(p), MemberPublicSize)
	}
	return nil
}

// Verify checks that sig is p's signature of the exact bytes body as a statement of type stmt. Both halves must
// verify; a *SignatureError says which did not.
func (p MemberPublic) Verify(stmt string, body, sig []byte) error {
	if err := p.Check(); err != nil {
		return err
	}
	if len(sig) != MemberSignatureSize {
		return fmt.Errorf("member signature of the %s statement has %d bytes, want %d", stmt, len(sig), MemberSignatureSize)
	}
	signing := label.Signing(stmt, body)
	classic := ed25519.Verify(ed25519.PublicKey(p[:PublicSize]), signing, sig[:KeySignatureSize])
	var pk mldsa65.PublicKey
	if err := pk.UnmarshalBinary(p[PublicSize:]); err != nil {
		return fmt.Errorf("member public key: %w", err)
	}
	quantum := mldsa65.Verify(&pk, signing, label.Context(stmt), sig[KeySignatureSize:])
	switch {
	case classic && quantum:
		return nil
	case classic:
		return &SignatureError{Stmt: stmt, Half: "ML-DSA-65"}
	case quantum:
		return &SignatureError{Stmt: stmt, Half: "Ed25519"}
	}
	return &SignatureError{Stmt: stmt, Half: "Ed25519 and ML-DSA-65"}
}

// Equal compares two public keys.
func (p MemberPublic) Equal(other MemberPublic) bool { return bytes.Equal(p, other) }

const redactedMember = "identity.Member(secret)"

// String prints the type only.
func (*Member) String() string { return redactedMember }

// GoString prints the type only.
func (*Member) GoString() string { return redactedMember }

// Format prints the type only, under every verb.
func (*Member) Format(f fmt.State, _ rune) { io.WriteString(f, redactedMember) }

// LogValue logs the type only.
func (*Member) LogValue() slog.Value { return slog.StringValue(redactedMember) }

// MarshalJSON refuses.
func (*Member) MarshalJSON() ([]byte, error) {
	return nil, errors.New("identity.Member is secret and has no JSON form")
}

// MarshalText refuses.
func (*Member) MarshalText() ([]byte, error) {
	return nil, errors.New("identity.Member is secret and has no text form")
}
