package prg

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/cpu"

	"github.com/ruche-federation/ruche/crypto/label"
)

// Add adds the expansion of s to dst, word by word modulo 2^32.
func Add(dst []uint32, s Seed, purpose string, context []byte) {
	NewExpander(s, purpose, context).Add(dst, 0)
}

// Sub subtracts the expansion of s from dst, word by word modulo 2^32.
func Sub(dst []uint32, s Seed, purpose string, context []byte) {
	NewExpander(s, purpose, context).Sub(dst, 0)
}

// Fill overwrites dst with the expansion of s.
func Fill(dst []uint32, s Seed, purpose string, context []byte) {
	clear(dst)
	Add(dst, s, purpose, context)
}

// Expander is one seed's expansion for one purpose and context, readable from any block on: so a vector can be
// covered in tiles, or by several goroutines with an Expander each. Not for concurrent use.
type Expander struct {
	block cipher.Block
	tile  []byte // keystream of one tile, cleared after use; one pass over it keeps it in the first-level cache
	zeros []byte // what is encrypted: CTR is XOR with the keystream. In place, over a cleared tile, it is a fifth slower
}

// NewExpander derives the key of (s, purpose, context).
func NewExpander(s Seed, purpose string, context []byte) *Expander {
	return &Expander{block: newBlock(s, purpose, context)}
}

// Add adds words first, first+1, … of the expansion to dst. first must be a multiple of BlockWords.
func (e *Expander) Add(dst []uint32, first uint64) { e.each(dst, first, addTile) }

// AddWords adds little-endian words to dst modulo 2^32, as Add does with an expansion: dst[i] += b[4i..4i+4). b holds four
// bytes for each word of dst.
func AddWords(dst []uint32, b []byte) { addTile(dst, b[:4*len(dst)]) }

// Sub subtracts words first, first+1, … of the expansion from dst. first must be a multiple of BlockWords.
func (e *Expander) Sub(dst []uint32, first uint64) { e.each(dst, first, subTile) }

func (e *Expander) each(dst []uint32, first uint64, combine func(dst []uint32, keystream []byte)) {
	if first%BlockWords != 0 {
		panic(fmt.Sprintf("prg: expansion read from word %d, which begins no block of %d words", first, BlockWords))
	}
	if len(dst) == 0 {
		return
	}
	if need := min(4*len(dst), tileBytes); cap(e.tile) < need {
		e.tile, e.zeros = make([]byte, need), make([]byte, need)
	}
	ctr := newCTR(e.block, first/BlockWords)
	for len(dst) > 0 {
		n := min(len(dst), tileBytes/4)
		ks := e.tile[:4*n]
		ctr.XORKeyStream(ks, e.zeros[:4*n])
		combine(dst[:n], ks)
		dst = dst[n:]
	}
	clear(e.tile[:cap(e.tile)])
}

// addTilePure adds little-endian words: dst[i] += keystream[4i..4i+4). Array pointers of constant length let the compiler
// drop every bounds check and keep sixteen independent additions in flight.
func addTilePure(dst []uint32, keystream []byte) {
	for len(dst) >= 16 && len(keystream) >= 64 {
		d, k := (*[16]uint32)(dst), (*[64]byte)(keystream)
		d[0] += binary.LittleEndian.Uint32(k[0:4])
		d[1] += binary.LittleEndian.Uint32(k[4:8])
		d[2] += binary.LittleEndian.Uint32(k[8:12])
		d[3] += binary.LittleEndian.Uint32(k[12:16])
		d[4] += binary.LittleEndian.Uint32(k[16:20])
		d[5] += binary.LittleEndian.Uint32(k[20:24])
		d[6] += binary.LittleEndian.Uint32(k[24:28])
		d[7] += binary.LittleEndian.Uint32(k[28:32])
		d[8] += binary.LittleEndian.Uint32(k[32:36])
		d[9] += binary.LittleEndian.Uint32(k[36:40])
		d[10] += binary.LittleEndian.Uint32(k[40:44])
		d[11] += binary.LittleEndian.Uint32(k[44:48])
		d[12] += binary.LittleEndian.Uint32(k[48:52])
		d[13] += binary.LittleEndian.Uint32(k[52:56])
		d[14] += binary.LittleEndian.Uint32(k[56:60])
		d[15] += binary.LittleEndian.Uint32(k[60:64])
		dst, keystream = dst[16:], keystream[64:]
	}
	for i := range dst {
		dst[i] += binary.LittleEndian.Uint32(keystream[4*i:])
	}
}

// subTile is addTilePure with a minus sign.
func subTile(dst []uint32, keystream []byte) {
	for len(dst) >= 16 && len(keystream) >= 64 {
		d, k := (*[16]uint32)(dst), (*[64]byte)(keystream)
		d[0] -= binary.LittleEndian.Uint32(k[0:4])
		d[1] -= binary.LittleEndian.Uint32(k[4:8])
		d[2] -= binary.LittleEndian.Uint32(k[8:12])
		d[3] -= binary.LittleEndian.Uint32(k[12:16])
		d[4] -= binary.LittleEndian.Uint32(k[16:20])
		d[5] -= binary.LittleEndian.Uint32(k[20:24])
		d[6] -= binary.LittleEndian.Uint32(k[24:28])
		d[7] -= binary.LittleEndian.Uint32(k[28:32])
		d[8] -= binary.LittleEndian.Uint32(k[32:36])
		d[9] -= binary.LittleEndian.Uint32(k[36:40])
		d[10] -= binary.LittleEndian.Uint32(k[40:44])
		d[11] -= binary.LittleEndian.Uint32(k[44:48])
		d[12] -= binary.LittleEndian.Uint32(k[48:52])
		d[13] -= binary.LittleEndian.Uint32(k[52:56])
		d[14] -= binary.LittleEndian.Uint32(k[56:60])
		d[15] -= binary.LittleEndian.Uint32(k[60:64])
		dst, keystream = dst[16:], keystream[64:]
	}
	for i := range dst {
		dst[i] -= binary.LittleEndian.Uint32(keystream[4*i:])
	}
}

// newBlock derives K and returns AES-256 under it.
func newBlock(s Seed, purpose string, context []byte) cipher.Block {
	if s.IsZero() {
		panic("prg: expansion of the zero Seed, which holds nothing")
	}
	key, err := hkdf.Key(sha256.New, s.b()[:], []byte(label.PRGSalt), purpose+"\x00"+string(context), 32)
	if err != nil {
		panic("prg: " + err.Error()) // only for outputs beyond 255 hashes
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("prg: " + err.Error()) // only for keys of another length
	}
	clear(key)
	return block
}

// newCTR starts counter mode at the given block; the 16-byte counter is big-endian and begins at zero.
func newCTR(block cipher.Block, first uint64) cipher.Stream {
	var iv [aes.BlockSize]byte
	binary.BigEndian.PutUint64(iv[8:], first)
	return cipher.NewCTR(block, iv[:])
}

// Accelerated reports whether this processor has the AES instructions that the standard library uses. Without them
// expansion is several times slower and not constant-time; programs say so when they start.
func Accelerated() bool {
	return cpu.X86.HasAES && cpu.X86.HasSSE41 && cpu.X86.HasSSSE3 || cpu.ARM64.HasAES || cpu.S390X.HasAES
}
