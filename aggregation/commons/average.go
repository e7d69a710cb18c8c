package commons

import (
	"fmt"
	"math"

	"github.com/ruche-federation/ruche/aggregation/encode"
	"github.com/ruche-federation/ruche/aggregation/layout"
)

// Init returns the trained values before the first round: zeros. B = 0 makes the adapter do nothing until something was
// learned. Nil if l is not valid.
func Init(l layout.Layout) []float32 {
	if l.Validate() != nil {
		return nil
	}
	return make([]float32, l.D())
}

// Average returns prev + mean of the contributed updates: FedAvg with server rate 1. The sum is integers; it is scaled by
// one factor, γ/(32·|S|), added in float64 and rounded to float32 once.
func Average(prev []float32, s encode.Sum, contributors int, p encode.Params) ([]float32, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if contributors < 1 || uint64(contributors) > uint64(p.NMax) {
		return nil, fmt.Errorf("mean is over %d contributions, limits 1 and %d", contributors, p.NMax)
	}
	if len(prev) != p.D || len(s.Body) != p.D {
		return nil, fmt.Errorf("previous values are %d and the sum %d, want %d of both", len(prev), len(s.Body), p.D)
	}
	scale := p.Gamma() / float64(encode.RotationRoot*contributors)
	next := make([]float32, p.D)
	for i, x := range s.Body {
		v := float32(step(prev[i], x, scale))
		if math.Float32bits(v)&0x7f800000 == 0x7f800000 {
			return nil, fmt.Errorf("value %d of the next commons is %v: %v plus %d units of %g", i, v, prev[i], x, scale)
		}
		next[i] = v
	}
	return next, nil
}

// step is one value of the next commons before its rounding. |x| < 2^41 (package encode), so float64(x) is exact.
func step(prev float32, x int64, scale float64) float64 {
	return float64(prev) + float64(float64(x)*scale)
}
