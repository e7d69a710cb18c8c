package llm

import "math"

// exp32 is e^x to 2e-7 relative, 0 below -87 (where float32 loses digits) and +Inf above 88.72: x = n·ln 2 + r with
// |r| <= ln 2 / 2, and e^r by the polynomial of Cephes' expf (Moshier). math.Exp in float64 takes several times as long,
// and the attention asks for one value per pair of positions.
func exp32(x float32) float32 {
	if !(x >= -87 && x <= 88) {
		return expEdge(x)
	}
	const round = 3 << 22 // adding it leaves the nearest integer in the low bits
	t := float32(x*math.Log2E) + round
	n := t - round
	r := float32(x-float32(n*0.693359375)) + float32(n*2.12194440e-4) // ln 2 in two parts; the first product is exact
	p := float32(1.9875691500e-4)*r + 1.3981999507e-3
	p = p*r + 8.3334519073e-3
	p = p*r + 4.1665795894e-2
	p = p*r + 1.6666665459e-1
	p = p*r + 5.0000001201e-1
	return (p*r*r + r + 1) * math.Float32frombits((math.Float32bits(t)+127)<<23)
}

func expEdge(x float32) float32 {
	if x < -87 {
		return 0
	}
	return float32(math.Exp(float64(x))) // near overflow, above it, and NaN
}

// sigmoid is 1/(1+e^-x).
func sigmoid(x float32) float32 { return 1 / (1 + exp32(-x)) }
