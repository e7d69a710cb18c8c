package identity

import (
	"crypto/ed25519"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/ruche-federation/ruche/crypto/internal/hidden"
	"github.com/ruche-federation/ruche/crypto/label"
)

// Sizes of a Key in bytes.
const (
	KeySize          = ed25519.SeedSize
	PublicSize       = ed25519.PublicKeySize
	KeySignatureSize = ed25519.SignatureSize
)

// SignatureError says which half of a signature does not verify, and for which type of statement.
type SignatureError struct {
	Stmt string // statement type
	Half string // "Ed25519", "ML-DSA-65" or "Ed25519 and ML-DSA-65"
}

func (e *SignatureError) Error() string {
	return fmt.Sprintf("%s signature of the %s statement does not verify", e.Half, e.Stmt)
}

// Key is an Ed25519 private key. It prints as its type only.
// Signing is safe for concurrent use, erasing is not.
type Key struct {
	ed hidden.Value[[ed25519.PrivateKeySize]byte] // seed ‖ public key
}

// NewKey draws a 32-byte seed from rand and nothing else: same bytes, same key.
func NewKey(rand io.Reader) (*Key, error) {
	var seed [KeySize]byte
	if _, err := io.ReadFull(rand, seed[:]); err != nil {
		return nil, fmt.Errorf("drawing an Ed25519 key: %w", err)
	}
	defer clear(seed[:])
	return ParseKey(seed[:])
}

// ParseKey reads what Bytes returned.
func ParseKey(b []byte) (*Key, error) {
	if len(b) != KeySize {
		return nil, fmt.Errorf("Ed25519 key has %d bytes, want %d", len(b), KeySize)
	}
	ed := [ed25519.PrivateKeySize]byte(ed25519.NewKeyFromSeed(b))
	return &Key{ed: hidden.Of(&ed)}, nil
}

// Bytes returns a copy of the secret seed.
func (k *Key) Bytes() []byte { return append([]byte(nil), k.ed()[:KeySize]...) }

// Public returns the public half.
func (k *Key) Public() Public { return append(Public(nil), k.ed()[KeySize:]...) }

// Sign signs the exact bytes body as a statement of type stmt, deterministically.
func (k *Key) Sign(stmt string, body []byte) []byte {
	return ed25519.Sign(k.ed()[:], label.Signing(stmt, body))
}

// Ed25519 returns a copy of the key in the standard library's form, for TLS certificates only: what a certificate
// proves is never a statement, since statements begin with label.Version.
func (k *Key) Ed25519() ed25519.PrivateKey { return append(ed25519.PrivateKey(nil), k.ed()[:]...) }

// Equal compares in constant time.
func (k *Key) Equal(other *Key) bool {
	if k == nil || other == nil {
		return k == other
	}
	return subtle.ConstantTimeCompare(k.ed()[:], other.ed()[:]) == 1
}

// Erase overwrites the key. Its signatures are worthless afterwards: callers drop it.
func (k *Key) Erase() {
	if k != nil {
		clear(k.ed()[:KeySize])
	}
}

// Public is an Ed25519 public key.
type Public []byte

// Check refuses keys of another length.
func (p Public) Check() error {
	if len(p) != PublicSize {
		return fmt.Errorf("Ed25519 public key has %d bytes, want %d", len(p), PublicSize)
	}
	return nil
}

// Verify checks that sig is p's signature of the exact bytes body as a statement of type stmt.
func (p Public) Verify(stmt string, body, sig []byte) error {
	if err := p.Check(); err != nil {
		return err
	}
	if len(sig) != KeySignatureSize {
		return fmt.Errorf("signature of the %s statement has %d bytes, want %d", stmt, len(sig), KeySignatureSize)
	}
	if !ed25519.Verify(ed25519.PublicKey(p), label.Signing(stmt, body), sig) {
		return &SignatureError{Stmt: stmt, Half: "Ed25519"}
	}
	return nil
}

// Equal compares two public keys.
func (p Public) Equal(other Public) bool { return subtle.ConstantTimeCompare(p, other) == 1 }

// DeviceID names the device that holds p's private half.
func DeviceID(p Public) label.Hash { return label.Sum(label.TagDevice, p) }

const redactedKey = "identity.Key(secret)"

// String prints the type only.
func (*Key) String() string { return redactedKey }

// GoString prints the type only.
func (*Key) GoString() string { return redactedKey }

// Format prints the type only, under every verb.
func (*Key) Format(f fmt.State, _ rune) { io.WriteString(f, redactedKey) }

// LogValue logs the type only.
func (*Key) LogValue() slog.Value { return slog.StringValue(redactedKey) }

// MarshalJSON refuses.
func (*Key) MarshalJSON() ([]byte, error) {
	return nil, errors.New("identity.Key is secret and has no JSON form")
}

// MarshalText refuses.
func (*Key) MarshalText() ([]byte, error) {
	return nil, errors.New("identity.Key is secret and has no text form")
}
