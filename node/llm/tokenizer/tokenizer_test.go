package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/ruche-federation/ruche/node/llm/gguf"
)

// smallVocab has the 256 bytes, two special tokens and what merges makes.
func smallVocab(merges [][2]string) []string {
	vocab := []string{"<|bos|>", "<|eos|>"}
	for b := range 256 {
		vocab = append(vocab, string(symbolOf(byte(b))))
	}
	for _, m := range merges {
		if to := m[0] + m[1]; !slices.Contains(vocab, to) {
			vocab = append(vocab, to)
		}
	}
	return vocab
}

var smallMerges = [][2]string{
	{"t", "h"}, {"Ġ", "th"}, {"Ġth", "e"}, {"h", "e"}, {"e", "r"}, {"a", "a"}, {"aa", "aa"}, {"Ġ", "Ġ"}, {"a", "b"}, {"Ã", "©"}, {"aa", "b"},
}

func small(t testing.TB) *Tokenizer {
	t.Helper()
	tok, err := NewByteLevel(smallVocab(smallMerges), smallMerges, "<|bos|>", "<|eos|>")
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func pieces(tok *Tokenizer, ids []int32) []string {
	out := []string{}
	for _, id := range ids {
		out = append(out, tok.Piece(id))
	}
	return out
}

func TestAlphabetIsABijection(t *testing.T) {
	seen := map[rune]bool{}
	for b := range 256 {
		r := symbolOf(byte(b))
		if back, ok := byteOf(r); !ok || back != byte(b) || seen[r] {
			t.Errorf("byte %#x is spelled %q, which spells %#x (%v)", b, r, back, ok)
		}
		seen[r] = true
		if r < '!' || r == 0x7f || r == 0xad {
			t.Errorf("byte %#x is spelled with the invisible %q", b, r)
		}
	}
	for r := rune(0); r < 0x200; r++ {
		if _, ok := byteOf(r); ok != seen[r] {
			t.Errorf("%q: spells a byte: %v", r, ok)
		}
	}
	if got := Symbols(" é\n"); got != "ĠÃ©Ċ" {
		t.Errorf("Symbols: %q", got)
	}
}

func TestWords(t *testing.T) {
	for _, c := range []struct {
		p    pattern
		text string
		want []string
	}{
		{patternGPT2, "", nil},
		{patternGPT2, "Hello  world, it's 2024!!", []string{"Hello", " ", " world", ",", " it", "'s", " 2024", "!!"}},
		{patternGPT2, "I'LL we'll'", []string{"I", "'", "LL", " we", "'ll", "'"}},
		{patternGPT2, "a \n b  ", []string{"a", " \n", " b", "  "}},
		{patternGPT2, " \t", []string{" \t"}},
		{patternGPT2, "\tx", []string{"\t", "x"}},
		{patternGPT2, "é½\u00a0日", []string{"é", "½", "\u00a0", "日"}},
		{patternLlama3, "I'LL 12345 x\r\n\r\n  y...\n", []string{"I", "'LL", " ", "123", "45", " x", "\r\n\r\n", " ", " y", "...\n"}},
		{patternLlama3, "(word) 'ſo", []string{"(word", ")", " '", "ſo"}},
		{patternLlama3, "it'ſo", []string{"it", "'ſ", "o"}},
		{patternLlama3, "\n \n x", []string{"\n \n", " x"}},
		{patternLlama3, "a   ", []string{"a", "   "}},
		{patternQwen2, "in 2024", []string{"in", " ", "2", "0", "2", "4"}},
		{patternSmolLM, "a  12's", []string{"a", "  ", "1", "2", "'s"}},
		{patternSmolLM, "½x", []string{"½", "x"}},
		{patternGPT2, "a\xff\xfeb", []string{"a", "\xff\xfe", "b"}},
	} {
		if got := slices.Collect(c.p.words(c.text)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q: got %q, want %q", c.p, c.text, got, c.want)
		}
	}
}

func TestWordsAreTheText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom([]pattern{patternGPT2, patternLlama3, patternQwen2, patternSmolLM}).Draw(t, "pattern")
		text := rapid.OneOf(rapid.String(), rapid.StringOf(rapid.SampledFrom([]rune(" \t\n\r'slL1²aé日!́")))).Draw(t, "text")
		words := slices.Collect(p.words(text))
		if strings.Join(words, "") != text || slices.Contains(words, "") {
			t.Fatalf("%q became %q", text, words)
		}
		for range p.words(text) {
			break // stopping early is allowed
		}
	})
}

// define merges as BPE is defined: of all neighbours that are a merge, the one of least rank, the leftmost first,
// until there is none.
func define(tok *Tokenizer, word string) []int32 {
	var ids []int32
	for i := range len(word) {
		ids = append(ids, tok.bytes[word[i]])
	}
	for {
		at, best := -1, merge{rank: maxMerges}
		for i := range len(ids) - 1 {
			if m, ok := tok.merges[pair{ids[i], ids[i+1]}]; ok && m.rank < best.rank {
				at, best = i, m
			}
		}
		if at < 0 {
			return ids
		}
		ids = slices.Replace(ids, at, at+2, best.id)
	}
}

func TestMergingAgainstTheDefinition(t *testing.T) {
	tok := small(t)
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringOf(rapid.SampledFrom([]rune("aabbther é"))).Draw(t, "word")
		m := merger{t: tok}
		if got, want := m.word(word, nil), define(tok, word); !slices.Equal(got, want) {
			t.Fatalf("%q: got %q, want %q", word, pieces(tok, got), pieces(tok, want))
		}
	})
}

func TestByteLevelRoundTrips(t *testing.T) {
	tok := small(t)
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
		if rapid.Bool().Draw(t, "valid") {
			text = rapid.String().Draw(t, "text")
		}
		ids := tok.Encode(text)
		var raw []byte
		for _, id := range ids {
			raw = append(raw, tok.Bytes(id)...)
		}
		if string(raw) != text {
			t.Fatalf("bytes of %q came back as %q", text, raw)
		}
		if got := tok.Decode(ids); utf8.ValidString(text) && got != text || !utf8.ValidString(got) {
			t.Fatalf("%q came back as %q", text, got)
		}
		if slices.ContainsFunc(ids, tok.IsControl) {
			t.Fatalf("%q became a control token", text)
		}
	})
}

// A stream gives what Decode gives, in whole characters, whatever the tokens.
func TestStreamsAgreeWithDecode(t *testing.T) {
	for name, tok := range map[string]*Tokenizer{"byte-level": small(t), "SentencePiece": smallSP(t, "")} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				ids := rapid.SliceOf(rapid.Int32Range(-1, int32(tok.VocabSize()))).Draw(t, "ids")
				s, whole := tok.Stream(true), ""
				for _, id := range ids {
					part := s.Next(id)
					if !utf8.ValidString(part) {
						t.Fatalf("part %q is not UTF-8", part)
					}
					whole += part
				}
				if whole += s.Flush(); whole != tok.Decode(ids) {
					t.Fatalf("stream %q, decode %q", whole, tok.Decode(ids))
				}
			})
		})
	}
	tok := small(t)
	s := tok.Stream(false)
	var parts []string
	for _, b := range []byte("é€") {
		parts = append(parts, s.Next(tok.bytes[b]))
	}
	if want := []string{"", "é", "", "", "€"}; !slices.Equal(parts, want) {
		t.Errorf("parts %q, want %q", parts, want)
	}
}

func TestAnAnswerKeepsItsLeadingSpace(t *testing.T) {
	tok := smallSP(t, "")
	ids := tok.Encode("ab")
	if got := tok.Stream(true).Next(ids[0]) + "|" + tok.Stream(false).Next(ids[0]); got != "| " && got != "ab| ab" {
		t.Errorf("the first token prints as %q at the start and inside", got)
	}
	if tok.Decode(ids) != "ab" {
		t.Errorf("decoded %q", tok.Decode(ids))
	}
}

func TestTextNeverBecomesASpecialToken(t *testing.T) {
	// The merges of a hostile or careless vocabulary spell the special token, and a byte token.
	sp := smallSP(t, `,"<":300,"s":301,">":302,"<s":303,"0":304,"x":305,"A":306,"<0":307,"<0x":308,"<0x0":309,"<0x0A":310`,
		"< s", "<s >", "< 0", "<0 x", "<0x 0", "<0x0 A", "<0x0A >")
	for _, text := range []string{"<s>", "</s>", "<unk>", "<0x0A>", "a<s>b"} {
		ids := sp.Encode(text)
		if slices.ContainsFunc(ids, sp.IsControl) || slices.Contains(ids, sp.bytes['\n']) {
			t.Errorf("%q became %q", text, pieces(sp, ids))
		}
		if got := sp.Decode(ids); got != text {
			t.Errorf("%q came back as %q", text, got)
		}
	}
	if got := sp.EncodeSpecial("<s>a</s>"); got[0] != 1 || got[len(got)-1] != 2 {
		t.Errorf("a template's special tokens: %q", pieces(sp, got))
	}
	bl := small(t)
	if slices.ContainsFunc(bl.Encode("<|bos|><|eos|>"), bl.IsControl) {
		t.Error("byte-level: text became a control token")
	}
	if got, want := bl.EncodeSpecial("<|bos|>the<|eos|>"), []string{"<|bos|>", "th", "e", "<|eos|>"}; !slices.Equal(pieces(bl, got), want) {
		t.Errorf("got %q, want %q", pieces(bl, got), want)
	}
	// And by score.
	f := ggufFile(t, "llama", []string{"<unk>", "<s>", "</s>", "▁", "<", "s", ">", "<s"}, []int32{2, 3, 3, 1, 1, 1, 1, 1})
	tok, err := FromGGUF(f)
	if err != nil {
		t.Fatal(err)
	}
	if got := pieces(tok, tok.Encode("<s>")); !slices.Equal(got, []string{"▁", "<s", ">"}) {
		t.Errorf("by score: %q", got)
	}
}

func TestUnknownCharacters(t *testing.T) {
	whole := smallSP(t, "")
	if got := pieces(whole, whole.Encode("é")); !slices.Equal(got, []string{"▁", "<0xC3>", "<0xA9>"}) {
		t.Errorf("with byte fallback: %q", got)
	}
	raw := strings.Replace(smallSPFile(""), `"byte_fallback":true`, `"byte_fallback":false`, 1)
	fused, err := parseHF([]byte(raw), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := pieces(fused, fused.Encode("éèa")); !slices.Equal(got, []string{"▁", "<unk>", "a"}) {
		t.Errorf("fused: %q", got)
	}
}

// A text without any word end is as fast as another, and no text is too long.
func TestLongTexts(t *testing.T) {
	tok := small(t)
	text := strings.Repeat("a", 3*maxWord/2)
	ids := tok.Encode(text)
	if want := len(text) / 4; len(ids) != want {
		t.Errorf("%d tokens of %d bytes, want %d", len(ids), len(text), want)
	}
	if tok.Decode(ids) != text {
		t.Error("the text did not come back")
	}
	spaces := strings.Repeat("\t ", maxWord/8)
	if tok.Decode(tok.Encode(spaces)) != spaces {
		t.Error("spaces did not come back")
	}
	sp := smallSP(t, "")
	long := strings.Repeat("日", maxWord/2)
	if sp.Decode(sp.Encode(long)) != long {
		t.Error("a word is cut within a character")
	}
}

func TestNewByteLevelRefuses(t *testing.T) {
	vocab := smallVocab(smallMerges)
	for _, c := range []struct {
		name     string
		vocab    []string
		merges   [][2]string
		bos, eos string
		want     string
	}{
		{"no bytes", vocab[:200], nil, "<|bos|>", "<|eos|>", "is not in the vocabulary"},
		{"no bos", vocab, nil, "<s>", "<|eos|>", `special token "<s>" is not in the vocabulary`},
		{"no eos", vocab[:1], nil, "<|bos|>", "</s>", `"</s>" is not in the vocabulary`},
		{"a piece twice", append(slices.Clone(vocab), "a"), nil, "<|bos|>", "<|eos|>", "occurs twice"},
		{"an empty piece", append(slices.Clone(vocab), ""), nil, "<|bos|>", "<|eos|>", "is empty"},
		{"a piece in plain text", append(slices.Clone(vocab), "a b"), nil, "<|bos|>", "<|eos|>", "not spelled in the byte alphabet"},
		{"an unknown merge", vocab, [][2]string{{"x", "y"}}, "<|bos|>", "<|eos|>", "not in the vocabulary"},
		{"a merge twice", vocab, [][2]string{{"t", "h"}, {"t", "h"}}, "<|bos|>", "<|eos|>", "occurs twice"},
		{"a special merge", append(slices.Clone(vocab), "xy"), [][2]string{{"x", "y"}}, "<|bos|>", "xy", "a merge makes a special token"},
	} {
		if _, err := NewByteLevel(c.vocab, c.merges, c.bos, c.eos); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestWrittenVocabularyIsReadBack(t *testing.T) {
	tok, dir := small(t), t.TempDir()
	if err := tok.WriteHF(dir); err != nil {
		t.Fatal(err)
	}
	back, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if back.Hash() != tok.Hash() {
		t.Error("the hash changed on the way to the disk and back")
	}
	if back.BOS() != 0 || back.EOS() != 1 || !back.AddBOS() || back.VocabSize() != tok.VocabSize() {
		t.Errorf("BOS %d, EOS %d, %d ids", back.BOS(), back.EOS(), back.VocabSize())
	}
	text := "the other  <|eos|> aaaaab é\n\x00\u2028"
	if got, want := back.Encode(text), tok.Encode(text); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	first, err := os.ReadFile(filepath.Join(dir, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := back.WriteHF(dir); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(filepath.Join(dir, "tokenizer.json")); !bytes.Equal(first, again) {
		t.Error("written again, the file has other bytes")
	}
	byFile, err := Load(filepath.Join(dir, "tokenizer.json"))
	if err != nil || byFile.Hash() != tok.Hash() {
		t.Errorf("by the path of the file: %v", err)
	}
	if err := smallSP(t, "").WriteHF(dir); err == nil {
		t.Error("a SentencePiece vocabulary is written as byte-level")
	}
}

func TestHashTellsVocabulariesApart(t *testing.T) {
	seen := map[[32]byte]string{}
	add := func(name string, tok *Tokenizer) {
		h := tok.Hash()
		if h != tok.Hash() || seen[h] != "" {
			t.Errorf("%s has the hash of %q", name, seen[h])
		}
		seen[h] = name
	}
	add("small", small(t))
	vocab := smallVocab(smallMerges)
	swapped, err := NewByteLevel(vocab, smallMerges, "<|bos|>", "<|bos|>")
	if err != nil {
		t.Fatal(err)
	}
	add("EOS like BOS", swapped)
	reordered := slices.Clone(smallMerges)
	reordered[3], reordered[4] = reordered[4], reordered[3]
	if swapped, err = NewByteLevel(vocab, reordered, "<|bos|>", "<|eos|>"); err != nil {
		t.Fatal(err)
	}
	add("merges in another order", swapped)
	if swapped, err = NewByteLevel(vocab, smallMerges, "<|eos|>", "<|bos|>"); err != nil {
		t.Fatal(err)
	}
	add("BOS and EOS exchanged", swapped)
	add("SentencePiece", smallSP(t, ""))
}

// smallSPFile is a tokenizer.json in the manner of Llama 2: special tokens, bytes, a few letters and more pieces.
func smallSPFile(more string, merges ...string) string {
	var vocab strings.Builder
	vocab.WriteString(`"<unk>":0,"<s>":1,"</s>":2`)
	for b := range 256 {
		fmt.Fprintf(&vocab, `,"<0x%02X>":%d`, b, b+3)
	}
	vocab.WriteString(`,"▁":259,"a":260,"b":261,"ab":262,"▁ab":263`)
	list, _ := json.Marshal(append([]string{"a b", "▁ ab"}, merges...))
	return `{"added_tokens":[{"id":0,"content":"<unk>","special":true},{"id":1,"content":"<s>","special":true},{"id":2,"content":"</s>","special":true}],
"normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]},
"pre_tokenizer":null,
"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}]},
"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},
"model":{"type":"BPE","unk_token":"<unk>","fuse_unk":true,"byte_fallback":true,"vocab":{` + vocab.String() + more + `},"merges":` + string(list) + `}}`
}

func smallSP(t testing.TB, more string, merges ...string) *Tokenizer {
	t.Helper()
	tok, err := parseHF([]byte(smallSPFile(more, merges...)), nil)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// ggufFile is a vocabulary without scores worth mentioning: pieces are preferred in their order.
func ggufFile(t testing.TB, model string, tokens []string, types []int32, more ...gguf.KeyValue) *gguf.File {
	t.Helper()
	scores := make([]float32, len(tokens))
	for i := range scores {
		scores[i] = -float32(i)
	}
	keys := append([]gguf.KeyValue{
		{Key: "tokenizer.ggml.model", Value: model},
		{Key: "tokenizer.ggml.tokens", Value: tokens},
		{Key: "tokenizer.ggml.token_type", Value: types},
		{Key: "tokenizer.ggml.scores", Value: scores},
	}, more...)
	var buf bytes.Buffer
	if err := gguf.Write(&buf, keys, nil); err != nil {
		t.Fatal(err)
	}
	f, err := gguf.Read(bytes.NewReader(buf.Bytes()), int64(buf.Len()), "test")
	if err != nil {
		t.Fatal(err)
	}
	return f
}
