package node

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/node/llm/safetensors"
	"github.com/ruche-federation/ruche/node/participant"
)

// vectorLearner is the Learner of kind vector: nothing is trained, the update is what a file holds. It is given until
// it is acknowledged, and then no more: the end of its round and the next open round may come in one answer.
type vectorLearner struct {
	path  string
	acked func() bool
}

func (l *vectorLearner) Update(_ context.Context, task *charter.Task, _ uint64, _ layout.Model) (participant.Update, error) {
	if l.acked() {
		return participant.Update{}, participant.ErrNothing
	}
	return ReadVector(l.path, task)
}

func (l *vectorLearner) Adopt(context.Context, *charter.Task, layout.Model) error { return nil }

// ReadVector reads a contribution of kind vector from a safetensors file: the tensors of the task's layout, by name and
// shape, F32, F16 or BF16, all finite, and no others. Metrics stand in the file's metadata under their names; without an
// entry the metric "examples" is 1.
func ReadVector(path string, task *charter.Task) (participant.Update, error) {
	u := participant.Update{}
	if task.Kind != charter.KindVector {
		return u, fmt.Errorf("task %s is of kind %s, a vector is for kind %s", task.ID, task.Kind, charter.KindVector)
	}
	f, err := safetensors.Open(path)
	if err != nil {
		return u, err
	}
	defer f.Close()
	var names []string
	for _, t := range task.Layout.Trained {
		names = append(names, t.Name)
		v, shape, err := f.Float32(t.Name)
		if _, ok := f.Tensor(t.Name); !ok {
			return u, fmt.Errorf("%s has no tensor %q, which task %s is about; it has %s", path, t.Name, task.ID, strings.Join(f.Names(), ", "))
		}
		if err != nil {
			return u, err
		}
		if !slices.Equal(shape, t.Shape) {
			return u, fmt.Errorf("%s: tensor %q has shape %v, task %s wants %v", path, t.Name, shape, task.ID, t.Shape)
		}
		for i, x := range v {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				return u, fmt.Errorf("%s: tensor %q: value %d is %v", path, t.Name, i, x)
			}
		}
		u.Body = append(u.Body, v...)
	}
	for _, name := range f.Names() {
		if !slices.Contains(names, name) {
			return u, fmt.Errorf("%s has the tensor %q, which task %s does not take", path, name, task.ID)
		}
	}
	metadata := f.Metadata()
	for _, m := range task.Layout.Tail {
		text, ok := metadata[m.Name]
		if !ok {
			if m.Name != layout.MetricExamples {
				return u, fmt.Errorf("%s: task %s wants the metric %q in the file's metadata", path, task.ID, m.Name)
			}
			text = "1"
		}
		x, err := strconv.ParseFloat(text, 64)
		if err != nil || !(x >= 0 && x <= m.Max) {
			return u, fmt.Errorf("%s: the metadata's %s is no number in [0, %v]", path, m.Name, m.Max)
		}
		u.Tail = append(u.Tail, x)
	}
	return u, nil
}
