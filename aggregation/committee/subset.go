package committee

import (
	"fmt"
	"math/bits"
	"strings"
)

// Mask is a subset of the members: bit j stands for member j.
type Mask uint32

// Has reports whether member j belongs to the subset.
func (m Mask) Has(j int) bool { return j >= 0 && j < 32 && m>>uint(j)&1 == 1 }

// Size is the number of members of the subset.
func (m Mask) Size() int { return bits.OnesCount32(uint32(m)) }

// Members lists the subset's members, ascending.
func (m Mask) Members() []int {
	out := make([]int, 0, m.Size())
	for rest := uint32(m); rest != 0; rest &= rest - 1 {
		out = append(out, bits.TrailingZeros32(rest))
	}
	return out
}

// String writes the members in braces: {0,2,3}.
func (m Mask) String() string {
	var b strings.Builder
	b.WriteByte('{')
	for i, j := range m.Members() {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%d", j)
	}
	b.WriteByte('}')
	return b.String()
}

// Subsets lists every subset of n−f of n members, in increasing mask order; nil where n and f make no committee.
func Subsets(n, f int) []Mask {
	if checkSize(n, f) != nil {
		return nil
	}
	out := make([]Mask, 0, Count(n, f))
	for m := Mask(0); m < 1<<uint(n); m++ {
		if m.Size() == n-f {
			out = append(out, m)
		}
	}
	return out
}

// SubsetsOf lists the subsets of Subsets(n, f) that member j belongs to, in increasing mask order.
func SubsetsOf(n, f, j int) []Mask {
	if checkSize(n, f) != nil || j < 0 || j >= n {
		return nil
	}
	out := make([]Mask, 0, Count(n-1, f))
	for _, m := range Subsets(n, f) {
		if m.Has(j) {
			out = append(out, m)
		}
	}
	return out
}

// Count is the binomial coefficient C(n, k): C(n, f) subsets exist, each member belongs to C(n−1, f) of them.
func Count(n, k int) int {
	if k < 0 || k > n {
		return 0
	}
	c := 1
	for i := 1; i <= k; i++ {
		c = c * (n - k + i) / i
	}
	return c
}

// checkSize refuses what is no committee: 1 ≤ n ≤ MembersMax, 0 ≤ f < n.
func checkSize(n, f int) error {
	if n < 1 || n > MembersMax {
		return fmt.Errorf("committee has %d members, limit %d", n, MembersMax)
	}
	if f < 0 || f >= n {
		return fmt.Errorf("committee of %d members cannot bear %d faulty ones", n, f)
	}
	return nil
}
