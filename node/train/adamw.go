package train

import "math"

// AdamW is Adam with decoupled weight decay (Loshchilov, Hutter, 1711.05101), over a list of tensors.
type AdamW struct {
	LR, Beta1, Beta2, Eps, WeightDecay float64

	step int
	m, v [][]float32
}

// Update changes each tensor by its gradient; nil gradients leave their tensor as it is. The lists must keep their
// lengths from call to call.
func (o *AdamW) Update(params, grads [][]float32) {
	if o.m == nil {
		o.m, o.v = make([][]float32, len(params)), make([][]float32, len(params))
	}
	o.step++
	c1 := 1 - math.Pow(o.Beta1, float64(o.step))
	c2 := 1 - math.Pow(o.Beta2, float64(o.step))
	rate := float32(o.LR / c1)
	keep := float32(1 - o.LR*o.WeightDecay)
	b1, b2 := float32(o.Beta1), float32(o.Beta2)
	root := float32(1 / math.Sqrt(c2))
	eps := float32(o.Eps)
	for k, p := range params {
		g := grads[k]
		if g == nil {
			continue
		}
		if o.m[k] == nil {
			o.m[k], o.v[k] = make([]float32, len(p)), make([]float32, len(p))
		}
		m, v := o.m[k], o.v[k]
		for i, d := range g {
			m[i] = b1*m[i] + (1-b1)*d
			v[i] = b2*v[i] + (1-b2)*d*d
			p[i] = p[i]*keep - rate*m[i]/(float32(math.Sqrt(float64(v[i])))*root+eps)
		}
	}
}

// Clip scales the gradients so that their common norm is at most limit, and returns what it was. 0 does not clip.
func Clip(grads [][]float32, limit float64) float64 {
	var ss float64
	for _, g := range grads {
		for _, v := range g {
			ss += float64(v) * float64(v)
		}
	}
	norm := math.Sqrt(ss)
	if limit > 0 && norm > limit {
		c := float32(limit / norm)
		for _, g := range grads {
			for i := range g {
				g[i] *= c
			}
		}
	}
	return norm
}
