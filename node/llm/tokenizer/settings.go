package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
)

// meta is how SentencePiece spells a space.
const meta = "▁"

// settings reads what surrounds the model in tokenizer.json: normalizer, pre_tokenizer, decoder, post_processor.
type settings struct {
	t     *Tokenizer
	first string // special token that the template puts before a text, or ""
	last  string // and after it
}

// step is any of the four, of whatever type.
type step struct {
	Type string `json:"type"`

	Normalizers   []json.RawMessage `json:"normalizers"`
	PreTokenizers []json.RawMessage `json:"pretokenizers"`
	Decoders      []json.RawMessage `json:"decoders"`
	Processors    []json.RawMessage `json:"processors"`

	Prepend string          `json:"prepend"`
	Pattern json.RawMessage `json:"pattern"`
	Content string          `json:"content"`

	Behavior         string `json:"behavior"`
	Invert           bool   `json:"invert"`
	IndividualDigits bool   `json:"individual_digits"`
	AddPrefixSpace   *bool  `json:"add_prefix_space"`
	UseRegex         *bool  `json:"use_regex"`
	Replacement      string `json:"replacement"`
	PrependScheme    string `json:"prepend_scheme"`
	Split            *bool  `json:"split"`
	Start            int    `json:"start"`
	Stop             int    `json:"stop"`

	Single []map[string]struct {
		ID string `json:"id"`
	} `json:"single"`
}

func (s *settings) read(f file) error {
	pre, err := flatten("pre_tokenizer", f.PreTokenizer, 0)
	if err != nil {
		return err
	}
	if err := s.preTokenizer(pre); err != nil {
		return fmt.Errorf("pre_tokenizer: %w", err)
	}
	norms, err := flatten("normalizer", f.Normalizer, 0)
	if err != nil {
		return err
	}
	for _, n := range norms {
		if err := s.normalizer(n); err != nil {
			return fmt.Errorf("normalizer: %w", err)
		}
	}
	if s.t.scheme == sentencePiece && s.t.space == "" {
		return errors.New("neither a ByteLevel or Metaspace pre_tokenizer nor a Replace normalizer says how spaces are spelled")
	}
	decoders, err := flatten("decoder", f.Decoder, 0)
	if err != nil {
		return err
	}
	if err := s.decoder(decoders); err != nil {
		return fmt.Errorf("decoder: %w", err)
	}
	processors, err := flatten("post_processor", f.PostProcessor, 0)
	if err != nil {
		return err
	}
	for _, p := range processors {
		switch p.Type {
		case "ByteLevel": // offsets only
		case "TemplateProcessing":
			s.template(p)
		default:
			return fmt.Errorf("post_processor type %q is not supported", p.Type)
		}
	}
	return nil
}

// flatten reads one step, or the steps of a Sequence.
func flatten(what string, raw json.RawMessage, depth int) ([]step, error) {
	if !isSet(raw) {
		return nil, nil
	}
	if depth > maxNesting {
		return nil, fmt.Errorf("%s: sequences are nested deeper than %d", what, maxNesting)
	}
	var s step
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if s.Type != "Sequence" {
		return []step{s}, nil
	}
	var out []step
	for _, list := range [][]json.RawMessage{s.Normalizers, s.PreTokenizers, s.Decoders, s.Processors} {
		for _, inner := range list {
			steps, err := flatten(what, inner, depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, steps...)
		}
	}
	return out, nil
}

// preTokenizer finds the scheme, and how words are cut. Each known combination is one of the patterns.
func (s *settings) preTokenizer(steps []step) error {
	t := s.t
	t.scheme = sentencePiece
	switch {
	case len(steps) == 0:
		return nil
	case len(steps) == 1 && steps[0].Type == "Metaspace":
		return s.metaspace(steps[0])
	case len(steps) > 2 || steps[len(steps)-1].Type != "ByteLevel":
		return fmt.Errorf("types %q are not supported", typesOf(steps))
	}
	t.scheme = byteLevel
	level := steps[len(steps)-1]
	if level.AddPrefixSpace == nil || *level.AddPrefixSpace {
		return errors.New("ByteLevel with add_prefix_space is not supported")
	}
	regex := level.UseRegex == nil || *level.UseRegex
	if len(steps) == 1 {
		if !regex {
			return errors.New("ByteLevel without use_regex and without a Split is not supported")
		}
		t.pattern = patternGPT2
		return nil
	}
	switch first := steps[0]; {
	case first.Type == "Digits" && first.IndividualDigits && regex:
		t.pattern = patternSmolLM
		return nil
	case first.Type == "Split" && !regex:
		if first.Behavior != "Isolated" || first.Invert {
			return fmt.Errorf("Split with behavior %q, invert %v is not supported", first.Behavior, first.Invert)
		}
		var p struct{ Regex string }
		if err := json.Unmarshal(orNull(first.Pattern), &p); err != nil {
			return fmt.Errorf("Split: pattern: %w", err)
		}
		known, ok := map[string]pattern{regexGPT2: patternGPT2, regexLlama3: patternLlama3, regexQwen2: patternQwen2}[p.Regex]
		if !ok {
			return fmt.Errorf("Split pattern %q is not known to this build, which knows those of GPT-2, Llama 3 and Qwen2", p.Regex)
		}
		t.pattern = known
		return nil
	}
	return fmt.Errorf("types %q with these settings are not supported", typesOf(steps))
}

func (s *settings) metaspace(m step) error {
	if m.Replacement != meta {
		return fmt.Errorf("Metaspace replacement %q is not supported", m.Replacement)
	}
	s.t.space = meta
	s.t.splitSpaces = m.Split == nil || *m.Split
	switch m.PrependScheme {
	case "always":
		s.t.prefix = prefixMissing
	case "first":
		s.t.prefix = prefixFirst
	case "never":
	case "": // files older than the field
		if m.AddPrefixSpace == nil || *m.AddPrefixSpace {
			s.t.prefix = prefixMissing
		}
	default:
		return fmt.Errorf("Metaspace prepend_scheme %q is not supported", m.PrependScheme)
	}
	return nil
}

func (s *settings) normalizer(n step) error {
	switch n.Type {
	case "NFC":
		s.t.compose = true
		return nil
	case "Prepend":
		if s.t.scheme == sentencePiece && s.t.space == "" && n.Prepend == meta {
			s.t.prefix = prefixAlways
			return nil
		}
	case "Replace":
		var p struct{ String string }
		if err := json.Unmarshal(orNull(n.Pattern), &p); err != nil {
			return fmt.Errorf("Replace: pattern: %w", err)
		}
		if s.t.scheme == sentencePiece && s.t.space == "" && p.String == " " && n.Content == meta {
			s.t.space = meta
			return nil
		}
	}
	return fmt.Errorf("type %q with these settings is not supported", n.Type)
}

// decoder accepts the decoders that undo the scheme, and finds out whether a leading space goes.
func (s *settings) decoder(steps []step) error {
	t := s.t
	if t.scheme == byteLevel {
		if len(steps) == 1 && steps[0].Type == "ByteLevel" {
			return nil
		}
		return fmt.Errorf("types %q with a ByteLevel pre_tokenizer are not supported", typesOf(steps))
	}
	for _, d := range steps {
		switch d.Type {
		case "ByteFallback", "Fuse":
			continue
		case "Replace":
			var p struct{ String string }
			if err := json.Unmarshal(orNull(d.Pattern), &p); err == nil && p.String == meta && d.Content == " " {
				continue
			}
		case "Strip":
			if d.Content == " " && d.Start == 1 && d.Stop == 0 {
				t.strip = true
				continue
			}
		case "Metaspace":
			if d.Replacement == meta {
				t.strip = d.PrependScheme != "never" && (d.AddPrefixSpace == nil || *d.AddPrefixSpace)
				continue
			}
		}
		return fmt.Errorf("type %q with these settings is not supported", d.Type)
	}
	return nil
}

// template notes the special tokens around a single text.
func (s *settings) template(p step) {
	if n := len(p.Single); n > 1 {
		s.first = p.Single[0]["SpecialToken"].ID
		s.last = p.Single[n-1]["SpecialToken"].ID
	}
}

func typesOf(steps []step) []string {
	out := make([]string, len(steps))
	for i, s := range steps {
		out[i] = s.Type
	}
	return out
}
