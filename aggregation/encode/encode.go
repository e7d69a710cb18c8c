package encode

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// Report says what encoding did to a vector. It stays on the device: it tells of the owner's data.
type Report struct {
	ClipFactor  float64 // what the update was multiplied by, 1 where its norm was within the clip
	Redraws     int     // draws that rounding threw away
	TailClamped int     // metrics outside their public range, moved to its nearer end
}

// Encode returns the lanes of one contribution. body is the update, D values; tail the metrics in their order; rand a
// cryptographic reader. The result is the owner's secret until it is masked. NaN and infinities are refused before
// anything is converted; a metric outside its range is clamped, and counted in the report.
func (p Params) Encode(body []float32, tail []float64, rand io.Reader) ([]uint32, Report, error) {
	if err := p.Validate(); err != nil {
		return nil, Report{}, err
	}
	if len(body) != p.D {
		return nil, Report{}, fmt.Errorf("body has %d values, want %d", len(body), p.D)
	}
	if len(tail) != len(p.Tail) {
		return nil, Report{}, fmt.Errorf("tail has %d metrics, want %d", len(tail), len(p.Tail))
	}
	norm2, err := normSquared(body)
	if err != nil {
		return nil, Report{}, err
	}
	// D ≤ 2^24 float32 squares sum to at most 2^24·2^256: no float64 overflow.
	report := Report{ClipFactor: 1}
	if norm := math.Sqrt(norm2); norm > p.CReal {
		report.ClipFactor = p.CReal / norm
	}
	n := PaddedLen(p.D)
	rotated := make([]float64, n)
	rotateBody(rotated, body, report.ClipFactor/(p.Gamma()*RotationRoot), signsFor(p.Rotation, n))

	r := &reader{from: rand, buf: make([]byte, randBytes)}
	out := make([]uint32, p.Len())
	used, draws, err := p.roundBody(out[:n], rotated, r)
	if err != nil {
		return nil, Report{}, err
	}
	report.Redraws = draws - 1
	tail2, clamped, err := p.roundTail(out[n:], tail, r)
	if err != nil {
		return nil, Report{}, err
	}
	report.TailClamped = clamped
	if used+tail2 > p.B {
		return nil, Report{}, fmt.Errorf("encoded vector has squared norm %d, limit %d", used+tail2, p.B)
	}
	return out, report, nil
}

// roundBody rounds v to out, again and again until the integer norm is within C; it returns the squared norm and the
// number of draws.
func (p Params) roundBody(out []uint32, v []float64, r *reader) (norm2 uint64, draws int, err error) {
	limit := uint64(p.C) * uint64(p.C)
	for draws = 1; draws <= RedrawsMax; draws++ {
		norm2, err = stochRound(out, v, p.C, r)
		if err != nil {
			return 0, 0, err
		}
		if norm2 <= limit {
			return norm2, draws, nil
		}
	}
	return 0, 0, fmt.Errorf("rounded body exceeds the integer clip %d in each of %d draws", p.C, RedrawsMax)
}

// roundTail writes StochRound(κ·v/R) for every metric.
func (p Params) roundTail(out []uint32, tail []float64, r *reader) (norm2 uint64, clamped int, err error) {
	kappa := float64(p.Kappa())
	scaled := make([]float64, len(tail))
	for i, v := range tail {
		m := p.Tail[i]
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return 0, 0, fmt.Errorf("metric %q is %v", m.Name, v)
		}
		if v < 0 || v > m.Max {
			clamped++
			v = max(0, min(v, m.Max))
		}
		scaled[i] = min(kappa, v/m.Max*kappa) // division first: the quotient is at most 1 and the product cannot overflow
	}
	norm2, err = stochRound(out, scaled, p.C, r)
	return norm2, clamped, err
}

// stochRound writes to out[i] the integer below or above v[i], the upper one with probability equal to the fraction,
// as a two's complement lane, and returns the sum of their squares. Every |v[i]| must be at most bound; that is checked
// before the conversion, whose result would otherwise depend on the processor.
//
// In fixed point with 32 fractional bits StochRound(v) = ⌊v + r⌋ with r uniform in [0, 1): one addition and one shift, no
// branch on a secret. The offset keeps the number positive, so that the shift rounds down. Squares are below 2^24 and
// there are at most 2^24 of them: the sum fits.
func stochRound(out []uint32, v []float64, bound uint32, r *reader) (norm2 uint64, err error) {
	offset := float64(bound) + 1
	minus := int64(bound) + 1
	limit := float64(bound)
	for len(v) > 0 {
		random, err := r.next(min(len(v), randBytes/4))
		if err != nil {
			return 0, err
		}
		n := len(random) / 4
		for i, f := range v[:n] {
			if !(math.Abs(f) <= limit) {
				return 0, fmt.Errorf("scaled value is beyond the integer clip %d", bound)
			}
			fixed := uint64((f + offset) * (1 << 32))
			x := int64((fixed+uint64(binary.LittleEndian.Uint32(random[4*i:])))>>32) - minus
			norm2 += uint64(x * x)
			out[i] = uint32(int32(x))
		}
		v, out = v[n:], out[n:]
	}
	return norm2, nil
}

// normSquared refuses what is not finite. A sum over float32 squares would also show NaN and infinities, but only
// together, and not where.
func normSquared(body []float32) (float64, error) {
	var sum float64
	for i, v := range body {
		if math.Float32bits(v)&0x7f800000 == 0x7f800000 {
			return 0, fmt.Errorf("body value %d is %v", i, v)
		}
		f := float64(v)
		sum += float64(f * f)
	}
	return sum, nil
}

// reader gives 32-bit words of a random source, a buffer at a time.
type reader struct {
	from io.Reader
	buf  []byte
}

// next returns 4·words fresh random bytes, valid until the next call; words ≤ randBytes/4.
func (r *reader) next(words int) ([]byte, error) {
	b := r.buf[:4*words]
	if _, err := io.ReadFull(r.from, b); err != nil {
		return nil, fmt.Errorf("reading randomness: %w", err)
	}
	return b, nil
}
