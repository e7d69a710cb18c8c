package committee

import (
	"fmt"
	"strings"
)

// TSums holds, for each subset, the sum over the certified set of the expanded masks. A member holds those of its own
// subsets; whoever opens holds all.
type TSums map[Mask][]uint32

// Add adds other to t, subset by subset: what several workers summed apart becomes one. Vectors of subsets that t
// lacks are taken over, not copied.
func (t TSums) Add(other TSums) error {
	for m, v := range other {
		if mine, ok := t[m]; ok && len(mine) != len(v) {
			return fmt.Errorf("sums of subset %v have %d and %d lanes", m, len(mine), len(v))
		}
	}
	for m, v := range other {
		if mine, ok := t[m]; ok {
			addLanes(mine, v)
		} else {
			t[m] = v
		}
	}
	return nil
}

// MissingError names the subsets whose sums are not there: fewer than f+1 members have spoken.
type MissingError struct{ Subsets []Mask }

func (e *MissingError) Error() string {
	names := make([]string, len(e.Subsets))
	for i, m := range e.Subsets {
		names[i] = m.String()
	}
	return "sums of masks missing for subsets " + strings.Join(names, " ")
}

// Unmask returns X = Σ_S y − Σ_T Σ_S r_T mod 2^32 (SA 2.3). It needs the sums of all subsets; a *MissingError names
// those that lack. Signs come back with Lift.
func Unmask(r Round, sumY []uint32, tsums TSums) ([]uint32, error) {
	if err := checkSize(r.N, r.F); err != nil {
		return nil, err
	}
	if len(sumY) != r.Len {
		return nil, fmt.Errorf("sum of y has %d lanes, the round has %d", len(sumY), r.Len)
	}
	subsets := Subsets(r.N, r.F)
	var missing []Mask
	for _, t := range subsets {
		v, ok := tsums[t]
		if !ok {
			missing = append(missing, t)
		} else if len(v) != r.Len {
			return nil, fmt.Errorf("sum of subset %v has %d lanes, the round has %d", t, len(v), r.Len)
		}
	}
	if missing != nil {
		return nil, &MissingError{Subsets: missing}
	}
	if len(tsums) != len(subsets) {
		return nil, fmt.Errorf("%d sums of masks, the committee has %d subsets", len(tsums), len(subsets))
	}
	x := append([]uint32(nil), sumY...)
	for _, t := range subsets {
		subLanes(x, tsums[t])
	}
	return x, nil
}

// Lift returns the representative of each lane nearest to zero, in [−2^31, 2^31).
func Lift(x []uint32) []int64 {
	out := make([]int64, len(x))
	for i, v := range x {
		out[i] = int64(int32(v))
	}
	return out
}
