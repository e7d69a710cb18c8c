package llm

import (
	"math"
	"slices"
)

// attentionRows is how many queries of a head go together: enough to make the products matrix products, few enough that
// little above the diagonal is computed for nothing.
const attentionRows = 16

// headScratch is one goroutine's memory for one head of one sequence of T positions.
type headScratch struct {
	kt, vt []float32 // [hd,T] keys and values, transposed
	w, dw  []float32 // [attentionRows,T] weights, and their gradient
}

func newHeadScratch(hd, longest int) headScratch {
	f := func(n int) []float32 { return make([]float32, n*longest) }
	return headScratch{kt: f(hd), vt: f(hd), w: f(attentionRows), dw: f(attentionRows)}
}

// span is the first position that position p sees: all before it, or those inside the sliding window, itself included.
func span(p, window int) int {
	if window > 0 && p+1 > window {
		return p + 1 - window
	}
	return 0
}

// eachHead runs f for every key head of every sequence. One goroutine works on all query heads of a key head in one
// sequence, so the gradients of keys and values have one writer.
func (t *Tape) eachHead(f func(h *headScratch, first, end, kh int)) {
	kv := t.m.KVHeads
	items := (len(t.seqs) - 1) * kv
	work := t.seqs[len(t.seqs)-1] * t.longest * t.m.Heads * t.m.HeadDim
	per := share(t.mul.threads, items, 1, work)
	split(t.mul.threads, items, 1, work, func(lo, hi int) {
		for it := lo; it < hi; it++ {
			f(&t.heads[lo/per], t.seqs[it/kv], t.seqs[it/kv+1], it%kv)
		}
	})
}

// attention fills att and lse, the logarithm of each softmax's denominator.
func (t *Tape) attention(s *activations) {
	m := t.m
	hd, group := m.HeadDim, m.Heads/m.KVHeads
	qd, kd := m.Heads*hd, m.KVHeads*hd
	scale := float32(1 / math.Sqrt(float64(hd)))
	t.eachHead(func(h *headScratch, first, end, kh int) {
		n, key := end-first, first*kd+kh*hd
		transpose(h.kt, s.k[key:], n, hd, kd)
		for p0 := 0; p0 < n; p0 += attentionRows {
			rows, from := min(attentionRows, n-p0), span(p0, m.Window)
			columns := p0 + rows - from
			for qh := kh * group; qh < (kh+1)*group; qh++ {
				at := (first+p0)*qd + qh*hd
				rowsWide(h.w, s.q[at:], h.kt[from:], rows, columns, hd, columns, qd, 1, n, false)
				for i := range rows {
					row := h.w[i*columns : (i+1)*columns]
					lo, hi := span(p0+i, m.Window)-from, p0+i+1-from
					clear(row[:lo])
					clear(row[hi:])
					s.lse[(first+p0+i)*m.Heads+qh] = softmax(row[lo:hi], scale)
				}
				rowsWide(s.att[at:], h.w, s.v[key+from*kd:], rows, hd, columns, qd, columns, 1, kd, false)
			}
		}
	})
}

// attentionBack fills dq, dk, dv from the gradient of att. The weights are computed again from lse: cheaper to compute
// than to keep.
func (t *Tape) attentionBack(s *activations, datt []float32) {
	m := t.m
	hd, group := m.HeadDim, m.Heads/m.KVHeads
	qd, kd := m.Heads*hd, m.KVHeads*hd
	scale := float32(1 / math.Sqrt(float64(hd)))
	t.eachHead(func(h *headScratch, first, end, kh int) {
		n, key := end-first, first*kd+kh*hd
		transpose(h.kt, s.k[key:], n, hd, kd)
		transpose(h.vt, s.v[key:], n, hd, kd)
		for p := range n {
			clear(t.dk[key+p*kd : key+p*kd+hd])
			clear(t.dv[key+p*kd : key+p*kd+hd])
		}
		for p0 := 0; p0 < n; p0 += attentionRows {
			rows, from := min(attentionRows, n-p0), span(p0, m.Window)
			columns := p0 + rows - from
			for qh := kh * group; qh < (kh+1)*group; qh++ {
				at := (first+p0)*qd + qh*hd
				rowsWide(h.w, s.q[at:], h.kt[from:], rows, columns, hd, columns, qd, 1, n, false)
				rowsWide(h.dw, datt[at:], h.vt[from:], rows, columns, hd, columns, qd, 1, n, false)
				for i := range rows {
					w, dw := h.w[i*columns:(i+1)*columns], h.dw[i*columns:(i+1)*columns]
					lo, hi := span(p0+i, m.Window)-from, p0+i+1-from
					clear(w[:lo])
					clear(w[hi:])
					clear(dw[:lo])
					clear(dw[hi:])
					delta := dot(datt[at+i*qd:at+i*qd+hd], s.att[at+i*qd:at+i*qd+hd])
					softmaxBack(w[lo:hi], dw[lo:hi], s.lse[(first+p0+i)*m.Heads+qh], delta, scale)
				}
				rowsWide(t.dq[at:], h.dw, s.k[key+from*kd:], rows, hd, columns, qd, columns, 1, kd, false)
				rowsWide(t.dk[key+from*kd:], h.dw, s.q[at:], columns, hd, rows, kd, 1, columns, qd, true)
				rowsWide(t.dv[key+from*kd:], h.w, datt[at:], columns, hd, rows, kd, 1, columns, qd, true)
			}
		}
	})
}

// softmaxCut is the distance in nats below the largest score from which a weight is 0: it would be below 1e-30, change
// nothing, and slow every product with it as a denormal.
const softmaxCut = 69

// softmax turns scores, times scale, into weights that sum to 1, and returns the logarithm of the denominator.
func softmax(scores []float32, scale float32) float32 {
	most := slices.Max(scores)
	inv := float32(1 / expAll(scores, most, scale))
	for i := range scores {
		scores[i] *= inv
	}
	return most*scale - float32(math.Log(float64(inv)))
}

// expAll replaces each score by e^((score-most)·scale), and returns their sum.
func expAll(scores []float32, most, scale float32) float64 {
	var sum float64
	for i, s := range scores {
		d := (s - most) * scale
		if d < -softmaxCut {
			scores[i] = 0
			continue
		}
		e := exp32(d)
		scores[i] = e
		sum += float64(e)
	}
	return sum
}

// softmaxBack turns scores into weights again, and dw, the gradient of the weights, into that of the scores.
// delta is Σ weight·dw.
func softmaxBack(w, dw []float32, lse, delta, scale float32) {
	dw = dw[:len(w)]
	for i, s := range w {
		d := s*scale - lse
		if d < -softmaxCut {
			w[i], dw[i] = 0, 0
			continue
		}
		e := exp32(d)
		w[i] = e
		dw[i] = e * (dw[i] - delta) * scale
	}
}

// attend computes one query head's output for one position from keys and values [from,to], as a session does.
// Positions are stride apart; scores is scratch of at least to+1.
func attend(out, q, keys, values, scores []float32, from, to, stride, hd int, scale float32) {
	p := from
	for ; p+4 <= to+1; p += 4 {
		k := keys[p*stride:]
		scores[p], scores[p+1], scores[p+2], scores[p+3] = dot4(q, k[:hd], k[stride:stride+hd], k[2*stride:2*stride+hd], k[3*stride:3*stride+hd])
	}
	for ; p <= to; p++ {
		scores[p] = dot(q, keys[p*stride:p*stride+hd])
	}
	softmax(scores[from:to+1], scale)
	rowsWide(out, scores[from:], values[from*stride:], 1, hd, to+1-from, hd, 0, 1, stride, false)
}
