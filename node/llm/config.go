package llm

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/ruche-federation/ruche/node/llm/gguf"
)

// configMax bounds config.json.
const configMax = 1 << 20

// hfConfig is config.json in its published spelling and in that of transformers 5.
type hfConfig struct {
	Architectures []string `json:"architectures"`
	ModelType     string   `json:"model_type"`
	Act           string   `json:"hidden_act"`
	Dim           int      `json:"hidden_size"`
	Layers        int      `json:"num_hidden_layers"`
	Heads         int      `json:"num_attention_heads"`
	KVHeads       *int     `json:"num_key_value_heads"`
	HeadDim       *int     `json:"head_dim"`
	Hidden        int      `json:"intermediate_size"`
	Vocab         int      `json:"vocab_size"`
	Context       int      `json:"max_position_embeddings"`
	NormEps       *float64 `json:"rms_norm_eps"`
	Tied          bool     `json:"tie_word_embeddings"`
	AttentionBias bool     `json:"attention_bias"`
	MLPBias       bool     `json:"mlp_bias"`
	Window        any      `json:"sliding_window"` // null says none, absence does not
	SlidingLayers bool     `json:"use_sliding_window"`
	LayerTypes    []string `json:"layer_types"`
	Theta         *float64 `json:"rope_theta"`
	Scaling       *hfRope  `json:"rope_scaling"`
	Parameters    *hfRope  `json:"rope_parameters"` // transformers 5: theta and scaling together
	Interleaved   bool     `json:"rope_interleaved"`
	Partial       *float64 `json:"partial_rotary_factor"`
}

type hfRope struct {
	Type     string  `json:"rope_type"`
	OldType  string  `json:"type"`
	Theta    float64 `json:"rope_theta"`
	Factor   float64 `json:"factor"`
	LowFreq  float64 `json:"low_freq_factor"`
	HighFreq float64 `json:"high_freq_factor"`
	Original int     `json:"original_max_position_embeddings"`
}

func readConfig(path string) (Config, error) {
	b, err := readBounded(path, configMax)
	if err != nil {
		return Config{}, err
	}
	c, err := parseConfig(b)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// absent stands where a key was not in the file.
type absent struct{}

// parseConfig reads config.json of a LLaMA-family model; what would make it another computation is refused by name.
func parseConfig(b []byte) (Config, error) {
	var h hfConfig
	h.Window = absent{}
	if err := json.Unmarshal(b, &h); err != nil {
		return Config{}, err
	}
	switch h.ModelType {
	case "llama", "mistral", "qwen2", "qwen3":
	default:
		return Config{}, fmt.Errorf("model_type is %.40q, this program runs llama, mistral, qwen2 and qwen3", h.ModelType)
	}
	switch {
	case h.Act != "" && h.Act != "silu":
		return Config{}, fmt.Errorf("hidden_act is %.40q, this program runs silu", h.Act)
	case h.AttentionBias:
		return Config{}, fmt.Errorf("attention_bias is set, this program runs none")
	case h.MLPBias:
		return Config{}, fmt.Errorf("mlp_bias is set, this program runs none")
	case h.Interleaved:
		return Config{}, fmt.Errorf("rope_interleaved is set, this program runs rotate_half")
	case h.Partial != nil && *h.Partial != 1:
		return Config{}, fmt.Errorf("partial_rotary_factor is %v, this program rotates whole heads", *h.Partial)
	}
	for _, a := range h.Architectures {
		if !strings.HasSuffix(a, "ForCausalLM") {
			return Config{}, fmt.Errorf("architectures names %.60q, this program runs models for causal language modelling", a)
		}
	}
	c := Config{Dim: h.Dim, Layers: h.Layers, Heads: h.Heads, KVHeads: h.Heads, Hidden: h.Hidden, Vocab: h.Vocab, Context: h.Context,
		NormEps: 1e-6, Tied: h.Tied, Rope: Rope{Theta: 10000}} // as transformers, where the file is silent
	if h.NormEps != nil {
		c.NormEps = *h.NormEps
	}
	// Transformers' silent defaults are those of one size of each family: only LLaMA's follow from the other fields.
	switch {
	case h.KVHeads != nil:
		c.KVHeads = *h.KVHeads
	case h.ModelType != "llama":
		return c, errors.New("num_key_value_heads is missing")
	}
	c.Biases, c.HeadNorms = h.ModelType == "qwen2", h.ModelType == "qwen3"
	switch {
	case h.HeadDim != nil:
		c.HeadDim = *h.HeadDim
	case h.ModelType == "qwen3":
		return c, errors.New("head_dim is missing")
	case h.Heads > 0 && h.Dim%h.Heads == 0:
		c.HeadDim = h.Dim / h.Heads
	default:
		return c, fmt.Errorf("hidden_size %d is no multiple of num_attention_heads %d, and head_dim is missing", h.Dim, h.Heads)
	}
	if c.Biases || c.HeadNorms { // Qwen's window holds in some layers only, if it is asked for
		if h.SlidingLayers || slices.ContainsFunc(h.LayerTypes, func(s string) bool { return s != "full_attention" }) {
			return c, errors.New("use_sliding_window is set, this program runs Qwen without")
		}
	}
	if h.ModelType == "mistral" {
		switch w := h.Window.(type) {
		case nil:
		case float64:
			if !(w >= 1 && w <= contextMax && w == math.Trunc(w)) {
				return c, fmt.Errorf("sliding_window is %v, it must be null or lie in [1, %d]", w, contextMax)
			}
			c.Window = int(w)
		default:
			return c, errors.New("sliding_window is missing or no number: say null where there is none")
		}
	}
	if h.Theta != nil {
		c.Rope.Theta = *h.Theta
	}
	scaling := h.Scaling
	if h.Parameters != nil {
		scaling = h.Parameters
		if h.Parameters.Theta != 0 {
			c.Rope.Theta = h.Parameters.Theta
		}
	}
	if scaling != nil {
		kind := scaling.Type
		if kind == "" {
			kind = scaling.OldType
		}
		switch kind {
		case "", "default":
		case "llama3":
			c.Rope.Factor, c.Rope.LowFreq, c.Rope.HighFreq, c.Rope.OriginalContext = scaling.Factor, scaling.LowFreq, scaling.HighFreq, scaling.Original
			if c.Rope.Factor == 0 {
				return c, fmt.Errorf("rope_scaling of type llama3 has no factor")
			}
		default:
			return c, fmt.Errorf("rope_scaling is of type %.40q, this program runs default and llama3", kind)
		}
	}
	return c, c.Validate()
}

// ggufConfig reads the keys of a LLaMA GGUF.
func ggufConfig(f *gguf.File) (Config, error) {
	arch, err := f.Text("general.architecture")
	if err != nil {
		return Config{}, err
	}
	if arch != "llama" {
		return Config{}, fmt.Errorf("general.architecture is %.40q, this program runs llama", arch)
	}
	var first error
	num := func(key string, otherwise ...uint64) int {
		v, err := f.Uint("llama." + key)
		if err != nil && len(otherwise) > 0 && !f.Has("llama."+key) {
			return int(otherwise[0])
		}
		if err != nil && first == nil {
			first = err
		}
		if v > 1<<30 {
			v = 1 << 30 // Validate names the field
		}
		return int(v)
	}
	c := Config{Dim: num("embedding_length"), Layers: num("block_count"), Heads: num("attention.head_count"), Hidden: num("feed_forward_length"), Context: num("context_length")}
	c.KVHeads = num("attention.head_count_kv", uint64(c.Heads))
	if first != nil {
		return c, first
	}
	if c.NormEps, err = f.Float("llama.attention.layer_norm_rms_epsilon"); err != nil {
		return c, err
	}
	c.Rope.Theta = 10000
	if f.Has("llama.rope.freq_base") {
		if c.Rope.Theta, err = f.Float("llama.rope.freq_base"); err != nil {
			return c, err
		}
	}
	if f.Has("llama.rope.scaling.type") {
		if kind, err := f.Text("llama.rope.scaling.type"); err != nil || kind != "none" {
			return c, fmt.Errorf("llama.rope.scaling.type is %.40q, this program runs none in GGUF", kind)
		}
	}
	if _, ok := f.Tensor("rope_freqs.weight"); ok {
		return c, fmt.Errorf("tensor rope_freqs.weight: scaled rotary frequencies in GGUF are not run; use the Hugging Face folder")
	}
	if c.Heads > 0 {
		c.HeadDim = num("attention.key_length", uint64(c.Dim/c.Heads))
		if n := num("rope.dimension_count", uint64(c.HeadDim)); first == nil && n != c.HeadDim {
			return c, fmt.Errorf("llama.rope.dimension_count is %d, this program rotates whole heads of %d", n, c.HeadDim)
		}
	}
	if n := num("expert_count", 0); first == nil && n != 0 {
		return c, fmt.Errorf("llama.expert_count is %d, this program runs no mixtures of experts", n)
	}
	if first != nil {
		return c, first
	}
	t, ok := f.Tensor("token_embd.weight")
	if !ok || len(t.Shape) != 2 {
		return c, fmt.Errorf("tensor token_embd.weight is missing or no matrix")
	}
	c.Vocab = t.Shape[0]
	_, separate := f.Tensor("output.weight")
	c.Tied = !separate
	return c, c.Validate()
}
