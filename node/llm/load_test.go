package llm

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/node/llm/gguf"
	"github.com/ruche-federation/ruche/node/llm/safetensors"
	"github.com/ruche-federation/ruche/node/llm/tokenizer"
	"github.com/ruche-federation/ruche/testdata/shared"
)

// smallConfig is a config.json of a LLaMA of 1 layer; change alters or, with nil, removes keys.
func smallConfig(t testing.TB, change map[string]any) []byte {
	t.Helper()
	c := map[string]any{"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "hidden_act": "silu", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
		"num_key_value_heads": 1, "intermediate_size": 12, "vocab_size": 20, "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "rope_theta": 10000.0, "rope_scaling": nil}
	for k, v := range change {
		if v == "absent" {
			delete(c, k)
		} else {
			c[k] = v
		}
	}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// refused wants an error that says all of parts.
func refused(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("accepted, want an error with %q", parts)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q lacks %q", err, p)
		}
	}
}

func TestConfigRefusals(t *testing.T) {
	type change = map[string]any
	for _, x := range []struct {
		want   string
		change change
	}{
		{`model_type is "gpt2", this program runs`, change{"model_type": "gpt2"}},
		{`model_type is ""`, change{"model_type": "absent"}},
		{`architectures names "LlamaForSequenceClassification"`, change{"architectures": []string{"LlamaForSequenceClassification"}}},
		{`hidden_act is "gelu"`, change{"hidden_act": "gelu"}},
		{"attention_bias is set", change{"attention_bias": true}},
		{"mlp_bias is set", change{"mlp_bias": true}},
		{"rope_interleaved is set", change{"rope_interleaved": true}},
		{"partial_rotary_factor is 0.5", change{"partial_rotary_factor": 0.5}},
		{"hidden_size is 0, it must lie in [1, 65536]", change{"hidden_size": "absent", "head_dim": 4}},
		{"hidden_size is 65537", change{"hidden_size": 65537, "head_dim": 4}},
		{"hidden_size is -8", change{"hidden_size": -8}},
		{"num_hidden_layers is 1025, it must lie in [1, 1024]", change{"num_hidden_layers": 1025}},
		{"head_dim is missing", change{"num_attention_heads": 0}},
		{"hidden_size 8 is no multiple of num_attention_heads 3", change{"num_attention_heads": 3}},
		{"num_attention_heads (2) is no multiple of num_key_value_heads (3)", change{"num_key_value_heads": 3}},
		{"num_key_value_heads is 0", change{"num_key_value_heads": 0}},
		{"head_dim is 3, rotary embeddings want an even one", change{"head_dim": 3}},
		{"num_attention_heads x head_dim is 4294967296, limit 262144", change{"num_attention_heads": 65536, "head_dim": 65536}},
		{"intermediate_size is 0", change{"intermediate_size": "absent"}},
		{"vocab_size is 1048577, it must lie in [1, 1048576]", change{"vocab_size": 1<<20 + 1}},
		{"max_position_embeddings is 0", change{"max_position_embeddings": "absent"}},
		{"rms_norm_eps is 0, it must lie in (0, 1)", change{"rms_norm_eps": 0}},
		{"rms_norm_eps is 1", change{"rms_norm_eps": 1}},
		{"rope_theta is 0.5, it must lie in [1, 1e12]", change{"rope_theta": 0.5}},
		{`rope_scaling is of type "yarn", this program runs default and llama3`, change{"rope_scaling": change{"rope_type": "yarn", "factor": 2}}},
		{`rope_scaling is of type "linear"`, change{"rope_scaling": change{"type": "linear", "factor": 2}}},
		{"rope_scaling of type llama3 has no factor", change{"rope_scaling": change{"rope_type": "llama3"}}},
		{"rope_scaling of type llama3 is out of range", change{"rope_parameters": change{"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1, "original_max_position_embeddings": 8}}},
		{"num_key_value_heads is missing", change{"model_type": "mistral", "num_key_value_heads": "absent", "sliding_window": nil}},
		{"num_key_value_heads is missing", change{"model_type": "qwen2", "num_key_value_heads": "absent"}},
		{"head_dim is missing", change{"model_type": "qwen3"}},
		{"use_sliding_window is set, this program runs Qwen without", change{"model_type": "qwen2", "use_sliding_window": true}},
		{"use_sliding_window is set", change{"model_type": "qwen2", "layer_types": []string{"full_attention", "sliding_attention"}}},
		{"sliding_window is missing", change{"model_type": "mistral"}},
		{"sliding_window is -1, it must be null or lie in [1, 1048576]", change{"model_type": "mistral", "sliding_window": -1}},
		{"sliding_window is 2.5", change{"model_type": "mistral", "sliding_window": 2.5}},
		{"hidden_size of type int", change{"hidden_size": "eight"}},
	} {
		_, err := parseConfig(smallConfig(t, x.change))
		refused(t, err, x.want)
	}
	for _, bad := range []string{"", "{", "[]", string(smallConfig(t, nil)) + "x"} {
		if _, err := parseConfig([]byte(bad)); err == nil {
			t.Errorf("%.20q is accepted", bad)
		}
	}
}

// TestConfigDefaults: where a file is silent, the value is transformers'.
func TestConfigDefaults(t *testing.T) {
	c, err := parseConfig(smallConfig(t, map[string]any{"num_key_value_heads": "absent", "rms_norm_eps": "absent", "rope_theta": "absent", "tie_word_embeddings": "absent", "hidden_act": "absent", "sliding_window": 7}))
	want := Config{Dim: 8, Layers: 1, Heads: 2, KVHeads: 2, HeadDim: 4, Hidden: 12, Vocab: 20, Context: 32, NormEps: 1e-6, Rope: Rope{Theta: 10000}}
	if err != nil || c != want {
		t.Errorf("%+v, %v, want %+v", c, err, want)
	}
	for window, n := range map[any]int{nil: 0, 7: 7} {
		if c, err = parseConfig(smallConfig(t, map[string]any{"model_type": "mistral", "sliding_window": window})); err != nil || c.Window != n {
			t.Errorf("sliding_window %v is read as %d, %v", window, c.Window, err)
		}
	}
}

// smallFolder writes a Hugging Face folder. edit may change the tensors before they are written.
func smallFolder(t testing.TB, config []byte, edit func(x map[string]*safetensors.Values)) string {
	t.Helper()
	c, err := parseConfig(smallConfig(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]*safetensors.Values{}
	for _, p := range randomModel(t, c, 1).Params() {
		byName[p.Name] = &safetensors.Values{Name: p.Name, Shape: p.Shape, Data: slices.Clone(p.Data)}
	}
	if edit != nil {
		edit(byName)
	}
	var list []safetensors.Values
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		list = append(list, *byName[name])
	}
	dir := t.TempDir()
	if err := safetensors.WriteFile(filepath.Join(dir, "model.safetensors"), list, map[string]string{"format": "pt"}); err != nil {
		t.Fatal(err)
	}
	if config != nil {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFolderRefusals(t *testing.T) {
	const q = "model.layers.0.self_attn.q_proj.weight"
	type tensors = map[string]*safetensors.Values
	for _, x := range []struct {
		want   []string
		config map[string]any
		edit   func(tensors)
	}{
		{[]string{q}, nil, func(x tensors) { delete(x, q) }},
		{[]string{"tensor " + q + " has shape [4 16], want [8 8]"}, nil, func(x tensors) { x[q].Shape = []int{4, 16} }},
		{[]string{"tensor " + q + " has shape [64], want [8 8]"}, nil, func(x tensors) { x[q].Shape = []int{64} }},
		{[]string{"tensor " + q + ": value 5 is NaN"}, nil, func(x tensors) { x[q].Data[5] = float32(math.NaN()) }},
		{[]string{"tensor model.norm.weight: value 7 is -Inf"}, nil, func(x tensors) { x["model.norm.weight"].Data[7] = float32(math.Inf(-1)) }},
		{[]string{"tensor model.embed_tokens.weight has shape [20 8], want [21 8]"}, map[string]any{"vocab_size": 21}, nil},
		{[]string{"model.layers.1.input_layernorm.weight"}, map[string]any{"num_hidden_layers": 2}, nil},
		{[]string{"tie_word_embeddings is false and lm_head.weight is missing"}, map[string]any{"tie_word_embeddings": false}, nil},
		{[]string{"tensor model.layers.0.self_attn.q_proj.bias belongs to an architecture that this program does not run"}, nil, func(x tensors) {
			x["b"] = &safetensors.Values{Name: "model.layers.0.self_attn.q_proj.bias", Shape: []int{8}, Data: make([]float32, 8)}
		}},
		{[]string{"model.layers.0.self_attn.q_proj.bias"}, map[string]any{"model_type": "qwen2"}, nil},
		{[]string{"model.layers.0.self_attn.q_norm.weight"}, map[string]any{"model_type": "qwen3", "head_dim": 4}, nil},
		{[]string{"tensor model.layers.1.mlp.up_proj.weight belongs to"}, nil, func(x tensors) {
			x["b"] = &safetensors.Values{Name: "model.layers.1.mlp.up_proj.weight", Shape: []int{1}, Data: make([]float32, 1)}
		}},
	} {
		dir := smallFolder(t, smallConfig(t, x.config), x.edit)
		_, err := loadFolder(dir)
		refused(t, err, append(x.want, dir)...)
	}
	// A head that tying overrules and the angles of older exporters change nothing.
	dir := smallFolder(t, smallConfig(t, nil), func(x tensors) {
		x["a"] = &safetensors.Values{Name: "lm_head.weight", Shape: []int{20, 8}, Data: make([]float32, 160)}
		x["b"] = &safetensors.Values{Name: "model.layers.0.self_attn.rotary_emb.inv_freq", Shape: []int{2}, Data: make([]float32, 2)}
	})
	if _, err := loadFolder(dir); err != nil {
		t.Error(err)
	}
	// Without tokenizer, config or weights.
	_, _, _, err := Load(dir, LoadOptions{})
	refused(t, err, "has no usable tokenizer", dir)
	dir = smallFolder(t, nil, nil)
	_, _, _, err = Load(dir, LoadOptions{})
	refused(t, err, filepath.Join(dir, "config.json"))
	dir = smallFolder(t, []byte("{"), nil)
	_, _, _, err = Load(dir, LoadOptions{})
	refused(t, err, filepath.Join(dir, "config.json"))
	dir = smallFolder(t, bytes.Repeat([]byte(" "), configMax+1), nil)
	_, _, _, err = Load(dir, LoadOptions{})
	refused(t, err, filepath.Join(dir, "config.json"), "has more than 1048576 bytes")
	dir = smallFolder(t, smallConfig(t, nil), nil)
	if err := os.Remove(filepath.Join(dir, "model.safetensors")); err != nil {
		t.Fatal(err)
	}
	_, _, _, err = Load(dir, LoadOptions{})
	refused(t, err, dir, "holds no model.safetensors")
	_, _, _, err = Load(filepath.Join(dir, "nothing"), LoadOptions{})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a path that is not there: %v", err)
	}
}

// TestTokenizerMustFitTheModel: a vocabulary of more tokens than the model has rows would index beyond them.
func TestTokenizerMustFitTheModel(t *testing.T) {
	dir := smallFolder(t, smallConfig(t, nil), nil) // 20 tokens
	var vocab []string
	for b := range 256 {
		vocab = append(vocab, tokenizer.Symbols(string([]byte{byte(b)})))
	}
	tok, err := tokenizer.NewByteLevel(append(vocab, "<s>", "</s>"), nil, "<s>", "</s>")
	if err != nil {
		t.Fatal(err)
	}
	if err := tok.WriteHF(dir); err != nil {
		t.Fatal(err)
	}
	_, _, _, err = Load(dir, LoadOptions{})
	refused(t, err, dir, "the tokenizer has 258 tokens, the model 20")
}

// TestTheHashFollowsTheModel: what decides the computation changes it, what stands beside does not.
func TestTheHashFollowsTheModel(t *testing.T) {
	dir := smallFolder(t, smallConfig(t, nil), nil)
	hash := func() string {
		h, err := hashFolder(dir)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	before := hash()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if write("README.md", "words"); hash() != before {
		t.Error("a README changes the hash")
	}
	if write("tokenizer.json", "{}"); hash() == before {
		t.Error("a tokenizer does not change the hash")
	}
	before = hash()
	if write("config.json", string(smallConfig(t, map[string]any{"rope_theta": 10001}))); hash() == before {
		t.Error("another rope_theta does not change the hash")
	}
}

// smallBin is a llama2.c file of the given header, with as many weights as it says.
func smallBin(header [7]int32) []byte {
	c, err := binConfig(header)
	if err != nil {
		panic(err)
	}
	var b bytes.Buffer
	binary.Write(&b, binary.LittleEndian, header)
	values := make([]float32, c.Parameters()+c.Context*c.HeadDim)
	for i := range values {
		values[i] = float32(i%17-8) / 16
	}
	binary.Write(&b, binary.LittleEndian, values)
	return b.Bytes()
}

var smallHeader = [7]int32{8, 12, 1, 2, 1, 20, 16} // dim, hidden, layers, heads, kv heads, vocabulary, context

func TestBinRefusals(t *testing.T) {
	load := func(b []byte) (*Model, error) {
		path := filepath.Join(t.TempDir(), "m.bin")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := loadBin(path, int64(len(b)))
		if err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("error %q does not name the file", err)
		}
		return m, err
	}
	good := smallBin(smallHeader)
	m, err := load(good)
	if err != nil || m.Parameters()*4+16*4*4+28 != len(good) {
		t.Fatalf("%v, %d bytes", err, len(good))
	}
	separate := smallHeader
	separate[5] = -20
	if m, err := load(smallBin(separate)); err != nil || m.Tied || m.head[0] == m.embed[0] {
		t.Errorf("a separate head: %v", err)
	}
	_, err = load(good[:20])
	refused(t, err, "the header of a llama2.c model has 28 bytes")
	_, err = load(good[:len(good)-4])
	refused(t, err, "a llama2.c model of its header has")
	_, err = load(append(slices.Clone(good), 0))
	refused(t, err, "a llama2.c model of its header has")
	for i, x := range []struct {
		value int32
		want  string
	}{{0, "hidden_size is 0"}, {-1, "intermediate_size is -1"}, {2000, "num_hidden_layers is 2000, it must lie in [1, 1024]"}, {3, "dim 8 is no multiple of n_heads 3"}, {math.MaxInt32, "num_key_value_heads is 2147483647"}, {math.MinInt32, "vocab_size is 2147483648"}, {0, "max_position_embeddings is 0"}} {
		b := slices.Clone(good)
		binary.LittleEndian.PutUint32(b[4*i:], uint32(x.value))
		_, err := load(b)
		refused(t, err, x.want)
	}
	// A header that asks for terabytes is refused by the size of the file, before anything is made.
	huge := slices.Clone(good)
	for i, v := range [7]int32{1 << 16, 1 << 18, 1 << 10, 1 << 10, 1 << 10, 1 << 20, 1 << 20} {
		binary.LittleEndian.PutUint32(huge[4*i:], uint32(v))
	}
	_, err = load(huge)
	refused(t, err, "a llama2.c model of its header has")
	nan := slices.Clone(good)
	binary.LittleEndian.PutUint32(nan[28+4*100:], math.Float32bits(float32(math.NaN())))
	_, err = load(nan)
	refused(t, err, "the weight at byte 428 is NaN")

	path := filepath.Join(t.TempDir(), "m.bin")
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, _, err = Load(path, LoadOptions{})
	refused(t, err, path, "carries no tokenizer: name its file")
}

func TestGGUFRefusals(t *testing.T) {
	source, err := gguf.Open(shared.Path(t, "models", "stories260K", "stories260K-f32.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	type keys = map[string]any
	load := func(change keys, edit func(name string, v *gguf.Values) bool) error {
		var list []gguf.KeyValue
		for _, k := range source.Keys() {
			v, _ := source.Value(k)
			if c, ok := change[k]; ok {
				if c == nil {
					continue
				}
				v = c
			}
			list = append(list, gguf.KeyValue{Key: k, Value: v})
		}
		for k, v := range change {
			if !source.Has(k) {
				list = append(list, gguf.KeyValue{Key: k, Value: v})
			}
		}
		var tensors []gguf.Values
		for _, name := range source.Names() {
			data, shape, err := source.Float32(name)
			if err != nil {
				t.Fatal(err)
			}
			v := gguf.Values{Name: name, Shape: shape, Data: data}
			if edit == nil || edit(name, &v) {
				tensors = append(tensors, v)
			}
		}
		path := filepath.Join(t.TempDir(), "m.gguf")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := gguf.Write(f, list, tensors); err != nil {
			t.Fatal(err)
		}
		_, _, _, err = Load(path, LoadOptions{})
		if err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("error %q does not name the file", err)
		}
		return err
	}
	if err := load(nil, nil); err != nil {
		t.Fatalf("the file written again: %v", err)
	}
	for _, k := range []string{"general.architecture", "llama.embedding_length", "llama.block_count", "llama.attention.head_count", "llama.feed_forward_length", "llama.context_length", "llama.attention.layer_norm_rms_epsilon"} {
		refused(t, load(keys{k: nil}, nil), k)
	}
	for _, x := range []struct {
		want   string
		change keys
	}{
		{`general.architecture is "gpt2", this program runs`, keys{"general.architecture": "gpt2"}},
		{"llama.embedding_length", keys{"llama.embedding_length": "wide"}},
		{"num_hidden_layers is 1073741824", keys{"llama.block_count": uint64(math.MaxUint64)}},
		{"num_attention_heads is 0", keys{"llama.attention.head_count": uint32(0), "llama.attention.head_count_kv": uint32(1)}},
		{"llama.rope.dimension_count is 4, this program rotates whole heads of 8", keys{"llama.rope.dimension_count": uint32(4)}},
		{"llama.expert_count is 8", keys{"llama.expert_count": uint32(8)}},
		{`llama.rope.scaling.type is "yarn"`, keys{"llama.rope.scaling.type": "yarn"}},
		{"rms_norm_eps is 2", keys{"llama.attention.layer_norm_rms_epsilon": float32(2)}},
		{"blk.5.attn_norm.weight", keys{"llama.block_count": uint32(6)}},
		{"tensor blk.4.", keys{"llama.block_count": uint32(4)}},
		{"has shape", keys{"llama.feed_forward_length": uint32(171)}},
	} {
		refused(t, load(x.change, nil), x.want)
	}
	refused(t, load(nil, func(name string, _ *gguf.Values) bool { return name != "token_embd.weight" }), "tensor token_embd.weight is missing")
	refused(t, load(nil, func(name string, _ *gguf.Values) bool { return name != "blk.2.ffn_up.weight" }), "blk.2.ffn_up.weight")
	refused(t, load(nil, func(name string, v *gguf.Values) bool {
		if name == "output_norm.weight" {
			v.Data[3] = float32(math.NaN())
		}
		return true
	}), "tensor output_norm.weight: value 3 is NaN")
	refused(t, load(nil, func(name string, v *gguf.Values) bool {
		if name == "blk.0.attn_q.weight" {
			v.Name = "blk.0.attn_q.bias"
		}
		return true
	}), "blk.0.attn_q.weight")
}

// FuzzParseConfig: no text makes a config that the engine cannot hold.
func FuzzParseConfig(f *testing.F) {
	f.Add(smallConfig(f, nil))
	f.Add(smallConfig(f, map[string]any{"model_type": "mistral", "sliding_window": 3}))
	f.Add(smallConfig(f, map[string]any{"rope_scaling": map[string]any{"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8}}))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseConfig(b)
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("accepted and invalid: %v", err)
		}
		if c.Parameters() < 1 {
			t.Fatalf("%d parameters", c.Parameters())
		}
	})
}

// FuzzBin: whatever a file says, what is made for it is no larger than the file.
func FuzzBin(f *testing.F) {
	f.Add(smallBin(smallHeader))
	f.Add(smallBin([7]int32{4, 3, 2, 2, 2, -5, 3}))
	f.Add(smallBin(smallHeader)[:40])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "m.bin")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := loadBin(path, int64(len(b)))
		if err != nil {
			return
		}
		if m.Parameters()*4 > len(b) {
			t.Fatalf("%d parameters from %d bytes", m.Parameters(), len(b))
		}
		s, err := m.NewSession(nil, 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Feed(0); err != nil {
			t.Fatal(err)
		}
	})
}
