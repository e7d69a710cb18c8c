package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/ruche-federation/ruche/node/llm"
)

// Recipe is how an adapter is trained.
type Recipe struct {
	Steps       int // optimiser steps
	Batch       int // windows a step
	Window      int // positions a window
	LR          float64
	Beta1       float64
	Beta2       float64
	Eps         float64
	WeightDecay float64
	Clip        float64 // bound on the gradient's norm, 0 for none
	TrainA      bool
	TrainB      bool
	Threads     int // 0: one per processor
}

// rateMax bounds the learning rate: AdamW moves a weight by about as much in one step.
const rateMax = 10

// Validate names the field that cannot be.
func (r *Recipe) Validate() error {
	switch {
	case r.Steps < 1 || r.Steps > 1<<20:
		return fmt.Errorf("steps is %d, it must lie in [1, 2^20]", r.Steps)
	case r.Batch < 1 || r.Batch > 1<<12:
		return fmt.Errorf("batch is %d, it must lie in [1, 4096]", r.Batch)
	case r.Window < 2 || r.Window > 1<<17:
		return fmt.Errorf("window is %d, it must lie in [2, 131072]", r.Window)
	case !(r.LR > 0 && r.LR <= rateMax):
		return fmt.Errorf("lr is %v, it must lie in (0, %d]", r.LR, rateMax)
	case !(r.Beta1 >= 0 && r.Beta1 < 1 && r.Beta2 >= 0 && r.Beta2 < 1):
		return fmt.Errorf("betas are %v and %v, they must lie in [0, 1)", r.Beta1, r.Beta2)
	case !(r.Eps > 0 && r.Eps <= 1):
		return fmt.Errorf("eps is %v, it must lie in (0, 1]", r.Eps)
	case !(r.WeightDecay >= 0 && r.WeightDecay <= 1):
		return fmt.Errorf("weight_decay is %v, it must lie in [0, 1]", r.WeightDecay)
	case !(r.Clip >= 0):
		return fmt.Errorf("clip is %v, it must not be negative", r.Clip)
	case !r.TrainA && !r.TrainB:
		return errors.New("neither factor is trained")
	}
	return nil
}

// Stats are what a run did.
type Stats struct {
	Steps     int
	Tokens    int     // scored
	LossFirst float64 // mean of the first step's batch, before it
	LossLast  float64
}

// ErrNoData says that there is nothing to train on.
var ErrNoData = errors.New("no window of text to train on")

// Order deals the windows of a run: seeded shuffles one after another, so that every window comes once before any comes
// twice.
type Order struct {
	rng  *rand.Rand
	perm []int
	next int
}

// NewOrder deals n windows by seed.
func NewOrder(n int, seed [32]byte) *Order {
	o := &Order{rng: rand.New(rand.NewChaCha8(seed)), perm: make([]int, n)}
	for i := range o.perm {
		o.perm[i] = i
	}
	o.next = n
	return o
}

// Next is the index of the next window.
func (o *Order) Next() int {
	if o.next == len(o.perm) {
		o.rng.Shuffle(len(o.perm), func(i, j int) { o.perm[i], o.perm[j] = o.perm[j], o.perm[i] })
		o.next = 0
	}
	o.next++
	return o.perm[o.next-1]
}

// Run trains a on the windows, in place. progress, if any, is called after each step. When the context ends, Run stops
// between steps and returns its error; the adapter is then as the last step left it.
func Run(ctx context.Context, m *llm.Model, a *llm.Adapter, windows []llm.Sequence, r Recipe, seed [32]byte, progress func(step int, loss float64)) (Stats, error) {
	var st Stats
	if err := r.Validate(); err != nil {
		return st, fmt.Errorf("recipe: %w", err)
	}
	if len(windows) == 0 {
		return st, ErrNoData
	}
	longest := 0
	for _, w := range windows {
		longest = max(longest, len(w.Score))
	}
	tape, err := llm.NewTape(m, a, llm.TapeOptions{Tokens: r.Batch * longest, Threads: r.Threads, Grad: true, FreezeA: !r.TrainA})
	if err != nil {
		return st, err
	}
	var params, grads [][]float32
	for k := range a.Modules {
		if r.TrainB {
			params, grads = append(params, a.Modules[k].B), append(grads, tape.GradB[k])
		}
		if r.TrainA {
			params, grads = append(params, a.Modules[k].A), append(grads, tape.GradA[k])
		}
	}
	opt := &AdamW{LR: r.LR, Beta1: r.Beta1, Beta2: r.Beta2, Eps: r.Eps, WeightDecay: r.WeightDecay}
	order := NewOrder(len(windows), seed)
	batch := make([]llm.Sequence, r.Batch)
	for step := range r.Steps {
		if err := ctx.Err(); err != nil {
			return st, err
		}
		for i := range batch {
			batch[i] = windows[order.Next()]
		}
		sum, n, err := tape.Step(batch)
		if err != nil {
			return st, err
		}
		loss := sum / float64(max(1, n))
		if math.IsNaN(loss) || math.IsInf(loss, 0) {
			return st, fmt.Errorf("step %d: the loss is %v: the learning rate is too high, or the adapter was damaged before", step, loss)
		}
		if norm := Clip(grads, r.Clip); math.IsNaN(norm) || math.IsInf(norm, 0) {
			return st, fmt.Errorf("step %d: the gradient's norm is %v: the learning rate is too high, or the adapter was damaged before", step, norm)
		}
		opt.Update(params, grads)
		if step == 0 {
			st.LossFirst = loss
		}
		st.Steps, st.Tokens, st.LossLast = step+1, st.Tokens+n, loss
		if progress != nil {
			progress(step, loss)
		}
	}
	return st, nil
}

// evaluationBatch is how many windows are measured at a time.
const evaluationBatch = 4

// Evaluate is the sum of the scored tokens' losses in nats, and their number. a may be nil: the base alone.
func Evaluate(ctx context.Context, m *llm.Model, a *llm.Adapter, windows []llm.Sequence, threads int) (sum float64, tokens int, err error) {
	longest := 1
	for _, w := range windows {
		longest = max(longest, len(w.Score))
	}
	tape, err := llm.NewTape(m, a, llm.TapeOptions{Tokens: evaluationBatch * longest, Threads: threads})
	if err != nil {
		return 0, 0, err
	}
	for at := 0; at < len(windows); at += evaluationBatch {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		s, n, err := tape.Loss(windows[at:min(at+evaluationBatch, len(windows))])
		if err != nil {
			return 0, 0, err
		}
		sum, tokens = sum+s, tokens+n
	}
	return sum, tokens, nil
}
