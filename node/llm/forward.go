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

// swiglu writes g·sigmoid(g)·u to out.
func swiglu(out, g, u []float32) {
	out, u = out[:len(g)], u[:len(g)]
	for i, x := range g {
		out[i] = x * sigmoid(x) * u[i]
	}
}

// add adds b to a.
func add(a, b []float32) {
	b = b[:len(a)]
	for i := range a {
		a[i] += b[i]
	}
}
