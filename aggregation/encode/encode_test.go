package encode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/crypto/label"
)

// params are the checked profile at full precision for d values.
func params(t testing.TB, d int, nMax uint32, tail []layout.Metric) Params {
	t.Helper()
	l, err := layout.Vector("v", d, tail)
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(l, 1.5, CMax, nMax, label.Sum(label.TagRotation, []byte("encode test")))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// seeded is a reproducible stand-in for the device's random reader.
func seeded(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

// gaussianBody draws a body of the given norm.
func gaussianBody(seed uint64, d int, norm float64) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	v := make([]float64, d)
	var sq float64
	for i := range v {
		v[i] = r.NormFloat64()
		sq += v[i] * v[i]
	}
	body := make([]float32, d)
	for i := range v {
		body[i] = float32(v[i] * norm / math.Sqrt(sq))
	}
	return body
}

// plainInverse is what Decode must compute, done slowly: lift, sum over the integers, D' lanes through the definition of
// the dealing and of H.
func plainInverse(p Params, vectors ...[]uint32) []int64 {
	n := PaddedLen(p.D)
	total := make([]int64, n)
	for _, v := range vectors {
		for i := range total {
			total[i] += int64(int32(v[i]))
		}
	}
	rotated := dumbRotation(total)
	s := signsFor(p.Rotation, n)
	for i := range rotated {
		if s.bit(i) == 1 {
			rotated[i] = -rotated[i]
		}
	}
	return rotated[:p.D]
}

func TestASumOfContributionsDecodesToThePlainIntegerSum(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := rapid.IntRange(1, 2500).Draw(rt, "D")
		count := rapid.IntRange(1, 5).Draw(rt, "contributions")
		p := params(t, d, uint32(count), layout.StandardTail())
		var vectors [][]uint32
		for i := range count {
			body := gaussianBody(rapid.Uint64().Draw(rt, "seed"), d, rapid.Float64Range(0, 4).Draw(rt, "norm"))
			v, _, err := p.Encode(body, []float64{float64(i), 3, 2}, seeded(byte(i)))
			if err != nil {
				rt.Fatal(err)
			}
			vectors = append(vectors, v)
		}
		sum, err := p.Decode(SumPlain(vectors...), count)
		if err != nil {
			rt.Fatal(err)
		}
		for i, want := range plainInverse(p, vectors...) {
			if sum.Body[i] != want {
				rt.Fatalf("value %d is %d, want %d", i, sum.Body[i], want)
			}
		}
	})
}

func TestTheMeanIsWithinTheQuantisationError(t *testing.T) {
	const count = 20
	for _, d := range []int{1, 700, 1024, 5000} {
		p := params(t, d, count, nil)
		var vectors [][]uint32
		want := make([]float64, d)
		for i := range count {
			body := gaussianBody(uint64(i), d, 1.2) // within the clip: nothing is lost to it
			v, report, err := p.Encode(body, nil, seeded(byte(i)))
			if err != nil {
				t.Fatal(err)
			}
			if report.ClipFactor != 1 {
				t.Fatalf("a vector within the clip was multiplied by %v", report.ClipFactor)
			}
			vectors = append(vectors, v)
			for j, x := range body {
				want[j] += float64(x) / count
			}
		}
		sum, err := p.Decode(SumPlain(vectors...), count)
		if err != nil {
			t.Fatal(err)
		}
		// Rounding moves a rotated lane by at most one step with variance at most 1/4; the rotation keeps it. So a value of
		// the mean has standard deviation at most γ/(2√count), here taken eight times.
		tolerance := 8 * p.Gamma() / (2 * math.Sqrt(count))
		for j, x := range sum.Body {
			if got := float64(x) * p.Gamma() / (RotationRoot * count); math.Abs(got-want[j]) > tolerance {
				t.Fatalf("D %d: value %d of the mean is %v, want %v within %v", d, j, got, want[j], tolerance)
			}
		}
	}
}

func TestRoundingIsUnbiased(t *testing.T) {
	const draws = 4000
	values := []float64{0, 0.25, -0.25, 0.5, 1.9, -7.1, 2252.999, -2252.001, 1e-9}
	sum := make([]float64, len(values))
	out := make([]uint32, len(values))
	r := &reader{from: seeded(3), buf: make([]byte, randBytes)}
	for range draws {
		if _, err := stochRound(out, values, CMax, r); err != nil {
			t.Fatal(err)
		}
		for i, lane := range out {
			x := float64(lift(lane))
			if math.Abs(x-values[i]) >= 1 {
				t.Fatalf("%v was rounded to %v", values[i], x)
			}
			sum[i] += x
		}
	}
	for i, v := range values {
		f := v - math.Floor(v)
		sd := math.Sqrt(f*(1-f)/draws) + 1e-6
		if got := sum[i] / draws; math.Abs(got-v) > 5*sd {
			t.Errorf("mean of %d roundings of %v is %v, more than five standard deviations off", draws, v, got)
		}
	}
}

func TestALongUpdateIsClippedToTheRealClip(t *testing.T) {
	const d = 3000
	p := params(t, d, 1, nil)
	body := gaussianBody(5, d, 1e6)
	v, report, err := p.Encode(body, nil, seeded(1))
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(report.ClipFactor-1.5e-6) > 1e-12 {
		t.Errorf("clip factor is %v, want 1.5e-6", report.ClipFactor)
	}
	sum, err := p.Decode(v, 1)
	if err != nil {
		t.Fatal(err)
	}
	var dot float64
	for i, x := range sum.Body {
		dot += float64(x) * p.Gamma() / RotationRoot * float64(body[i]) / 1e6
	}
	if math.Abs(dot-1.5) > 0.02 { // along the update's direction what arrives is the clip
		t.Errorf("length along the update is %v, want 1.5", dot)
	}
}

func TestExtremeFloatsAreClippedNotOverflowed(t *testing.T) {
	p := params(t, 1024, 1, nil)
	body := make([]float32, 1024)
	for i := range body {
		body[i] = math.MaxFloat32
	}
	if _, report, err := p.Encode(body, nil, seeded(1)); err != nil || !(report.ClipFactor > 0) {
		t.Errorf("largest floats: factor %v, %v", report.ClipFactor, err)
	}
	for i := range body {
		body[i] = math.SmallestNonzeroFloat32
	}
	if _, report, err := p.Encode(body, nil, seeded(1)); err != nil || report.ClipFactor != 1 {
		t.Errorf("smallest floats: factor %v, %v", report.ClipFactor, err)
	}
}

func TestEncodeRefusals(t *testing.T) {
	p := params(t, 3, 1, layout.StandardTail())
	body, tail := []float32{1, 2, 3}, []float64{10, 3, 2}
	for _, c := range []struct {
		name string
		p    Params
		body []float32
		tail []float64
		rand io.Reader
		want string
	}{
		{"short body", p, body[:2], tail, seeded(1), "body has 2 values, want 3"},
		{"short tail", p, body, tail[:1], seeded(1), "tail has 1 metrics, want 3"},
		{"NaN", p, []float32{1, float32(math.NaN()), 3}, tail, seeded(1), "body value 1 is NaN"},
		{"infinity", p, []float32{1, 2, float32(math.Inf(1))}, tail, seeded(1), "body value 2 is +Inf"},
		{"NaN metric", p, body, []float64{1, math.NaN(), 1}, seeded(1), `metric "loss_before" is NaN`},
		{"infinite metric", p, body, []float64{1, 1, math.Inf(1)}, seeded(1), `metric "loss_after" is +Inf`},
		{"random reader ends", p, body, tail, bytes.NewReader(make([]byte, 4096+4)), "reading randomness"},
		{"random reader fails", p, body, tail, iotest.ErrReader(errors.New("no entropy")), "no entropy"},
		{"no parameters", Params{}, body, tail, seeded(1), "clip is 0"},
	} {
		if v, _, err := c.p.Encode(c.body, c.tail, c.rand); err == nil || v != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

// constant is a reader of one byte for ever: a device whose random source is stuck.
type constant byte

func (c constant) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(c)
	}
	return len(p), nil
}

func TestRedrawsAreBounded(t *testing.T) {
	// All of the update in one value: rotated, each of the 1024 lanes is c/32 = 70.4 steps. A source stuck at the top
	// rounds all of them up, to a norm of 71·32 = 2272, above C = 2253, every time.
	p := params(t, 1024, 1, nil)
	body := make([]float32, 1024)
	body[0] = 1.5
	if signsFor(p.Rotation, 1024).bit(0) == 1 {
		body[0] = -1.5
	}
	_, _, err := p.Encode(body, nil, constant(0xff))
	if err == nil || !strings.Contains(err.Error(), "exceeds the integer clip 2253 in each of 128 draws") {
		t.Fatalf("got %v", err)
	}
	if _, _, err := p.Encode(body, nil, seeded(1)); err != nil {
		t.Fatalf("with a working source: %v", err)
	}
}

func TestTheTailIsAMeanInPublicRanges(t *testing.T) {
	const count = 400
	p := params(t, 10, count, layout.StandardTail())
	var vectors [][]uint32
	for i := range count {
		v, report, err := p.Encode(make([]float32, 10), []float64{float64(i % 5 * 100), 3.25, 2.5}, seeded(byte(i)))
		if err != nil {
			t.Fatal(err)
		}
		if report.TailClamped != 0 {
			t.Fatal("a metric within its range was clamped")
		}
		vectors = append(vectors, v)
	}
	sum, err := p.Decode(SumPlain(vectors...), count)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []float64{200, 3.25, 2.5} {
		// One item has standard deviation at most R/(2κ), the mean of 400 a twentieth of it.
		tolerance := 5 * p.Tail[i].Max / (2 * float64(p.Kappa())) / 20
		if math.Abs(sum.TailMean[i]-want) > tolerance || sum.TailBad[i] {
			t.Errorf("%s is %v, want %v within %v", p.Tail[i].Name, sum.TailMean[i], want, tolerance)
		}
	}
}

func TestMetricsOutsideTheirRangeAreClamped(t *testing.T) {
	p := params(t, 10, 1, layout.StandardTail())
	v, report, err := p.Encode(make([]float32, 10), []float64{1e300, -1, 16}, seeded(1))
	if err != nil {
		t.Fatal(err)
	}
	if report.TailClamped != 2 {
		t.Errorf("%d metrics clamped, want 2", report.TailClamped)
	}
	sum, err := p.Decode(v, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []float64{4096, 0, 16} {
		if sum.TailMean[i] != want {
			t.Errorf("%s is %v, want %v", p.Tail[i].Name, sum.TailMean[i], want)
		}
	}
}

// TestEveryEncodeObeysTheNormBound: SA 3.2, one bound for body and tail, in integers.
func TestEveryEncodeObeysTheNormBound(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := rapid.IntRange(1, 3000).Draw(rt, "D")
		p := params(t, d, 1, layout.StandardTail())
		norm := rapid.SampledFrom([]float64{0, 1e-30, 1.4999, 1.5, 1.5001, 100, 1e30}).Draw(rt, "norm")
		body := gaussianBody(rapid.Uint64().Draw(rt, "seed"), d, norm)
		if rapid.Bool().Draw(rt, "one value only") {
			clear(body)
			body[d-1] = float32(norm)
		}
		v, report, err := p.Encode(body, []float64{4096, 16, 16}, seeded(rapid.Byte().Draw(rt, "randomness")))
		if err != nil {
			rt.Fatal(err)
		}
		var body2, all2 uint64
		for i, lane := range v {
			x := lift(lane)
			if i < PaddedLen(d) {
				body2 += uint64(x * x)
			}
			all2 += uint64(x * x)
			if uint64(max(x, -x)) > p.XMax() {
				rt.Fatalf("lane %d is %d, above x_max %d", i, x, p.XMax())
			}
		}
		if body2 > uint64(p.C)*uint64(p.C) || all2 > p.B {
			rt.Fatalf("squared norms %d and %d, limits %d and %d (%d redraws)", body2, all2, uint64(p.C)*uint64(p.C), p.B, report.Redraws)
		}
	})
}

func TestAnHonestSumNeverWraps(t *testing.T) {
	// The largest sum that the parameters admit, of the largest lanes: still decoded exactly, at both signs.
	const nMax = 953_166 // ⌊(2^31 − 1)/2253⌋
	p := params(t, 1, nMax, nil)
	for _, sign := range []int64{1, -1} {
		one := make([]uint32, p.Len())
		one[0] = uint32(int32(sign * CMax))
		total := make([]uint32, p.Len())
		for range nMax {
			total[0] += one[0]
		}
		sum, err := p.Decode(total, nMax)
		if err != nil {
			t.Fatal(err)
		}
		want := sign * nMax * CMax
		if signsFor(p.Rotation, Block).bit(0) == 1 {
			want = -want
		}
		if sum.Body[0] != want {
			t.Errorf("sum is %d, want %d", sum.Body[0], want)
		}
	}
	l, _ := layout.Vector("v", 1, nil)
	if _, err := New(l, 1, CMax, nMax+1, p.Rotation); err == nil || !strings.Contains(err.Error(), "can wrap: limit is 953166 contributions") {
		t.Errorf("one contribution more: %v", err)
	}
}

func TestDecodeRefusesWhatHonestDevicesCannotSend(t *testing.T) {
	const count = 4
	p := params(t, 5000, count, layout.StandardTail())
	n := PaddedLen(p.D)
	with := func(change func(v []uint32)) []uint32 {
		v := make([]uint32, p.Len())
		change(v)
		return v
	}
	neg := func(x int32) uint32 { return uint32(-x) }
	for _, c := range []struct {
		name  string
		sum   []uint32
		count int
		want  string // "" for accepted
	}{
		{"zeros", with(func(v []uint32) {}), count, ""},
		{"largest lane", with(func(v []uint32) { v[7] = count * CMax }), count, ""},
		{"lane above |S|·x_max", with(func(v []uint32) { v[7] = count*CMax + 1 }), count, "lane 7 is 9013, limit 9012 for 4 contributions"},
		{"lane below −|S|·x_max", with(func(v []uint32) { v[7] = neg(count*CMax + 1) }), count, "lane 7 is -9013"},
		{"lane at the ring's lowest", with(func(v []uint32) { v[0] = 1 << 31 }), count, "lane 0 is -2147483648"},
		{"padding lane", with(func(v []uint32) { v[n-1] = 1 << 30 }), count, "lane 5119 is"},
		{"two lanes within the norm", with(func(v []uint32) { v[0], v[1] = count*CMax, count*1126 }), count, ""},
		{"two lanes beyond the norm", with(func(v []uint32) { v[0], v[1] = count*CMax, count*1128 }), count, "squared norm"},
		{"tail counts in the norm", with(func(v []uint32) { v[0], v[1], v[n] = count*CMax, count*1100, count*650 }), count, "squared norm"},
		{"fewer contributors than lanes need", with(func(v []uint32) { v[7] = count * CMax }), count - 1, "limit 6759 for 3"},
		{"no contributors", with(func(v []uint32) {}), 0, "over 0 contributions"},
		{"negative contributors", with(func(v []uint32) {}), -1, "over -1 contributions"},
		{"more contributors than N_max", with(func(v []uint32) {}), count + 1, "limits 1 and 4"},
		{"short", make([]uint32, p.Len()-1), count, "has 5122 lanes, want 5123"},
		{"nil", nil, count, "has 0 lanes"},
	} {
		_, err := p.Decode(c.sum, c.count)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if bounds := strings.Contains(c.want, "lane ") || strings.Contains(c.want, "limit 6759") || strings.Contains(c.want, "norm"); bounds != errors.Is(err, ErrBounds) {
			t.Errorf("%s: ErrBounds is %v", c.name, !bounds)
		}
	}
}

func TestABadMetricIsWithheldAlone(t *testing.T) {
	p := params(t, 10, 4, layout.StandardTail())
	n, kappa := PaddedLen(10), p.Kappa()
	if kappa != 650 { // ⌊2253/(2√3)⌋
		t.Fatalf("κ is %d, want 650", kappa)
	}
	v := make([]uint32, p.Len())
	v[3] = 77
	v[n], v[n+1], v[n+2] = 4*kappa+1, 1<<31, 4*kappa // above, far below, at the end of the range
	sum, err := p.Decode(v, 4)
	if err != nil {
		t.Fatal(err)
	}
	if !sum.TailBad[0] || !sum.TailBad[1] || sum.TailBad[2] {
		t.Errorf("withheld: %v", sum.TailBad)
	}
	if sum.TailMean[0] != 0 || sum.TailMean[1] != 0 || sum.TailMean[2] != 16 {
		t.Errorf("means: %v", sum.TailMean)
	}
	if len(sum.Body) != 10 || sum.Body[0] == 0 {
		t.Errorf("the body went with it: %v", sum.Body)
	}
}

// FuzzDecode patches an honest vector: six bytes of data are a lane's index and its new value. Whole vectors as input
// would be kilobytes that a fuzzer shortens for minutes.
func FuzzDecode(f *testing.F) {
	p := params(f, 1000, 1000, layout.StandardTail())
	honest, _, err := p.Encode(gaussianBody(1, 1000, 1), []float64{1, 2, 3}, seeded(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{}, p.Len(), 1)
	f.Add([]byte{0, 7, 0, 0, 8, 0xcd}, p.Len(), 1)                                     // the largest lane
	f.Add([]byte{0, 7, 0x80, 0, 0, 0, 4, 0, 0xff, 0xff, 0xff, 0xff}, p.Len(), 1000)    // the lowest, and a bad metric
	f.Add([]byte{4, 0, 0, 0, 2, 0x8a, 4, 1, 0, 0, 2, 0x8a, 4, 2, 0, 0, 0, 1}, 1027, 3) // metrics at their ends
	f.Add([]byte{}, p.Len()-1, 1)
	f.Add([]byte{}, p.Len(), -1)
	f.Fuzz(func(t *testing.T, data []byte, lanes, count int) {
		v := make([]uint32, max(0, min(lanes, 4096)))
		copy(v, honest)
		for ; len(data) >= 6; data = data[6:] {
			if i := int(binary.BigEndian.Uint16(data)); i < len(v) {
				v[i] = binary.BigEndian.Uint32(data[2:])
			}
		}
		sum, err := p.Decode(v, count)
		if err != nil {
			return
		}
		var sq float64
		for _, x := range sum.Body {
			sq += float64(x) * float64(x)
		}
		if limit := float64(count) * 32 * math.Sqrt(float64(p.B)); math.Sqrt(sq) > limit*(1+1e-9) {
			t.Fatalf("norm of the decoded body is %v, limit %v", math.Sqrt(sq), limit)
		}
		for i, m := range sum.TailMean {
			if !(m >= 0 && m <= p.Tail[i].Max) {
				t.Fatalf("%s is %v", p.Tail[i].Name, m)
			}
		}
	})
}

func TestSumPlain(t *testing.T) {
	got := SumPlain([]uint32{1, 1 << 31}, []uint32{2, 1 << 31}, []uint32{3, 5})
	if len(got) != 2 || got[0] != 6 || got[1] != 5 {
		t.Errorf("got %v", got)
	}
	if SumPlain() != nil || SumPlain([]uint32{1}, []uint32{1, 2}) != nil {
		t.Error("a sum of nothing, or of different lengths")
	}
}
