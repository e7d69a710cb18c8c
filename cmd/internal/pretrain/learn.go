package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/ruche-federation/ruche/cmd/internal/pretrain/bpe"
	"github.com/ruche-federation/ruche/node/llm"
	"github.com/ruche-federation/ruche/node/train"
)

// The shape of the model: 0.23 million parameters.
const (
	vocabulary = 640
	contextMax = 256
)

func shape() llm.Config {
	return llm.Config{Dim: 64, Layers: 4, Heads: 4, KVHeads: 2, HeadDim: 16, Hidden: 176, Vocab: vocabulary, Context: contextMax,
		NormEps: 1e-5, Rope: llm.Rope{Theta: 10000}, Tied: true}
}

// How it is trained: AdamW with warm-up and a cosine down to a tenth. One pass over the text.
const (
	steps       = 600
	batch       = 16
	window      = 128
	rate        = 3e-3
	rateLast    = 0.1 // of rate
	warmUp      = 50
	beta1       = 0.9
	beta2       = 0.95
	epsilon     = 1e-8
	weightDecay = 0.1
	clip        = 1.0
	spread      = 0.05 // standard deviation of the first weights
	seed        = 1
)

// pretrain makes the vocabulary and the model and writes both into dir.
func pretrain(ctx context.Context, dir string, texts []string, steps, threads int, say func(string, ...any)) error {
	tok, err := bpe.Train(slices.Values(texts), vocabulary)
	if err != nil {
		return err
	}
	windows := train.Windows(tok, texts, window)
	say("%d pieces, %d windows of %d tokens", tok.VocabSize(), len(windows), window)
	m, err := llm.NewModel(shape())
	if err != nil {
		return err
	}
	begin(m, rand.New(rand.NewPCG(seed, 0x6d6f64656c)))
	say("%d parameters", m.Parameters())
	if err := learn(ctx, m, windows, steps, threads, say); err != nil {
		return err
	}
	return write(dir, m, tok)
}

// begin draws the first weights: uniform, since a normal draw needs logarithms; what writes into the residual stream is
// scaled down by its depth (GPT-2, section 2.3). Norms begin at one.
func begin(m *llm.Model, rng *rand.Rand) {
	for _, p := range m.Params() {
		width := spread * math.Sqrt(3)
		if strings.HasSuffix(p.Name, "o_proj.weight") || strings.HasSuffix(p.Name, "down_proj.weight") {
			width /= math.Sqrt(float64(2 * m.Layers))
		}
		for i := range p.Data {
			if len(p.Shape) == 1 {
				p.Data[i] = 1
				continue
			}
			p.Data[i] = float32((2*rng.Float64() - 1) * width)
		}
	}
}

// rateAt is the learning rate of a step, from 0.
func rateAt(step, steps int) float64 {
	warm := min(1, float64(step+1)/warmUp)
	return rate * warm * (rateLast + (1-rateLast)*0.5*(1+math.Cos(math.Pi*float64(step+1)/float64(steps))))
}

// learn trains all weights. Matrices decay, norms do not.
func learn(ctx context.Context, m *llm.Model, windows []llm.Sequence, steps, threads int, say func(string, ...any)) error {
	tape, err := llm.NewTape(m, nil, llm.TapeOptions{Tokens: batch * window, Threads: threads, Grad: true, Full: true})
	if err != nil {
		return err
	}
	var matrices, norms struct{ params, grads [][]float32 }
	for i, p := range m.Params() {
		group := &matrices
		if len(p.Shape) == 1 {
			group = &norms
		}
		group.params, group.grads = append(group.params, p.Data), append(group.grads, tape.GradBase[i])
	}
	decayed := train.AdamW{Beta1: beta1, Beta2: beta2, Eps: epsilon, WeightDecay: weightDecay}
	plain := train.AdamW{Beta1: beta1, Beta2: beta2, Eps: epsilon}
	order := train.NewOrder(len(windows), [32]byte{seed})
	examples := make([]llm.Sequence, batch)
	for step := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		for i := range examples {
			examples[i] = windows[order.Next()]
		}
		sum, n, err := tape.Step(examples)
		if err != nil {
			return err
		}
		loss := sum / float64(n)
		if math.IsNaN(loss) || math.IsInf(loss, 0) {
			return fmt.Errorf("step %d: the loss is %v", step, loss)
		}
		train.Clip(tape.GradBase, clip)
		decayed.LR = rateAt(step, steps)
		plain.LR = decayed.LR
		decayed.Update(matrices.params, matrices.grads)
		plain.Update(norms.params, norms.grads)
		if (step+1)%20 == 0 || step+1 == steps {
			say("step %d of %d, loss %.3f nats a token", step+1, steps, loss)
		}
	}
	return nil
}
