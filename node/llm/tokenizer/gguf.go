package tokenizer

import (
	"fmt"
	"math"
	"strings"

	"github.com/ruche-federation/ruche/node/llm/gguf"
)

// Types of tokens in tokenizer.ggml.token_type (llama.h, enum llama_token_type).
const (
	ggufNormal = 1 + iota
	ggufUnknown
	ggufControl
	ggufDefined
	ggufUnused
	ggufByte
)

// patternsByGGUF are the names in tokenizer.ggml.pre of the patterns that are known here.
var patternsByGGUF = map[string]pattern{
	"gpt-2": patternGPT2, "llama-bpe": patternLlama3, "llama3": patternLlama3, "llama-v3": patternLlama3,
	"qwen2": patternQwen2, "deepseek-r1-qwen": patternQwen2, "smollm": patternSmolLM,
}

// FromGGUF reads the vocabulary of a GGUF file: tokenizer.ggml.model "gpt2" (byte-level) or "llama" (SentencePiece).
func FromGGUF(f *gguf.File) (*Tokenizer, error) {
	t, err := fromGGUF(f)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	return t, nil
}

func fromGGUF(f *gguf.File) (*Tokenizer, error) {
	t := &Tokenizer{unknown: -1, bos: -1, eos: -1}
	v := vocabulary{t: t}
	model, err := f.Text("tokenizer.ggml.model")
	if err != nil {
		return nil, err
	}
	switch model {
	case "gpt2":
		err = v.ggufByteLevel(f)
	case "llama":
		err = v.ggufSentencePiece(f)
	default:
		return nil, fmt.Errorf("tokenizer.ggml.model %q is not supported; this build reads gpt2 and llama", model)
	}
	if err != nil {
		return nil, err
	}
	if err := v.ggufPieces(f); err != nil {
		return nil, err
	}
	for _, s := range []struct {
		key string
		id  *int32
	}{{"bos", &t.bos}, {"eos", &t.eos}, {"unknown", &t.unknown}} {
		key := "tokenizer.ggml." + s.key + "_token_id"
		id, ok, err := f.Token(key)
		if err != nil {
			return nil, err
		}
		if ok && int(id) >= len(t.pieces) {
			return nil, fmt.Errorf("%s is %d, the vocabulary has %d", key, id, len(t.pieces))
		}
		if ok {
			*s.id = id
		}
	}
	// Whatever its type says: what begins and ends texts must not be spelled by one.
	for _, id := range []int32{t.bos, t.eos, t.unknown} {
		if id >= 0 {
			t.pieces[id].kind = control
		}
	}
	if t.addBOS, err = f.BoolOr("tokenizer.ggml.add_bos_token", t.scheme == sentencePiece || t.pattern == patternLlama3); err != nil {
		return nil, err
	}
	return v.finish()
}

func (v *vocabulary) ggufByteLevel(f *gguf.File) error {
	pre, err := f.Text("tokenizer.ggml.pre")
	if err != nil {
		return err
	}
	known, ok := patternsByGGUF[pre]
	if !ok {
		return fmt.Errorf("tokenizer.ggml.pre %q is not supported; this build knows gpt-2, llama-bpe, qwen2, smollm", pre)
	}
	v.t.scheme, v.t.pattern = byteLevel, known
	v.t.compose = known == patternQwen2
	v.t.ignoreMerges = known == patternLlama3
	merges, err := f.Strings("tokenizer.ggml.merges")
	if err != nil {
		return err
	}
	if v.ranked, err = splitMerges(merges); err != nil {
		return fmt.Errorf("tokenizer.ggml.merges: %w", err)
	}
	return nil
}

func (v *vocabulary) ggufSentencePiece(f *gguf.File) error {
	v.t.scheme, v.t.space = sentencePiece, meta
	v.t.byteFallback, v.t.fuseUnknown = true, true
	prepend, err := f.BoolOr("tokenizer.ggml.add_space_prefix", true)
	if err != nil {
		return err
	}
	if prepend {
		v.t.prefix, v.t.strip = prefixAlways, true
	}
	if v.t.scores, err = f.Float32s("tokenizer.ggml.scores"); err != nil {
		return err
	}
	return checkScores(v.t.scores)
}

// checkScores refuses scores that have no order.
func checkScores(scores []float32) error {
	for id, s := range scores {
		if math.IsNaN(float64(s)) {
			return fmt.Errorf("token %d has the score NaN", id)
		}
	}
	return nil
}

func (v *vocabulary) ggufPieces(f *gguf.File) error {
	texts, err := f.Strings("tokenizer.ggml.tokens")
	if err != nil {
		return err
	}
	if len(texts) > maxVocab {
		return fmt.Errorf("tokenizer.ggml.tokens has %d tokens, limit %d", len(texts), maxVocab)
	}
	types := make([]int32, len(texts))
	if f.Has("tokenizer.ggml.token_type") {
		if types, err = f.Int32s("tokenizer.ggml.token_type"); err != nil {
			return err
		}
		if len(types) != len(texts) {
			return fmt.Errorf("tokenizer.ggml.token_type has %d entries for %d tokens", len(types), len(texts))
		}
	}
	v.t.pieces = make([]piece, len(texts))
	for id, text := range texts {
		p := piece{text: strings.Clone(text)}
		switch types[id] {
		case 0, ggufNormal: // 0: not said
			p.kind = ordinary
		case ggufUnknown, ggufControl:
			p.kind = control
		case ggufDefined:
			p.kind = defined
		case ggufUnused:
			p.kind = absent
		case ggufByte:
			p.kind = single
		default:
			return fmt.Errorf("tokenizer.ggml.token_type: token %d has type %d, which this build does not know", id, types[id])
		}
		if p.kind == single && v.t.scheme == byteLevel {
			return fmt.Errorf("tokenizer.ggml.token_type: token %d of a byte-level vocabulary has the type of a byte", id)
		}
		v.t.pieces[id] = p
	}
	return nil
}
