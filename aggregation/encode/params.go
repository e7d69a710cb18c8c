package encode

import (
	"fmt"
	"math"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/crypto/label"
)

// Profile names a variant of the encoding.
type Profile string

// ProfileChecked is the profile of SA 3.2 that can carry the norm check. The zero Profile means the same.
const ProfileChecked Profile = "checked"

// profilePacked is known by name, so that its refusal can say so.
const profilePacked Profile = "packed"

// Params are the public rules of one round's encoding. They are compared, hashed and signed elsewhere; here they are
// proved. Build them with New, or fill every field and call Validate.
type Params struct {
	Profile  Profile         // ProfileChecked
	CReal    float64         // clip: an update's L2 norm is at most this
	C        uint32          // the same clip on the integer grid, rounding included
	B        uint64          // ⌊1.25·C²⌋, the bound on ‖(body, tail)‖²
	NMax     uint32          // the most contributions that one sum may hold
	D        int             // trained values
	Tail     []layout.Metric // private metrics behind the body
	Rotation label.Hash      // seed of the public rotation
}

// New returns the checked parameters of a task's layout.
func New(l layout.Layout, cReal float64, c, nMax uint32, rotation label.Hash) (Params, error) {
	if err := l.Validate(); err != nil {
		return Params{}, err
	}
	p := Params{Profile: ProfileChecked, CReal: cReal, C: c, B: BoundFor(c), NMax: nMax, D: l.D(), Tail: l.Tail, Rotation: rotation}
	if err := p.Validate(); err != nil {
		return Params{}, err
	}
	return p, nil
}

// BoundFor is B = ⌊1.25·C²⌋. Body and tail obey it together: C² + h·κ² ≤ C² + C²/4.
func BoundFor(c uint32) uint64 {
	sq := uint64(c) * uint64(c)
	return sq + sq/4
}

// PaddedLen is D': the body's lanes, d rounded up to whole blocks.
func PaddedLen(d int) int { return (d + Block - 1) / Block * Block }

// Len is the number of lanes on the wire: padded body and tail.
func (p Params) Len() int { return PaddedLen(p.D) + len(p.Tail) }

// Kappa is κ = ⌊C/(2√h)⌋, what the top of a metric's range is on the grid: the largest integer with 4hκ² ≤ C². Zero if
// there is no tail.
func (p Params) Kappa() uint32 {
	h := uint64(len(p.Tail))
	if h == 0 {
		return 0
	}
	k := uint64(p.C) / 2
	for 4*h*k*k > uint64(p.C)*uint64(p.C) {
		k--
	}
	return uint32(k)
}

// XMax bounds every lane of an honest contribution: a body of norm C has no larger lane, and κ ≤ C/2.
func (p Params) XMax() uint64 { return uint64(max(p.C, p.Kappa())) }

// Gamma is the grid step γ, the update that one unit of an unrotated lane stands for. Valid parameters have one.
func (p Params) Gamma() float64 {
	g, err := GammaFor(p.CReal, p.C, p.D)
	if err != nil {
		return 0
	}
	return g
}

// GammaFor is γ = C_real/c for d trained values, c as the package comment derives it. Only + − × ÷ √ in a fixed order, no
// product fused into a sum: every processor gives the same bits, and RoundConfigs may carry them.
func GammaFor(cReal float64, c uint32, d int) (float64, error) {
	if !(cReal >= CRealMin && cReal <= CRealMax) {
		return 0, fmt.Errorf("clip is %v, limits %g and %g", cReal, float64(CRealMin), float64(CRealMax))
	}
	if c < CMin || c > CMax {
		return 0, fmt.Errorf("integer clip is %d, limits %d and %d", c, CMin, CMax)
	}
	if d < 1 || d > layout.ValuesMax {
		return 0, fmt.Errorf("body has %d values, limits 1 and %d", d, layout.ValuesMax)
	}
	n := PaddedLen(d)
	cReach := reach(float64(c), float64(n))
	if !(cReach >= float64(cPart*float64(c))) {
		return 0, fmt.Errorf("body of %d lanes leaves %.0f of the integer clip %d after rounding noise, less than half", n, max(0, cReach), c)
	}
	return cReal / cReach, nil
}

// reach is the largest c with min{c² + n/4 + c + √n/2, (c + √n)²} ≤ C². Each branch of the minimum gives a c of its own,
// and the larger one holds.
func reach(c, n float64) float64 {
	root := math.Sqrt(n)
	byMean := -1.0
	// c² + c ≤ left, solved: c = (√(1 + 4·left) − 1)/2.
	if left := float64(c*c) - float64(n/4) - float64(root/2); left > 0 {
		byMean = (math.Sqrt(1+float64(4*left)) - 1) / 2
	}
	return max(byMean, c-root)
}

// Validate proves what Encode and Decode rely on.
func (p Params) Validate() error {
	switch p.Profile {
	case ProfileChecked, "":
	case profilePacked:
		return fmt.Errorf("encoding profile %q is not supported, %q is", profilePacked, ProfileChecked)
	default:
		return fmt.Errorf("encoding profile %q is unknown, %q is supported", p.Profile, ProfileChecked)
	}
	if _, err := GammaFor(p.CReal, p.C, p.D); err != nil {
		return err
	}
	if want := BoundFor(p.C); p.B != want {
		return fmt.Errorf("norm bound is %d, want %d for integer clip %d", p.B, want, p.C)
	}
	if len(p.Tail) > layout.TailMax {
		return fmt.Errorf("tail has %d metrics, limit %d", len(p.Tail), layout.TailMax)
	}
	for _, m := range p.Tail {
		if !(m.Max > 0 && m.Max <= layout.MetricMaxMax) {
			return fmt.Errorf("metric %q has range [0, %v], limits 0 (excluded) and %g", m.Name, m.Max, float64(layout.MetricMaxMax))
		}
	}
	if p.Rotation.IsZero() {
		return fmt.Errorf("rotation seed is zero")
	}
	return ProveNoWrap(p.NMax, p.XMax())
}

// ProveNoWrap proves that a sum over honest devices cannot wrap: with at most nMax contributions whose lanes lie in
// [−xMax, xMax], a lane of the sum lies in [−nMax·xMax, nMax·xMax], and 2^(K−1) > nMax·xMax makes the centre lift
// recover it (SA 3.2). It is unconditional: Encode refuses what it did not bring within its bounds.
func ProveNoWrap(nMax uint32, xMax uint64) error {
	const half = uint64(1) << (K - 1)
	if nMax == 0 || xMax == 0 {
		return fmt.Errorf("sum of at most %d contributions with lanes up to %d says nothing", nMax, xMax)
	}
	// Division instead of a product, which could itself wrap: nMax·xMax < half ⇔ xMax ≤ (half−1)/nMax.
	if xMax > (half-1)/uint64(nMax) {
		return fmt.Errorf("sum of %d contributions with lanes up to %d can wrap: limit is %d contributions", nMax, xMax, (half-1)/xMax)
	}
	return nil
}
