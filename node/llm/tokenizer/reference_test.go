package tokenizer

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/node/llm/gguf"
	"github.com/ruche-federation/ruche/testdata/shared"
)

func load(t testing.TB, elem ...string) *Tokenizer {
	t.Helper()
	tok, err := Load(shared.Path(t, elem...))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func loadGGUF(t testing.TB, elem ...string) *Tokenizer {
	t.Helper()
	f, err := gguf.Open(shared.Path(t, elem...))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tok, err := FromGGUF(f)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func loadLlama2c(t testing.TB) *Tokenizer {
	t.Helper()
	tok, err := LoadLlama2c(shared.Path(t, "models", "stories260K", "tok512.bin"), 512)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// references reads the texts of an .inp file and the ids of its .out file.
func references(t *testing.T, name string) (texts []string, ids [][]int32) {
	t.Helper()
	inp, err := os.ReadFile(shared.Path(t, "tokenizers", "references", name+".inp"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.ReadFile(shared.Path(t, "tokenizers", "references", name+".out"))
	if err != nil {
		t.Fatal(err)
	}
	texts = strings.Split(string(inp), "\n__ggml_vocab_test__\n")
	lines := strings.Split(string(out), "\n")
	if len(texts) != len(lines) || len(texts) < 40 {
		t.Fatalf("%s: %d texts, %d lines of ids", name, len(texts), len(lines))
	}
	for _, line := range lines {
		var row []int32
		for _, field := range strings.Fields(line) {
			n, err := strconv.ParseInt(field, 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			row = append(row, int32(n))
		}
		ids = append(ids, row)
	}
	return texts, ids
}

// llama.cpp keeps, for each of these vocabularies, 47 texts with the ids that the original tokenizer gives.
func TestReferences(t *testing.T) {
	for _, c := range []struct {
		name string
		read func(*testing.T) *Tokenizer
	}{
		{"gpt-2", func(t *testing.T) *Tokenizer { return loadGGUF(t, "tokenizers", "gpt2", "ggml-vocab-gpt-2.gguf") }},
		{"qwen2", func(t *testing.T) *Tokenizer { return load(t, "tokenizers", "qwen2.5") }},
		{"llama-spm", func(t *testing.T) *Tokenizer {
			return loadGGUF(t, "tokenizers", "llama2-spm", "ggml-vocab-llama-spm.gguf")
		}},
		{"llama-spm", func(t *testing.T) *Tokenizer {
			return load(t, "tokenizers", "llama2-spm", "tinyllama_tokenizer.json")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tok := c.read(t)
			texts, ids := references(t, "ggml-vocab-"+c.name+".gguf")
			for i, text := range texts {
				if got := tok.Encode(text); !slices.Equal(got, ids[i]) {
					t.Errorf("text %d, %q:\n got %v\nwant %v", i, text, got, ids[i])
				}
				if got := tok.Decode(ids[i]); got != text {
					t.Errorf("ids of text %d decode to %q, want %q", i, got, text)
				}
			}
		})
	}
}

// The same vocabulary in three forms of file gives the ids that transformers gives.
func TestStories(t *testing.T) {
	raw, err := os.ReadFile(shared.Path(t, "models", "stories260K", "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Tokenizer []struct {
			Text string
			IDs  []int32
		}
	}
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	if len(golden.Tokenizer) != 20 {
		t.Fatalf("%d cases", len(golden.Tokenizer))
	}
	forms := map[string]*Tokenizer{
		"hf":     load(t, "models", "stories260K", "hf"),
		"gguf":   loadGGUF(t, "models", "stories260K", "stories260K-f32.gguf"),
		"llama2": loadLlama2c(t),
	}
	for name, tok := range forms {
		if tok.VocabSize() != 512 || tok.BOS() != 1 || tok.EOS() != 2 || !tok.AddBOS() {
			t.Errorf("%s: %d ids, BOS %d (added: %v), EOS %d", name, tok.VocabSize(), tok.BOS(), tok.AddBOS(), tok.EOS())
		}
		for _, c := range golden.Tokenizer {
			if got := tok.Encode(c.Text); !slices.Equal(got, c.IDs) && !(name == "llama2" && strings.Contains(c.Text, meta)) {
				t.Errorf("%s: %q:\n got %v\nwant %v", name, c.Text, got, c.IDs)
			}
			if got := tok.Decode(append([]int32{tok.BOS()}, c.IDs...)); got != c.Text {
				t.Errorf("%s: ids of %q decode to %q", name, c.Text, got)
			}
		}
	}
	// U+2581 is a space to Hugging Face's form and three bytes to llama2.c's.
	if got := forms["hf"].Encode("a▁b"); !slices.Equal(got, forms["hf"].Encode("a b")) {
		t.Errorf("hf: %v", got)
	}
	if got := forms["llama2"].Decode(forms["llama2"].Encode("a▁b")); got != "a▁b" {
		t.Errorf("llama2.c: %q", got)
	}
}

func TestSpecialTokensOfPublishedVocabularies(t *testing.T) {
	q := load(t, "tokenizers", "qwen2.5")
	if q.BOS() != -1 || q.EOS() != 151645 || q.AddBOS() || q.VocabSize() != 151665 {
		t.Errorf("qwen2.5: BOS %d, EOS %d, %d ids", q.BOS(), q.EOS(), q.VocabSize())
	}
	turn := "<|im_start|>user\nHi<|im_end|>\n<tool_call>"
	if got, want := q.EncodeSpecial(turn), []int32{151644, 872, 198, 13048, 151645, 198, 151657}; !slices.Equal(got, want) {
		t.Errorf("a template: got %v, want %v", got, want)
	}
	for _, id := range q.Encode(turn) {
		if id >= 151643 {
			t.Errorf("text became token %d, %q", id, q.Piece(id))
		}
	}
	if got := q.Decode(q.Encode(turn)); got != turn {
		t.Errorf("text came back as %q", got)
	}
	if got := q.Decode(q.EncodeSpecial(turn)); got != "user\nHi\n<tool_call>" {
		t.Errorf("control tokens print: %q", got)
	}
	g := loadGGUF(t, "tokenizers", "gpt2", "ggml-vocab-gpt-2.gguf")
	if g.BOS() != 50256 || g.EOS() != 50256 || g.AddBOS() {
		t.Errorf("gpt-2: BOS %d, EOS %d", g.BOS(), g.EOS())
	}
	if id, ok := g.ID("<|endoftext|>"); id != 50256 || !ok || !g.IsControl(id) {
		t.Error(id, ok)
	}
	if id, ok := g.ID("Ġthe"); id != 262 || !ok || string(g.Bytes(id)) != " the" {
		t.Error(id, ok)
	}
}

func BenchmarkEncodeStory(b *testing.B) {
	tok := load(b, "models", "stories260K", "hf")
	text := strings.Repeat("Once upon a time, there was a little girl named Lily. ", 2000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		tok.Encode(text)
	}
}

func BenchmarkEncodeQwen(b *testing.B) {
	tok := load(b, "tokenizers", "qwen2.5")
	text := strings.Repeat("Once upon a time, there was a little girl named Lily. ", 2000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		tok.Encode(text)
	}
}
