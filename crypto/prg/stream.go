package prg

import (
	"crypto/cipher"
	"encoding/binary"
)

// Stream reads an expansion as bytes or as 64-bit words, for public randomness: rotations, factors, data order.
// Not for concurrent use.
type Stream struct {
	ctr  cipher.Stream
	tile []byte
	rest []byte // unread part of tile
}

// NewStream begins the expansion of (s, purpose, context) at its first byte.
func NewStream(s Seed, purpose string, context []byte) *Stream {
	return &Stream{ctr: newCTR(newBlock(s, purpose, context), 0)}
}

// Read fills p and never fails: it is an io.Reader without end (2^68 bytes).
func (s *Stream) Read(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if len(s.rest) == 0 {
			s.refill()
		}
		c := copy(p, s.rest)
		s.rest, p = s.rest[c:], p[c:]
	}
	return n, nil
}

// Uint64 reads the next eight bytes, little-endian.
func (s *Stream) Uint64() uint64 {
	if len(s.rest) >= 8 {
		v := binary.LittleEndian.Uint64(s.rest)
		s.rest = s.rest[8:]
		return v
	}
	var b [8]byte
	s.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// Uint64N returns a uniform number in [0, n), n > 0, by rejection: no modulo bias. Every implementation that reads
// the same stream draws the same numbers.
func (s *Stream) Uint64N(n uint64) uint64 {
	limit := -n % n // 2^64 mod n: the draws below it are the surplus
	for {
		if v := s.Uint64(); v >= limit {
			return v % n
		}
	}
}

func (s *Stream) refill() {
	if s.tile == nil {
		s.tile = make([]byte, tileBytes)
	}
	clear(s.tile)
	s.ctr.XORKeyStream(s.tile, s.tile)
	s.rest = s.tile
}
