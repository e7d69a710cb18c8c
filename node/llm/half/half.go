package half

import (
	"encoding/binary"
	"math"
)

// F16 returns the float32 that the binary16 word h stands for.
func F16(h uint16) float32 {
	sign := uint32(h>>15) << 31
	exp := uint32(h>>10) & 0x1f
	frac := uint32(h) & 0x3ff
	switch exp {
	case 0: // zero or subnormal: frac * 2^-24, exact in float32
		f := float32(frac) * (1.0 / (1 << 24))
		return math.Float32frombits(math.Float32bits(f) | sign)
	case 0x1f: // infinity, or NaN with its payload kept
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+127-15)<<23 | frac<<13)
}

// BF16 returns the float32 that the bfloat16 word h stands for: its upper half.
func BF16(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// ToF16 rounds f to binary16, ties to even. Values beyond 65504 become infinity.
func ToF16(f float32) uint16 {
	b := math.Float32bits(f)
	sign := uint16(b >> 16 & 0x8000)
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000: // NaN stays NaN, also when its payload's upper bits are zero
		return sign | 0x7e00 | uint16(b>>13)&0x3ff
	case b >= 0x47800000: // 2^16 and above, infinity among them
		return sign | 0x7c00
	case b >= 0x38800000: // normal: rounding may carry into the exponent, which is then right too
		b -= (127 - 15) << 23
		return sign | uint16((b+0xfff+b>>13&1)>>13)
	case b < 0x33000000: // below half of the smallest subnormal
		return sign
	}
	shift := 126 - b>>23 // 14..24
	frac := b&0x7fffff | 0x800000
	return sign | uint16((frac+1<<(shift-1)-1+frac>>shift&1)>>shift)
}

// ToBF16 rounds f to bfloat16, ties to even.
func ToBF16(f float32) uint16 {
	b := math.Float32bits(f)
	if b&0x7fffffff > 0x7f800000 {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// DecodeF32 fills dst from little-endian float32 words. len(src) must be 4*len(dst).
func DecodeF32(dst []float32, src []byte) {
	_ = src[:4*len(dst)]
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

// DecodeF16 fills dst from little-endian binary16 words. len(src) must be 2*len(dst).
func DecodeF16(dst []float32, src []byte) {
	_ = src[:2*len(dst)]
	for i := range dst {
		dst[i] = F16(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

// DecodeBF16 fills dst from little-endian bfloat16 words. len(src) must be 2*len(dst).
func DecodeBF16(dst []float32, src []byte) {
	_ = src[:2*len(dst)]
	for i := range dst {
		dst[i] = BF16(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

// AppendF32 appends src as little-endian float32 words.
func AppendF32(dst []byte, src []float32) []byte {
	for _, f := range src {
		dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(f))
	}
	return dst
}

// AppendF16 appends src as little-endian binary16 words, rounded to nearest even.
func AppendF16(dst []byte, src []float32) []byte {
	for _, f := range src {
		dst = binary.LittleEndian.AppendUint16(dst, ToF16(f))
	}
	return dst
}

// AppendBF16 appends src as little-endian bfloat16 words, rounded to nearest even.
func AppendBF16(dst []byte, src []float32) []byte {
	for _, f := range src {
		dst = binary.LittleEndian.AppendUint16(dst, ToBF16(f))
	}
	return dst
}
