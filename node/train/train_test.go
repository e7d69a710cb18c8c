package train

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/ruche-federation/ruche/node/llm"
	"github.com/ruche-federation/ruche/testdata/shared"
)

// TestTwentyStepsOfAdamW follows the loss curve of the golden file.
func TestTwentyStepsOfAdamW(t *testing.T) {
	var g struct {
		NLL  struct{ IDs []int32 }
		Lora struct {
			AdamW struct {
				Losses []float64 `json:"losses_float64"`
			}
		}
	}
	b, err := os.ReadFile(shared.Path(t, "models", "stories260K", "golden.json"))
	if err == nil {
		err = json.Unmarshal(b, &g)
	}
	if err != nil {
		t.Fatal(err)
	}
	m, _, _, err := llm.Load(shared.Path(t, "models", "stories260K", "hf"), llm.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := llm.LoadPEFT(shared.Path(t, "models", "stories260K", "peft-r4"), m)
	if err != nil {
		t.Fatal(err)
	}
	score := make([]bool, len(g.NLL.IDs)-1)
	for i := range score {
		score[i] = true
	}
	var losses []float64
	_, err = Run(context.Background(), m, a, []llm.Sequence{{IDs: g.NLL.IDs, Score: score}},
		Recipe{Steps: 20, Batch: 1, Window: 512, LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, TrainA: true, TrainB: true}, [32]byte{},
		func(_ int, loss float64) { losses = append(losses, loss) })
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range g.Lora.AdamW.Losses {
		if math.Abs(losses[i]-want) > 1e-3 {
			t.Errorf("step %d: loss %.6f, want %.6f", i, losses[i], want)
		}
	}
}

// BenchmarkRun is one device's local work: 8 steps of 8 x 96 tokens, rank 8 on all linear layers, B trained.
func BenchmarkRun(b *testing.B) {
	m, _, _, err := llm.Load(shared.Path(b, "models", "stories260K", "hf"), llm.LoadOptions{})
	if err != nil {
		b.Fatal(err)
	}
	a, err := llm.NewAdapter(m, 8, 8, nil)
	if err != nil {
		b.Fatal(err)
	}
	for k := range a.Modules {
		for i := range a.Modules[k].A {
			a.Modules[k].A[i] = float32(i%7-3) / 10
		}
	}
	var windows []llm.Sequence
	for w := range 8 {
		s := llm.Sequence{Score: make([]bool, 96)}
		for i := range 97 {
			s.IDs = append(s.IDs, int32((i*37+w*101)%512))
		}
		for i := range s.Score {
			s.Score[i] = true
		}
		windows = append(windows, s)
	}
	for _, threads := range []int{1, 2} {
		b.Run(map[int]string{1: "1thread", 2: "2threads"}[threads], func(b *testing.B) {
			for b.Loop() {
				if _, err := Run(context.Background(), m, a, windows, Recipe{Steps: 8, Batch: 8, Window: 96, LR: 1e-3, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, TrainB: true, Threads: threads}, [32]byte{}, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(8*8*96*b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
