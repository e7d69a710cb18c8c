package llm

import (
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/testdata/shared"
)

func loadStories(t testing.TB) *Model {
	t.Helper()
	m, _, _, err := Load(shared.Path(t, "models", "stories260K", "hf"), LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// tapeLogits are a tape's logits at every position of one sequence.
func tapeLogits(t *testing.T, m *Model, a *Adapter, ids []int32) [][]float32 {
	t.Helper()
	tape, err := NewTape(m, a, TapeOptions{Tokens: len(ids)})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tape.Loss([]Sequence{{IDs: append(slices.Clone(ids), 0), Score: make([]bool, len(ids))}}); err != nil {
		t.Fatal(err)
	}
	var out [][]float32
	for p := range ids {
		z := make([]float32, m.Vocab)
		for j := range z {
			z[j] = dot(tape.hn[p*m.Dim:(p+1)*m.Dim], m.head[j*m.Dim:(j+1)*m.Dim])
		}
		out = append(out, z)
	}
	return out
}

func nearly(t *testing.T, what string, got, want []float32, tolerance float64) {
	t.Helper()
	for i := range want {
		if !(math.Abs(float64(got[i])-float64(want[i])) <= tolerance) {
			t.Fatalf("%s: logit %d is %v, want %v", what, i, got[i], want[i])
		}
	}
}

func TestStoriesLogits(t *testing.T) {
	var g struct {
		Logits []struct {
			IDs       []int32
			Positions []int
			Logits    [][]float32
		}
	}
	readGolden(t, &g, "models", "stories260K", "golden.json")
	m := loadStories(t)
	for _, x := range g.Logits {
		s, err := m.NewSession(nil, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		whole := tapeLogits(t, m, nil, x.IDs)
		for p, id := range x.IDs {
			z, err := s.Feed(id)
			if err != nil {
				t.Fatal(err)
			}
			nearly(t, "session and tape", z, whole[p], 1e-4)
			if k := slices.Index(x.Positions, p); k >= 0 {
				nearly(t, "session and golden", z, x.Logits[k], 1e-3)
				nearly(t, "tape and golden", whole[p], x.Logits[k], 1e-3)
			}
		}
	}
}

// TestOneModelInThreeFiles: the Hugging Face folder, the GGUF and the .bin hold the same values in three orders.
func TestOneModelInThreeFiles(t *testing.T) {
	var g storiesGolden
	readGolden(t, &g, "models", "stories260K", "golden.json")
	m := loadStories(t)
	want := tapeLogits(t, m, nil, g.NLL.IDs)
	tok := shared.Path(t, "models", "stories260K", "tok512.bin")
	for file, opts := range map[string]LoadOptions{"stories260K-f32.gguf": {}, "stories260K.bin": {Tokenizer: tok}} {
		other, _, src, err := Load(shared.Path(t, "models", "stories260K", file), opts)
		if err != nil {
			t.Fatal(err)
		}
		for p, z := range tapeLogits(t, other, nil, g.NLL.IDs) {
			nearly(t, file, z, want[p], 1e-4)
		}
		if src.Parameters != other.Parameters() || len(src.SHA256) != 64 {
			t.Errorf("%s: %+v, want %d parameters", file, src, other.Parameters())
		}
	}
}

// TestSessionIsTheTape feeds the same text whole, token by token and in pieces, with and without an adapter.
func TestSessionIsTheTape(t *testing.T) {
	for name, c := range oddConfigs {
		t.Run(name, func(t *testing.T) {
			c.Context = 200
			m := randomModel(t, c, 41)
			a := randomAdapter(t, m, 3, nil, 42)
			ids := randomBatch(c.Vocab, 43, 149)[0].IDs
			for _, a := range []*Adapter{nil, a} {
				want := tapeLogits(t, m, a, ids)
				for _, step := range []int{1, 7, 64, 65, len(ids)} {
					s, err := m.NewSession(a, 1, 0)
					if err != nil {
						t.Fatal(err)
					}
					for at := 0; at < len(ids); at += step {
						end := min(at+step, len(ids))
						z, err := s.Feed(ids[at:end]...)
						if err != nil {
							t.Fatal(err)
						}
						nearly(t, "session", z, want[end-1], 2e-4)
					}
					if s.Len() != len(ids) {
						t.Errorf("%d positions fed, want %d", s.Len(), len(ids))
					}
				}
			}
			// At scale 0 an adapter is not there; after Reset nothing is remembered.
			bare := tapeLogits(t, m, nil, ids)
			s, err := m.NewSession(a, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				z, err := s.Feed(ids...)
				if err != nil {
					t.Fatal(err)
				}
				nearly(t, "scale 0", z, bare[len(ids)-1], 2e-4)
				s.Reset()
			}
		})
	}
}

func TestStepDoesNotDependOnThreads(t *testing.T) {
	m := loadStories(t)
	a := randomAdapter(t, m, 8, nil, 51)
	batch := randomBatch(m.Vocab, 52, 96, 96, 50, 96)
	var first *Tape
	var want float64
	for threads := 1; threads <= 4; threads++ {
		tape, err := NewTape(m, a, TapeOptions{Tokens: 400, Threads: threads, Grad: true})
		if err != nil {
			t.Fatal(err)
		}
		sum, n, err := tape.Step(batch)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := NewTape(m, a, TapeOptions{Tokens: 400, Threads: threads})
		if err != nil {
			t.Fatal(err)
		}
		if loss, k, err := plain.Loss(batch); err != nil || loss != sum || k != n {
			t.Fatalf("%d threads: Loss says %v over %d (%v), Step %v over %d", threads, loss, k, err, sum, n)
		}
		if first == nil {
			first, want = tape, sum
		}
		if sum != want {
			t.Errorf("%d threads: loss %v, one thread %v", threads, sum, want)
		}
		for k, x := range a.Modules {
			sameBits(t, x.Name+".A", tape.GradA[k], first.GradA[k])
			sameBits(t, x.Name+".B", tape.GradB[k], first.GradB[k])
		}
	}
}

// TestSequencesDoNotSeeEachOther: a batch's loss is the sum of its sequences' losses.
func TestSequencesDoNotSeeEachOther(t *testing.T) {
	c := oddConfigs["grouped, untied"]
	m := randomModel(t, c, 61)
	batch := randomBatch(c.Vocab, 62, 12, 30, 5, 3)
	tape, err := NewTape(m, nil, TapeOptions{Tokens: 50})
	if err != nil {
		t.Fatal(err)
	}
	whole, n, err := tape.Loss(batch)
	if err != nil {
		t.Fatal(err)
	}
	sum, count := 0.0, 0
	for _, s := range batch {
		one, k, err := tape.Loss([]Sequence{s})
		if err != nil {
			t.Fatal(err)
		}
		sum, count = sum+one, count+k
	}
	if math.Abs(sum-whole) > 1e-4*whole || count != n {
		t.Errorf("apart %v over %d, together %v over %d", sum, count, whole, n)
	}
}

func TestNothingScored(t *testing.T) {
	c := oddConfigs["grouped, untied"]
	m := randomModel(t, c, 61)
	tape, err := NewTape(m, randomAdapter(t, m, 2, nil, 1), TapeOptions{Tokens: 50, Grad: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tape.Step(randomBatch(c.Vocab, 62, 12)); err != nil {
		t.Fatal(err)
	}
	sum, n, err := tape.Step([]Sequence{{IDs: []int32{1, 2, 3}, Score: make([]bool, 2)}})
	if sum != 0 || n != 0 || err != nil {
		t.Errorf("loss %v over %d, %v", sum, n, err)
	}
	for _, g := range tape.GradB {
		for _, v := range g {
			if v != 0 {
				t.Fatal("gradients of the step before are still there")
			}
		}
	}
	if sum, n, err := tape.Step(nil); sum != 0 || n != 0 || err != nil {
		t.Errorf("an empty batch: loss %v over %d, %v", sum, n, err)
	}
}

// TestAStepMakesNoBuffers: what a step leaves to the collector (its goroutines' frames) does not grow with the batch.
func TestAStepMakesNoBuffers(t *testing.T) {
	m := loadStories(t)
	a := randomAdapter(t, m, 8, nil, 71)
	batch := randomBatch(m.Vocab, 72, 96, 96, 96, 96)
	for threads := 1; threads <= 2; threads++ {
		tape, err := NewTape(m, a, TapeOptions{Tokens: 400, Threads: threads, Grad: true, FreezeA: true})
		if err != nil {
			t.Fatal(err)
		}
		step := func() {
			if _, _, err := tape.Step(batch); err != nil {
				t.Fatal(err)
			}
		}
		step()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		step()
		runtime.ReadMemStats(&after)
		// One activation of the batch alone has 384 x 64 x 4 = 98304 bytes.
		if got := after.TotalAlloc - before.TotalAlloc; got > 90_000 {
			t.Errorf("%d threads: a step allocates %d bytes", threads, got)
		} else {
			t.Logf("%d threads: %d bytes", threads, got)
		}
	}
}

func TestTapeRefusals(t *testing.T) {
	c := oddConfigs["grouped, untied"]
	m := randomModel(t, c, 81)
	a := randomAdapter(t, m, 2, nil, 82)
	other := c
	other.Layers = 1
	wide := c
	wide.Hidden++
	twice := a.Clone()
	twice.Modules = append(twice.Modules, twice.Modules[0])
	for _, x := range []struct {
		want string
		a    *Adapter
		opts TapeOptions
		m    *Model
	}{
		{"a tape of 0 tokens, it must have 1 to 2^20", nil, TapeOptions{}, m},
		{"a tape of 1048577 tokens", nil, TapeOptions{Tokens: 1<<20 + 1}, m},
		{"full gradients are for models without an adapter", a, TapeOptions{Tokens: 1, Full: true}, m},
		{"the adapter names module model.layers.1.self_attn.q_proj, which this model does not have", a, TapeOptions{Tokens: 1}, randomModel(t, other, 1)},
		{"adapter module model.layers.0.mlp.gate_proj is for a layer of 15 x 10, this model's is 16 x 10", a, TapeOptions{Tokens: 1}, randomModel(t, wide, 1)},
		{"the adapter names module model.layers.0.self_attn.q_proj twice", twice, TapeOptions{Tokens: 1}, m},
	} {
		if _, err := NewTape(x.m, x.a, x.opts); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("error %v, want %q", err, x.want)
		}
		if x.a != nil && !x.opts.Full {
			if _, err := x.m.NewSession(x.a, 1, 8); err == nil || !strings.Contains(err.Error(), x.want) {
				t.Errorf("session: error %v, want %q", err, x.want)
			}
		}
	}
	tape, err := NewTape(m, nil, TapeOptions{Tokens: 3})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		want  string
		batch []Sequence
	}{
		{"sequence 0 has 1 ids and 0 scores", []Sequence{{IDs: []int32{1}}}},
		{"sequence 1 has 3 ids and 3 scores", []Sequence{{IDs: []int32{1, 2}, Score: make([]bool, 1)}, {IDs: []int32{1, 2, 3}, Score: make([]bool, 3)}}},
		{"more than 3 positions", []Sequence{{IDs: make([]int32, 5), Score: make([]bool, 4)}}},
		{"sequence 0, position 2: token 23, the vocabulary has 23", []Sequence{{IDs: []int32{1, 2, 23}, Score: make([]bool, 2)}}},
		{"sequence 0, position 0: token -1", []Sequence{{IDs: []int32{-1, 2}, Score: make([]bool, 1)}}},
	} {
		if _, _, err := tape.Loss(x.batch); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("error %v, want %q", err, x.want)
		}
	}
	if _, _, err := tape.Step(nil); err == nil || !strings.Contains(err.Error(), "keeps no gradients") {
		t.Errorf("Step without Grad: %v", err)
	}
}

func TestSessionRefusals(t *testing.T) {
	m := randomModel(t, oddConfigs["grouped, untied"], 91)
	for context, want := range map[int]string{-1: "a session of -1 positions", contextMax + 1: "it must have 1 to 1048576"} {
		if _, err := m.NewSession(nil, 0, context); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	s, err := m.NewSession(nil, 0, 4)
	if err != nil {
		t.Fatal(err)
	}
	for want, ids := range map[string][]int32{"nothing to feed": {}, "5 tokens after 0 pass the context of 4": {1, 2, 3, 4, 5}, "token 23, the vocabulary has 23": {1, 23}, "token -2": {-2}} {
		if _, err := s.Feed(ids...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
		if s.Len() != 0 {
			t.Fatalf("a refused feed left %d positions", s.Len())
		}
	}
}

func TestGenerateStops(t *testing.T) {
	m := randomModel(t, oddConfigs["grouped, untied"], 92)
	run := func(ctx context.Context, size, most int, emit func(n int) bool) (int, error) {
		s, err := m.NewSession(nil, 0, size)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		err = Generate(ctx, s, &Sampler{}, []int32{1, 2, 3}, most, func(int32) bool { n++; return emit(n) })
		return n, err
	}
	always := func(int) bool { return true }
	if n, err := run(context.Background(), 64, 5, always); n != 5 || err != nil {
		t.Errorf("asked for 5 tokens: %d, %v", n, err)
	}
	if n, err := run(context.Background(), 64, 5, func(n int) bool { return n < 2 }); n != 2 || err != nil {
		t.Errorf("stopped after 2 tokens: %d, %v", n, err)
	}
	// Three positions are the prompt's; one that is not fed any more can still be given.
	if n, err := run(context.Background(), 10, 50, always); n != 8 || err != nil {
		t.Errorf("a context of 10: %d tokens, %v", n, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if n, err := run(ctx, 64, 50, func(n int) bool {
		if n == 3 {
			cancel()
		}
		return true
	}); n != 3 || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled after 3 tokens: %d, %v", n, err)
	}
}

// BenchmarkDecode is one token after another through stories260K's cache, to 256 positions.
func BenchmarkDecode(b *testing.B) {
	m := loadStories(b)
	s, err := m.NewSession(nil, 0, 256)
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		s.Reset()
		id := int32(1)
		for range 256 {
			z, err := s.Feed(id)
			if err != nil {
				b.Fatal(err)
			}
			id = (&Sampler{}).Pick(z)
			n++
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "tokens/s")
}
