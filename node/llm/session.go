package llm

import (
	"context"
	"fmt"
	"math"
)

// Session is one conversation: a KV cache over a model and an adapter. It belongs to one goroutine.
type Session struct {
	m       *Model
	a       *Adapter
	at      [][linears]int
	factor  float32
	n       int         // positions in the cache
	keys    [][]float32 // per layer [context, kvDim]
	values  [][]float32
	cos     []float32
	sin     []float32
	context int
	mul     products

	x, xn, q, k, v, att, y, g, u, low, inv, scores []float32
	pos                                            []int32
	logits                                         []float32
}

// prefill is how many positions go through the model at once.
const prefill = 64

// NewSession makes a session of at most context positions; 0 means the model's own. scale multiplies the adapter.
func (m *Model) NewSession(a *Adapter, scale float64, context int) (*Session, error) {
	if context == 0 {
		context = m.Context
	}
	if context < 1 || context > contextMax {
		return nil, fmt.Errorf("a session of %d positions, it must have 1 to %d", context, contextMax)
	}
	at, err := a.place(m)
	if err != nil {
		return nil, err
	}
	s := &Session{m: m, a: a, at: at, factor: a.factor(scale), context: context, mul: newProducts(0)}
	qd, kd := m.Heads*m.HeadDim, m.KVHeads*m.HeadDim
	for range m.Layers {
		s.keys, s.values = append(s.keys, make([]float32, context*kd)), append(s.values, make([]float32, context*kd))
	}
	s.cos, s.sin = m.angles(context)
	f := func(k int) []float32 { return make([]float32, prefill*k) }
	rank := 0
	if a != nil {
		rank = a.Rank
	}
	s.x, s.xn, s.q, s.k, s.v, s.att, s.y = f(m.Dim), f(m.Dim), f(qd), f(kd), f(kd), f(qd), f(m.Dim)
	s.g, s.u, s.low, s.inv, s.pos = f(m.Hidden), f(m.Hidden), f(rank), f(m.Heads), make([]int32, prefill)
	s.scores, s.logits = make([]float32, context), make([]float32, m.Vocab)
	return s, nil
}

// Len is the number of positions fed so far.
func (s *Session) Len() int { return s.n }

// Reset forgets everything that was fed.
func (s *Session) Reset() { s.n = 0 }

// Feed appends ids and returns the logits after the last of them, valid until the next call.
func (s *Session) Feed(ids ...int32) ([]float32, error) {
	if len(ids) == 0 {
		return nil, fmt.Errorf("nothing to feed")
	}
	if s.n+len(ids) > s.context {
		return nil, fmt.Errorf("%d tokens after %d pass the context of %d", len(ids), s.n, s.context)
	}
	for _, id := range ids {
		if id < 0 || int(id) >= s.m.Vocab {
			return nil, fmt.Errorf("token %d, the vocabulary has %d", id, s.m.Vocab)
		}
	}
	last := 0
	for len(ids) > 0 {
		k := min(len(ids), prefill)
		s.run(ids[:k])
		ids, last = ids[k:], k-1
	}
	dim := s.m.Dim
	rmsnorm(s.xn, s.inv[:1], s.x[last*dim:], s.m.norm, dim, s.m.NormEps)
	s.mul.nt(s.logits, s.xn[:dim], s.m.head, 1, s.m.Vocab, dim, false)
	return s.logits, nil
}

func (s *Session) linear(out, x []float32, l, i, n int) {
	o, in := s.m.linearShape(i)
	var mod *AdapterModule
	rank := 0
	if k := s.at[l][i]; k >= 0 {
		mod, rank = &s.a.Modules[k], s.a.Rank
	}
	linear(&s.mul, out, x, s.m.layers[l].w[i], s.m.layers[l].bias[i], s.low, mod, rank, s.factor, n, o, in)
}

// run puts n positions through all layers; the cache grows by them.
func (s *Session) run(ids []int32) {
	m, n := s.m, len(ids)
	dim, hd, group := m.Dim, m.HeadDim, m.Heads/m.KVHeads
	qd, kd := m.Heads*hd, m.KVHeads*hd
	scale := float32(1 / math.Sqrt(float64(hd)))
	for t, id := range ids {
		copy(s.x[t*dim:(t+1)*dim], m.embed[int(id)*dim:])
		s.pos[t] = int32(s.n + t)
	}
	for l := range m.layers {
		y := &m.layers[l]
		rmsnorm(s.xn, s.inv[:n], s.x, y.attnNorm, dim, m.NormEps)
		s.linear(s.q, s.xn, l, linQ, n)
		s.linear(s.k, s.xn, l, linK, n)
		s.linear(s.v, s.xn, l, linV, n)
		if m.HeadNorms {
			rmsnorm(s.q, s.inv[:n*m.Heads], s.q, y.headNorm[linQ], hd, m.NormEps)
			rmsnorm(s.k, s.inv[:n*m.KVHeads], s.k, y.headNorm[linK], hd, m.NormEps)
		}
		rotate(s.q, m.Heads, hd, s.cos, s.sin, s.pos[:n], 1)
		rotate(s.k, m.KVHeads, hd, s.cos, s.sin, s.pos[:n], 1)
		copy(s.keys[l][s.n*kd:], s.k[:n*kd])
		copy(s.values[l][s.n*kd:], s.v[:n*kd])
		for t := range n {
			p := s.n + t
			for h := range m.Heads {
				at := t*qd + h*hd
				kh := h / group * hd
				attend(s.att[at:at+hd], s.q[at:at+hd], s.keys[l][kh:], s.values[l][kh:], s.scores, span(p, m.Window), p, kd, hd, scale)
			}
		}
		s.linear(s.y, s.att, l, linO, n)
		add(s.x[:n*dim], s.y)
		rmsnorm(s.xn, s.inv[:n], s.x, y.ffnNorm, dim, m.NormEps)
		s.linear(s.g, s.xn, l, linGate, n)
		s.linear(s.u, s.xn, l, linUp, n)
		swiglu(s.g, s.g[:n*m.Hidden], s.u)
		s.linear(s.y, s.g, l, linDown, n)
		add(s.x[:n*dim], s.y)
	}
	s.n += n
}

// Generate feeds prompt and then up to most sampled tokens, each given to emit, until emit says stop or the context is
// full.
func Generate(ctx context.Context, s *Session, pick *Sampler, prompt []int32, most int, emit func(id int32) bool) error {
	logits, err := s.Feed(prompt...)
	if err != nil {
		return err
	}
	for i := 0; i < most; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		id := pick.Pick(logits)
		if !emit(id) || s.n == s.context || i+1 == most {
			return nil
		}
		if logits, err = s.Feed(id); err != nil {
			return err
		}
	}
	return nil
}
