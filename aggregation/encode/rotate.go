package encode

import (
	"math"

	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/prg"
)

// lanes is how many blocks are rotated at once. Blocks are columns, so eight neighbours share every cache line of the
// matrix; a tile of 1024×8 words of 8 bytes stays in the second-level cache.
const lanes = 8

type word interface{ ~int64 | ~float64 }

// tile holds up to `lanes` blocks side by side: element p of block b is tile[p*lanes+b].
type tile[T word] [Block * lanes]T

// hadamard multiplies every block of t by H, H[i][j] = (−1)^popcount(i∧j), unnormalised: exact for int64 below 2^53 and
// beyond, as long as 1024 times the largest value does not overflow. Five passes of radix four.
func hadamard[T word](t *tile[T]) {
	for h := 1; h < Block; h *= 4 {
		for i := 0; i < Block; i += 4 * h {
			for j := i; j < i+h; j++ {
				r0 := (*[lanes]T)(t[j*lanes:])
				r1 := (*[lanes]T)(t[(j+h)*lanes:])
				r2 := (*[lanes]T)(t[(j+2*h)*lanes:])
				r3 := (*[lanes]T)(t[(j+3*h)*lanes:])
				for l := range r0 {
					a, b, c, d := r0[l], r1[l], r2[l], r3[l]
					ab, cd := a+b, c+d
					ba, dc := a-b, c-d
					r0[l], r1[l], r2[l], r3[l] = ab+cd, ba+dc, ab-cd, ba-dc
				}
			}
		}
	}
}

// signs are the public ±1 of a rotation, one bit a lane: bit i mod 64 of word i div 64, set for −1.
type signs []uint64

func signsFor(rotation label.Hash, n int) signs {
	seed, err := prg.SeedFromBytes(rotation[:])
	if err != nil {
		panic("encode: " + err.Error()) // a Hash has a seed's length
	}
	stream := prg.NewStream(seed, label.PurposeRotation, nil)
	s := make(signs, (n+63)/64)
	for i := range s {
		s[i] = stream.Uint64()
	}
	return s
}

// bit is 1 where lane i changes its sign.
func (s signs) bit(i int) uint64 { return s[i/64] >> (i % 64) & 1 }

// rotateBody writes H·s·(scale·body) to out, block by block; out has whole blocks and body may end before it.
func rotateBody(out []float64, body []float32, scale float64, s signs) {
	nb := len(out) / Block
	var t tile[float64]
	for first := 0; first < nb; first += lanes {
		width := min(lanes, nb-first)
		for p := range Block {
			row := (*[lanes]float64)(t[p*lanes:])
			at := p*nb + first
			for l := range width {
				i := at + l
				var v float64
				if i < len(body) {
					v = float64(body[i]) * scale
				}
				row[l] = math.Float64frombits(math.Float64bits(v) ^ s.bit(i)<<63)
			}
		}
		hadamard(&t)
		for p := range Block {
			copy(out[p*nb+first:][:width], t[p*lanes:])
		}
	}
}

// unrotateSum writes s·H·x to out: the inverse of the rotation times 1024, exactly, because H·H = 1024·I. out may end
// before x, whose last lanes then belong to padding.
func unrotateSum(out []int64, x []int64, s signs) {
	nb := len(x) / Block
	var t tile[int64]
	for first := 0; first < nb; first += lanes {
		width := min(lanes, nb-first)
		for p := range Block {
			copy(t[p*lanes:][:width], x[p*nb+first:])
		}
		hadamard(&t)
		for p := range Block {
			row := (*[lanes]int64)(t[p*lanes:])
			at := p*nb + first
			for l := range width {
				if i := at + l; i < len(out) {
					neg := -int64(s.bit(i))
					out[i] = (row[l] ^ neg) - neg
				}
			}
		}
	}
}
