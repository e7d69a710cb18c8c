package llm

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// draw counts what a sampler picks in n draws.
func draw(s Sampler, seed uint64, n int, logits []float32) []int {
	s.Rand = rand.New(rand.NewPCG(seed, 0))
	counts := make([]int, len(logits))
	for range n {
		counts[s.Pick(logits)]++
	}
	return counts
}

var (
	fiveLogits = []float32{float32(math.Log(0.15)), float32(math.Log(0.4)), float32(math.Log(0.05)), float32(math.Log(0.3)), float32(math.Log(0.1))}
	fiveProbs  = []float64{0.15, 0.4, 0.05, 0.3, 0.1}
)

// TestSamplerFollowsTheProbabilities: the frequencies of 20000 draws lie within five standard deviations.
func TestSamplerFollowsTheProbabilities(t *testing.T) {
	const n = 20000
	for _, x := range []struct {
		name string
		s    Sampler
		want func(i int) float64 // weights, not normalised
	}{
		{"temperature 1", Sampler{Temperature: 1}, func(i int) float64 { return fiveProbs[i] }},
		{"temperature 2", Sampler{Temperature: 2}, func(i int) float64 { return math.Sqrt(fiveProbs[i]) }},
		{"temperature 0.5", Sampler{Temperature: 0.5}, func(i int) float64 { return fiveProbs[i] * fiveProbs[i] }},
		{"top-k 2", Sampler{Temperature: 1, TopK: 2}, func(i int) float64 { return map[int]float64{1: 0.4, 3: 0.3}[i] }},
		{"top-k beyond all", Sampler{Temperature: 1, TopK: 9}, func(i int) float64 { return fiveProbs[i] }},
		// 0.4 + 0.3 < 0.75 <= 0.4 + 0.3 + 0.15: the token that crosses the bound stays.
		{"top-p 0.75", Sampler{Temperature: 1, TopP: 0.75}, func(i int) float64 { return map[int]float64{1: 0.4, 3: 0.3, 0: 0.15}[i] }},
		{"top-p tiny", Sampler{Temperature: 1, TopP: 1e-9}, func(i int) float64 { return map[int]float64{1: 1}[i] }},
		{"top-p 1", Sampler{Temperature: 1, TopP: 1}, func(i int) float64 { return fiveProbs[i] }},
		// Top-p counts within what top-k left: 0.4/0.85 < 0.8 <= 0.7/0.85.
		{"top-k 3, top-p 0.8", Sampler{Temperature: 1, TopK: 3, TopP: 0.8}, func(i int) float64 { return map[int]float64{1: 0.4, 3: 0.3}[i] }},
	} {
		total := 0.0
		for i := range fiveProbs {
			total += x.want(i)
		}
		for i, c := range draw(x.s, 1, n, fiveLogits) {
			p := x.want(i) / total
			if math.Abs(float64(c)-n*p) > 5*math.Sqrt(n*p*(1-p)) {
				t.Errorf("%s: token %d came %d times of %d, expected %.0f", x.name, i, c, n, n*p)
			}
		}
	}
}

func TestSamplerIsGreedyAtZero(t *testing.T) {
	for _, s := range []Sampler{{}, {Temperature: 0, TopK: 3, Rand: rand.New(rand.NewPCG(1, 1))}, {Temperature: 1}} {
		if got := s.Pick(fiveLogits); got != 1 {
			t.Errorf("%+v picks %d", s, got)
		}
		if got := s.Pick([]float32{2, 5, 5, 1}); got != 1 {
			t.Errorf("of two equal tokens %d is picked, want the first", got)
		}
	}
}

func TestSamplerIsDeterminedByItsSeed(t *testing.T) {
	logits := random(rand.New(rand.NewPCG(2, 2)), 300)
	before := slices.Clone(logits)
	run := func(seed uint64) []int32 {
		s := Sampler{Temperature: 0.9, TopK: 50, TopP: 0.95, Rand: rand.New(rand.NewPCG(seed, 3))}
		var out []int32
		for range 100 {
			out = append(out, s.Pick(logits))
		}
		return out
	}
	if !slices.Equal(run(1), run(1)) || slices.Equal(run(1), run(2)) {
		t.Error("the picks do not follow from the seed")
	}
	if !slices.Equal(logits, before) {
		t.Error("Pick changed the logits")
	}
}

// TestSamplerSurvivesExtremes: logits far apart, all equal, or minus infinity.
func TestSamplerSurvivesExtremes(t *testing.T) {
	low := float32(math.Inf(-1))
	for _, x := range []struct {
		logits []float32
		never  []int
	}{{[]float32{1e30, -1e30, 0}, []int{1, 2}}, {[]float32{low, 0, low}, []int{0, 2}}, {[]float32{5, 5, 5}, nil}, {[]float32{7}, nil}} {
		counts := draw(Sampler{Temperature: 1e-3, TopP: 0.999}, 4, 200, x.logits)
		for _, i := range x.never {
			if counts[i] != 0 {
				t.Errorf("%v: token %d was picked", x.logits, i)
			}
		}
	}
}
