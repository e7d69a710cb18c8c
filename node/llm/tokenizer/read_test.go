package tokenizer

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/node/llm/gguf"
)

// Each change below makes a tokenizer.json that would give other ids than this build's; it is refused, by name.
func TestUnsupportedFilesAreRefusedByName(t *testing.T) {
	sp := smallSPFile("")
	var bl bytes.Buffer
	dir := t.TempDir()
	if err := small(t).WriteHF(dir); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	bl.Write(raw)
	level := `"pre_tokenizer": {
    "type": "ByteLevel",
    "add_prefix_space": false,
    "trim_offsets": true,
    "use_regex": true
  }`
	for _, c := range []struct{ file, from, to, want string }{
		{sp, `"type":"BPE"`, `"type":"Unigram"`, `model type "Unigram" is not supported`},
		{sp, `"type":"BPE"`, `"type":"WordPiece"`, `model type "WordPiece" is not supported`},
		{sp, `"unk_token":"<unk>"`, `"dropout":0.1`, "dropout 0.1"},
		{sp, `"unk_token":"<unk>"`, `"end_of_word_suffix":"</w>"`, `end_of_word_suffix "</w>"`},
		{sp, `"unk_token":"<unk>"`, `"continuing_subword_prefix":"##"`, `continuing_subword_prefix "##"`},
		{sp, `"unk_token":"<unk>"`, `"unk_token":"[UNK]"`, `unk_token "[UNK]" is not in the vocabulary`},
		{sp, `{"type":"Prepend","prepend":"▁"}`, `{"type":"Lowercase"}`, `normalizer: type "Lowercase"`},
		{sp, `"prepend":"▁"`, `"prepend":"x"`, `type "Prepend" with these settings`},
		{sp, `"pattern":{"String":" "}`, `"pattern":{"String":"x"}`, `type "Replace" with these settings`},
		{sp, `"pattern":{"String":" "}`, `"pattern":{"Regex":" "}`, `type "Replace" with these settings`},
		{sp, `{"type":"ByteFallback"}`, `{"type":"CTC"}`, `decoder: type "CTC"`},
		{sp, `"start":1`, `"start":2`, `decoder: type "Strip"`},
		{sp, `"type":"TemplateProcessing"`, `"type":"BertProcessing"`, `post_processor type "BertProcessing"`},
		{sp, `"pre_tokenizer":null`, `"pre_tokenizer":{"type":"Whitespace"}`, `pre_tokenizer: types ["Whitespace"]`},
		{sp, `"pre_tokenizer":null`, `"pre_tokenizer":{"type":"Metaspace","replacement":"_"}`, `replacement "_"`},
		{sp, `"pre_tokenizer":null`, `"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Sequence","pretokenizers":[{"type":"Sequence","pretokenizers":[{"type":"Sequence","pretokenizers":[{"type":"Sequence","pretokenizers":[{"type":"Sequence","pretokenizers":[]}]}]}]}]}]}`, "nested deeper"},
		{sp, `"normalizer":{`, `"x":{`, "how spaces are spelled"},
		{sp, `"id":1,"content":"<s>","special":true`, `"id":1,"content":"<x>","special":true`, `"<s>" and "<x>" both have id 1`},
		{sp, `"id":1,"content":"<s>","special":true`, `"id":1,"content":"<s>","single_word":true`, "single_word"},
		{sp, `"id":1,"content":"<s>","special":true`, `"id":0,"content":"<unk>","special":true`, "listed twice"},
		{sp, `"a":260`, `"a":"260"`, `"a"`},
		{sp, `"a":260`, `"a":null`, `"a" has id -1`},
		{sp, `"a":260`, `"a":261`, `both have id 261`},
		{sp, `"a":260`, `"b":260`, `"b" occurs twice`},
		{sp, `"a":260`, `"a":4000000`, `"a" has id 4000000`},
		{sp, `"a":260`, `"` + strings.Repeat("a", maxPiece+1) + `":260`, "limit 4096"},
		{sp, `"a b"`, `"a  b"`, "not two parts"},
		{sp, `"a b"`, `"ab"`, "not two parts"},
		{sp, `"a b"`, `"a c"`, `"a" with "c": a part or the result`},
		{sp, `["a b","▁ ab"]`, `[["a","b"],["▁","a","b"]]`, "has 3 parts"},
		{sp, `["a b","▁ ab"]`, `"a b"`, "merges"},
		{sp, `"version"`, `"version"`, ""}, // unchanged: read
		{bl.String(), level, `"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":true}`, "add_prefix_space is not supported"},
		{bl.String(), level, `"pre_tokenizer":{"type":"ByteLevel"}`, "add_prefix_space is not supported"},
		{bl.String(), level, `"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}`, "without use_regex"},
		{bl.String(), level, `"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\s+"},"behavior":"Isolated"},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]}`, `Split pattern "\\s+" is not known`},
		{bl.String(), level, `"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"` + strings.ReplaceAll(regexQwen2, `\`, `\\`) + `"},"behavior":"Removed"},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]}`, `behavior "Removed"`},
		{bl.String(), level, `"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Digits"},{"type":"ByteLevel","add_prefix_space":false}]}`, "with these settings"},
		{bl.String(), `"byte_fallback": false`, `"byte_fallback": true`, "byte_fallback with a ByteLevel"},
	} {
		changed := strings.Replace(c.file, c.from, c.to, 1)
		if changed == c.file && c.want != "" {
			t.Errorf("%s is not in the file", c.from)
			continue
		}
		_, err := parseHF([]byte(changed), nil)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%.200s: got %v, want %q", c.to, err, c.want)
		}
	}
	for _, raw := range []string{"", "null", "[]", "{}", `{"model":{}}`, `{"model":{"type":"BPE"}}`, sp + "x", "\xff"} {
		if _, err := parseHF([]byte(raw), nil); err == nil {
			t.Errorf("%.20q is read", raw)
		}
	}
}

// The known patterns are found by their text, in tokenizer.json as in GGUF.
func TestKnownPatterns(t *testing.T) {
	split := func(regex string) string {
		quoted := strings.ReplaceAll(regex, `\`, `\\`)
		return `{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"` + quoted + `"},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}]}`
	}
	for _, c := range []struct {
		pre  string
		want pattern
	}{
		{`{"type":"ByteLevel","add_prefix_space":false}`, patternGPT2},
		{split(regexGPT2), patternGPT2},
		{split(regexLlama3), patternLlama3},
		{split(regexQwen2), patternQwen2},
		{`{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},{"type":"ByteLevel","add_prefix_space":false,"use_regex":true}]}`, patternSmolLM},
	} {
		raw := `{"pre_tokenizer":` + c.pre + `,"decoder":{"type":"ByteLevel"},"normalizer":{"type":"NFC"},"model":{"vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]}}`
		tok, err := parseHF([]byte(raw), nil)
		if err != nil {
			t.Fatal(err)
		}
		if tok.pattern != c.want || !tok.compose {
			t.Errorf("%s: pattern %s", c.pre, tok.pattern)
		}
		if got := tok.Encode("abba"); !slices.Equal(got, []int32{2, 1, 0}) {
			t.Error(got)
		}
	}
	for pre, want := range patternsByGGUF {
		f := ggufFile(t, "gpt2", []string{"a", "b", "ab", "<eos>"}, []int32{1, 1, 1, 3}, gguf.KeyValue{Key: "tokenizer.ggml.pre", Value: pre},
			gguf.KeyValue{Key: "tokenizer.ggml.merges", Value: []string{"a b"}}, gguf.KeyValue{Key: "tokenizer.ggml.eos_token_id", Value: uint32(3)},
			gguf.KeyValue{Key: "tokenizer.ggml.bos_token_id", Value: uint32(gguf.NoToken)})
		tok, err := FromGGUF(f)
		if err != nil {
			t.Fatal(err)
		}
		if tok.pattern != want || tok.BOS() != -1 || tok.EOS() != 3 {
			t.Errorf("%s: pattern %s, BOS %d, EOS %d", pre, tok.pattern, tok.BOS(), tok.EOS())
		}
	}
}

func TestConfigNamesTheSpecialTokens(t *testing.T) {
	file := []byte(smallSPFile(""))
	for _, c := range []struct {
		config   string
		bos, eos int32
		add      bool
		want     string
	}{
		{`{}`, 1, -1, true, ""},
		{`{"bos_token":null,"eos_token":"</s>"}`, 1, 2, true, ""},
		{`{"bos_token":{"content":"<s>","lstrip":false},"eos_token":{"content":"</s>"}}`, 1, 2, true, ""},
		{`{"bos_token":"</s>","eos_token":"ab"}`, 2, 262, false, ""},
		{`{"bos_token":"</s>","add_bos_token":true}`, 2, -1, true, ""},
		{`{"bos_token":"<bos>"}`, 0, 0, false, `bos_token: "<bos>" is not in the vocabulary`},
		{`{"eos_token":7}`, 0, 0, false, "eos_token: neither text nor an object"},
		{`{`, 0, 0, false, "tokenizer_config.json"},
	} {
		tok, err := parseHF(file, []byte(c.config))
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want %q", c.config, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.config, err)
			continue
		}
		if tok.BOS() != c.bos || tok.EOS() != c.eos || tok.AddBOS() != c.add {
			t.Errorf("%s: BOS %d (added: %v), EOS %d", c.config, tok.BOS(), tok.AddBOS(), tok.EOS())
		}
		if slices.Contains(tok.Encode("ab"), tok.EOS()) {
			t.Errorf("%s: a text ended itself", c.config)
		}
	}
}

func TestFoldersThatAreNoTokenizer(t *testing.T) {
	if _, err := Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "neither tokenizer.json nor vocab.json") {
		t.Error(err)
	}
	if _, err := Load(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("a folder that is not there is read")
	}
	for _, c := range []struct{ vocab, merges, config, want string }{
		{`{"a":0}`, "#version: 0.2\n", `{"tokenizer_class":"BartTokenizer"}`, `tokenizer_class "BartTokenizer"`},
		{`{"a":0}`, "a\n", `{"tokenizer_class":"GPT2Tokenizer"}`, "not two parts"},
		{`{"a":0`, "", `{"tokenizer_class":"GPT2Tokenizer"}`, "vocab.json"},
		{`{"a":0,"b":1,"ab":2,"<e>":3}`, "a b\n", `{"tokenizer_class":"Qwen2TokenizerFast","eos_token":"<e>"}`, ""},
		{`{"a":0}`, "\n", `{"tokenizer_class":"GPT2Tokenizer","added_tokens_decoder":{"x":{"content":"<e>"}}}`, ""},
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{"vocab.json": c.vocab, "merges.txt": c.merges, "tokenizer_config.json": c.config} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		tok, err := Load(dir)
		switch {
		case strings.Contains(c.config, `"x"`) || c.want != "":
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		case err != nil:
			t.Error(err)
		case tok.EOS() != 3 || !tok.IsControl(3) || !slices.Equal(tok.Encode("ab"), []int32{2}):
			t.Errorf("EOS %d, %v", tok.EOS(), tok.Encode("ab"))
		}
	}
}

func TestDamagedGGUFVocabularies(t *testing.T) {
	kv := func(k string, v any) gguf.KeyValue { return gguf.KeyValue{Key: "tokenizer.ggml." + k, Value: v} }
	ok := []string{"<unk>", "▁", "a"}
	for _, c := range []struct {
		name, model string
		tokens      []string
		types       []int32
		more        []gguf.KeyValue
		want        string
	}{
		{"kind", "bert", ok, []int32{2, 1, 1}, nil, `tokenizer.ggml.model "bert" is not supported`},
		{"unigram", "t5", ok, []int32{2, 1, 1}, nil, `tokenizer.ggml.model "t5" is not supported`},
		{"no pattern", "gpt2", ok, []int32{2, 1, 1}, nil, "key is not in the file"},
		{"unknown pattern", "gpt2", ok, []int32{2, 1, 1}, []gguf.KeyValue{kv("pre", "default")}, `tokenizer.ggml.pre "default"`},
		{"types", "llama", ok, []int32{2, 1}, nil, "2 entries for 3 tokens"},
		{"type", "llama", ok, []int32{2, 1, 9}, nil, "token 2 has type 9"},
		{"byte", "llama", ok, []int32{2, 1, 6}, nil, `token 2, "a", is said to be a byte`},
		{"twice", "llama", []string{"▁", "a", "a"}, []int32{1, 1, 1}, nil, `"a" occurs twice`},
		{"bos", "llama", ok, []int32{2, 1, 1}, []gguf.KeyValue{kv("bos_token_id", uint32(3))}, "bos_token_id is 3, the vocabulary has 3"},
		{"empty", "llama", []string{}, []int32{}, nil, "vocabulary has 0 ids"},
	} {
		_, err := FromGGUF(ggufFile(t, c.model, c.tokens, c.types, c.more...))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// llama2c builds a tok.bin.
func llama2c(longest uint32, tokens ...string) []byte {
	out := binary.LittleEndian.AppendUint32(nil, longest)
	for i, s := range tokens {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(-float32(i)))
		out = append(binary.LittleEndian.AppendUint32(out, uint32(len(s))), s...)
	}
	return out
}

func TestDamagedLlama2cFiles(t *testing.T) {
	whole := llama2c(8, "<unk>", "\n<s>\n", "\n</s>\n", " ", "a", " a")
	tok, err := parseLlama2c(whole, 6)
	if err != nil {
		t.Fatal(err)
	}
	if got := tok.Encode("a a"); !slices.Equal(got, []int32{5, 5}) {
		t.Error(got)
	}
	nan := slices.Clone(whole)
	binary.LittleEndian.PutUint32(nan[4:], math.Float32bits(float32(math.NaN())))
	for _, c := range []struct {
		name  string
		raw   []byte
		vocab int
		want  string
	}{
		{"size 2", whole, 2, "vocabulary of 2"},
		{"too large a size", whole, maxVocab + 1, "vocabulary of"},
		{"size 7", whole, 7, "file ends at token 6 of 7"},
		{"size 5", whole, 5, "follow token 4, the last"},
		{"empty", nil, 6, "less than the 4"},
		{"cut", whole[:len(whole)-1], 6, "token 5 has 2 bytes"},
		{"longest", llama2c(maxPiece+1, "a"), 6, "longest token has 4097"},
		{"longer than the longest", llama2c(1, "<unk>"), 6, "token 0 has 5 bytes, the longest may have 1"},
		{"NaN", nan, 6, "score NaN"},
		{"twice", llama2c(8, "<unk>", "<s>", "</s>", "a", "a"), 5, "occurs twice"},
	} {
		if _, err := parseLlama2c(c.raw, c.vocab); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// exercise runs a vocabulary that was accepted: nothing in it may make a text panic or yield a control token.
func exercise(t *testing.T, tok *Tokenizer) {
	for _, text := range []string{"", " ", "a b  c\n12 don't", "<s>é日\xff▁", strings.Repeat("ab ", 50)} {
		ids := tok.Encode(text)
		for _, id := range ids {
			if id < 0 || int(id) >= tok.VocabSize() {
				t.Fatalf("%q gave id %d of %d", text, id, tok.VocabSize())
			}
			if tok.IsControl(id) && id != tok.unknown {
				t.Fatalf("%q gave the control token %q", text, tok.Piece(id))
			}
		}
		tok.Decode(ids)
		tok.EncodeSpecial(text)
	}
	tok.Hash()
}

func FuzzHF(f *testing.F) {
	f.Add([]byte(smallSPFile("")), []byte(`{"bos_token":"<s>"}`))
	f.Add([]byte(`{"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"decoder":{"type":"ByteLevel"},"model":{"vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}`), []byte(`{}`))
	f.Add([]byte(`{"pre_tokenizer":{"type":"Metaspace","replacement":"▁"},"model":{"type":"BPE","vocab":{"▁":0,"a":1,"▁a":2},"merges":[["▁","a"]]}}`), []byte(nil))
	f.Fuzz(func(t *testing.T, raw, config []byte) {
		if tok, err := parseHF(raw, config); err == nil {
			exercise(t, tok)
		}
	})
}

func FuzzVocabMerges(f *testing.F) {
	f.Add([]byte(`{"a":0,"b":1,"ab":2}`), []byte("#version: 0.2\na b\n"), []byte(`{"tokenizer_class":"Qwen2Tokenizer","added_tokens_decoder":{"3":{"content":"<e>","special":true}},"eos_token":"<e>"}`))
	f.Fuzz(func(t *testing.T, vocab, merges, config []byte) {
		if tok, err := parseVocabMerges(vocab, merges, config); err == nil {
			exercise(t, tok)
		}
	})
}

func FuzzGGUF(f *testing.F) {
	for _, keys := range [][]gguf.KeyValue{
		{{Key: "tokenizer.ggml.model", Value: "llama"}, {Key: "tokenizer.ggml.tokens", Value: []string{"<unk>", "▁", "a"}}, {Key: "tokenizer.ggml.scores", Value: []float32{0, -1, -2}}},
		{{Key: "tokenizer.ggml.model", Value: "gpt2"}, {Key: "tokenizer.ggml.pre", Value: "smollm"}, {Key: "tokenizer.ggml.tokens", Value: []string{"a", "b", "ab"}}, {Key: "tokenizer.ggml.merges", Value: []string{"a b"}}},
	} {
		var buf bytes.Buffer
		if err := gguf.Write(&buf, keys, nil); err != nil {
			f.Fatal(err)
		}
		f.Add(buf.Bytes())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		file, err := gguf.Read(bytes.NewReader(raw), int64(len(raw)), "fuzz")
		if err != nil {
			return
		}
		if tok, err := FromGGUF(file); err == nil {
			exercise(t, tok)
		}
	})
}

func FuzzLlama2c(f *testing.F) {
	f.Add(llama2c(8, "<unk>", "<s>", "</s>", " ", "a", " a"), 6)
	f.Fuzz(func(t *testing.T, raw []byte, vocab int) {
		if tok, err := parseLlama2c(raw, vocab%4096); err == nil {
			exercise(t, tok)
		}
	})
}

// Whatever a person writes, a byte-level vocabulary gives it back and never a control token.
func FuzzEncode(f *testing.F) {
	tok := small(f)
	f.Add("the <|eos|> é\xff")
	f.Fuzz(func(t *testing.T, text string) {
		var raw []byte
		for _, id := range tok.Encode(text) {
			if tok.IsControl(id) {
				t.Fatalf("%q gave a control token", text)
			}
			raw = append(raw, tok.Bytes(id)...)
		}
		if string(raw) != text {
			t.Fatalf("%q came back as %q", text, raw)
		}
	})
}
