package encode

import (
	"math"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ruche-federation/ruche/aggregation/layout"
)

func TestValidateRefusesByName(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*Params)
		want  string
	}{
		{"packed profile", func(p *Params) { p.Profile = "packed" }, `profile "packed" is not supported`},
		{"unknown profile", func(p *Params) { p.Profile = "fast" }, `profile "fast" is unknown`},
		{"no clip", func(p *Params) { p.CReal = 0 }, "clip is 0"},
		{"negative clip", func(p *Params) { p.CReal = -1 }, "clip is -1"},
		{"NaN clip", func(p *Params) { p.CReal = math.NaN() }, "clip is NaN"},
		{"infinite clip", func(p *Params) { p.CReal = math.Inf(1) }, "clip is +Inf"},
		{"integer clip above the norm check's", func(p *Params) { p.C, p.B = 2254, BoundFor(2254) }, "integer clip is 2254, limits 64 and 2253"},
		{"coarse grid", func(p *Params) { p.C, p.B = 63, BoundFor(63) }, "integer clip is 63"},
		{"other norm bound", func(p *Params) { p.B++ }, "norm bound is 6345012, want 6345011"},
		{"no values", func(p *Params) { p.D = 0 }, "body has 0 values"},
		{"too many values", func(p *Params) { p.D = layout.ValuesMax + 1 }, "limits 1 and"},
		{"more values than the grid carries", func(p *Params) { p.D = layout.ValuesMax }, "less than half"},
		{"small grid, many values", func(p *Params) { p.C, p.B, p.D = 64, BoundFor(64), 1<<20 }, "leaves 0 of the integer clip 64"},
		{"too many metrics", func(p *Params) { p.Tail = make([]layout.Metric, 17) }, "17 metrics, limit 16"},
		{"metric range", func(p *Params) { p.Tail[0].Max = math.NaN() }, "range [0, NaN]"},
		{"no rotation", func(p *Params) { p.Rotation = [32]byte{} }, "rotation seed is zero"},
		{"no contributions", func(p *Params) { p.NMax = 0 }, "at most 0 contributions"},
		{"a sum that can wrap", func(p *Params) { p.NMax = 953_167 }, "can wrap"},
	} {
		p := params(t, 100, 10, layout.StandardTail())
		c.spoil(&p)
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
		if _, err := p.Decode(make([]uint32, 1024+3), 1); err == nil {
			t.Errorf("%s: decoded all the same", c.name)
		}
	}
	p := params(t, 100, 10, nil)
	p.Profile = ""
	if err := p.Validate(); err != nil {
		t.Errorf("the zero profile is the checked one: %v", err)
	}
}

// TestProveNoWrap: the inequality 2^(k−1) > N_max·x_max of SA 3.2, against integers without bounds.
func TestProveNoWrap(t *testing.T) {
	half := new(big.Int).Lsh(big.NewInt(1), K-1)
	holds := func(n uint32, x uint64) bool {
		product := new(big.Int).Mul(new(big.Int).SetUint64(uint64(n)), new(big.Int).SetUint64(x))
		return n > 0 && x > 0 && product.Cmp(half) < 0
	}
	for _, c := range []struct {
		n uint32
		x uint64
	}{
		{1, 1}, {0, 1}, {1, 0}, {1, 1<<31 - 1}, {1, 1 << 31}, {2, 1 << 30}, {2, 1<<30 - 1}, {1<<31 - 1, 1}, {1 << 31, 1},
		{950_000, CMax}, {953_166, CMax}, {953_167, CMax}, {math.MaxUint32, math.MaxUint64}, {1 << 31, 1 << 33}, {3, math.MaxUint64/3 + 1},
	} {
		if got := ProveNoWrap(c.n, c.x) == nil; got != holds(c.n, c.x) {
			t.Errorf("%d contributions of lanes up to %d: proved %v, holds %v", c.n, c.x, got, holds(c.n, c.x))
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n, x := rapid.Uint32().Draw(t, "N_max"), rapid.Uint64().Draw(t, "x_max")>>rapid.IntRange(0, 63).Draw(t, "shift")
		if got := ProveNoWrap(n, x) == nil; got != holds(n, x) {
			t.Fatalf("proved %v, holds %v", got, holds(n, x))
		}
	})
}

// TestGridOfKairouzEtAl: 2102.06387, conditional rounding; c is the largest that keeps the bound, within rounding.
func TestGridOfKairouzEtAl(t *testing.T) {
	const cReal = 1.5
	bound := func(c, d float64) float64 {
		root := math.Sqrt(2 * math.Log(1/math.Exp(-0.5))) // √(2·ln(1/β_r)), β_r = e^(−1/2)
		return min(c*c+d/4+root*(c+math.Sqrt(d)/2), (c+math.Sqrt(d))*(c+math.Sqrt(d)))
	}
	for _, d := range []int{1, 1024, 1025, 9216, 1 << 17, 1 << 20, 1 << 22} {
		for _, c := range []uint32{500, 1000, CMax} {
			gamma, err := GammaFor(cReal, c, d)
			if err != nil {
				if d < 1<<20 {
					t.Errorf("D %d, C %d: %v", d, c, err)
				}
				continue
			}
			reached, n, limit := cReal/gamma, float64(PaddedLen(d)), float64(c)*float64(c)
			if got := bound(reached, n); got > limit*(1+1e-12) {
				t.Errorf("D %d, C %d: c = %v breaks the bound: %v > %v", d, c, reached, got, limit)
			}
			if bound(reached*1.0001, n) <= limit {
				t.Errorf("D %d, C %d: c = %v is not the largest", d, c, reached)
			}
		}
	}
	gamma, err := GammaFor(1, CMax, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if c := 1 / gamma; math.Abs(c-2193) > 1 { // SA 3.2: c ≈ 2193, 2.7 % loss
		t.Errorf("at D = 2^20 c is %v, want about 2193", c)
	}
}

// TestGammaBits: RoundConfigs carry γ, so every processor must compute these very bits.
func TestGammaBits(t *testing.T) {
	for _, c := range []struct {
		cReal float64
		c     uint32
		d     int
		want  uint64
	}{
		{1, CMax, 1 << 20, 0x3f3de0d482f797db},
		{0.1, CMax, 18432, 0x3f07495bc62820f7},
		{1.7, 1000, 3, 0x3f5bdeda8ec50de3},
	} {
		gamma, err := GammaFor(c.cReal, c.c, c.d)
		if err != nil {
			t.Fatal(err)
		}
		if got := math.Float64bits(gamma); got != c.want {
			t.Errorf("γ(%v, %d, %d) is %#x, want %#x", c.cReal, c.c, c.d, got, c.want)
		}
	}
}

func TestKappaIsTheLargestThatFits(t *testing.T) {
	for h := range layout.TailMax + 1 {
		for _, c := range []uint32{CMin, 1000, CMax} {
			p := Params{C: c, Tail: make([]layout.Metric, h)}
			k, hh, sq := uint64(p.Kappa()), uint64(h), uint64(c)*uint64(c)
			if h == 0 {
				if k != 0 {
					t.Errorf("κ without a tail is %d", k)
				}
				continue
			}
			if 4*hh*k*k > sq || 4*hh*(k+1)*(k+1) <= sq {
				t.Errorf("h %d, C %d: κ is %d", h, c, k)
			}
			if sq+hh*k*k > BoundFor(c) {
				t.Errorf("h %d, C %d: body and tail exceed B", h, c)
			}
		}
	}
}
