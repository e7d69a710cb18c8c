package prg

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/ruche-federation/ruche/crypto/internal/hidden"
)

// SeedSize is the length of a seed in bytes.
const SeedSize = 32

// Seed is 32 secret bytes. Copies share them, and none prints them.
type Seed struct{ b hidden.Value[[SeedSize]byte] }

// NewSeed draws a seed from rand.
func NewSeed(rand io.Reader) (Seed, error) {
	b := new([SeedSize]byte)
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return Seed{}, fmt.Errorf("drawing a seed: %w", err)
	}
	return Seed{hidden.Of(b)}, nil
}

// SeedFromBytes copies b, which must be SeedSize long.
func SeedFromBytes(b []byte) (Seed, error) {
	if len(b) != SeedSize {
		return Seed{}, fmt.Errorf("seed has %d bytes, want %d", len(b), SeedSize)
	}
	c := [SeedSize]byte(b)
	return Seed{hidden.Of(&c)}, nil
}

// Bytes returns a copy of the secret bytes.
func (s Seed) Bytes() []byte {
	c := *s.b()
	return c[:]
}

// Append appends the secret bytes to dst.
func (s Seed) Append(dst []byte) []byte { return append(dst, s.b()[:]...) }

// IsZero reports whether s is the zero Seed, which holds nothing.
func (s Seed) IsZero() bool { return s.b.IsZero() }

// Equal compares in constant time.
func (s Seed) Equal(t Seed) bool {
	if s.IsZero() || t.IsZero() {
		return s.IsZero() && t.IsZero()
	}
	return subtle.ConstantTimeCompare(s.b()[:], t.b()[:]) == 1
}

// Erase overwrites the bytes of s and of all its copies.
func (s Seed) Erase() {
	if !s.IsZero() {
		clear(s.b()[:])
	}
}

const redacted = "prg.Seed(secret)"

// String prints the type only.
func (Seed) String() string { return redacted }

// GoString prints the type only.
func (Seed) GoString() string { return redacted }

// Format prints the type only, under every verb.
func (Seed) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue logs the type only.
func (Seed) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON refuses.
func (Seed) MarshalJSON() ([]byte, error) {
	return nil, errors.New("prg.Seed is secret and has no JSON form")
}

// MarshalText refuses.
func (Seed) MarshalText() ([]byte, error) {
	return nil, errors.New("prg.Seed is secret and has no text form")
}
