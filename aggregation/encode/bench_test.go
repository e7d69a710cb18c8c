package encode

import (
	"crypto/rand"
	"testing"

	"github.com/ruche-federation/ruche/aggregation/layout"
)

const benchD = 1 << 20

func BenchmarkRotate(b *testing.B) {
	p := params(b, benchD, 1000, nil)
	body, out := gaussianBody(1, benchD, 1), make([]float64, benchD)
	s := signsFor(p.Rotation, benchD)
	b.SetBytes(4 * benchD)
	for b.Loop() {
		rotateBody(out, body, 1, s)
	}
}

func BenchmarkUnrotate(b *testing.B) {
	p := params(b, benchD, 1000, nil)
	x, out := make([]int64, benchD), make([]int64, benchD)
	s := signsFor(p.Rotation, benchD)
	b.SetBytes(4 * benchD)
	for b.Loop() {
		unrotateSum(out, x, s)
	}
}

func BenchmarkStochasticRounding(b *testing.B) {
	v, out := make([]float64, benchD), make([]uint32, benchD)
	for i := range v {
		v[i] = float64(i%100)/7 - 6
	}
	r := &reader{from: rand.Reader, buf: make([]byte, randBytes)}
	b.SetBytes(4 * benchD)
	for b.Loop() {
		if _, err := stochRound(out, v, CMax, r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	p := params(b, benchD, 1000, layout.StandardTail())
	body := gaussianBody(1, benchD, 2)
	b.SetBytes(4 * benchD)
	for b.Loop() {
		if _, _, err := p.Encode(body, []float64{1, 2, 3}, rand.Reader); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	p := params(b, benchD, 1000, layout.StandardTail())
	v, _, err := p.Encode(gaussianBody(1, benchD, 2), []float64{1, 2, 3}, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(4 * benchD)
	for b.Loop() {
		if _, err := p.Decode(v, 1); err != nil {
			b.Fatal(err)
		}
	}
}
