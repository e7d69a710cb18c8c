package llm

import "math"

// rmsnorm writes x/rms(x)·w to out and 1/rms to inv. x, out [n,dim]; inv [n].
func rmsnorm(out, inv, x, w []float32, dim int, eps float64) {
	for t := range inv {
		xt, ot := x[t*dim:t*dim+dim], out[t*dim:t*dim+dim]
		var ss float64
		for _, v := range xt {
			ss += float64(v) * float64(v)
		}
		s := float32(1 / math.Sqrt(ss/float64(dim)+eps))
		inv[t] = s
		for i, v := range xt {
			ot[i] = v * s * w[i]
		}
	}
}

// rotate turns each head's pairs (i, i+half) of every row by its position's angles; sign -1 turns back, which is the
// gradient. x [n, heads*hd]; cos, sin [positions, half], pos gives a row's position.
func rotate(x []float32, heads, hd int, cos, sin []float32, pos []int32, sign float32) {
	half := hd / 2
	for t, p := range pos {
		c, s := cos[int(p)*half:int(p)*half+half], sin[int(p)*half:int(p)*half+half]
		for h := range heads {
			v := x[(t*heads+h)*hd : (t*heads+h)*hd+hd]
			for i := range half {
				a, b := v[i], v[i+half]
				v[i] = a*c[i] - b*s[i]*sign
				v[i+half] = b*c[i] + a*s[i]*sign
			}
		}
	}
}

// angles fills the tables of cosines and sines for positions [0,n).
func (m *Model) angles(n int) (cos, sin []float32) {
	half := m.HeadDim / 2
	cos, sin = make([]float32, n*half), make([]float32, n*half)
	for p := range n {
		for i, f := range m.invFreq {
			a := float64(float32(float64(p) * f))
			cos[p*half+i], sin[p*half+i] = float32(math.Cos(a)), float32(math.Sin(a))
		}
	}
	return cos, sin
}

// silu is x·sigmoid(x).
func silu(x float32) float32 { return x / (1 + exp32(-x)) }

func exp32(x float32) float32 { return float32(math.Exp(float64(x))) }

// span is the first position that position p sees: all before it, or those inside the sliding window, itself included.
func span(p, window int) int {
	if window > 0 && p+1 > window {
		return p + 1 - window
	}
	return 0
}

// attend computes one query head's output for one position from keys and values [from,to], and returns the log of the
// softmax's denominator. scores is scratch of at least to+1.
func attend(out, q, keys, values, scores []float32, from, to, stride, hd int, scale float32) float32 {
	most := float32(math.Inf(-1))
	for p := from; p <= to; p++ {
		s := dot(q, keys[p*stride:p*stride+hd]) * scale
		scores[p] = s
		most = max(most, s)
	}
	var sum float64
	for p := from; p <= to; p++ {
		e := exp32(scores[p] - most)
		scores[p] = e
		sum += float64(e)
	}
	clear(out)
	inv := float32(1 / sum)
	for p := from; p <= to; p++ {
		w := scores[p] * inv
		if w < 1e-30 {
			continue // a denormal weight would slow every product and change nothing
		}
		v := values[p*stride : p*stride+hd]
		out := out[:len(v)]
		for i, x := range v {
			out[i] += w * x
		}
	}
	return most + float32(math.Log(sum))
}

// add adds b to a.
func add(a, b []float32) {
	b = b[:len(a)]
	for i := range a {
		a[i] += b[i]
	}
}
