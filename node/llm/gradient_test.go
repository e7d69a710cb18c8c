package llm

import (
	"fmt"
	"math"
	"math/cmplx"
	"math/rand/v2"
	"strings"
	"testing"
)

// dumb is the decoder written down a second time, in float64, one position and one head at a time, with nothing shared
// with the engine but the names of its tensors. It is what gradients are differentiated from.
type dumb struct {
	Config
	t      map[string][]float64 // weights by name, and the adapter's A and B by name + ".A", ".B"
	factor float64              // of B·A
	rank   int
}

func newDumb(m *Model, a *Adapter) *dumb {
	d := &dumb{Config: m.Config, t: map[string][]float64{}}
	wider := func(x []float32) []float64 {
		out := make([]float64, len(x))
		for i, v := range x {
			out[i] = float64(v)
		}
		return out
	}
	for _, p := range m.Params() {
		d.t[p.Name] = wider(p.Data)
	}
	if m.Tied {
		d.t["lm_head.weight"] = d.t["model.embed_tokens.weight"]
	}
	if a != nil {
		d.rank, d.factor = a.Rank, a.Alpha/float64(a.Rank)
		for _, x := range a.Modules {
			d.t[x.Name+".A"], d.t[x.Name+".B"] = wider(x.A), wider(x.B)
		}
	}
	return d
}

// times is W·x, with W of len(x) columns.
func times(w, x []float64) []float64 {
	out := make([]float64, len(w)/len(x))
	for i := range out {
		for j, v := range x {
			out[i] += w[i*len(x)+j] * v
		}
	}
	return out
}

func (d *dumb) linear(name string, x []float64) []float64 {
	out := times(d.t[name+".weight"], x)
	for i, b := range d.t[name+".bias"] {
		out[i] += b
	}
	if a := d.t[name+".A"]; a != nil {
		for i, v := range times(d.t[name+".B"], times(a, x)) {
			out[i] += d.factor * v
		}
	}
	return out
}

func (d *dumb) norm(name string, x []float64) []float64 {
	ss := 0.0
	for _, v := range x {
		ss += v * v
	}
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = v / math.Sqrt(ss/float64(len(x))+d.NormEps) * d.t[name][i]
	}
	return out
}

// turn rotates each head's vector as pairs of complex numbers' parts, i and i+half.
func (d *dumb) turn(x []float64, position int) {
	half := d.HeadDim / 2
	for h := 0; h < len(x); h += d.HeadDim {
		for i := range half {
			angle := float64(position) / math.Pow(d.Rope.Theta, float64(2*i)/float64(d.HeadDim))
			z := complex(x[h+i], x[h+i+half]) * cmplx.Exp(complex(0, angle))
			x[h+i], x[h+i+half] = real(z), imag(z)
		}
	}
}

// logits of every position of one sequence.
func (d *dumb) logits(ids []int32) [][]float64 {
	x := make([][]float64, len(ids))
	for p, id := range ids {
		x[p] = append([]float64(nil), d.t["model.embed_tokens.weight"][int(id)*d.Dim:(int(id)+1)*d.Dim]...)
	}
	plus := func(p int, y []float64) {
		for i, v := range y {
			x[p][i] += v
		}
	}
	for l := range d.Layers {
		name := func(s string) string { return fmt.Sprintf("model.layers.%d.%s", l, s) }
		var q, k, v [][]float64
		for p := range x {
			n := d.norm(name("input_layernorm.weight"), x[p])
			q, k, v = append(q, d.linear(name("self_attn.q_proj"), n)), append(k, d.linear(name("self_attn.k_proj"), n)), append(v, d.linear(name("self_attn.v_proj"), n))
			if d.HeadNorms {
				for h := 0; h < len(q[p]); h += d.HeadDim {
					copy(q[p][h:], d.norm(name("self_attn.q_norm.weight"), q[p][h:h+d.HeadDim]))
				}
				for h := 0; h < len(k[p]); h += d.HeadDim {
					copy(k[p][h:], d.norm(name("self_attn.k_norm.weight"), k[p][h:h+d.HeadDim]))
				}
			}
			d.turn(q[p], p)
			d.turn(k[p], p)
		}
		for p := range x {
			out := make([]float64, d.Heads*d.HeadDim)
			for h := range d.Heads {
				qh, kh := h*d.HeadDim, h*d.KVHeads/d.Heads*d.HeadDim
				weights, total := map[int]float64{}, 0.0
				for j := range p + 1 {
					if d.Window > 0 && p-j >= d.Window {
						continue
					}
					s := 0.0
					for i := range d.HeadDim {
						s += q[p][qh+i] * k[j][kh+i]
					}
					weights[j] = math.Exp(s / math.Sqrt(float64(d.HeadDim)))
					total += weights[j]
				}
				for j, w := range weights {
					for i := range d.HeadDim {
						out[qh+i] += w / total * v[j][kh+i]
					}
				}
			}
			plus(p, d.linear(name("self_attn.o_proj"), out))
			n := d.norm(name("post_attention_layernorm.weight"), x[p])
			g, u := d.linear(name("mlp.gate_proj"), n), d.linear(name("mlp.up_proj"), n)
			for i := range g {
				g[i] *= u[i] / (1 + math.Exp(-g[i]))
			}
			plus(p, d.linear(name("mlp.down_proj"), g))
		}
	}
	for p := range x {
		x[p] = times(d.t["lm_head.weight"], d.norm("model.norm.weight", x[p]))
	}
	return x
}

// loss is the mean over the scored tokens of a batch.
func (d *dumb) loss(batch []Sequence) float64 {
	sum, n := 0.0, 0
	for _, s := range batch {
		for p, z := range d.logits(s.IDs[:len(s.Score)]) {
			if !s.Score[p] {
				continue
			}
			total := 0.0
			for _, v := range z {
				total += math.Exp(v)
			}
			sum += math.Log(total) - z[s.IDs[p+1]]
			n++
		}
	}
	return sum / float64(n)
}

// slope is the derivative of the loss when the named tensor moves along v.
func (d *dumb) slope(name string, v []float64, batch []Sequence) float64 {
	const step = 1e-4
	x := d.t[name]
	at := func(s float64) float64 {
		for i := range x {
			x[i] += s * v[i]
		}
		defer func() {
			for i := range x {
				x[i] -= s * v[i]
			}
		}()
		return d.loss(batch)
	}
	return (at(step) - at(-step)) / (2 * step)
}

// randomModel has weights that make every part of the computation matter.
func randomModel(t testing.TB, c Config, seed uint64) *Model {
	t.Helper()
	m, err := NewModel(c)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	for _, p := range m.Params() {
		for i := range p.Data {
			if strings.HasSuffix(p.Name, ".bias") {
				p.Data[i] = float32(rng.NormFloat64())
			} else if len(p.Shape) == 1 {
				p.Data[i] = 1 + 0.3*float32(rng.NormFloat64())
			} else {
				p.Data[i] = float32(rng.NormFloat64() / math.Sqrt(float64(p.Shape[1])/2))
			}
		}
	}
	return m
}

func randomAdapter(t testing.TB, m *Model, rank int, targets []string, seed uint64) *Adapter {
	t.Helper()
	a, err := NewAdapter(m, rank, 2.5*float64(rank), targets)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 2))
	for _, x := range a.Modules {
		for i := range x.A {
			x.A[i] = 0.3 * float32(rng.NormFloat64())
		}
		for i := range x.B {
			x.B[i] = 0.2 * float32(rng.NormFloat64())
		}
	}
	return a
}

// randomBatch has sequences of the given numbers of positions, a third of them not scored; the last one has none scored.
func randomBatch(vocab int, seed uint64, lengths ...int) []Sequence {
	rng := rand.New(rand.NewPCG(seed, 3))
	var out []Sequence
	for b, n := range lengths {
		s := Sequence{IDs: []int32{int32(rng.IntN(vocab))}}
		for range n {
			s.IDs = append(s.IDs, int32(rng.IntN(vocab)))
			s.Score = append(s.Score, rng.IntN(3) > 0 && (b+1 < len(lengths) || b == 0))
		}
		out = append(out, s)
	}
	return out
}

// Small models in which no two sizes are equal, so that none can stand for another.
var oddConfigs = map[string]Config{
	"one head each, tied":        {Dim: 10, Layers: 2, Heads: 3, KVHeads: 3, HeadDim: 4, Hidden: 15, Vocab: 23, Context: 64, NormEps: 1e-5, Rope: Rope{Theta: 100}, Tied: true},
	"grouped, untied":            {Dim: 10, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 6, Hidden: 15, Vocab: 23, Context: 64, NormEps: 1e-5, Rope: Rope{Theta: 100}},
	"sliding window, one k head": {Dim: 18, Layers: 2, Heads: 4, KVHeads: 1, HeadDim: 8, Hidden: 21, Vocab: 19, Context: 64, NormEps: 1e-2, Rope: Rope{Theta: 1e4}, Tied: true, Window: 5},
	"biases":                     {Dim: 10, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 6, Hidden: 15, Vocab: 23, Context: 64, NormEps: 1e-5, Rope: Rope{Theta: 100}, Biases: true},
	"norms of heads":             {Dim: 10, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 6, Hidden: 15, Vocab: 23, Context: 64, NormEps: 1e-5, Rope: Rope{Theta: 100}, Tied: true, HeadNorms: true},
	"window of a block, untied":  {Dim: 20, Layers: 1, Heads: 2, KVHeads: 2, HeadDim: 4, Hidden: 33, Vocab: 40, Context: 64, NormEps: 1e-6, Rope: Rope{Theta: 1e4}, Window: attentionRows},
}

// checkSlope compares a gradient with the dumb model's slope along the gradient and a random direction of its length.
func checkSlope(t *testing.T, d *dumb, name string, grad []float32, batch []Sequence) {
	t.Helper()
	rng := rand.New(rand.NewPCG(uint64(len(grad)), 4))
	v, norm := make([]float64, len(grad)), 0.0
	for _, g := range grad {
		norm += float64(g) * float64(g)
	}
	if norm == 0 {
		t.Errorf("%s: the gradient is zero", name)
		return
	}
	got := 0.0
	for i, g := range grad {
		v[i] = float64(g)/math.Sqrt(norm) + rng.NormFloat64()/math.Sqrt(float64(len(grad)))
		got += float64(g) * v[i]
	}
	if want := d.slope(name, v, batch); math.Abs(got-want) > 1e-3*math.Abs(want)+1e-6 {
		t.Errorf("%s: slope %.8g, finite difference %.8g", name, got, want)
	}
}

func TestAdapterGradientsAreSlopes(t *testing.T) {
	for name, c := range oddConfigs {
		t.Run(name, func(t *testing.T) {
			m := randomModel(t, c, 11)
			a := randomAdapter(t, m, 3, nil, 12)
			batch := randomBatch(c.Vocab, 13, 7, 37, 1, 18, 4)
			tape, err := NewTape(m, a, TapeOptions{Tokens: 70, Threads: 2, Grad: true})
			if err != nil {
				t.Fatal(err)
			}
			d := newDumb(m, a)
			for range 2 { // a second step must not remember the first
				sum, n, err := tape.Step(batch)
				if err != nil {
					t.Fatal(err)
				}
				if want := d.loss(batch); math.Abs(sum/float64(n)-want) > 1e-5*want {
					t.Fatalf("loss %v, the dumb model's is %v", sum/float64(n), want)
				}
			}
			for k, x := range a.Modules {
				checkSlope(t, d, x.Name+".A", tape.GradA[k], batch)
				checkSlope(t, d, x.Name+".B", tape.GradB[k], batch)
			}
			frozen, err := NewTape(m, a, TapeOptions{Tokens: 70, Threads: 1, Grad: true, FreezeA: true})
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := frozen.Step(batch); err != nil {
				t.Fatal(err)
			}
			for k, x := range a.Modules {
				if frozen.GradA[k] != nil {
					t.Errorf("%s: A is frozen and has a gradient", x.Name)
				}
				sameBits(t, x.Name+".B with A frozen", frozen.GradB[k], tape.GradB[k])
			}
		})
	}
}

// TestAdapterOnSomeModules leaves holes: modules without an adapter still pass gradients on.
func TestAdapterOnSomeModules(t *testing.T) {
	c := oddConfigs["grouped, untied"]
	m := randomModel(t, c, 21)
	a := randomAdapter(t, m, 2, []string{"v_proj", "down_proj"}, 22)
	batch := randomBatch(c.Vocab, 23, 9, 20)
	tape, err := NewTape(m, a, TapeOptions{Tokens: 29, Grad: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tape.Step(batch); err != nil {
		t.Fatal(err)
	}
	d := newDumb(m, a)
	if len(a.Modules) != 4 {
		t.Fatalf("%d modules, want 4", len(a.Modules))
	}
	for k, x := range a.Modules {
		checkSlope(t, d, x.Name+".A", tape.GradA[k], batch)
		checkSlope(t, d, x.Name+".B", tape.GradB[k], batch)
	}
}

func TestBaseGradientsAreSlopes(t *testing.T) {
	for name, c := range oddConfigs {
		t.Run(name, func(t *testing.T) {
			m := randomModel(t, c, 31)
			batch := randomBatch(c.Vocab, 33, 6, 35, 2)
			tape, err := NewTape(m, nil, TapeOptions{Tokens: 50, Threads: 2, Grad: true, Full: true})
			if c.Biases || c.HeadNorms {
				refused(t, err, "full gradients are for models without biases and norms of heads")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, _, err := tape.Step(batch); err != nil {
					t.Fatal(err)
				}
			}
			d := newDumb(m, nil)
			params := m.Params()
			if len(params) != len(tape.GradBase) {
				t.Fatalf("%d gradients of %d parameters", len(tape.GradBase), len(params))
			}
			for k, p := range params {
				checkSlope(t, d, p.Name, tape.GradBase[k], batch)
			}
		})
	}
}

func sameBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range got {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s: value %d is %v, want the bits of %v", what, i, got[i], want[i])
		}
	}
}
