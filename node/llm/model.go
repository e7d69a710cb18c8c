package llm

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// Config is the shape of a LLaMA-family decoder.
type Config struct {
	Dim     int // width of the residual stream
	Layers  int
	Heads   int // query heads
	KVHeads int // key and value heads; Heads is a multiple
	HeadDim int
	Hidden  int // width of the feed-forward layer
	Vocab   int
	Context int     // positions that the model was made for
	NormEps float64 // RMSNorm
	Rope    Rope
	Window  int  // sliding attention window in positions, 0 for none
	Tied    bool // the head is the embedding

	Biases    bool // of the query, key and value projections: Qwen2
	HeadNorms bool // RMSNorm of each query and key head before it is rotated: Qwen3
}

// Rope are the rotary embedding's parameters. Scaling is llama3's, or none where Factor is 0.
type Rope struct {
	Theta                     float64
	Factor, LowFreq, HighFreq float64
	OriginalContext           int
}

// Limits of a model's shape: far above any model that a CPU trains, far below what would overflow an int.
const (
	dimMax     = 1 << 16
	layersMax  = 1 << 10
	vocabMax   = 1 << 20
	contextMax = 1 << 20
)

// Validate names the field that no model could have.
func (c *Config) Validate() error {
	for _, f := range []struct {
		name    string
		v, most int
	}{{"hidden_size", c.Dim, dimMax}, {"num_hidden_layers", c.Layers, layersMax}, {"num_attention_heads", c.Heads, dimMax},
		{"num_key_value_heads", c.KVHeads, dimMax}, {"head_dim", c.HeadDim, dimMax}, {"intermediate_size", c.Hidden, 4 * dimMax},
		{"vocab_size", c.Vocab, vocabMax}, {"max_position_embeddings", c.Context, contextMax}} {
		if f.v < 1 || f.v > f.most {
			return fmt.Errorf("%s is %d, it must lie in [1, %d]", f.name, f.v, f.most)
		}
	}
	switch {
	case c.Heads%c.KVHeads != 0:
		return fmt.Errorf("num_attention_heads (%d) is no multiple of num_key_value_heads (%d)", c.Heads, c.KVHeads)
	case c.HeadDim%2 != 0:
		return fmt.Errorf("head_dim is %d, rotary embeddings want an even one", c.HeadDim)
	case c.Heads*c.HeadDim > 4*dimMax:
		return fmt.Errorf("num_attention_heads x head_dim is %d, limit %d", c.Heads*c.HeadDim, 4*dimMax)
	case !(c.NormEps > 0 && c.NormEps < 1):
		return fmt.Errorf("rms_norm_eps is %v, it must lie in (0, 1)", c.NormEps)
	case !(c.Rope.Theta >= 1 && c.Rope.Theta <= 1e12):
		return fmt.Errorf("rope_theta is %v, it must lie in [1, 1e12]", c.Rope.Theta)
	case c.Window < 0:
		return errors.New("sliding_window is negative")
	}
	if r := c.Rope; r.Factor != 0 && !(r.Factor >= 1 && r.LowFreq > 0 && r.HighFreq > r.LowFreq && r.OriginalContext > 0) {
		return fmt.Errorf("rope_scaling of type llama3 is out of range: %+v", r)
	}
	return nil
}

// Names of a layer's linear modules, in the order of the computation, and where they stand in a checkpoint.
var linearNames = [...]string{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}

// Places in linearNames.
const (
	linQ = iota
	linK
	linV
	linO
	linGate
	linUp
	linDown
	linears
)

// linearShape is [out, in] of a layer's linear module.
func (c *Config) linearShape(i int) (out, in int) {
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	switch i {
	case linQ:
		return q, c.Dim
	case linK, linV:
		return kv, c.Dim
	case linO:
		return c.Dim, q
	case linGate, linUp:
		return c.Hidden, c.Dim
	}
	return c.Dim, c.Hidden
}

func (c *Config) hasBias(i int) bool     { return c.Biases && (i == linQ || i == linK || i == linV) }
func (c *Config) hasHeadNorm(i int) bool { return c.HeadNorms && (i == linQ || i == linK) }

// Parameters is the number of weights.
func (c *Config) Parameters() int {
	n := c.Dim
	for i := range linears {
		out, in := c.linearShape(i)
		n += c.Layers * out * in
	}
	if c.Biases {
		n += c.Layers * (c.Heads + 2*c.KVHeads) * c.HeadDim
	}
	if c.HeadNorms {
		n += c.Layers * 2 * c.HeadDim
	}
	n += 2*c.Layers*c.Dim + c.Vocab*c.Dim
	if !c.Tied {
		n += c.Vocab * c.Dim
	}
	return n
}

// layer is one decoder block's weights, row-major.
type layer struct {
	attnNorm, ffnNorm []float32          // [dim]
	w                 [linears][]float32 // [out, in]; q and k rows in rotate_half order
	bias              [linears][]float32 // [out], nil for none
	headNorm          [linears][]float32 // [headDim] for q and k, nil for none
}

// Model is a decoder's weights. It is read-only after loading and may be shared by any number of sessions and tapes.
type Model struct {
	Config
	embed  []float32 // [vocab, dim]
	layers []layer
	norm   []float32 // [dim]
	head   []float32 // [vocab, dim]; the embedding itself where Tied

	invFreq []float64 // [headDim/2], scaling applied
}

// NewModel returns a model of zero weights, for pre-training and tests.
func NewModel(c Config) (*Model, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	m := &Model{Config: c, embed: make([]float32, c.Vocab*c.Dim), norm: make([]float32, c.Dim), layers: make([]layer, c.Layers)}
	for l := range m.layers {
		m.layers[l].attnNorm, m.layers[l].ffnNorm = make([]float32, c.Dim), make([]float32, c.Dim)
		for i := range linears {
			out, in := c.linearShape(i)
			m.layers[l].w[i] = make([]float32, out*in)
			if c.hasBias(i) {
				m.layers[l].bias[i] = make([]float32, out)
			}
			if c.hasHeadNorm(i) {
				m.layers[l].headNorm[i] = make([]float32, c.HeadDim)
			}
		}
	}
	m.head = m.embed
	if !c.Tied {
		m.head = make([]float32, c.Vocab*c.Dim)
	}
	m.prepare()
	return m, nil
}

// prepare derives what is not stored: the rotary frequencies (llama3's scaling as in transformers' modeling_rope_utils).
func (m *Model) prepare() {
	half := m.HeadDim / 2
	m.invFreq = make([]float64, half)
	for i := range m.invFreq {
		// transformers computes the frequencies in float32.
		f := float64(float32(1 / math.Pow(m.Rope.Theta, float64(2*i)/float64(m.HeadDim))))
		if r := m.Rope; r.Factor != 0 {
			wave := 2 * math.Pi / f
			low, high := float64(r.OriginalContext)/r.LowFreq, float64(r.OriginalContext)/r.HighFreq
			switch {
			case wave > low:
				f /= r.Factor
			case wave >= high:
				smooth := (float64(r.OriginalContext)/wave - r.LowFreq) / (r.HighFreq - r.LowFreq)
				f = (1-smooth)*f/r.Factor + smooth*f
			}
		}
		m.invFreq[i] = f
	}
}

// Module is one linear layer that can carry an adapter: y = W·x, W [Out, In].
type Module struct {
	Name    string // model.layers.0.self_attn.q_proj
	In, Out int
}

// Linear lists the linear modules of all layers, in the order of the computation.
func (m *Model) Linear() []Module {
	var out []Module
	for l := range m.layers {
		for i, name := range linearNames {
			o, in := m.linearShape(i)
			out = append(out, Module{Name: moduleName(l, name), In: in, Out: o})
		}
	}
	return out
}

func moduleName(layer int, name string) string { return fmt.Sprintf("model.layers.%d.%s", layer, name) }

// headNormName is the norm of layer's query or key heads: the projection's name with norm for proj.
func headNormName(layer, i int) string {
	return moduleName(layer, strings.TrimSuffix(linearNames[i], "proj")+"norm.weight")
}

// Param is one named weight tensor of a model, as pre-training needs it. Data is the model's own memory.
type Param struct {
	Name  string // as in a Hugging Face checkpoint
	Shape []int
	Data  []float32
}

// Params lists the weight tensors. A tied head is not listed.
func (m *Model) Params() []Param {
	out := []Param{{"model.embed_tokens.weight", []int{m.Vocab, m.Dim}, m.embed}}
	for l := range m.layers {
		y := &m.layers[l]
		out = append(out, Param{moduleName(l, "input_layernorm.weight"), []int{m.Dim}, y.attnNorm})
		for i, name := range linearNames {
			if i == linGate {
				out = append(out, Param{moduleName(l, "post_attention_layernorm.weight"), []int{m.Dim}, y.ffnNorm})
			}
			o, in := m.linearShape(i)
			out = append(out, Param{moduleName(l, name) + ".weight", []int{o, in}, y.w[i]})
			if m.hasBias(i) {
				out = append(out, Param{moduleName(l, name) + ".bias", []int{o}, y.bias[i]})
			}
			if m.hasHeadNorm(i) {
				out = append(out, Param{headNormName(l, i), []int{m.HeadDim}, y.headNorm[i]})
			}
		}
	}
	out = append(out, Param{"model.norm.weight", []int{m.Dim}, m.norm})
	if !m.Tied {
		out = append(out, Param{"lm_head.weight", []int{m.Vocab, m.Dim}, m.head})
	}
	return out
}
