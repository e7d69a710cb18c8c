package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/node/journal"
	"github.com/ruche-federation/ruche/node/llm"
	"github.com/ruche-federation/ruche/node/participant"
	"github.com/ruche-federation/ruche/node/train"
)

// Least scored tokens: below them an update would be about a handful of words, and a loss about nothing.
const (
	trainTokensMin      = 64
	validationTokensMin = 8
)

// texts gives the records of a part of the journal; journal.ErrEmpty where there are none at all.
type texts func(context.Context, journal.Split) ([]string, error)

// loraLearner is the Learner of kind lora: it trains the B factors on the owner's training split, measures on the
// validation split, and after each published state writes the adapter for other programs and measures its loss.
type loraLearner struct {
	language *Language
	device   label.Hash
	texts    texts
	measure  journal.Split // Test, or All for an observer
	peft     string        // folder of the PEFT directory; empty: none is written
	known    func(seq uint64, adapter label.Hash) bool
	report   func(Evaluation)

	frozen [][]float32 // of the one task that a process runs
}

// Update trains from start (learning.md 3.3, steps 3 to 5). Clipping is the encoder's.
func (l *loraLearner) Update(ctx context.Context, task *charter.Task, seq uint64, start layout.Model) (participant.Update, error) {
	none := participant.Update{}
	tail, err := newTail(task)
	if err != nil {
		return none, err
	}
	records, err := l.texts(ctx, journal.Train)
	if errors.Is(err, journal.ErrEmpty) {
		return none, fmt.Errorf("%w: %w", participant.ErrNothing, err)
	}
	if err != nil {
		return none, err
	}
	held, err := l.texts(ctx, journal.Validation)
	if err != nil {
		return none, err
	}
	r := recipe(task, l.language.Model)
	windows, validation := train.Windows(l.language.Tokenizer, records, r.Window), evaluationWindows(l.language, held)
	if n := train.Tokens(windows); n < trainTokensMin {
		return none, fmt.Errorf("%w: the journal has %d tokens to train on, at least %d are needed", participant.ErrNothing, n, trainTokensMin)
	}
	if n := train.Tokens(validation); n < validationTokensMin {
		return none, fmt.Errorf("%w: the journal has %d tokens to validate with, at least %d are needed", participant.ErrNothing, n, validationTokensMin)
	}
	a, err := l.adapter(task, start.Values)
	if err != nil {
		return none, err
	}
	before, err := meanLoss(ctx, l.language.Model, a, validation)
	if err != nil {
		return none, err
	}
	if _, err := train.Run(ctx, l.language.Model, a, windows, r, trainSeed(l.device, seq), nil); err != nil {
		return none, err
	}
	after, err := meanLoss(ctx, l.language.Model, a, validation)
	if err != nil {
		return none, err
	}
	body := values(a)
	for i := range body {
		body[i] -= start.Values[i]
	}
	return participant.Update{Body: body, Tail: tail(map[string]float64{
		layout.MetricExamples: float64(len(records)), layout.MetricLossBefore: before, layout.MetricLossAfter: after})}, nil
}

// Adopt writes the adapter and measures it, once for each state.
func (l *loraLearner) Adopt(ctx context.Context, task *charter.Task, m layout.Model) error {
	a, err := l.adapter(task, m.Values)
	if err != nil {
		return err
	}
	if l.peft != "" {
		if err := l.writePEFT(a); err != nil {
			return fmt.Errorf("writing the adapter: %w", err)
		}
	}
	hash := m.Hash()
	if l.known(m.Seq, hash) {
		return nil
	}
	records, err := l.texts(ctx, l.measure)
	if errors.Is(err, journal.ErrEmpty) {
		return nil // nothing to measure with
	}
	if err != nil {
		return err
	}
	e := Evaluation{Seq: m.Seq, Adapter: hash, Split: l.measure.String()}
	if e.LossSum, e.Tokens, err = train.Evaluate(ctx, l.language.Model, a, evaluationWindows(l.language, records), 0); err != nil {
		return err
	}
	if e.Tokens > 0 {
		e.Loss = e.LossSum / float64(e.Tokens)
		l.report(e)
	}
	return nil
}

// adapter is the task's adapter with the trained values b.
func (l *loraLearner) adapter(task *charter.Task, b []float32) (*llm.Adapter, error) {
	if l.frozen == nil {
		var err error
		if l.frozen, err = Frozen(task); err != nil {
			return nil, err
		}
	}
	return adapter(task, l.frozen, b)
}

// writePEFT replaces the PEFT directory. It is a copy for other programs: after a crash between the two renames it is
// missing until the next start, which adopts the same state again.
func (l *loraLearner) writePEFT(a *llm.Adapter) error {
	fresh, old := l.peft+".new", l.peft+".old"
	for _, dir := range []string{fresh, old} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(l.peft), 0o700); err != nil {
		return err
	}
	if err := a.WritePEFT(fresh, l.language.Source.Path); err != nil {
		return err
	}
	if err := os.Rename(l.peft, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Rename(fresh, l.peft); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

// meanLoss is the loss in nats per scored token.
func meanLoss(ctx context.Context, m *llm.Model, a *llm.Adapter, windows []llm.Sequence) (float64, error) {
	sum, n, err := train.Evaluate(ctx, m, a, windows, 0)
	if err != nil {
		return 0, err
	}
	return sum / float64(n), nil
}

// newTail returns what puts metrics into a task's order, or an error where the task wants one that this version does not
// measure: sending a zero for it would falsify the sum.
func newTail(task *charter.Task) (func(map[string]float64) []float64, error) {
	measured := []string{layout.MetricExamples, layout.MetricLossBefore, layout.MetricLossAfter}
	for _, m := range task.Layout.Tail {
		if !slices.Contains(measured, m.Name) {
			return nil, fmt.Errorf("task %s wants the metric %q, which this version does not measure", task.ID, m.Name)
		}
	}
	return func(by map[string]float64) []float64 {
		out := make([]float64, len(task.Layout.Tail))
		for i, m := range task.Layout.Tail {
			out[i] = by[m.Name]
		}
		return out
	}, nil
}
