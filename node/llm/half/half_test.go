package half

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// Every 16-bit word survives the way to float32 and back.
func TestEveryWordRoundTrips(t *testing.T) {
	for w := 0; w < 1<<16; w++ {
		h := uint16(w)
		if f := F16(h); math.IsNaN(float64(f)) {
			if !math.IsNaN(float64(F16(ToF16(f)))) {
				t.Fatalf("binary16 %04x: NaN is lost", h)
			}
		} else if ToF16(f) != h {
			t.Fatalf("binary16 %04x = %g came back as %04x", h, f, ToF16(f))
		}
		if f := BF16(h); math.IsNaN(float64(f)) {
			if !math.IsNaN(float64(BF16(ToBF16(f)))) {
				t.Fatalf("bfloat16 %04x: NaN is lost", h)
			}
		} else if ToBF16(f) != h {
			t.Fatalf("bfloat16 %04x = %g came back as %04x", h, f, ToBF16(f))
		}
	}
}

// nearest is the definition: the word whose value is closest, ties to the even word. It looks at all of them.
func nearest(f float32, value func(uint16) float32) uint16 {
	best, gap := uint16(0), math.Inf(1)
	for w := 0; w < 1<<15; w++ {
		v := float64(value(uint16(w)))
		if math.IsNaN(v) || math.IsInf(v, 0) {
			continue
		}
		d := math.Abs(math.Abs(float64(f)) - v)
		if d < gap || d == gap && w&1 == 0 {
			best, gap = uint16(w), d
		}
	}
	if math.Signbit(float64(f)) {
		best |= 0x8000
	}
	return best
}

func TestRoundingAgainstTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.Float32Range(-65504, 65504).Draw(t, "f")
		if rapid.Bool().Draw(t, "tiny") {
			f /= 1 << 30
		}
		if got, want := ToF16(f), nearest(f, F16); got != want {
			t.Fatalf("ToF16(%g) = %04x, nearest is %04x", f, got, want)
		}
		if got, want := ToBF16(f), nearest(f, BF16); got != want {
			t.Fatalf("ToBF16(%g) = %04x, nearest is %04x", f, got, want)
		}
	})
}

func TestEdges(t *testing.T) {
	for _, c := range []struct {
		f    float32
		want uint16
	}{
		{65504, 0x7bff}, {65519.996, 0x7bff}, {65520, 0x7c00}, {1e30, 0x7c00},
		{float32(math.Inf(-1)), 0xfc00}, {5.9604645e-08, 1}, {2.9802322e-08, 0}, {2.9802326e-08, 1},
		{6.1035156e-05, 0x0400}, {float32(math.Copysign(0, -1)), 0x8000},
	} {
		if got := ToF16(c.f); got != c.want {
			t.Errorf("ToF16(%g) = %04x, want %04x", c.f, got, c.want)
		}
	}
	if got := ToBF16(math.MaxFloat32); got != 0x7f80 {
		t.Errorf("ToBF16(largest float32) = %04x, want infinity", got)
	}
}
