package encode

import (
	"errors"
	"fmt"
)

// ErrBounds marks a sum that no set of honest devices can give: the round publishes nothing (SA 2.3 "Unmask").
var ErrBounds = errors.New("sum is out of bounds")

// Sum is an opened sum, decoded.
type Sum struct {
	// Body is s·H·X, D values: the sum of the contributed updates in units of γ/32, exact in integers. The mean update is
	// Body·γ/(32·|S|).
	Body []int64
	// TailMean is the mean of each metric, 0 where TailBad.
	TailMean []float64
	// TailBad marks metrics whose sum is outside [0, |S|·κ]: such an item is withheld alone.
	TailBad []bool
}

// Decode turns an unmasked sum of contributors contributions into numbers, or refuses it. Everything that enters Body is
// integer arithmetic.
func (p Params) Decode(sum []uint32, contributors int) (Sum, error) {
	if err := p.Validate(); err != nil {
		return Sum{}, err
	}
	if len(sum) != p.Len() {
		return Sum{}, fmt.Errorf("sum has %d lanes, want %d", len(sum), p.Len())
	}
	if contributors < 1 || uint64(contributors) > uint64(p.NMax) {
		return Sum{}, fmt.Errorf("sum is over %d contributions, limits 1 and %d", contributors, p.NMax)
	}
	n := PaddedLen(p.D)
	s := uint64(contributors)

	// ‖X‖ ≤ |S|·√B, over the body and the tail items that are kept. No overflow: Validate proved |S|·C < 2^31, so the limit
	// |S|²·B ≤ 1.25·2^62; norm2 stays at or below it, and each further square is at most 2^62.
	limit := s * s * p.B
	var norm2 uint64
	x := make([]int64, n)
	laneMax := int64(s * p.XMax())
	for i, lane := range sum[:n] {
		v := lift(lane)
		if v < -laneMax || v > laneMax {
			return Sum{}, fmt.Errorf("%w: lane %d is %d, limit %d for %d contributions", ErrBounds, i, v, laneMax, contributors)
		}
		x[i] = v
		if norm2 += uint64(v * v); norm2 > limit {
			return Sum{}, p.normError(contributors)
		}
	}
	out := Sum{TailMean: make([]float64, len(p.Tail)), TailBad: make([]bool, len(p.Tail))}
	tailMax := int64(s * uint64(p.Kappa()))
	for i, lane := range sum[n:] {
		v := lift(lane)
		if v < 0 || v > tailMax {
			out.TailBad[i] = true
			continue
		}
		if norm2 += uint64(v * v); norm2 > limit {
			return Sum{}, p.normError(contributors)
		}
		out.TailMean[i] = float64(v) / float64(tailMax) * p.Tail[i].Max
	}
	out.Body = make([]int64, p.D)
	unrotateSum(out.Body, x, signsFor(p.Rotation, n))
	return out, nil
}

func (p Params) normError(contributors int) error {
	return fmt.Errorf("%w: squared norm is above %d² · %d", ErrBounds, contributors, p.B)
}

// lift is the centre lift of a ring element: the representative in [−2^31, 2^31).
func lift(lane uint32) int64 { return int64(int32(lane)) }

// SumPlain adds vectors lane by lane modulo 2^32: what the masked sum must equal. Nil if there are none or their lengths
// differ.
func SumPlain(vectors ...[]uint32) []uint32 {
	if len(vectors) == 0 {
		return nil
	}
	sum := make([]uint32, len(vectors[0]))
	for _, v := range vectors {
		if len(v) != len(sum) {
			return nil
		}
		for i, lane := range v {
			sum[i] += lane
		}
	}
	return sum
}
