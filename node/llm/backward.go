package llm

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

// swigluBack is swiglu's backward pass.
func swigluBack(dg, du, d, g, u []float32) {
	dg, du, d, u = dg[:len(g)], du[:len(g)], d[:len(g)], u[:len(g)]
	for i, x := range g {
		sig := sigmoid(x)
		dg[i] = d[i] * u[i] * sig * (1 + x*(1-sig))
		du[i] = d[i] * x * sig
	}
}

// linearBack is linear's backward pass: dx gets (or is added) the gradient of the input, unless it is nil; the adapter's
// and, with Full, the weights' gradients are added to.
func (t *Tape) linearBack(dx, dy, x []float32, s *activations, l, i, n int, accumulate bool) {
	o, in := t.m.linearShape(i)
	if dx != nil {
		t.mul.nn(dx[:n*in], dy, t.m.layers[l].w[i], n, in, o, accumulate)
	}
	if t.opts.Full {
		t.mul.tn(t.baseOf[l][i], dy, x, o, in, n, true)
	}
	mod := t.module(l, i)
	if mod == nil {
		return
	}
	rank, factor := t.a.Rank, t.a.factor(1)
	k := t.at[l][i]
	t.mul.tn(t.GradB[k], dy, s.low[i], o, rank, n, true)
	if dx == nil && t.opts.FreezeA {
		return
	}
	du := t.lowDU[:n*rank]
	t.mul.nn(du, dy, mod.B, n, rank, o, false)
	for j := range du {
		du[j] *= factor
	}
	if !t.opts.FreezeA {
		t.mul.tn(t.GradA[k], du, x, rank, in, n, true)
	}
	if dx != nil {
		t.mul.nn(dx[:n*in], du, mod.A, n, in, rank, true)
	}
}

// normBack is rmsnormBack over rows; the gradient of the weights, where wanted, is one sum over all of them.
func (t *Tape) normBack(dx, dw, dy, x, w, inv []float32) {
	n, dim := len(inv), t.m.Dim
	if dw != nil {
		rmsnormBack(dx, dw, dy, x, w, inv, dim)
		return
	}
	split(t.mul.threads, n, 1, 4*n*dim, func(lo, hi int) {
		rmsnormBack(dx[lo*dim:], nil, dy[lo*dim:], x[lo*dim:], w, inv[lo:hi], dim)
	})
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
	t.normBack(dx, dnorm, t.dh, t.final, m.norm, t.finv[:n])
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
		split(t.mul.threads, n, 1, n*m.Hidden*expWork, func(lo, hi int) {
			lo, hi = lo*m.Hidden, hi*m.Hidden
			swigluBack(dg[lo:hi], du[lo:hi], dact[lo:hi], s.g[lo:hi], s.u[lo:hi])
		})
		dxn := t.w[:n*dim]
		t.linearBack(dxn, dg, s.xn2, s, l, linGate, n, false)
		t.linearBack(dxn, du, s.xn2, s, l, linUp, n, true)
		t.normBack(dx, dFFNNorm, dxn, s.x1, y.ffnNorm, s.inv2[:n])
		// Attention: x1 = x + o(attend(q,k,v)).
		datt := t.x[:n*m.Heads*m.HeadDim]
		t.linearBack(datt, dx, s.att, s, l, linO, n, false)
		t.attentionBack(s, datt)
		t.rotate(t.dq, m.Heads, n, -1)
		t.rotate(t.dk, m.KVHeads, n, -1)
		if l == 0 && !t.opts.Full {
			dxn = nil // nothing below layer 0 learns
		}
		dq, dk := t.dq, t.dk
		if m.HeadNorms {
			dq, dk = t.dq0, t.dk0
			clear(dq)
			clear(dk)
			rmsnormBack(dq, nil, t.dq, s.q0, y.headNorm[linQ], s.invQ[:n*m.Heads], m.HeadDim)
			rmsnormBack(dk, nil, t.dk, s.k0, y.headNorm[linK], s.invK[:n*m.KVHeads], m.HeadDim)
		}
		t.linearBack(dxn, dq, s.xn, s, l, linQ, n, false)
		t.linearBack(dxn, dk, s.xn, s, l, linK, n, true)
		t.linearBack(dxn, t.dv, s.xn, s, l, linV, n, true)
		if dxn != nil {
			t.normBack(dx, dAttnNorm, dxn, s.x, y.attnNorm, s.inv1[:n])
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
