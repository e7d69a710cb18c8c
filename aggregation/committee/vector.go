package committee

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/prg"
)

// LaneBytes is the width of a lane on the wire.
const LaneBytes = 4

// HashVector is label.Sum(tag, VectorBytes(v)) without the copy.
func HashVector(tag string, v []uint32) label.Hash {
	h := label.New(tag)
	tile := make([]byte, 0, LaneBytes*tileLanes)
	for len(v) > 0 {
		n := min(len(v), tileLanes)
		h.Write(AppendVector(tile, v[:n]))
		v = v[n:]
	}
	var out label.Hash
	h.Sum(out[:0])
	return out
}

// VectorBytes writes the lanes as little-endian words.
func VectorBytes(v []uint32) []byte {
	return AppendVector(make([]byte, 0, LaneBytes*len(v)), v)
}

// AppendVector appends the lanes to dst as little-endian words.
func AppendVector(dst []byte, v []uint32) []byte {
	at := len(dst)
	dst = slices.Grow(dst, LaneBytes*len(v))[:at+LaneBytes*len(v)]
	b := dst[at:]
	for len(v) >= 8 && len(b) >= 32 {
		s, k := (*[8]uint32)(v), (*[32]byte)(b)
		binary.LittleEndian.PutUint32(k[0:4], s[0])
		binary.LittleEndian.PutUint32(k[4:8], s[1])
		binary.LittleEndian.PutUint32(k[8:12], s[2])
		binary.LittleEndian.PutUint32(k[12:16], s[3])
		binary.LittleEndian.PutUint32(k[16:20], s[4])
		binary.LittleEndian.PutUint32(k[20:24], s[5])
		binary.LittleEndian.PutUint32(k[24:28], s[6])
		binary.LittleEndian.PutUint32(k[28:32], s[7])
		v, b = v[8:], b[32:]
	}
	for i, w := range v {
		binary.LittleEndian.PutUint32(b[LaneBytes*i:], w)
	}
	return dst
}

// ParseVector reads exactly lanes little-endian words.
func ParseVector(b []byte, lanes int) ([]uint32, error) {
	if err := checkBytes(b, lanes); err != nil {
		return nil, err
	}
	out := make([]uint32, lanes)
	for i := range out {
		out[i] = binary.LittleEndian.Uint32(b[LaneBytes*i:])
	}
	return out, nil
}

// AddVector adds src to dst lane by lane modulo 2^32.
func AddVector(dst, src []uint32) error {
	if len(dst) != len(src) {
		return fmt.Errorf("vector has %d lanes, want %d", len(src), len(dst))
	}
	addLanes(dst, src)
	return nil
}

// AddBytes adds little-endian words to dst lane by lane modulo 2^32: a contribution's y straight from its file.
func AddBytes(dst []uint32, b []byte) error {
	if err := checkBytes(b, len(dst)); err != nil {
		return err
	}
	prg.AddWords(dst, b)
	return nil
}

func checkBytes(b []byte, lanes int) error {
	if lanes < 0 || lanes > LenMax {
		return fmt.Errorf("vector of %d lanes, limit %d", lanes, LenMax)
	}
	if len(b) != LaneBytes*lanes {
		return fmt.Errorf("vector has %d bytes, want %d for %d lanes", len(b), LaneBytes*lanes, lanes)
	}
	return nil
}

// addLanes: dst[i] += src[i], same lengths.
func addLanes(dst, src []uint32) {
	for len(dst) >= 8 && len(src) >= 8 {
		d, s := (*[8]uint32)(dst), (*[8]uint32)(src)
		d[0] += s[0]
		d[1] += s[1]
		d[2] += s[2]
		d[3] += s[3]
		d[4] += s[4]
		d[5] += s[5]
		d[6] += s[6]
		d[7] += s[7]
		dst, src = dst[8:], src[8:]
	}
	for i := range dst {
		dst[i] += src[i]
	}
}

// subLanes: dst[i] -= src[i], same lengths.
func subLanes(dst, src []uint32) {
	for len(dst) >= 8 && len(src) >= 8 {
		d, s := (*[8]uint32)(dst), (*[8]uint32)(src)
		d[0] -= s[0]
		d[1] -= s[1]
		d[2] -= s[2]
		d[3] -= s[3]
		d[4] -= s[4]
		d[5] -= s[5]
		d[6] -= s[6]
		d[7] -= s[7]
		dst, src = dst[8:], src[8:]
	}
	for i := range dst {
		dst[i] -= src[i]
	}
}
