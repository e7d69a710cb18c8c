package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// config is tokenizer_config.json as far as it bears on ids.
type config struct {
	TokenizerClass     string                `json:"tokenizer_class"`
	BOSToken           json.RawMessage       `json:"bos_token"`
	EOSToken           json.RawMessage       `json:"eos_token"`
	AddBOSToken        *bool                 `json:"add_bos_token"`
	AddPrefixSpace     bool                  `json:"add_prefix_space"`
	AddedTokensDecoder map[string]addedToken `json:"added_tokens_decoder"`
}

// configure sets BOS and EOS from tokenizer_config.json, else to the special tokens of the template. They become
// special even where the vocabulary does not say so: no text may begin or end a text.
func (v *vocabulary) configure(raw []byte, first, last string) error {
	var c config
	if raw != nil {
		if err := unmarshal(raw, &c); err != nil {
			return fmt.Errorf("tokenizer_config.json: %w", err)
		}
	}
	bos, err := tokenName(c.BOSToken, first)
	if err != nil {
		return fmt.Errorf("tokenizer_config.json: bos_token: %w", err)
	}
	eos, err := tokenName(c.EOSToken, last)
	if err != nil {
		return fmt.Errorf("tokenizer_config.json: eos_token: %w", err)
	}
	if v.t.bos, err = v.makeControl(bos); err != nil {
		return fmt.Errorf("bos_token: %w", err)
	}
	if v.t.eos, err = v.makeControl(eos); err != nil {
		return fmt.Errorf("eos_token: %w", err)
	}
	v.t.addBOS = bos != "" && first == bos || c.AddBOSToken != nil && *c.AddBOSToken
	return nil
}

// makeControl finds a piece by its spelling and makes it special. The empty name is no token.
func (v *vocabulary) makeControl(name string) (int32, error) {
	if name == "" {
		return -1, nil
	}
	for id := range v.t.pieces {
		if p := &v.t.pieces[id]; p.kind != absent && p.text == name {
			p.kind = control
			return int32(id), nil
		}
	}
	return -1, fmt.Errorf("%q is not in the vocabulary", name)
}

// tokenName reads "<s>" or {"content": "<s>", ...}, or returns otherwise where there is neither.
func tokenName(raw json.RawMessage, otherwise string) (string, error) {
	if !isSet(raw) {
		return otherwise, nil
	}
	var name string
	if json.Unmarshal(raw, &name) == nil {
		return name, nil
	}
	var object addedToken
	if err := json.Unmarshal(raw, &object); err != nil {
		return "", errors.New("neither text nor an object with content")
	}
	return object.Content, nil
}

// loadVocabMerges reads the older pair of files. They do not say how words are cut; the class in
// tokenizer_config.json does.
func loadVocabMerges(dir string, rawConfig []byte) (*Tokenizer, error) {
	rawVocab, err := readFile(filepath.Join(dir, "vocab.json"))
	if err != nil {
		return nil, err
	}
	rawMerges, err := readFile(filepath.Join(dir, "merges.txt"))
	if err != nil {
		return nil, err
	}
	t, err := parseVocabMerges(rawVocab, rawMerges, rawConfig)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %s: %w", dir, err)
	}
	return t, nil
}

func parseVocabMerges(rawVocab, rawMerges, rawConfig []byte) (*Tokenizer, error) {
	var c config
	if rawConfig != nil {
		if err := unmarshal(rawConfig, &c); err != nil {
			return nil, fmt.Errorf("tokenizer_config.json: %w", err)
		}
	}
	t := &Tokenizer{scheme: byteLevel, unknown: -1, bos: -1, eos: -1}
	switch strings.TrimSuffix(c.TokenizerClass, "Fast") {
	case "GPT2Tokenizer":
		t.pattern = patternGPT2
	case "Qwen2Tokenizer":
		t.pattern, t.compose = patternQwen2, true
	default:
		return nil, fmt.Errorf("tokenizer_class %q with vocab.json is not supported; this build reads those of GPT-2 and Qwen2", c.TokenizerClass)
	}
	if c.AddPrefixSpace {
		return nil, errors.New("tokenizer_config.json: add_prefix_space is not supported")
	}
	v := vocabulary{t: t}
	if err := unmarshal(rawVocab, new(json.RawMessage)); err != nil {
		return nil, fmt.Errorf("vocab.json: %w", err)
	}
	if err := v.readVocab(rawVocab); err != nil {
		return nil, fmt.Errorf("vocab.json: %w", err)
	}
	lines := strings.Split(strings.TrimSuffix(string(rawMerges), "\n"), "\n")
	if strings.HasPrefix(lines[0], "#version") {
		lines = lines[1:]
	}
	var err error
	if v.ranked, err = splitMerges(lines); err != nil {
		return nil, fmt.Errorf("merges.txt: %w", err)
	}
	var tokens []addedToken
	for text, a := range c.AddedTokensDecoder {
		id, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("tokenizer_config.json: added_tokens_decoder: %q is no id", text)
		}
		a.ID = int32(id)
		tokens = append(tokens, a)
	}
	if err := v.add(tokens); err != nil {
		return nil, fmt.Errorf("tokenizer_config.json: %w", err)
	}
	if err := v.configure(rawConfig, "", ""); err != nil {
		return nil, err
	}
	return v.finish()
}
