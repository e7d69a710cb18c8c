package commons

import (
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ruche-federation/ruche/aggregation/encode"
	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/crypto/label"
)

func vectorTask(t testing.TB, d int) (layout.Layout, encode.Params) {
	t.Helper()
	l, err := layout.Vector("v", d, layout.StandardTail())
	if err != nil {
		t.Fatal(err)
	}
	p, err := encode.New(l, 1, encode.CMax, 1000, label.Sum(label.TagRotation, []byte("commons test")))
	if err != nil {
		t.Fatal(err)
	}
	return l, p
}

func TestTheFirstCommonsDoesNothing(t *testing.T) {
	l, _ := vectorTask(t, 5)
	start := Init(l)
	if len(start) != 5 {
		t.Fatalf("%d values, want 5", len(start))
	}
	for i, v := range start {
		if math.Float32bits(v) != 0 {
			t.Errorf("value %d is %v", i, v)
		}
	}
	if Init(layout.Layout{}) != nil {
		t.Error("an invalid layout has a start")
	}
}

func TestFromUpdatesToTheNextCommons(t *testing.T) {
	const d, devices = 3000, 24
	l, p := vectorTask(t, d)
	r := rand.New(rand.NewPCG(1, 2))
	prev := make([]float32, d)
	want := make([]float64, d)
	for i := range prev {
		prev[i] = float32(r.NormFloat64())
		want[i] = float64(prev[i])
	}
	var contributions [][]uint32
	for i := range devices {
		update := make([]float32, d)
		for j := range update {
			update[j] = float32(r.NormFloat64() * 0.9 / math.Sqrt(d))
			want[j] += float64(update[j]) / devices
		}
		x, report, err := p.Encode(update, []float64{10, 3, 2}, rand.NewChaCha8([32]byte{byte(i)}))
		if err != nil {
			t.Fatal(err)
		}
		if report.ClipFactor != 1 {
			t.Fatalf("clipped by %v", report.ClipFactor)
		}
		contributions = append(contributions, x)
	}
	sum, err := p.Decode(encode.SumPlain(contributions...), devices)
	if err != nil {
		t.Fatal(err)
	}
	next, err := Average(prev, sum, devices, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Check(layout.Model{TaskID: "t", LayoutHash: l.Hash(), Seq: 1, Values: next}); err != nil {
		t.Fatal(err)
	}
	tolerance := 8*p.Gamma()/(2*math.Sqrt(devices)) + 1e-6
	for i, v := range next {
		if math.Abs(float64(v)-want[i]) > tolerance {
			t.Fatalf("value %d is %v, want %v within %v", i, v, want[i], tolerance)
		}
	}
}

// TestAverageAgainstExactArithmetic: prev + X·γ/(32·|S|) in 200 bits; the float64 path may differ from it by its three
// roundings, which the final rounding to float32 nearly always hides.
func TestAverageAgainstExactArithmetic(t *testing.T) {
	_, p := vectorTask(t, 1)
	rapid.Check(t, func(t *rapid.T) {
		contributors := rapid.IntRange(1, 1000).Draw(t, "contributors")
		x := rapid.Int64Range(-1<<41, 1<<41).Draw(t, "X")
		prev := rapid.Float32Range(-10, 10).Draw(t, "prev")
		next, err := Average([]float32{prev}, encode.Sum{Body: []int64{x}}, contributors, p)
		if err != nil {
			t.Fatal(err)
		}
		exact := new(big.Float).SetPrec(200).SetInt64(x)
		exact.Mul(exact, big.NewFloat(p.Gamma()))
		exact.Quo(exact, big.NewFloat(float64(encode.RotationRoot*contributors)))
		exact.Add(exact, big.NewFloat(float64(prev)))
		want, _ := exact.Float64()
		if diff := math.Abs(float64(next[0]) - want); diff > math.Abs(want)*(1.0/(1<<24)+1e-12)+math.Abs(float64(prev))*1e-15+1e-40 {
			t.Fatalf("got %v, exactly %v", next[0], want)
		}
	})
}

func TestAverageRefusals(t *testing.T) {
	_, p := vectorTask(t, 2)
	two := encode.Sum{Body: []int64{0, 1}}
	for _, c := range []struct {
		name  string
		prev  []float32
		sum   encode.Sum
		count int
		p     encode.Params
		want  string
	}{
		{"short start", []float32{1}, two, 1, p, "previous values are 1 and the sum 2, want 2"},
		{"short sum", []float32{1, 2}, encode.Sum{Body: []int64{1}}, 1, p, "the sum 1"},
		{"no contributors", []float32{1, 2}, two, 0, p, "over 0 contributions"},
		{"more than N_max", []float32{1, 2}, two, 1001, p, "limits 1 and 1000"},
		{"NaN at the start", []float32{1, float32(math.NaN())}, two, 1, p, "value 1 of the next commons is NaN"},
		{"infinite start", []float32{float32(math.Inf(1)), 1}, two, 1, p, "value 0 of the next commons is +Inf"},
		{"no parameters", []float32{1, 2}, two, 1, encode.Params{}, "clip is 0"},
	} {
		if next, err := Average(c.prev, c.sum, c.count, c.p); err == nil || next != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

func gram(rows, cols int, a []float32) (worst float64) {
	for i := range rows {
		for j := range i + 1 {
			var d float64
			for k := range cols {
				d += float64(a[i*cols+k]) * float64(a[j*cols+k])
			}
			if i == j {
				d--
			}
			worst = max(worst, math.Abs(d))
		}
	}
	return worst
}

func TestRowsAreOrthonormal(t *testing.T) {
	for _, shape := range [][]int{{1, 1}, {1, 2}, {4, 4}, {8, 8}, {8, 64}, {16, 288}, {64, 64}, {8, 2048}} {
		a := Orthonormal(label.Hash{7}, layout.Tensor{Name: "a", Shape: shape})
		if len(a) != shape[0]*shape[1] {
			t.Fatalf("%v: %d values", shape, len(a))
		}
		if worst := gram(shape[0], shape[1], a); worst > 3e-7 { // a few float32 units of 1
			t.Errorf("%v: A·Aᵀ is off the identity by %v", shape, worst)
		}
	}
}

func TestEachTensorHasItsOwnFactor(t *testing.T) {
	base := Orthonormal(label.Hash{7}, layout.Tensor{Name: "a", Shape: []int{2, 8}})
	for name, other := range map[string][]float32{
		"other seed":  Orthonormal(label.Hash{8}, layout.Tensor{Name: "a", Shape: []int{2, 8}}),
		"other name":  Orthonormal(label.Hash{7}, layout.Tensor{Name: "b", Shape: []int{2, 8}}),
		"other shape": Orthonormal(label.Hash{7}, layout.Tensor{Name: "a", Shape: []int{2, 9}}),
	} {
		if base[0] == other[0] {
			t.Errorf("%s: same first value %v", name, base[0])
		}
	}
	again := Orthonormal(label.Hash{7}, layout.Tensor{Name: "a", Shape: []int{2, 8}})
	for i := range base {
		if base[i] != again[i] {
			t.Fatal("the same seed and tensor give two factors")
		}
	}
}

func TestShapesWithoutOrthonormalRows(t *testing.T) {
	for _, shape := range [][]int{nil, {4}, {5, 4}, {0, 4}, {2, 2, 2}, {-1, 3}} {
		if Orthonormal(label.Hash{7}, layout.Tensor{Name: "a", Shape: shape}) != nil {
			t.Errorf("shape %v has a factor", shape)
		}
	}
}

// TestADegenerateRowIsReplaced: without this rule a row without direction would be rounding error, or NaN.
func TestADegenerateRowIsReplaced(t *testing.T) {
	scripted := func(rows [][]float64) func([]float64) {
		return func(v []float64) {
			copy(v, rows[0])
			if len(rows) > 1 {
				rows = rows[1:]
			}
		}
	}
	for name, rows := range map[string][][]float64{
		"zero":                       {{3, 0, 0}, {0, 0, 0}, {1, 2, 0}},
		"multiple of a former row":   {{3, 0, 0}, {-6, 0, 0}, {1, 2, 0}},
		"almost a former row":        {{3, 0, 0}, {1, 1e-7, 1e-8}, {1, 2, 0}},
		"no replacement was needed":  {{3, 0, 0}, {1, 2, 0}},
		"two replacements in a row":  {{3, 0, 0}, {0, 0, 0}, {1, 0, 0}, {1, 2, 0}},
		"the very first row is zero": {{0, 0, 0}, {3, 0, 0}, {1, 2, 0}},
	} {
		got := orthonormalise(2, 3, scripted(rows))
		want := []float64{1, 0, 0, 0, 1, 0}
		for i := range want {
			if i >= len(got) || got[i] != want[i] {
				t.Errorf("%s: got %v, want %v", name, got, want)
				break
			}
		}
	}
	if got := orthonormalise(2, 3, scripted([][]float64{{1, 0, 0}})); got != nil {
		t.Errorf("a source that repeats itself gave %v", got)
	}
}

// TestTwiceIsEnough: a row that lies near the span of the former ones keeps full orthogonality, which one pass of
// Gram–Schmidt loses.
func TestTwiceIsEnough(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const cols = 200
	first, second := make([]float64, cols), make([]float64, cols)
	for i := range first {
		first[i] = r.Float64() - 0.5
	}
	rows := [][]float64{first, second}
	for i := range second {
		second[i] = first[i] + 1e-5*(r.Float64()-0.5)
	}
	q := make([]float64, 2*cols)
	for i := range rows {
		v := q[i*cols : (i+1)*cols]
		if !drawRow(v, q[:i*cols], func(v []float64) { copy(v, rows[i]) }) {
			t.Fatal("no row")
		}
	}
	if d := math.Abs(dot(q[:cols], q[cols:])); d > 1e-15 {
		t.Errorf("rows of a nearly dependent pair have product %v", d)
	}
}

func TestUniformIsExactAndInRange(t *testing.T) {
	for _, c := range []struct {
		word uint64
		want float64
	}{{0, -1}, {math.MaxUint64, 1 - 1.0/(1<<52)}, {1 << 63, 0}, {1<<11 - 1, -1}} {
		if got := uniform(c.word); got != c.want {
			t.Errorf("uniform(%#x) is %v, want %v", c.word, got, c.want)
		}
	}
}

func BenchmarkOrthonormal(b *testing.B) {
	for b.Loop() {
		Orthonormal(label.Hash{7}, layout.Tensor{Name: "a", Shape: []int{8, 2048}})
	}
}

func BenchmarkAverage(b *testing.B) {
	const d = 1 << 20
	_, p := vectorTask(b, d)
	prev, sum := make([]float32, d), encode.Sum{Body: make([]int64, d)}
	b.SetBytes(4 * d)
	for b.Loop() {
		if _, err := Average(prev, sum, 100, p); err != nil {
			b.Fatal(err)
		}
	}
}
