package llm

import "math"

// rmsnormBack adds the gradient of rmsnorm's input to dx, and of its weights to dw if there is one.
// dy, x [n,dim]; y = x·inv·w.
func rmsnormBack(dx, dw, dy, x, w, inv []float32, dim int) {
	for t, s := range inv {
		xt, dyt, dxt := x[t*dim:t*dim+dim], dy[t*dim:t*dim+dim], dx[t*dim:t*dim+dim]
		var dotp float64
		for i, d := range dyt {
			dotp += float64(d) * float64(w[i]) * float64(xt[i])
		}
		c := float32(dotp * float64(s) * float64(s) * float64(s) / float64(dim))
		for i, d := range dyt {
			dxt[i] += d*w[i]*s - xt[i]*c
		}
		if dw != nil {
			for i, d := range dyt {
				dw[i] += d * xt[i] * s
			}
		}
	}
}

// linearBack is linear's backward pass: dx gets (or is added) the gradient of the input, unless it is nil; the adapter's
// and, with Full, the weights' gradients are added to.
func (t *Tape) linearBack(dx, dy, x []float32, s *activations, l, i, n int, accumulate bool) {
	o, in := t.m.linearShape(i)
	threads := t.opts.Threads
	if dx != nil {
		matmulNN(dx[:n*in], dy, t.m.layers[l].w[i], n, in, o, accumulate, threads)
	}
	if t.opts.Full {
		matmulTN(t.baseOf[l][i], dy, x, o, in, n, true, threads)
	}
	mod := t.module(l, i)
	if mod == nil {
		return
	}
	rank, factor := t.a.Rank, t.a.factor(1)
	k := t.at[l][i]
	matmulTN(t.GradB[k], dy, s.low[i], o, rank, n, true, threads)
	if dx == nil && t.opts.FreezeA {
		return
	}
	du := t.lowDU[:n*rank]
	matmulNN(du, dy, mod.B, n, rank, o, false, threads)
	for j := range du {
		du[j] *= factor
	}
	if !t.opts.FreezeA {
		matmulTN(t.GradA[k], du, x, rank, in, n, true, threads)
	}
	if dx != nil {
		matmulNN(dx[:n*in], du, mod.A, n, in, rank, true, threads)
	}
}

// backward mirrors forward, layer by layer from the last. dh holds the gradient of the normalised hidden state.
func (t *Tape) backward(n int, batch []Sequence) {
	m := t.m
	dim := m.Dim
	var dnorm []float32
	if t.opts.Full {
		at := len(t.GradBase) - 1
		if !m.Tied {
			at--
		}
		dnorm = t.GradBase[at]
	}
	dx := t.dx[:n*dim] // gradient of the residual stream
	clear(dx)
	rmsnormBack(dx, dnorm, t.dh, t.final, m.norm, t.finv[:n], dim)
	for l := m.Layers - 1; l >= 0; l-- {
		s, y := &t.saved[l], &m.layers[l]
		var dAttnNorm, dFFNNorm []float32
		if t.opts.Full {
			dAttnNorm, dFFNNorm = t.baseOf[l][linears], t.baseOf[l][linears+1]
		}
		// Feed-forward: x2 = x1 + down(silu(g)·u).
		dact := t.x[:n*m.Hidden]
		t.linearBack(dact, dx, s.act, s, l, linDown, n, false)
		dg, du := t.y[:n*m.Hidden], t.z[:n*m.Hidden]
		split(t.opts.Threads, n*m.Hidden, 1, n*m.Hidden*16, func(lo, hi int) {
			for i := lo; i < hi; i++ {
				g, d := s.g[i], dact[i]
				sig := 1 / (1 + exp32(-g))
				dg[i] = d * s.u[i] * sig * (1 + g*(1-sig))
				du[i] = d * g * sig
			}
		})
		dxn := t.w[:n*dim]
		t.linearBack(dxn, dg, s.xn2, s, l, linGate, n, false)
		t.linearBack(dxn, du, s.xn2, s, l, linUp, n, true)
		rmsnormBack(dx, dFFNNorm, dxn, s.x1, y.ffnNorm, s.inv2[:n], dim)
		// Attention: x1 = x + o(attend(q,k,v)).
		datt := t.x[:n*m.Heads*m.HeadDim]
		t.linearBack(datt, dx, s.att, s, l, linO, n, false)
		t.attentionBack(s, datt)
		rotate(t.dq, m.Heads, m.HeadDim, t.cos, t.sin, t.pos[:n], -1)
		rotate(t.dk, m.KVHeads, m.HeadDim, t.cos, t.sin, t.pos[:n], -1)
		if l == 0 && !t.opts.Full {
			dxn = nil // nothing below layer 0 learns
		}
		t.linearBack(dxn, t.dq, s.xn, s, l, linQ, n, false)
		t.linearBack(dxn, t.dk, s.xn, s, l, linK, n, true)
		t.linearBack(dxn, t.dv, s.xn, s, l, linV, n, true)
		if dxn != nil {
			rmsnormBack(dx, dAttnNorm, dxn, s.x, y.attnNorm, s.inv1[:n], dim)
		}
	}
	if t.opts.Full {
		g := t.GradBase[0]
		for b, seq := range batch {
			for p, id := range seq.IDs[:len(seq.Score)] {
				add(g[int(id)*dim:(int(id)+1)*dim], dx[(t.seqs[b]+p)*dim:(t.seqs[b]+p+1)*dim])
			}
		}
	}
}

// attentionBack fills dq, dk, dv from the gradient of att. The weights are computed again from lse: cheaper to compute
// than to keep. One goroutine works on all query heads of a key head in one sequence, so dk and dv have one writer.
func (t *Tape) attentionBack(s *activations, datt []float32) {
	m := t.m
	hd, group := m.HeadDim, m.Heads/m.KVHeads
	qd, kd := m.Heads*hd, m.KVHeads*hd
	scale := float32(1 / math.Sqrt(float64(hd)))
	items := (len(t.seqs) - 1) * m.KVHeads
	split(t.opts.Threads, items, 1, items*parallelMin, func(lo, hi int) {
		for it := lo; it < hi; it++ {
			b, kh := it/m.KVHeads, it%m.KVHeads
			first, end := t.seqs[b], t.seqs[b+1]
			for p := first; p < end; p++ {
				clear(t.dk[p*kd+kh*hd : p*kd+kh*hd+hd])
				clear(t.dv[p*kd+kh*hd : p*kd+kh*hd+hd])
			}
			for p := range end - first {
				from := span(p, m.Window)
				for h := kh * group; h < (kh+1)*group; h++ {
					at := (first+p)*qd + h*hd
					q, dq, dout := s.q[at:at+hd], t.dq[at:at+hd], datt[at:at+hd]
					lse := s.lse[(first+p)*m.Heads+h]
					delta := dot(dout, s.att[at:at+hd])
					clear(dq)
					for j := from; j <= p; j++ {
						kat := (first+j)*kd + kh*hd
						k, v, dk, dv := s.k[kat:kat+hd], s.v[kat:kat+hd], t.dk[kat:kat+hd], t.dv[kat:kat+hd]
						w := exp32(dot(q, k)*scale - lse)
						if w < 1e-30 {
							continue
						}
						ds := w * (dot(dout, v) - delta) * scale
						k, dk, dv, dq, dout, q := k[:hd], dk[:hd], dv[:hd], dq[:hd], dout[:hd], q[:hd]
						for i := range hd {
							dq[i] += ds * k[i]
							dk[i] += ds * q[i]
							dv[i] += w * dout[i]
						}
					}
				}
			}
		}
	})
}
