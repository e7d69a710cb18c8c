package llm

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ruche-federation/ruche/node/llm/safetensors"
)

// AdapterModule is one linear layer's low-rank addition: y += scale·(Alpha/Rank)·B·(A·x).
type AdapterModule struct {
	Name    string
	In, Out int
	A       []float32 // [rank, In]
	B       []float32 // [Out, rank]
}

// Adapter is a LoRA adapter of one rank (Hu et al., 2106.09685).
type Adapter struct {
	Rank    int
	Alpha   float64
	Modules []AdapterModule // in the order of Model.Linear
}

// Bounds of an adapter's rank and alpha: far above what LoRA is for.
const (
	rankMax  = 1024
	alphaMax = 1 << 16
)

// NewAdapter returns a zero adapter on the modules of m whose name ends in one of targets ("q_proj"), on all linear
// modules if targets is empty. The caller fills A.
func NewAdapter(m *Model, rank int, alpha float64, targets []string) (*Adapter, error) {
	if rank < 1 || rank > rankMax {
		return nil, fmt.Errorf("adapter rank is %d, it must lie in [1, %d]", rank, rankMax)
	}
	if !(alpha > 0 && alpha <= alphaMax) {
		return nil, fmt.Errorf("adapter alpha is %v, it must lie in (0, %d]", alpha, alphaMax)
	}
	a := &Adapter{Rank: rank, Alpha: alpha}
	for _, l := range m.Linear() {
		if len(targets) > 0 && !slices.ContainsFunc(targets, func(t string) bool { return l.Name == t || strings.HasSuffix(l.Name, "."+t) }) {
			continue
		}
		a.Modules = append(a.Modules, AdapterModule{Name: l.Name, In: l.In, Out: l.Out, A: make([]float32, rank*l.In), B: make([]float32, l.Out*rank)})
	}
	if len(a.Modules) == 0 {
		return nil, fmt.Errorf("no linear module of the model is named by %v", targets)
	}
	return a, nil
}

// Clone returns an adapter with its own B and, if both, its own A.
func (a *Adapter) Clone() *Adapter {
	out := &Adapter{Rank: a.Rank, Alpha: a.Alpha, Modules: slices.Clone(a.Modules)}
	for i := range out.Modules {
		out.Modules[i].A, out.Modules[i].B = slices.Clone(a.Modules[i].A), slices.Clone(a.Modules[i].B)
	}
	return out
}

// place finds each module of a in m: index [layer][linear] into a.Modules, -1 for none.
func (a *Adapter) place(m *Model) ([][linears]int, error) {
	at := make([][linears]int, m.Layers)
	for l := range at {
		for i := range linears {
			at[l][i] = -1
		}
	}
	if a == nil {
		return at, nil
	}
	index := map[string][2]int{}
	for l := range m.Layers {
		for i, name := range linearNames {
			index[moduleName(l, name)] = [2]int{l, i}
		}
	}
	for k := range a.Modules {
		x := &a.Modules[k]
		where, ok := index[x.Name]
		if !ok {
			return nil, fmt.Errorf("the adapter names module %s, which this model does not have", x.Name)
		}
		out, in := m.linearShape(where[1])
		if x.In != in || x.Out != out || len(x.A) != a.Rank*in || len(x.B) != out*a.Rank {
			return nil, fmt.Errorf("adapter module %s is for a layer of %d x %d, this model's is %d x %d", x.Name, x.Out, x.In, out, in)
		}
		if at[where[0]][where[1]] >= 0 {
			return nil, fmt.Errorf("the adapter names module %s twice", x.Name)
		}
		at[where[0]][where[1]] = k
	}
	return at, nil
}

// factor is what the product B·A is multiplied by.
func (a *Adapter) factor(scale float64) float32 {
	if a == nil {
		return 0
	}
	return float32(scale * a.Alpha / float64(a.Rank))
}

// peftConfig is adapter_config.json as PEFT writes and vLLM reads it (engine design, section 8).
type peftConfig struct {
	AlphaPattern  map[string]any `json:"alpha_pattern"`
	Base          string         `json:"base_model_name_or_path"`
	Bias          string         `json:"bias"`
	FanInFanOut   bool           `json:"fan_in_fan_out"`
	InferenceMode bool           `json:"inference_mode"`
	InitWeights   any            `json:"init_lora_weights"`
	LayersPattern any            `json:"layers_pattern"`
	LayersTo      any            `json:"layers_to_transform"`
	Alpha         float64        `json:"lora_alpha"`
	Dropout       float64        `json:"lora_dropout"`
	ModulesToSave any            `json:"modules_to_save"`
	Type          string         `json:"peft_type"`
	R             int            `json:"r"`
	RankPattern   map[string]any `json:"rank_pattern"`
	Revision      any            `json:"revision"`
	Targets       any            `json:"target_modules"`
	Task          string         `json:"task_type"`
	UseDora       bool           `json:"use_dora"`
	UseRSLora     bool           `json:"use_rslora"`
}

const (
	peftConfigFile  = "adapter_config.json"
	peftWeightsFile = "adapter_model.safetensors"
	peftPrefix      = "base_model.model."
	peftConfigMax   = 1 << 20
)

// peftOff are the keys that change what an adapter computes; all must be null, false or empty.
var peftOff = [...]string{"use_dora", "use_rslora", "use_qalora", "use_bdlora", "lora_bias", "layer_replication", "alora_invocation_tokens", "trainable_token_indices", "modules_to_save", "rank_pattern", "alpha_pattern"}

// WritePEFT writes the adapter as a PEFT directory: the same bytes for the same adapter. base is the name that the
// configuration gives the base model.
func (a *Adapter) WritePEFT(dir, base string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	targets := map[string]bool{}
	var tensors []safetensors.Values
	for _, m := range a.Modules {
		targets[m.Name[strings.LastIndex(m.Name, ".")+1:]] = true
		tensors = append(tensors,
			safetensors.Values{Name: peftPrefix + m.Name + ".lora_A.weight", DType: "F32", Shape: []int{a.Rank, m.In}, Data: m.A},
			safetensors.Values{Name: peftPrefix + m.Name + ".lora_B.weight", DType: "F32", Shape: []int{m.Out, a.Rank}, Data: m.B})
	}
	c := peftConfig{AlphaPattern: map[string]any{}, Base: base, Bias: "none", InferenceMode: true, InitWeights: true, Alpha: a.Alpha, Type: "LORA", R: a.Rank, RankPattern: map[string]any{}, Task: "CAUSAL_LM"}
	c.Targets = slices.Sorted(maps.Keys(targets))
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := safetensors.WriteFile(filepath.Join(dir, peftWeightsFile), tensors, map[string]string{"format": "pt"}); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, peftConfigFile), append(b, '\n'), 0o644)
}

// LoadPEFT reads a PEFT directory for m, or says what in it does not fit.
func LoadPEFT(dir string, m *Model) (*Adapter, error) {
	path := filepath.Join(dir, peftConfigFile)
	raw, err := readBounded(path, peftConfigMax)
	if err != nil {
		return nil, err
	}
	var c peftConfig
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case c.Type != "LORA":
		return nil, fmt.Errorf("%s: peft_type is %.40q, this program reads LORA", path, c.Type)
	case c.R < 1 || c.R > rankMax:
		return nil, fmt.Errorf("%s: r is %d, it must lie in [1, %d]", path, c.R, rankMax)
	case !(c.Alpha > 0 && c.Alpha <= alphaMax):
		return nil, fmt.Errorf("%s: lora_alpha is %v, it must lie in (0, %d]", path, c.Alpha, alphaMax)
	case c.FanInFanOut:
		return nil, fmt.Errorf("%s: fan_in_fan_out is set: the adapter is for a model of another architecture (GPT-2)", path)
	case c.Bias != "" && c.Bias != "none":
		return nil, fmt.Errorf("%s: bias is %.20q, this program reads none", path, c.Bias)
	}
	if kind, ok := c.InitWeights.(string); ok && kind != "gaussian" && kind != "orthogonal" {
		return nil, fmt.Errorf("%s: init_lora_weights is %.40q: such adapters go with a base that was changed", path, kind)
	}
	var all map[string]any
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, key := range peftOff {
		v := all[key]
		if m, ok := v.(map[string]any); ok && len(m) == 0 {
			continue
		}
		if v != nil && v != false {
			return nil, fmt.Errorf("%s: %s is set, this program reads plain LoRA of one rank and alpha", path, key)
		}
	}
	weights := filepath.Join(dir, peftWeightsFile)
	f, err := safetensors.Open(weights)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a := &Adapter{Rank: c.R, Alpha: c.Alpha}
	read := map[string]bool{}
	for _, l := range m.Linear() {
		an, bn := peftPrefix+l.Name+".lora_A.weight", peftPrefix+l.Name+".lora_B.weight"
		_, hasA := f.Tensor(an)
		_, hasB := f.Tensor(bn)
		if !hasA && !hasB {
			continue
		}
		A, err := tensorOf(f, an, c.R, l.In)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", weights, err)
		}
		B, err := tensorOf(f, bn, l.Out, c.R)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", weights, err)
		}
		read[an], read[bn] = true, true
		a.Modules = append(a.Modules, AdapterModule{Name: l.Name, In: l.In, Out: l.Out, A: A, B: B})
	}
	for _, name := range f.Names() {
		if !read[name] {
			return nil, fmt.Errorf("%s: tensor %s belongs to no linear module of this model: the adapter is for another architecture", weights, name)
		}
	}
	if len(a.Modules) == 0 {
		return nil, fmt.Errorf("%s holds no tensors", weights)
	}
	return a, nil
}
