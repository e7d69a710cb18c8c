package commons

import (
	"encoding/binary"
	"math"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/prg"
)

// Orthonormal returns the frozen factor t of a valid layout, [rank, in] with rank ≤ in, row-major: orthonormal rows, the
// Q of a QR decomposition by Gram–Schmidt done twice, in row order, of vectors uniform in [−1, 1) drawn from the public
// seed under the tensor's name. (A Gaussian would need a logarithm, which processors round differently.) A vector of
// which nothing is left after the earlier rows are taken out is replaced by the seed's next one. Nil for any other shape.
func Orthonormal(seed label.Hash, t layout.Tensor) []float32 {
	if len(t.Shape) != 2 || t.Size() == 0 || t.Shape[0] > t.Shape[1] {
		return nil
	}
	q := orthonormalise(t.Shape[0], t.Shape[1], publicVectors(seed, t))
	if q == nil {
		return nil
	}
	out := make([]float32, len(q))
	for i, x := range q {
		out[i] = float32(x)
	}
	return out
}

// publicVectors returns a source of vectors uniform in [−1, 1), one stream for each seed and tensor.
func publicVectors(seed label.Hash, t layout.Tensor) func(v []float64) {
	s, err := prg.SeedFromBytes(seed[:])
	if err != nil {
		panic("commons: " + err.Error()) // a Hash has a seed's length
	}
	stream := prg.NewStream(s, label.PurposeOrthonormal, orthonormalContext(t))
	return func(v []float64) {
		for i := range v {
			v[i] = uniform(stream.Uint64())
		}
	}
}

// orthonormalContext separates the streams of two tensors: name, zero byte (names hold none), shape.
func orthonormalContext(t layout.Tensor) []byte {
	b := append([]byte(t.Name), 0)
	for _, d := range t.Shape {
		b = binary.BigEndian.AppendUint64(b, uint64(d))
	}
	return b
}

// uniform maps 53 random bits to the dyadic number k/2^52 − 1 in [−1, 1): every step is exact.
func uniform(w uint64) float64 { return float64(int64(w>>11)-1<<52) / (1 << 52) }

// orthonormalise draws rows vectors of cols values and returns them orthonormalised; nil if the source gives out.
func orthonormalise(rows, cols int, draw func(v []float64)) []float64 {
	q := make([]float64, rows*cols)
	for r := range rows {
		v := q[r*cols : (r+1)*cols]
		if !drawRow(v, q[:r*cols], draw) {
			return nil
		}
	}
	return q
}

// drawRow fills v with a unit vector orthogonal to the rows of q, from the first drawn vector that is not degenerate.
func drawRow(v, q []float64, draw func(v []float64)) bool {
	for range drawsMax {
		draw(v)
		before := norm(v)
		project(v, q)
		project(v, q) // twice is enough (Kahan, Parlett): once loses orthogonality where v lies near the span of q
		if after := norm(v); after > float64(degenerate*before) {
			for i := range v {
				v[i] /= after
			}
			return true
		}
	}
	return false
}

// project takes out of v its part along each row of q, in row order.
func project(v, q []float64) {
	for ; len(q) > 0; q = q[len(v):] {
		row := q[:len(v)]
		d := dot(v, row)
		for i, x := range row {
			v[i] -= float64(d * x)
		}
	}
}

func norm(v []float64) float64 { return math.Sqrt(dot(v, v)) }

// dot adds in index order. The conversion of each product is what forbids a fused multiply-add.
func dot(a, b []float64) float64 {
	var sum float64
	for i, x := range a {
		sum += float64(x * b[i])
	}
	return sum
}
