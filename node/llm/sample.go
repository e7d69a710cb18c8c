package llm

import (
	"cmp"
	"math/rand/v2"
	"slices"
)

// Sampler picks the next token. The zero Sampler is greedy.
type Sampler struct {
	Temperature float64 // 0: the most likely token
	TopK        int     // 0: all
	TopP        float64 // 0: all
	Rand        *rand.Rand

	order []int32
	probs []float64
}

// Pick chooses among logits, which it leaves as they are.
func (s *Sampler) Pick(logits []float32) int32 {
	if s.Temperature <= 0 || s.Rand == nil {
		best := 0
		for i, v := range logits {
			if v > logits[best] {
				best = i
			}
		}
		return int32(best)
	}
	if cap(s.order) < len(logits) {
		s.order, s.probs = make([]int32, len(logits)), make([]float64, len(logits))
	}
	order := s.order[:len(logits)]
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(logits[b], logits[a]) })
	if s.TopK > 0 && s.TopK < len(order) {
		order = order[:s.TopK]
	}
	probs := s.probs[:len(order)]
	most := logits[order[0]]
	total := 0.0
	for i, id := range order {
		probs[i] = float64(exp32((logits[id] - most) / float32(s.Temperature)))
		total += probs[i]
	}
	if s.TopP > 0 && s.TopP < 1 {
		kept, sum := 0, 0.0
		for kept < len(probs) && sum < s.TopP*total {
			sum += probs[kept]
			kept++
		}
		order, probs, total = order[:kept], probs[:kept], sum
	}
	x := s.Rand.Float64() * total
	for i, p := range probs {
		if x -= p; x < 0 {
			return order[i]
		}
	}
	return order[len(order)-1]
}
