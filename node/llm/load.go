package llm

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/ruche-federation/ruche/node/llm/gguf"
	"github.com/ruche-federation/ruche/node/llm/safetensors"
	"github.com/ruche-federation/ruche/node/llm/tokenizer"
)

// Source says what was loaded.
type Source struct {
	Path       string
	SHA256     string // of the model file; of a folder, over the sorted lines "sha256  name\n" of config.json, tokenizer.json and weights
	Parameters int
}

// LoadOptions are what the file itself does not say.
type LoadOptions struct {
	Tokenizer string // the tokenizer of a llama2.c .bin; otherwise replaces the model's own
}

// Load reads a model and its tokenizer: a Hugging Face folder, a GGUF file or a llama2.c .bin, told apart by content.
func Load(path string, opts LoadOptions) (*Model, *tokenizer.Tokenizer, Source, error) {
	fail := func(err error) (*Model, *tokenizer.Tokenizer, Source, error) { return nil, nil, Source{}, err }
	info, err := os.Stat(path)
	if err != nil {
		return fail(err)
	}
	var m *Model
	var tok *tokenizer.Tokenizer
	var sum string
	switch {
	case info.IsDir():
		if m, err = loadFolder(path); err != nil {
			return fail(err)
		}
		if opts.Tokenizer == "" {
			if tok, err = tokenizer.Load(path); err != nil {
				return fail(fmt.Errorf("model folder %s has no usable tokenizer: %w", path, err))
			}
		}
		sum, err = hashFolder(path)
	case hasMagic(path, "GGUF"):
		m, tok, err = loadGGUF(path, opts.Tokenizer == "")
		if err == nil {
			sum, err = hashFile(path)
		}
	default:
		if m, err = loadBin(path, info.Size()); err != nil {
			return fail(err)
		}
		if opts.Tokenizer == "" {
			return fail(fmt.Errorf("%s is a llama2.c model, which carries no tokenizer: name its file (tok512.bin or the like)", path))
		}
		sum, err = hashFile(path)
	}
	if err != nil {
		return fail(err)
	}
	if opts.Tokenizer != "" {
		if tok, err = loadTokenizer(opts.Tokenizer, m.Vocab); err != nil {
			return fail(err)
		}
	}
	if tok.VocabSize() > m.Vocab {
		return fail(fmt.Errorf("%s: the tokenizer has %d tokens, the model %d", path, tok.VocabSize(), m.Vocab))
	}
	return m, tok, Source{Path: path, SHA256: sum, Parameters: m.Parameters()}, nil
}

func loadTokenizer(path string, vocab int) (*tokenizer.Tokenizer, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() || strings.HasSuffix(path, ".json") {
		return tokenizer.Load(path)
	}
	if hasMagic(path, "GGUF") {
		f, err := gguf.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return tokenizer.FromGGUF(f)
	}
	return tokenizer.LoadLlama2c(path, vocab)
}

func hasMagic(path, magic string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	b := make([]byte, len(magic))
	_, err = io.ReadFull(f, b)
	return err == nil && string(b) == magic
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// hashFolder names what decides a model's behaviour: two folders with equal hashes compute the same.
func hashFolder(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var lines []string
	for _, e := range entries {
		n := e.Name()
		if n != "config.json" && n != "tokenizer.json" && !strings.HasSuffix(n, ".safetensors") {
			continue
		}
		s, err := hashFile(filepath.Join(dir, n))
		if err != nil {
			return "", err
		}
		lines = append(lines, s+"  "+n+"\n")
	}
	sort.Strings(lines)
	h := sha256.Sum256([]byte(strings.Join(lines, "")))
	return hex.EncodeToString(h[:]), nil
}

func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return b, nil
}

// tensorOf reads a tensor and checks its shape, and that its values are finite.
func tensorOf(f interface {
	Float32(name string) ([]float32, []int, error)
}, name string, shape ...int) ([]float32, error) {
	v, got, err := f.Float32(name)
	if err != nil {
		return nil, err
	}
	if len(got) != len(shape) {
		return nil, fmt.Errorf("tensor %s has shape %v, want %v", name, got, shape)
	}
	for i := range shape {
		if got[i] != shape[i] {
			return nil, fmt.Errorf("tensor %s has shape %v, want %v", name, got, shape)
		}
	}
	for i, x := range v {
		if x-x != 0 {
			return nil, fmt.Errorf("tensor %s: value %d is %v", name, i, x)
		}
	}
	return v, nil
}

func loadFolder(dir string) (*Model, error) {
	c, err := readConfig(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, err
	}
	f, err := safetensors.OpenIndexed(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("model folder %s holds no model.safetensors: %w", dir, err)
		}
		return nil, err
	}
	defer f.Close()
	if !c.Tied {
		if _, ok := f.Tensor("lm_head.weight"); !ok {
			return nil, fmt.Errorf("%s: tie_word_embeddings is false and lm_head.weight is missing", dir)
		}
	}
	// What older exporters add: angles that nobody reads, and a head that tying overrules.
	read := map[string]bool{"lm_head.weight": c.Tied}
	for l := range c.Layers {
		read[moduleName(l, "self_attn.rotary_emb.inv_freq")] = true
	}
	m, err := assemble(c, func(name string, shape []int) ([]float32, error) {
		read[name] = true
		return tensorOf(f, name, shape...)
	})
	if err == nil {
		err = allRead(f.Names(), read)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return m, nil
}

// allRead says which tensor was left over: biases or experts would change the computation.
func allRead(names []string, read map[string]bool) error {
	for _, name := range names {
		if !read[name] {
			return fmt.Errorf("tensor %s belongs to an architecture that this program does not run", name)
		}
	}
	return nil
}

// assemble builds a model tensor by tensor, by the names of Params.
func assemble(c Config, read func(name string, shape []int) ([]float32, error)) (*Model, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	m := &Model{Config: c, layers: make([]layer, c.Layers)}
	var err error
	get := func(dst *[]float32, name string, shape ...int) {
		if err != nil {
			return
		}
		*dst, err = read(name, shape)
	}
	get(&m.embed, "model.embed_tokens.weight", c.Vocab, c.Dim)
	for l := range m.layers {
		y := &m.layers[l]
		get(&y.attnNorm, moduleName(l, "input_layernorm.weight"), c.Dim)
		get(&y.ffnNorm, moduleName(l, "post_attention_layernorm.weight"), c.Dim)
		for i, name := range linearNames {
			out, in := c.linearShape(i)
			get(&y.w[i], moduleName(l, name)+".weight", out, in)
			if c.hasBias(i) {
				get(&y.bias[i], moduleName(l, name)+".bias", out)
			}
			if c.hasHeadNorm(i) {
				get(&y.headNorm[i], headNormName(l, i), c.HeadDim)
			}
		}
	}
	get(&m.norm, "model.norm.weight", c.Dim)
	if m.head = m.embed; !c.Tied {
		get(&m.head, "lm_head.weight", c.Vocab, c.Dim)
	}
	if err != nil {
		return nil, err
	}
	m.prepare()
	return m, nil
}

// unpermute turns q or k rows from pairs side by side, as llama2.c and GGUF store LLaMA, into rotate_half order: row
// (h, 2i+j) becomes row (h, j·hd/2+i).
func unpermute(w []float32, heads, hd, in int) []float32 {
	out := make([]float32, len(w))
	for h := range heads {
		for i := range hd / 2 {
			for j := range 2 {
				copy(out[(h*hd+j*hd/2+i)*in:][:in], w[(h*hd+2*i+j)*in:][:in])
			}
		}
	}
	return out
}

// ggufNames are the tensors of a LLaMA GGUF, by the end of the Hugging Face name.
var ggufNames = map[string]string{
	"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
	"self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}

func loadGGUF(path string, wantTokenizer bool) (*Model, *tokenizer.Tokenizer, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	c, err := ggufConfig(f)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	read := map[string]bool{}
	m, err := assemble(c, func(name string, shape []int) ([]float32, error) {
		stored := name
		switch name {
		case "model.embed_tokens.weight":
			stored = "token_embd.weight"
		case "model.norm.weight":
			stored = "output_norm.weight"
		case "lm_head.weight":
			stored = "output.weight"
		default:
			rest := strings.TrimSuffix(strings.TrimPrefix(name, "model.layers."), ".weight")
			l, module, _ := strings.Cut(rest, ".")
			stored = "blk." + l + "." + ggufNames[module] + ".weight"
		}
		v, err := tensorOf(f, stored, shape...)
		if err != nil {
			return nil, err
		}
		read[stored] = true
		switch {
		case strings.HasSuffix(name, linearNames[linQ]+".weight"):
			v = unpermute(v, c.Heads, c.HeadDim, c.Dim)
		case strings.HasSuffix(name, linearNames[linK]+".weight"):
			v = unpermute(v, c.KVHeads, c.HeadDim, c.Dim)
		}
		return v, nil
	})
	if err == nil {
		err = allRead(f.Names(), read)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	if !wantTokenizer {
		return m, nil, nil
	}
	tok, err := tokenizer.FromGGUF(f)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, tok, nil
}

// loadBin reads llama2.c's first format: seven int32, then float32 tensors, layer by layer within each kind. A negative
// vocabulary says that the head is separate.
func loadBin(path string, size int64) (*Model, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r := bufio.NewReaderSize(file, 1<<20)
	var h [7]int32
	if err := binary.Read(r, binary.LittleEndian, &h); err != nil {
		return nil, fmt.Errorf("%s: the header of a llama2.c model has 28 bytes: %w", path, err)
	}
	c, err := binConfig(h)
	if err != nil {
		return nil, fmt.Errorf("%s is neither a folder, nor GGUF, nor a llama2.c model: %w", path, err)
	}
	// After the weights come two tables of rotary angles that nobody reads any more.
	want := 28 + 4*(int64(c.Parameters())+int64(c.Context)*int64(c.HeadDim))
	if size != want {
		return nil, fmt.Errorf("%s has %d bytes, a llama2.c model of its header has %d", path, size, want)
	}
	m, err := NewModel(c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	buf := make([]byte, 1<<16)
	at := 28
	read := func(dst []float32) error {
		for len(dst) > 0 {
			k := min(len(dst), len(buf)/4)
			if _, err := io.ReadFull(r, buf[:4*k]); err != nil {
				return err
			}
			for i := range k {
				v := math.Float32frombits(binary.LittleEndian.Uint32(buf[4*i:]))
				if v-v != 0 {
					return fmt.Errorf("the weight at byte %d is %v", at+4*i, v)
				}
				dst[i] = v
			}
			at += 4 * k
			dst = dst[k:]
		}
		return nil
	}
	parts := []func(*layer) []float32{func(y *layer) []float32 { return y.attnNorm }}
	for _, i := range []int{linQ, linK, linV, linO} {
		parts = append(parts, func(y *layer) []float32 { return y.w[i] })
	}
	parts = append(parts, func(y *layer) []float32 { return y.ffnNorm })
	for _, i := range []int{linGate, linDown, linUp} { // w1, w2, w3
		parts = append(parts, func(y *layer) []float32 { return y.w[i] })
	}
	err = read(m.embed)
	for _, part := range parts {
		for l := range m.layers {
			if err == nil {
				err = read(part(&m.layers[l]))
			}
		}
	}
	if err == nil {
		err = read(m.norm)
	}
	if err == nil && !c.Tied {
		var skipped int64
		skipped, err = io.CopyN(io.Discard, r, 4*int64(c.Context)*int64(c.HeadDim))
		at += int(skipped)
		if err == nil {
			err = read(m.head)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for l := range m.layers {
		y := &m.layers[l]
		y.w[linQ] = unpermute(y.w[linQ], c.Heads, c.HeadDim, c.Dim)
		y.w[linK] = unpermute(y.w[linK], c.KVHeads, c.HeadDim, c.Dim)
	}
	return m, nil
}

// binConfig reads dim, hidden, layers, heads, kv heads, vocabulary and context. What the header does not say is LLaMA's.
func binConfig(h [7]int32) (Config, error) {
	c := Config{Dim: int(h[0]), Hidden: int(h[1]), Layers: int(h[2]), Heads: int(h[3]), KVHeads: int(h[4]), Vocab: int(h[5]), Context: int(h[6]),
		NormEps: 1e-5, Rope: Rope{Theta: 10000}, Tied: true}
	if c.Vocab < 0 {
		c.Vocab, c.Tied = -c.Vocab, false
	}
	if c.Heads < 1 || c.Dim%c.Heads != 0 {
		return c, fmt.Errorf("dim %d is no multiple of n_heads %d", c.Dim, c.Heads)
	}
	c.HeadDim = c.Dim / c.Heads
	return c, c.Validate()
}
