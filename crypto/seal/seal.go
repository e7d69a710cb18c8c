package seal

import (
	"crypto/hpke"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/ruche-federation/ruche/crypto/internal/hidden"
)

// Sizes in bytes.
const (
	PublicSize  = 1216 // ML-KEM-768 encapsulation key ‖ X25519 public key
	PrivateSize = 32   // the seed that both private halves are derived from
	EncSize     = 1120 // ML-KEM-768 ciphertext ‖ X25519 public key
	tagSize     = 16   // AES-256-GCM
	Overhead    = EncSize + tagSize
)

// ErrOpen says that a box does not open under this key, info and aad. It says no more: why is the sealer's affair.
var ErrOpen = errors.New("box does not open")

// ErrErased says that the key was erased: it tells nothing about the box.
var ErrErased = errors.New("seal key was erased")

// PrivateKey opens boxes. It prints as its type only, and lives as long as its epoch.
// It is safe for concurrent use.
type PrivateKey struct {
	secret hidden.Value[secret]
	public []byte
}

// secret is erased while others may be opening boxes.
type secret struct {
	mu   sync.RWMutex // guards what follows
	seed [PrivateSize]byte
	key  hpke.PrivateKey // nil once erased
}

// GenerateKey draws a 32-byte seed from rand and nothing else: same bytes, same key.
func GenerateKey(rand io.Reader) (*PrivateKey, error) {
	var seed [PrivateSize]byte
	if _, err := io.ReadFull(rand, seed[:]); err != nil {
		return nil, fmt.Errorf("drawing a seal key: %w", err)
	}
	defer clear(seed[:])
	return ParsePrivateKey(seed[:])
}

// ParsePrivateKey reads what Bytes returned.
func ParsePrivateKey(b []byte) (*PrivateKey, error) {
	if len(b) != PrivateSize {
		return nil, fmt.Errorf("seal key has %d bytes, want %d", len(b), PrivateSize)
	}
	s := &secret{seed: [PrivateSize]byte(b)}
	key, err := hpke.MLKEM768X25519().NewPrivateKey(s.seed[:])
	if err != nil {
		return nil, fmt.Errorf("seal key: %w", err)
	}
	s.key = key
	return &PrivateKey{secret: hidden.Of(s), public: key.PublicKey().Bytes()}, nil
}

// Bytes returns a copy of the 32 secret bytes.
func (k *PrivateKey) Bytes() []byte {
	s := k.secret()
	s.mu.RLock()
	defer s.mu.RUnlock()
	return append([]byte(nil), s.seed[:]...)
}

// Public returns a copy of the public key, PublicSize bytes.
func (k *PrivateKey) Public() []byte { return append([]byte(nil), k.public...) }

// Equal compares in constant time.
func (k *PrivateKey) Equal(other *PrivateKey) bool {
	if k == nil || other == nil {
		return k == other
	}
	mine, theirs := k.Bytes(), other.Bytes()
	defer clear(mine)
	defer clear(theirs)
	return subtle.ConstantTimeCompare(mine, theirs) == 1
}

// Erase forgets the key as far as Go allows: the seed is overwritten, the expanded key is left to the collector.
// A key that was erased opens nothing.
func (k *PrivateKey) Erase() {
	if k == nil {
		return
	}
	s := k.secret()
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.seed[:])
	s.key = nil
}

// CheckPublic refuses what no box can be sealed to.
func CheckPublic(public []byte) error {
	_, err := parsePublic(public)
	return err
}

func parsePublic(public []byte) (hpke.PublicKey, error) {
	if len(public) != PublicSize {
		return nil, fmt.Errorf("seal public key has %d bytes, want %d", len(public), PublicSize)
	}
	pk, err := hpke.MLKEM768X25519().NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("seal public key: %w", err)
	}
	return pk, nil
}

// Seal returns enc ‖ ciphertext, Overhead bytes longer than plaintext. The randomness is the standard library's own.
func Seal(public, info, aad, plaintext []byte) ([]byte, error) {
	pk, err := parsePublic(public)
	if err != nil {
		return nil, err
	}
	enc, sender, err := hpke.NewSender(pk, hpke.HKDFSHA256(), hpke.AES256GCM(), info)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	ct, err := sender.Seal(aad, plaintext)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	return append(enc, ct...), nil
}

// Open returns the plaintext of a box that was sealed to k under the same info and aad, or an error that is ErrOpen, or
// ErrErased.
func (k *PrivateKey) Open(box, info, aad []byte) ([]byte, error) {
	if len(box) < Overhead {
		return nil, fmt.Errorf("%w: it has %d bytes, at least %d are needed", ErrOpen, len(box), Overhead)
	}
	s := k.secret()
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.key == nil {
		return nil, ErrErased
	}
	r, err := hpke.NewRecipient(box[:EncSize], s.key, hpke.HKDFSHA256(), hpke.AES256GCM(), info)
	if err != nil {
		return nil, ErrOpen
	}
	pt, err := r.Open(aad, box[EncSize:])
	if err != nil {
		return nil, ErrOpen
	}
	return pt, nil
}

const redacted = "seal.PrivateKey(secret)"

// String prints the type only.
func (*PrivateKey) String() string { return redacted }

// GoString prints the type only.
func (*PrivateKey) GoString() string { return redacted }

// Format prints the type only, under every verb.
func (*PrivateKey) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue logs the type only.
func (*PrivateKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON refuses.
func (*PrivateKey) MarshalJSON() ([]byte, error) {
	return nil, errors.New("seal.PrivateKey is secret and has no JSON form")
}

// MarshalText refuses.
func (*PrivateKey) MarshalText() ([]byte, error) {
	return nil, errors.New("seal.PrivateKey is secret and has no text form")
}
