package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// NewByteLevel makes a byte-level vocabulary with GPT-2's pattern: what WriteHF writes. vocab lists the pieces in the
// order of their ids, spelled in the byte alphabet (Symbols); it must have the 256 single bytes, so that every text can
// be encoded, and bos and eos, which become special. Each of merges must have its parts and its result in vocab.
func NewByteLevel(vocab []string, merges [][2]string, bos, eos string) (*Tokenizer, error) {
	t := &Tokenizer{scheme: byteLevel, pattern: patternGPT2, unknown: -1, bos: -1, eos: -1, addBOS: true}
	v := vocabulary{t: t, ranked: merges}
	for id, text := range vocab {
		if text == "" {
			return nil, fmt.Errorf("tokenizer: token %d is empty", id)
		}
		k := ordinary
		if text == bos || text == eos {
			k = control
		} else if _, ok := spelled(text); !ok {
			return nil, fmt.Errorf("tokenizer: token %d, %q, is not spelled in the byte alphabet", id, text)
		}
		if err := v.put(int32(id), text, k); err != nil {
			return nil, fmt.Errorf("tokenizer: %w", err)
		}
	}
	t, err := v.finish()
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	for _, s := range []struct {
		name string
		id   *int32
	}{{bos, &t.bos}, {eos, &t.eos}} {
		id, ok := t.special[s.name]
		if !ok {
			return nil, fmt.Errorf("tokenizer: special token %q is not in the vocabulary", s.name)
		}
		*s.id = id
	}
	for b, id := range t.bytes {
		if id < 0 {
			return nil, fmt.Errorf("tokenizer: byte %#02x, spelled %q, is not in the vocabulary", b, symbolOf(byte(b)))
		}
	}
	if len(t.ranked) != len(merges) {
		return nil, errors.New("tokenizer: a merge makes a special token")
	}
	return t, nil
}

// WriteHF writes tokenizer.json and tokenizer_config.json into dir, as Hugging Face's tokenizers and transformers read
// them. Load reads back the same vocabulary. Only a byte-level vocabulary with GPT-2's pattern can be written.
func (t *Tokenizer) WriteHF(dir string) error {
	if t.scheme != byteLevel || t.pattern != patternGPT2 || t.compose || t.ignoreMerges || t.unknown >= 0 {
		return errors.New("tokenizer: write: only byte-level vocabularies with GPT-2's pattern are written")
	}
	if t.bos < 0 || t.eos < 0 {
		return errors.New("tokenizer: write: the vocabulary has no BOS or no EOS")
	}
	for _, f := range []struct {
		name string
		v    any
	}{{"tokenizer.json", t.hf()}, {"tokenizer_config.json", t.hfConfig()}} {
		plain, err := marshal(f.v)
		if err != nil {
			return fmt.Errorf("tokenizer: write %s: %w", f.name, err)
		}
		var raw bytes.Buffer
		if err := json.Indent(&raw, plain, "", "  "); err != nil {
			return fmt.Errorf("tokenizer: write %s: %w", f.name, err)
		}
		raw.WriteByte('\n')
		if err := os.WriteFile(filepath.Join(dir, f.name), raw.Bytes(), 0o644); err != nil {
			return fmt.Errorf("tokenizer: %w", err)
		}
	}
	return nil
}

// ordered is a JSON object whose names keep their order.
type ordered []struct {
	name  string
	value any
}

func (o ordered) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for i, e := range o {
		if i > 0 {
			out = append(out, ',')
		}
		name, err := marshal(e.name)
		if err != nil {
			return nil, err
		}
		value, err := marshal(e.value)
		if err != nil {
			return nil, err
		}
		out = append(append(append(out, name...), ':'), value...)
	}
	return append(out, '}'), nil
}

// marshal is json.Marshal without HTML's escapes.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), err
}

func (t *Tokenizer) hf() ordered {
	vocab := make(ordered, 0, len(t.pieces))
	special := []addedToken{}
	for id, p := range t.pieces {
		if p.kind == absent {
			continue
		}
		if p.kind == control || p.kind == defined {
			special = append(special, addedToken{ID: int32(id), Content: p.text, Special: p.kind == control})
		}
		vocab = append(vocab, struct {
			name  string
			value any
		}{p.text, id})
	}
	merges := make([]string, len(t.ranked))
	for i, m := range t.ranked {
		merges[i] = t.pieces[m.left].text + " " + t.pieces[m.right].text
	}
	level := ordered{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}
	bos := t.pieces[t.bos].text
	sequence := func(id string) map[string]any {
		return map[string]any{"Sequence": ordered{{"id", id}, {"type_id", 0}}}
	}
	before := map[string]any{"SpecialToken": ordered{{"id", bos}, {"type_id", 0}}}
	template := ordered{
		{"type", "TemplateProcessing"},
		{"single", []any{before, sequence("A")}},
		{"pair", []any{before, sequence("A"), before, sequence("B")}},
		{"special_tokens", map[string]any{bos: ordered{{"id", bos}, {"ids", []int32{t.bos}}, {"tokens", []string{bos}}}}},
	}
	return ordered{
		{"version", "1.0"},
		{"truncation", nil},
		{"padding", nil},
		{"added_tokens", special},
		{"normalizer", nil},
		{"pre_tokenizer", level},
		{"post_processor", template},
		{"decoder", level},
		{"model", ordered{
			{"type", "BPE"}, {"dropout", nil}, {"unk_token", nil}, {"continuing_subword_prefix", nil},
			{"end_of_word_suffix", nil}, {"fuse_unk", false}, {"byte_fallback", false}, {"ignore_merges", false},
			{"vocab", vocab}, {"merges", merges},
		}},
	}
}

func (t *Tokenizer) hfConfig() ordered {
	return ordered{
		{"tokenizer_class", "PreTrainedTokenizerFast"},
		{"bos_token", t.pieces[t.bos].text},
		{"eos_token", t.pieces[t.eos].text},
		{"add_prefix_space", false},
		{"clean_up_tokenization_spaces", false},
	}
}
