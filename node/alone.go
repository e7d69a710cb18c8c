package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/ruche-federation/ruche/aggregation/commons"
	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/node/llm"
	"github.com/ruche-federation/ruche/node/train"
)

// Frozen derives the frozen factors of a task, in the layout's order: everybody's are the same.
func Frozen(task *charter.Task) ([][]float32, error) {
	out := make([][]float32, len(task.Layout.Frozen))
	for i, t := range task.Layout.Frozen {
		if out[i] = commons.Orthonormal(task.InitSeed, t); out[i] == nil {
			return nil, fmt.Errorf("task %s: frozen factor %s of shape %v cannot be derived", task.ID, t.Name, t.Shape)
		}
	}
	return out, nil
}

// adapter puts the trained values b of a task beside its frozen factors. It copies b and shares frozen.
func adapter(task *charter.Task, frozen [][]float32, b []float32) (*llm.Adapter, error) {
	if task.Kind != charter.KindLoRA {
		return nil, fmt.Errorf("task %s is of kind %s, an adapter needs %s", task.ID, task.Kind, charter.KindLoRA)
	}
	parts, err := task.Layout.Split(slices.Clone(b))
	if err != nil {
		return nil, fmt.Errorf("task %s: %w", task.ID, err)
	}
	a := &llm.Adapter{Rank: task.Layout.Rank, Alpha: task.Layout.Alpha}
	for i, t := range task.Layout.Trained {
		a.Modules = append(a.Modules, llm.AdapterModule{Name: strings.TrimSuffix(t.Name, layout.SuffixB), In: task.Layout.Frozen[i].Shape[1],
			Out: t.Shape[0], A: frozen[i], B: parts[i]})
	}
	return a, nil
}

// values is adapter's way back: the B factors in the layout's order.
func values(a *llm.Adapter) (b []float32) {
	for i := range a.Modules {
		b = append(b, a.Modules[i].B...)
	}
	return b
}

// recipe is a task's recipe for package train. A window longer than the model's context would train positions that the
// model was not made for.
func recipe(task *charter.Task, m *llm.Model) train.Recipe {
	r := &task.Recipe
	return train.Recipe{Steps: r.Steps, Batch: r.Batch, Window: min(r.Window, m.Context), LR: r.LR, Beta1: r.Beta1, Beta2: r.Beta2, Eps: r.Eps,
		WeightDecay: r.WeightDecay, Clip: r.Clip, TrainB: true}
}

// trainSeed is the data order of one device in one round.
func trainSeed(device label.Hash, seq uint64) label.Hash {
	return label.Sum(label.TagTrainSeed, device[:], binary.BigEndian.AppendUint64(nil, seq))
}

// evaluationWindows cuts records as every loss of a device is measured: windows of at most 128 positions, BOS before
// each record, which is not scored.
func evaluationWindows(l *Language, records []string) []llm.Sequence {
	return train.Windows(l.Tokenizer, records, min(evaluationWindow, l.Model.Context))
}

// TrainAlone trains the B factors of a task's adapter on one user's records by the task's recipe, from the public start,
// for steps optimiser steps, without any consortium: what the commons is compared with. It returns B in the layout's
// order.
func TrainAlone(ctx context.Context, l *Language, task *charter.Task, steps int, seed label.Hash, records []string) ([]float32, error) {
	frozen, err := Frozen(task)
	if err != nil {
		return nil, err
	}
	a, err := adapter(task, frozen, commons.Init(task.Layout))
	if err != nil {
		return nil, err
	}
	r := recipe(task, l.Model)
	r.Steps = steps
	if _, err := train.Run(ctx, l.Model, a, train.Windows(l.Tokenizer, records, r.Window), r, seed, nil); err != nil {
		return nil, err
	}
	return values(a), nil
}

// Evaluate measures the loss of a task's adapter with the trained values b on records: the sum over tokens in nats, and
// the tokens. With b nil it is the base alone.
func Evaluate(ctx context.Context, l *Language, task *charter.Task, b []float32, records []string) (lossSum float64, tokens int, err error) {
	if b == nil {
		return train.Evaluate(ctx, l.Model, nil, evaluationWindows(l, records), 0)
	}
	frozen, err := Frozen(task)
	if err != nil {
		return 0, 0, err
	}
	a, err := adapter(task, frozen, b)
	if err != nil {
		return 0, 0, err
	}
	return train.Evaluate(ctx, l.Model, a, evaluationWindows(l, records), 0)
}
