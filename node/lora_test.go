package node

import (
	"context"
	"crypto/rand"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/aggregation/commons"
	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/node/journal"
	"github.com/ruche-federation/ruche/node/llm"
	"github.com/ruche-federation/ruche/node/participant"
	"github.com/ruche-federation/ruche/node/train"
)

// memory is a journal that is none.
func memory(records []string) texts {
	return func(_ context.Context, s journal.Split) ([]string, error) {
		if len(records) == 0 {
			return nil, journal.ErrEmpty
		}
		return s.Of(records), nil
	}
}

func tinyLanguage(t testing.TB) *Language {
	t.Helper()
	l, err := LoadLanguage(writeModel(t, 1), "")
	must(t, err)
	return l
}

func learnerOf(t testing.TB, l *Language, records []string) (*loraLearner, *charter.Task, *[]Evaluation) {
	t.Helper()
	task := commonsTask(t, l.Source.SHA256, modulesOf(l.Model))
	var measured []Evaluation
	return &loraLearner{language: l, device: label.Sum(label.TagDevice), texts: memory(records), measure: journal.Test,
		peft: filepath.Join(t.TempDir(), "adapters", "current-peft"),
		known: func(seq uint64, adapter label.Hash) bool {
			for _, e := range measured {
				if e.Seq == seq && e.Adapter == adapter {
					return true
				}
			}
			return false
		},
		report: func(e Evaluation) { measured = append(measured, e) }}, &task, &measured
}

// TestWhatIsLearnedSurvivesTheRing: three devices train, their updates are encoded, summed, decoded and averaged as the
// consortium does, and the resulting commons lowers the loss of a fourth.
func TestWhatIsLearnedSurvivesTheRing(t *testing.T) {
	l := tinyLanguage(t)
	all := sayings(60)
	_, task, _ := learnerOf(t, l, nil)
	params := task.Params(label.Sum(label.TagRotation))
	sum := make([]uint32, params.Len())
	var bodies [][]float32
	for i := range 3 {
		learner, _, _ := learnerOf(t, l, all[i*15:(i+1)*15])
		learner.device = label.Sum(label.TagDevice, []byte{byte(i)})
		u, err := learner.Update(t.Context(), task, 1, task.Init())
		must(t, err)
		if len(u.Body) != task.Layout.D() || len(u.Tail) != 3 {
			t.Fatalf("the update has %d values and %d metrics", len(u.Body), len(u.Tail))
		}
		if u.Tail[0] != 12 || !(u.Tail[2] < u.Tail[1]) {
			t.Errorf("device %d: %v records, loss %.3f before and %.3f after its training", i, u.Tail[0], u.Tail[1], u.Tail[2])
		}
		x, _, err := params.Encode(u.Body, u.Tail, rand.Reader)
		must(t, err)
		for j, v := range x {
			sum[j] += v
		}
		bodies = append(bodies, u.Body)
	}
	opened, err := params.Decode(sum, 3)
	must(t, err)
	b, err := commons.Average(commons.Init(task.Layout), opened, 3, params)
	must(t, err)
	// Against the plain mean: no further away than the grid.
	for i := range b {
		mean := (float64(bodies[0][i]) + float64(bodies[1][i]) + float64(bodies[2][i])) / 3
		if math.Abs(mean-float64(b[i])) > 0.02 {
			t.Fatalf("value %d is %v, the plain mean %v", i, b[i], mean)
		}
	}
	before, n, err := Evaluate(t.Context(), l, task, nil, all[45:])
	must(t, err)
	zero, _, err := Evaluate(t.Context(), l, task, commons.Init(task.Layout), all[45:])
	must(t, err)
	if math.Abs(before-zero) > 1e-6*before {
		t.Fatalf("the public start changes the model: %v, the base %v", zero, before)
	}
	after, _, err := Evaluate(t.Context(), l, task, b, all[45:])
	must(t, err)
	if !(after < before-0.1*float64(n)) {
		t.Fatalf("the newcomer's loss went from %.4f to %.4f nats per token", before/float64(n), after/float64(n))
	}
}

func TestTheSameDeviceInTheSameRoundMakesTheSameUpdate(t *testing.T) {
	l := tinyLanguage(t)
	learner, task, _ := learnerOf(t, l, sayings(20))
	one, err := learner.Update(t.Context(), task, 1, task.Init())
	must(t, err)
	again, err := learner.Update(t.Context(), task, 1, task.Init())
	must(t, err)
	next, err := learner.Update(t.Context(), task, 2, task.Init())
	must(t, err)
	same, other := true, false
	for i := range one.Body {
		same = same && one.Body[i] == again.Body[i]
		other = other || one.Body[i] != next.Body[i]
	}
	if !same || !other {
		t.Fatalf("repeated: equal %v; in the next round: differs %v", same, other)
	}
}

func TestADeviceWithTooLittleSitsTheRoundOut(t *testing.T) {
	l := tinyLanguage(t)
	for name, records := range map[string][]string{
		"an empty journal": nil,
		"nine records":     sayings(9)[:2],
		"a few words":      {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"},
	} {
		learner, task, _ := learnerOf(t, l, records)
		_, err := learner.Update(t.Context(), task, 1, task.Init())
		if !errors.Is(err, participant.ErrNothing) || err.Error() == participant.ErrNothing.Error() {
			t.Errorf("%s: got %v", name, err)
		}
		for _, r := range records {
			if len(r) > 3 && strings.Contains(err.Error(), r) {
				t.Errorf("%s: the reason quotes the journal", name)
			}
		}
	}
}

func TestAMetricThatIsNotMeasuredIsNotInvented(t *testing.T) {
	l := tinyLanguage(t)
	learner, task, _ := learnerOf(t, l, sayings(20))
	task.Layout.Tail = append(task.Layout.Tail, layout.Metric{Name: "joules", Max: 10})
	if _, err := learner.Update(t.Context(), task, 1, task.Init()); err == nil || !strings.Contains(err.Error(), `"joules"`) {
		t.Fatalf("got %v", err)
	}
	task.Layout.Tail = []layout.Metric{{Name: layout.MetricLossAfter, Max: 16}, {Name: layout.MetricExamples, Max: 64}}
	u, err := learner.Update(t.Context(), task, 1, task.Init())
	must(t, err)
	if len(u.Tail) != 2 || u.Tail[1] != 16 || u.Tail[0] < 1 {
		t.Fatalf("the tail is %v", u.Tail)
	}
}

func TestALayoutForAnotherModelIsRefusedByName(t *testing.T) {
	l := tinyLanguage(t)
	learner, _, _ := learnerOf(t, l, sayings(20))
	task := commonsTask(t, l.Source.SHA256, []layout.Module{{Name: "model.layers.7.mlp.up_proj", In: 16, Out: 32}})
	if _, err := learner.Update(t.Context(), &task, 1, task.Init()); err == nil || !strings.Contains(err.Error(), "model.layers.7.mlp.up_proj") {
		t.Fatalf("got %v", err)
	}
}

func TestAnAdoptedStateIsWrittenForOtherProgramsAndMeasuredOnce(t *testing.T) {
	l := tinyLanguage(t)
	records := sayings(30)
	learner, task, measured := learnerOf(t, l, records)
	must(t, learner.Adopt(t.Context(), task, task.Init()))
	m := task.Init()
	m.Seq = 1
	for i := range m.Values {
		m.Values[i] = float32(i%5) / 50
	}
	for range 2 {
		must(t, learner.Adopt(t.Context(), task, m))
	}
	if len(*measured) != 2 {
		t.Fatalf("%d evaluations of two states", len(*measured))
	}
	e := (*measured)[1]
	sum, n, err := Evaluate(t.Context(), l, task, m.Values, records[27:])
	must(t, err)
	if e.Seq != 1 || e.Adapter != m.Hash() || e.LossSum != sum || e.Tokens != n || e.Loss != sum/float64(n) || e.Split != "test" {
		t.Fatalf("the evaluation is %+v; measured apart %v over %d", e, sum, n)
	}
	a, err := llm.LoadPEFT(learner.peft, l.Model)
	must(t, err)
	if a.Rank != task.Layout.Rank || a.Alpha != task.Layout.Alpha || len(a.Modules) != len(task.Layout.Trained) {
		t.Fatalf("the PEFT directory has rank %d, alpha %v, %d modules", a.Rank, a.Alpha, len(a.Modules))
	}
	windows := evaluationWindows(l, records[27:])
	again, _, err := train.Evaluate(t.Context(), l.Model, a, windows, 0)
	must(t, err)
	if again != sum {
		t.Fatalf("the PEFT directory computes a loss of %v, the state %v", again, sum)
	}
	if left, err := os.ReadDir(filepath.Dir(learner.peft)); err != nil || len(left) != 1 {
		t.Fatalf("%d entries beside the PEFT directory, %v", len(left), err)
	}
}

func TestAnObserverIsMeasuredOnEverything(t *testing.T) {
	l := tinyLanguage(t)
	learner, task, measured := learnerOf(t, l, sayings(12))
	learner.measure = splitFor(true)
	must(t, learner.Adopt(t.Context(), task, task.Init()))
	_, n, err := Evaluate(t.Context(), l, task, nil, sayings(12))
	must(t, err)
	if e := (*measured)[0]; e.Tokens != n || e.Split != "all" {
		t.Fatalf("measured %d tokens of %s, there are %d", e.Tokens, e.Split, n)
	}
	learner.texts = memory(nil)
	m := task.Init()
	m.Seq = 1
	must(t, learner.Adopt(t.Context(), task, m)) // nothing to measure with is no error
	if len(*measured) != 1 {
		t.Fatal("an empty journal was measured")
	}
}

func TestTrainedAloneOnesOwnTextGetsCheaper(t *testing.T) {
	l := tinyLanguage(t)
	_, task, _ := learnerOf(t, l, nil)
	records := sayings(20)
	seed := label.Sum(label.TagTrainSeed)
	b, err := TrainAlone(t.Context(), l, task, 24, seed, records)
	must(t, err)
	before, _, err := Evaluate(t.Context(), l, task, nil, records)
	must(t, err)
	after, _, err := Evaluate(t.Context(), l, task, b, records)
	must(t, err)
	if !(after < before) {
		t.Fatalf("loss %v before, %v after", before, after)
	}
	if _, err := TrainAlone(t.Context(), l, task, 24, seed, nil); !errors.Is(err, train.ErrNoData) {
		t.Fatalf("no text: %v", err)
	}
	if _, _, err := Evaluate(t.Context(), l, task, b[1:], records); err == nil {
		t.Fatal("an adapter of another length was evaluated")
	}
}
