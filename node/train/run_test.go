package train

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/node/llm"
)

// small is a model of random weights and an adapter whose A is not zero.
func small(t *testing.T) (*llm.Model, *llm.Adapter) {
	t.Helper()
	m, err := llm.NewModel(llm.Config{Dim: 16, Layers: 2, Heads: 2, KVHeads: 1, HeadDim: 8, Hidden: 24, Vocab: 257, Context: 64, NormEps: 1e-5, Rope: llm.Rope{Theta: 1e4}, Tied: true})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, p := range m.Params() {
		for i := range p.Data {
			p.Data[i] = 0.3 * float32(rng.NormFloat64())
			if len(p.Shape) == 1 {
				p.Data[i]++
			}
		}
	}
	a, err := llm.NewAdapter(m, 4, 8, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range a.Modules {
		for i := range x.A {
			x.A[i] = 0.3 * float32(rng.NormFloat64())
		}
	}
	return m, a
}

var (
	text   = []string{"the bee flies to the linden tree", "the bee returns to the hive", "a hive hums", "the linden tree blooms"}
	recipe = Recipe{Steps: 30, Batch: 2, Window: 16, LR: 1e-2, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Clip: 1, TrainB: true, Threads: 2}
)

func TestRunLearnsAndRepeats(t *testing.T) {
	m, first := small(t)
	windows := Windows(letters{bos: 256}, text, recipe.Window)
	before, n, err := Evaluate(context.Background(), m, first, windows, 1)
	if err != nil || n != Tokens(windows) {
		t.Fatalf("%d tokens of %d, %v", n, Tokens(windows), err)
	}
	bare, _, err := Evaluate(context.Background(), m, nil, windows, 2)
	if err != nil || bare != before {
		t.Errorf("an adapter whose B is zero changes the loss from %v to %v, %v", bare, before, err)
	}
	second, A := first.Clone(), first.Clone()
	var losses []float64
	st, err := Run(context.Background(), m, first, windows, recipe, [32]byte{1}, func(step int, loss float64) {
		if step != len(losses) {
			t.Errorf("step %d after %d", step, len(losses))
		}
		losses = append(losses, loss)
	})
	if err != nil {
		t.Fatal(err)
	}
	after, _, err := Evaluate(context.Background(), m, first, windows, 1)
	if err != nil || !(after < 0.7*before) {
		t.Errorf("loss %v before, %v after 30 steps, %v", before, after, err)
	}
	if st.Steps != 30 || len(losses) != 30 || st.LossFirst != losses[0] || st.LossLast != losses[29] || st.Tokens < 30 {
		t.Errorf("%+v, losses %v", st, losses)
	}
	// The same seed on another number of threads: the same bits. A did not move.
	other := recipe
	other.Threads = 1
	if _, err := Run(context.Background(), m, second, windows, other, [32]byte{1}, nil); err != nil {
		t.Fatal(err)
	}
	for k := range first.Modules {
		if !slices.Equal(first.Modules[k].B, second.Modules[k].B) {
			t.Fatalf("%s depends on the number of threads", first.Modules[k].Name)
		}
		if !slices.Equal(first.Modules[k].A, A.Modules[k].A) {
			t.Fatalf("%s: A is not trained and moved", first.Modules[k].Name)
		}
	}
	// Training A instead leaves B.
	_, third := small(t)
	other.TrainA, other.TrainB = true, false
	for k := range third.Modules {
		third.Modules[k].B[0] = 0.1
	}
	kept := third.Clone()
	if _, err := Run(context.Background(), m, third, windows, other, [32]byte{1}, nil); err != nil {
		t.Fatal(err)
	}
	for k := range third.Modules {
		if !slices.Equal(third.Modules[k].B, kept.Modules[k].B) || slices.Equal(third.Modules[k].A, kept.Modules[k].A) {
			t.Fatalf("%s: training A changed the wrong factor", third.Modules[k].Name)
		}
	}
}

func TestRunStopsBetweenSteps(t *testing.T) {
	m, a := small(t)
	windows := Windows(letters{bos: 256}, text, recipe.Window)
	ctx, cancel := context.WithCancel(context.Background())
	st, err := Run(ctx, m, a, windows, recipe, [32]byte{}, func(step int, _ float64) {
		if step == 3 {
			cancel()
		}
	})
	if st.Steps != 4 || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", st, err)
	}
	if _, _, err := Evaluate(ctx, m, a, windows, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Evaluate after the end: %v", err)
	}
}

func TestRunRefusals(t *testing.T) {
	m, a := small(t)
	windows := Windows(letters{bos: 256}, text, 16)
	for _, x := range []struct {
		want   string
		change func(r *Recipe)
	}{
		{"steps is 0, it must lie in [1, 2^20]", func(r *Recipe) { r.Steps = 0 }},
		{"batch is 4097, it must lie in [1, 4096]", func(r *Recipe) { r.Batch = 4097 }},
		{"window is 1, it must lie in [2, 131072]", func(r *Recipe) { r.Window = 1 }},
		{"lr is NaN", func(r *Recipe) { r.LR = math.NaN() }},
		{"lr is 11, it must lie in (0, 10]", func(r *Recipe) { r.LR = 11 }},
		{"betas are 1 and 0.99, they must lie in [0, 1)", func(r *Recipe) { r.Beta1 = 1 }},
		{"betas are 0.9 and NaN", func(r *Recipe) { r.Beta2 = math.NaN() }},
		{"eps is 0", func(r *Recipe) { r.Eps = 0 }},
		{"weight_decay is NaN", func(r *Recipe) { r.WeightDecay = math.NaN() }},
		{"clip is -1", func(r *Recipe) { r.Clip = -1 }},
		{"neither factor is trained", func(r *Recipe) { r.TrainB = false }},
	} {
		r := recipe
		x.change(&r)
		_, err := Run(context.Background(), m, a.Clone(), windows, r, [32]byte{}, nil)
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("error %v, want %q", err, x.want)
		}
	}
	if _, err := Run(context.Background(), m, a, nil, recipe, [32]byte{}, nil); !errors.Is(err, ErrNoData) {
		t.Errorf("no windows: %v", err)
	}
	broken := a.Clone()
	broken.Modules[3].A[1] = float32(math.NaN())
	if _, err := Run(context.Background(), m, broken, windows, recipe, [32]byte{}, nil); err == nil || !strings.Contains(err.Error(), "step 0: the") {
		t.Errorf("an adapter of NaN: %v", err)
	}
	if sum, n, err := Evaluate(context.Background(), m, a, nil, 1); sum != 0 || n != 0 || err != nil {
		t.Errorf("no windows: %v over %d, %v", sum, n, err)
	}
}

func TestClip(t *testing.T) {
	for _, x := range []struct {
		limit float64
		want  []float32
	}{{0, []float32{3, 0, 4}}, {5, []float32{3, 0, 4}}, {10, []float32{3, 0, 4}}, {1, []float32{0.6, 0, 0.8}}} {
		g := [][]float32{{3, 0}, nil, {4}}
		if norm := Clip(g, x.limit); norm != 5 {
			t.Errorf("the norm is %v, want 5", norm)
		}
		for i, v := range []float32{g[0][0], g[0][1], g[2][0]} {
			if math.Abs(float64(v-x.want[i])) > 1e-6 {
				t.Errorf("limit %v: %v, want %v", x.limit, g, x.want)
			}
		}
	}
}

// TestAdamWIsThePapers compares with Algorithm 2 of Loshchilov and Hutter, line by line in float64.
func TestAdamWIsThePapers(t *testing.T) {
	const lr, b1, b2, eps, decay = 3e-3, 0.9, 0.95, 1e-8, 0.1
	rng := rand.New(rand.NewPCG(5, 5))
	p := [][]float32{{1, -2, 0.5}, {3}, {7}}
	want := []float64{1, -2, 0.5, 3}
	m, v := make([]float64, 4), make([]float64, 4)
	o := &AdamW{LR: lr, Beta1: b1, Beta2: b2, Eps: eps, WeightDecay: decay}
	for step := 1; step <= 50; step++ {
		g := [][]float32{{float32(rng.NormFloat64()), float32(rng.NormFloat64()), 0}, {float32(rng.NormFloat64()) * 100}, nil}
		o.Update(p, g)
		for i, x := range []float32{g[0][0], g[0][1], g[0][2], g[1][0]} {
			d := float64(x)
			m[i] = b1*m[i] + (1-b1)*d
			v[i] = b2*v[i] + (1-b2)*d*d
			hatM, hatV := m[i]/(1-math.Pow(b1, float64(step))), v[i]/(1-math.Pow(b2, float64(step)))
			want[i] -= lr*hatM/(math.Sqrt(hatV)+eps) + lr*decay*want[i]
		}
	}
	for i, x := range []float32{p[0][0], p[0][1], p[0][2], p[1][0]} {
		if math.Abs(float64(x)-want[i]) > 1e-5 {
			t.Errorf("parameter %d is %v, want %v", i, x, want[i])
		}
	}
	if p[2][0] != 7 {
		t.Errorf("a parameter without gradient moved to %v", p[2][0])
	}
}
