package layout

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/ruche-federation/ruche/crypto/label"
)

// Factors: the part of the model that a round trains.
const (
	FactorB      = "B"      // the B factors of LoRA adapters, [out, rank]; the A factors are frozen
	FactorVector = "vector" // the trained tensors themselves, nothing frozen
)

// Names of LoRA tensors are "<module>" followed by these, as in published adapter files.
const (
	SuffixA = ".lora_A.weight"
	SuffixB = ".lora_B.weight"
)

// Names of the standard metrics.
const (
	MetricExamples   = "examples"    // records that a device trained on, in units
	MetricLossBefore = "loss_before" // on the device's own held-out text, under the round's start, nats per token
	MetricLossAfter  = "loss_after"  // on the same text, after the device's training, nats per token
)

// Tensor is a named shape; values are row-major.
type Tensor struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape"`
}

// Size is the number of values of t, or 0 if its shape is none that Validate accepts.
func (t Tensor) Size() int {
	if len(t.Shape) == 0 || len(t.Shape) > DimsMax {
		return 0
	}
	n := 1
	for _, d := range t.Shape {
		if d < 1 || d > FrozenMax/n {
			return 0
		}
		n *= d
	}
	return n
}

// Metric is a private scalar of the tail, in the public range [0, Max].
type Metric struct {
	Name string  `json:"name"`
	Max  float64 `json:"max"`
}

// Layout says what a task's vector means.
type Layout struct {
	// Factor is the part that is trained: FactorB or FactorVector.
	Factor string `json:"factor"`
	// Trained are the tensors of the vector, ascending by name.
	Trained []Tensor `json:"trained"`
	// Frozen are the LoRA factors that everyone derives from the public seed, ascending by name; none for FactorVector.
	Frozen []Tensor `json:"frozen,omitempty"`
	// Rank and Alpha are LoRA's: the adapter adds Alpha/Rank · B·A. Zero for FactorVector.
	Rank  int     `json:"rank,omitempty"`
	Alpha float64 `json:"alpha,omitempty"`
	// Tail are the private metrics behind the vector, in wire order.
	Tail []Metric `json:"tail,omitempty"`
}

// Module is one linear layer that carries an adapter: y = W·x with W of shape [Out, In].
type Module struct {
	Name    string
	In, Out int
}

// LoRA returns the layout that trains the B factor of an adapter of the given rank on modules: trained
// "<module>.lora_B.weight" [Out, rank], frozen "<module>.lora_A.weight" [rank, In].
func LoRA(modules []Module, rank int, alpha float64, tail []Metric) (Layout, error) {
	l := Layout{Factor: FactorB, Rank: rank, Alpha: alpha, Tail: slices.Clone(tail)}
	for _, m := range modules {
		l.Trained = append(l.Trained, Tensor{m.Name + SuffixB, []int{m.Out, rank}})
		l.Frozen = append(l.Frozen, Tensor{m.Name + SuffixA, []int{rank, m.In}})
	}
	byName := func(ts []Tensor) { sort.Slice(ts, func(i, j int) bool { return ts[i].Name < ts[j].Name }) }
	byName(l.Trained)
	byName(l.Frozen)
	if err := l.Validate(); err != nil {
		return Layout{}, err
	}
	return l, nil
}

// Vector returns the layout of one vector of d values.
func Vector(name string, d int, tail []Metric) (Layout, error) {
	l := Layout{Factor: FactorVector, Trained: []Tensor{{name, []int{d}}}, Tail: slices.Clone(tail)}
	if err := l.Validate(); err != nil {
		return Layout{}, err
	}
	return l, nil
}

// StandardTail returns the metrics that every task carries unless its charter says otherwise (SA 3.2, CO 3.3).
func StandardTail() []Metric {
	return []Metric{{MetricExamples, 4096}, {MetricLossBefore, 16}, {MetricLossAfter, 16}}
}

// D is the number of trained values, or 0 if the layout is not valid.
func (l Layout) D() int { return total(l.Trained, ValuesMax) }

// TailLen is the number of private metrics.
func (l Layout) TailLen() int { return len(l.Tail) }

// TailIndex returns the place of the named metric in the tail, or -1.
func (l Layout) TailIndex(name string) int {
	return slices.IndexFunc(l.Tail, func(m Metric) bool { return m.Name == name })
}

// Split returns views of values, one for each trained tensor, in order.
func (l Layout) Split(values []float32) ([][]float32, error) {
	if d := l.D(); len(values) != d || d == 0 {
		return nil, fmt.Errorf("vector has %d values, layout has %d", len(values), d)
	}
	out := make([][]float32, len(l.Trained))
	for i, t := range l.Trained {
		n := t.Size()
		out[i], values = values[:n:n], values[n:]
	}
	return out, nil
}

// Check says whether m is a model in this layout.
func (l Layout) Check(m Model) error {
	if err := m.Validate(); err != nil {
		return err
	}
	if h := l.Hash(); m.LayoutHash != h {
		return fmt.Errorf("model is in layout %v, want %v", m.LayoutHash, h)
	}
	if d := l.D(); len(m.Values) != d {
		return fmt.Errorf("model has %d values, layout has %d", len(m.Values), d)
	}
	return nil
}

// Hash is the layout's name everywhere: label.Sum(TagLayout, Canonical()).
func (l Layout) Hash() label.Hash { return label.Sum(label.TagLayout, l.Canonical()) }

// Validate says whether l is a layout, and in canonical order.
func (l Layout) Validate() error {
	if len(l.Trained) == 0 {
		return fmt.Errorf("layout trains no tensor")
	}
	if err := validateTensors("trained", l.Trained, ValuesMax); err != nil {
		return err
	}
	if err := validateTensors("frozen", l.Frozen, FrozenMax); err != nil {
		return err
	}
	if err := validateTail(l.Tail); err != nil {
		return err
	}
	switch l.Factor {
	case FactorB:
		return l.validateLoRA()
	case FactorVector:
		// The bits of Alpha are compared, not its value: −0 would be a second spelling of one layout.
		if len(l.Frozen) != 0 || l.Rank != 0 || math.Float64bits(l.Alpha) != 0 {
			return fmt.Errorf("layout of factor %q has frozen tensors, a rank or an alpha", l.Factor)
		}
		return nil
	default:
		return fmt.Errorf("layout trains factor %q, known are %q and %q", l.Factor, FactorB, FactorVector)
	}
}

// validateLoRA: every trained B has its frozen A at the same place, all of one rank, and the rank is at most each
// module's inputs, or the rows of its A could not be orthonormal (package commons).
func (l Layout) validateLoRA() error {
	if l.Rank < 1 || l.Rank > RankMax {
		return fmt.Errorf("layout has rank %d, limits 1 and %d", l.Rank, RankMax)
	}
	if !(l.Alpha > 0 && l.Alpha <= AlphaMax) {
		return fmt.Errorf("layout has alpha %v, limits 0 (excluded) and %d", l.Alpha, AlphaMax)
	}
	if len(l.Frozen) != len(l.Trained) {
		return fmt.Errorf("layout has %d frozen tensors for %d trained ones", len(l.Frozen), len(l.Trained))
	}
	for i, b := range l.Trained {
		a := l.Frozen[i]
		module, okB := strings.CutSuffix(b.Name, SuffixB)
		if !okB || a.Name != module+SuffixA || module == "" {
			return fmt.Errorf("trained tensor %q and frozen tensor %q are not the B and A factors of one module", b.Name, a.Name)
		}
		if len(b.Shape) != 2 || b.Shape[1] != l.Rank {
			return fmt.Errorf("trained tensor %q has shape %v, want [out %d]", b.Name, b.Shape, l.Rank)
		}
		if len(a.Shape) != 2 || a.Shape[0] != l.Rank {
			return fmt.Errorf("frozen tensor %q has shape %v, want [%d in]", a.Name, a.Shape, l.Rank)
		}
		if a.Shape[1] < l.Rank {
			return fmt.Errorf("frozen tensor %q has %d inputs, fewer than rank %d", a.Name, a.Shape[1], l.Rank)
		}
	}
	return nil
}

func validateTensors(what string, ts []Tensor, valuesMax int) error {
	if len(ts) > TensorsMax {
		return fmt.Errorf("layout has %d %s tensors, limit %d", len(ts), what, TensorsMax)
	}
	for i, t := range ts {
		if err := validName(what+" tensor", t.Name, NameMax); err != nil {
			return err
		}
		if i > 0 && t.Name <= ts[i-1].Name {
			return fmt.Errorf("%s tensor %q stands after %q: names must be strictly ascending", what, t.Name, ts[i-1].Name)
		}
		if len(t.Shape) == 0 || len(t.Shape) > DimsMax {
			return fmt.Errorf("%s tensor %q has %d dimensions, limits 1 and %d", what, t.Name, len(t.Shape), DimsMax)
		}
		if t.Size() == 0 {
			return fmt.Errorf("%s tensor %q has shape %v: a dimension below 1, or more than %d values", what, t.Name, t.Shape, FrozenMax)
		}
	}
	if len(ts) > 0 && total(ts, valuesMax) == 0 {
		return fmt.Errorf("layout has more %s values than %d", what, valuesMax)
	}
	return nil
}

func validateTail(tail []Metric) error {
	if len(tail) > TailMax {
		return fmt.Errorf("layout has %d metrics, limit %d", len(tail), TailMax)
	}
	seen := map[string]bool{}
	for _, m := range tail {
		if err := validName("metric", m.Name, MetricNameMax); err != nil {
			return err
		}
		if seen[m.Name] {
			return fmt.Errorf("layout has metric %q twice", m.Name)
		}
		seen[m.Name] = true
		if !(m.Max > 0 && m.Max <= MetricMaxMax) {
			return fmt.Errorf("metric %q has range [0, %v], limits 0 (excluded) and %g", m.Name, m.Max, float64(MetricMaxMax))
		}
	}
	return nil
}

// validName accepts visible ASCII only, so that a name looks like what it is in every log and dialogue.
func validName(what, name string, max int) error {
	if len(name) == 0 || len(name) > max {
		return fmt.Errorf("%s name has %d bytes, limits 1 and %d", what, len(name), max)
	}
	for i := 0; i < len(name); i++ {
		if name[i] <= ' ' || name[i] > '~' {
			return fmt.Errorf("%s name %q holds a byte that is no visible ASCII at %d", what, name, i)
		}
	}
	return nil
}

// total sums the sizes of ts; 0 if one is invalid or the sum exceeds max.
func total(ts []Tensor, max int) int {
	sum := 0
	for _, t := range ts {
		n := t.Size()
		if n == 0 || n > max-sum {
			return 0
		}
		sum += n
	}
	return sum
}
