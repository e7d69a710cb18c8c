package llm

import (
	"fmt"
	"math"
	"slices"
)

// Sequence is one training window: IDs[t] is read at position t and IDs[t+1] is its target, which counts if Score[t].
type Sequence struct {
	IDs   []int32 // one more than positions
	Score []bool  // one per position
}

// TapeOptions size a Tape.
type TapeOptions struct {
	Tokens  int  // the most positions of one batch
	Threads int  // goroutines; 0 means one per processor
	Grad    bool // keep what the backward pass needs
	FreezeA bool // no gradients of A: what the federated rounds train is B
	Full    bool // gradients of all base weights too: pre-training
}

// Tape runs a model over batches, forward and backward, written out by hand: the base is frozen, so only the gradients
// of activations and of the adapter exist unless Full is set. Its buffers are made once, those that follow the longest
// sequence when a longer one comes; a step makes none.
// A tape belongs to one goroutine.
type Tape struct {
	m       *Model
	a       *Adapter
	at      [][linears]int
	opts    TapeOptions
	cos     []float32
	sin     []float32
	mul     products
	heads   []headScratch // one per goroutine
	rope    int           // positions in cos and sin, and of heads
	saved   []activations
	final   []float32 // x after the last layer
	hn      []float32 // the same, normalised
	finv    []float32
	pos     []int32
	seqs    []int // first row of each sequence, and the end
	longest int   // positions of the longest sequence
	rows    []int // scored rows
	goal    []int32

	// scratch
	x, y, z, w     []float32 // [tokens, widest]
	dx, dh         []float32 // [tokens, dim]
	dq, dk, dv     []float32
	dq0, dk0       []float32 // before the norms of heads
	lowDU          []float32 // [tokens, rank]
	logits, gather []float32
	losses         []float64 // of headRows rows

	// GradA and GradB are per adapter module, in its order. GradBase follows Model.Params.
	GradA, GradB [][]float32
	GradBase     [][]float32
	baseOf       [][linears + 2][]float32 // views of GradBase by layer: linears, then the two norms
}

// headRows is how many rows of logits exist at a time.
const headRows = 128

// activations are what the backward pass needs of one layer.
type activations struct {
	x, xn, q, k, v, att []float32
	x1, xn2, g, u, act  []float32
	inv1, inv2, lse     []float32
	low                 [linears][]float32 // factor·A·x per module
	q0, k0, invQ, invK  []float32          // before the norms of heads, where there are some
}

// NewTape makes the buffers for batches of at most opts.Tokens positions. a may be nil.
func NewTape(m *Model, a *Adapter, opts TapeOptions) (*Tape, error) {
	if opts.Tokens < 1 || opts.Tokens > 1<<20 {
		return nil, fmt.Errorf("a tape of %d tokens, it must have 1 to 2^20", opts.Tokens)
	}
	if opts.Full && a != nil {
		return nil, fmt.Errorf("full gradients are for models without an adapter")
	}
	if opts.Full && (m.Biases || m.HeadNorms) {
		return nil, fmt.Errorf("full gradients are for models without biases and norms of heads")
	}
	at, err := a.place(m)
	if err != nil {
		return nil, err
	}
	n, dim, hid := opts.Tokens, m.Dim, m.Hidden
	qd, kd := m.Heads*m.HeadDim, m.KVHeads*m.HeadDim
	f := func(k int) []float32 { return make([]float32, n*k) }
	t := &Tape{m: m, a: a, at: at, opts: opts, mul: newProducts(opts.Threads), final: f(dim), hn: f(dim), finv: f(1), pos: make([]int32, n)}
	t.heads = make([]headScratch, t.mul.threads)
	layers := 1
	if opts.Grad {
		layers = m.Layers
	}
	rank := 0
	if a != nil {
		rank = a.Rank
	}
	for range layers {
		s := activations{x: f(dim), xn: f(dim), q: f(qd), k: f(kd), v: f(kd), att: f(qd), x1: f(dim), xn2: f(dim), g: f(hid), u: f(hid), act: f(hid), inv1: f(1), inv2: f(1), lse: f(m.Heads)}
		for i := range s.low {
			s.low[i] = f(rank)
		}
		if m.HeadNorms {
			s.q0, s.k0, s.invQ, s.invK = f(qd), f(kd), f(m.Heads), f(m.KVHeads)
		}
		t.saved = append(t.saved, s)
	}
	t.logits, t.gather, t.losses = make([]float32, headRows*m.Vocab), make([]float32, 2*headRows*dim), make([]float64, headRows)
	if !opts.Grad {
		return t, nil
	}
	t.x, t.y, t.z, t.w = f(max(hid, qd)), f(hid), f(hid), f(dim)
	t.dx, t.dh = f(dim), f(dim)
	t.dq, t.dk, t.dv = f(qd), f(kd), f(kd)
	if m.HeadNorms {
		t.dq0, t.dk0 = f(qd), f(kd)
	}
	t.lowDU = f(rank)
	if a != nil {
		for _, x := range a.Modules {
			t.GradB = append(t.GradB, make([]float32, len(x.B)))
			var ga []float32
			if !opts.FreezeA {
				ga = make([]float32, len(x.A))
			}
			t.GradA = append(t.GradA, ga)
		}
	}
	if opts.Full {
		for _, p := range m.Params() {
			t.GradBase = append(t.GradBase, make([]float32, len(p.Data)))
		}
		for l := range m.Layers {
			var v [linears + 2][]float32
			at := 1 + l*(linears+2)
			v[linears] = t.GradBase[at]
			at++
			for i := range linears {
				if i == linGate {
					v[linears+1] = t.GradBase[at]
					at++
				}
				v[i] = t.GradBase[at]
				at++
			}
			t.baseOf = append(t.baseOf, v)
		}
	}
	return t, nil
}

// load takes a batch's ids and positions in.
func (t *Tape) load(batch []Sequence) (n int, err error) {
	t.seqs, t.rows, t.goal = t.seqs[:0], t.rows[:0], t.goal[:0]
	t.longest = 0
	for b, s := range batch {
		if len(s.IDs) < 2 || len(s.Score) != len(s.IDs)-1 {
			return 0, fmt.Errorf("sequence %d has %d ids and %d scores, want one id more than scores, two at least", b, len(s.IDs), len(s.Score))
		}
		if n+len(s.Score) > t.opts.Tokens {
			return 0, fmt.Errorf("the batch has more than %d positions, the tape's size", t.opts.Tokens)
		}
		t.seqs = append(t.seqs, n)
		t.longest = max(t.longest, len(s.Score))
		for p, id := range s.IDs {
			if id < 0 || int(id) >= t.m.Vocab {
				return 0, fmt.Errorf("sequence %d, position %d: token %d, the vocabulary has %d", b, p, id, t.m.Vocab)
			}
			if p == len(s.Score) {
				break
			}
			t.pos[n+p] = int32(p)
			copy(t.saved[0].x[(n+p)*t.m.Dim:(n+p+1)*t.m.Dim], t.m.embed[int(id)*t.m.Dim:])
			if s.Score[p] {
				t.rows, t.goal = append(t.rows, n+p), append(t.goal, s.IDs[p+1])
			}
		}
		n += len(s.Score)
	}
	t.seqs = append(t.seqs, n)
	if t.longest > t.rope {
		t.cos, t.sin = t.m.angles(t.longest)
		for i := range t.heads {
			t.heads[i] = newHeadScratch(t.m.HeadDim, t.longest)
		}
		t.rope = t.longest
	}
	return n, nil
}

// Loss is the sum of the scored tokens' losses in nats, and their number.
func (t *Tape) Loss(batch []Sequence) (sum float64, count int, err error) {
	n, err := t.load(batch)
	if err != nil {
		return 0, 0, err
	}
	t.forward(n)
	return t.head(n, false), len(t.rows), nil
}

// Step is Loss, and the gradients of the mean loss over the scored tokens in GradA, GradB and GradBase.
func (t *Tape) Step(batch []Sequence) (sum float64, count int, err error) {
	if !t.opts.Grad {
		return 0, 0, fmt.Errorf("the tape keeps no gradients")
	}
	n, err := t.load(batch)
	if err != nil {
		return 0, 0, err
	}
	for _, g := range [][][]float32{t.GradA, t.GradB, t.GradBase} {
		for _, x := range g {
			clear(x)
		}
	}
	t.forward(n)
	if len(t.rows) == 0 {
		return 0, 0, nil
	}
	sum = t.head(n, true)
	t.backward(n, batch)
	return sum, len(t.rows), nil
}

// linear computes out = W·x + bias + factor·B·(A·x) for n rows; low keeps factor·A·x. bias may be nil.
func linear(mul *products, out, x, w, bias, low []float32, mod *AdapterModule, rank int, factor float32, n, o, in int) {
	mul.nt(out[:n*o], x, w, n, o, in, false)
	if bias != nil {
		for t := range n {
			add(out[t*o:(t+1)*o], bias)
		}
	}
	if mod == nil || factor == 0 {
		return
	}
	low = low[:n*rank]
	mul.nt(low, x, mod.A, n, rank, in, false)
	for i := range low {
		low[i] *= factor
	}
	mul.nt(out[:n*o], low, mod.B, n, o, rank, true)
}

func (t *Tape) module(l, i int) *AdapterModule {
	if k := t.at[l][i]; k >= 0 {
		return &t.a.Modules[k]
	}
	return nil
}

func (t *Tape) linear(out, x []float32, s *activations, l, i, n int) {
	o, in := t.m.linearShape(i)
	rank := 0
	if t.a != nil {
		rank = t.a.Rank
	}
	linear(&t.mul, out, x, t.m.layers[l].w[i], t.m.layers[l].bias[i], s.low[i], t.module(l, i), rank, t.a.factor(1), n, o, in)
}

// expWork is what an exponential costs, in multiplications of a matrix product.
const expWork = 32

func (t *Tape) norm(out, inv, x, w []float32) {
	n, dim := len(inv), t.m.Dim
	split(t.mul.threads, n, 1, 4*n*dim, func(lo, hi int) { rmsnorm(out[lo*dim:], inv[lo:hi], x[lo*dim:], w, dim, t.m.NormEps) })
}

func (t *Tape) rotate(x []float32, heads, n int, sign float32) {
	hd := t.m.HeadDim
	split(t.mul.threads, n, 1, 4*n*heads*hd, func(lo, hi int) { rotate(x[lo*heads*hd:], heads, hd, t.cos, t.sin, t.pos[lo:hi], sign) })
}

func (t *Tape) forward(n int) {
	m := t.m
	dim := m.Dim
	for l := range m.Layers {
		s := &t.saved[l%len(t.saved)]
		next := t.final
		if l+1 < m.Layers && t.opts.Grad {
			next = t.saved[l+1].x
		}
		y := &m.layers[l]
		t.norm(s.xn, s.inv1[:n], s.x, y.attnNorm)
		q, k := s.q, s.k
		if m.HeadNorms {
			q, k = s.q0, s.k0
		}
		t.linear(q, s.xn, s, l, linQ, n)
		t.linear(k, s.xn, s, l, linK, n)
		t.linear(s.v, s.xn, s, l, linV, n)
		if m.HeadNorms {
			rmsnorm(s.q, s.invQ[:n*m.Heads], q, y.headNorm[linQ], m.HeadDim, m.NormEps)
			rmsnorm(s.k, s.invK[:n*m.KVHeads], k, y.headNorm[linK], m.HeadDim, m.NormEps)
		}
		t.rotate(s.q, m.Heads, n, 1)
		t.rotate(s.k, m.KVHeads, n, 1)
		t.attention(s)
		t.linear(s.x1, s.att, s, l, linO, n)
		add(s.x1[:n*dim], s.x)
		t.norm(s.xn2, s.inv2[:n], s.x1, y.ffnNorm)
		t.linear(s.g, s.xn2, s, l, linGate, n)
		t.linear(s.u, s.xn2, s, l, linUp, n)
		split(t.mul.threads, n, 1, n*m.Hidden*expWork, func(lo, hi int) {
			lo, hi = lo*m.Hidden, hi*m.Hidden
			swiglu(s.act[lo:hi], s.g[lo:hi], s.u[lo:hi])
		})
		t.linear(next, s.act, s, l, linDown, n)
		add(next[:n*dim], s.x1)
		if !t.opts.Grad && l+1 < m.Layers {
			copy(s.x[:n*dim], next)
		}
	}
	t.norm(t.hn, t.finv[:n], t.final, m.norm)
}

// head computes the loss of the scored rows, chunk by chunk; with grad it leaves the gradient of the normalised hidden
// state in dh and adds to the head's own gradient.
func (t *Tape) head(n int, grad bool) float64 {
	m := t.m
	dim, V := m.Dim, m.Vocab
	var sum float64
	if grad {
		clear(t.dh[:n*dim])
	}
	invCount := float32(1 / float64(max(1, len(t.rows))))
	for lo := 0; lo < len(t.rows); lo += headRows {
		rows, goal := t.rows[lo:min(lo+headRows, len(t.rows))], t.goal[lo:min(lo+headRows, len(t.rows))]
		k := len(rows)
		x := t.gather[:k*dim]
		for i, r := range rows {
			copy(x[i*dim:(i+1)*dim], t.hn[r*dim:])
		}
		z := t.logits[:k*V]
		t.mul.nt(z, x, m.head, k, V, dim, false)
		split(t.mul.threads, k, 1, k*V*expWork, func(lo, hi int) {
			for i := lo; i < hi; i++ {
				row := z[i*V : (i+1)*V]
				most := slices.Max(row)
				right := row[goal[i]]
				total := expAll(row, most, 1)
				t.losses[i] = math.Log(total) - float64(right-most)
				if grad {
					c := float32(1/total) * invCount
					for j := range row {
						row[j] *= c
					}
					row[goal[i]] -= invCount
				}
			}
		})
		for _, v := range t.losses[:k] {
			sum += v
		}
		if !grad {
			continue
		}
		d := t.gather[headRows*dim : headRows*dim+k*dim]
		t.mul.nn(d, z, m.head, k, dim, V, false)
		for i, r := range rows {
			copy(t.dh[r*dim:(r+1)*dim], d[i*dim:])
		}
		if t.opts.Full {
			g := t.GradBase[0]
			if !m.Tied {
				g = t.GradBase[len(t.GradBase)-1]
			}
			t.mul.tn(g, z, x, V, dim, k, true)
		}
	}
	return sum
}
