package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"unicode/utf8"
)

// Load reads a Hugging Face tokenizer: a folder with tokenizer.json (or vocab.json and merges.txt), or the path of a
// tokenizer.json. BOS and EOS come from tokenizer_config.json beside it, else from the template in tokenizer.json.
func Load(path string) (*Tokenizer, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	dir := path
	if !st.IsDir() {
		dir = filepath.Dir(path)
	} else {
		path = filepath.Join(dir, "tokenizer.json")
	}
	config, err := readFile(filepath.Join(dir, "tokenizer_config.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	raw, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) && st.IsDir() {
		t, other := loadVocabMerges(dir, config)
		if errors.Is(other, fs.ErrNotExist) {
			return nil, fmt.Errorf("tokenizer: %s has neither tokenizer.json nor vocab.json with merges.txt", dir)
		}
		return t, other
	}
	if err != nil {
		return nil, err
	}
	t, err := parseHF(raw, config)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %s: %w", path, err)
	}
	return t, nil
}

// readFile reads a whole file of at most maxFile bytes.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	if len(raw) > maxFile {
		return nil, fmt.Errorf("tokenizer: %s has more than %d bytes", path, maxFile)
	}
	return raw, nil
}

// file is tokenizer.json as far as it bears on ids; truncation and padding do not.
type file struct {
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         json.RawMessage `json:"model"`
}

type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

type model struct {
	Type                    string          `json:"type"`
	Dropout                 *float64        `json:"dropout"`
	UnkToken                *string         `json:"unk_token"`
	ContinuingSubwordPrefix *string         `json:"continuing_subword_prefix"`
	EndOfWordSuffix         *string         `json:"end_of_word_suffix"`
	FuseUnk                 bool            `json:"fuse_unk"`
	ByteFallback            bool            `json:"byte_fallback"`
	IgnoreMerges            bool            `json:"ignore_merges"`
	Vocab                   json.RawMessage `json:"vocab"`
	Merges                  json.RawMessage `json:"merges"`
}

// parseHF reads tokenizer.json and, unless it is nil, tokenizer_config.json.
func parseHF(raw, config []byte) (*Tokenizer, error) {
	var f file
	if err := unmarshal(raw, &f); err != nil {
		return nil, err
	}
	t := &Tokenizer{unknown: -1, bos: -1, eos: -1}
	s := settings{t: t}
	if err := s.read(f); err != nil {
		return nil, err
	}
	v, err := readModel(t, f.Model)
	if err != nil {
		return nil, err
	}
	if err := v.add(f.AddedTokens); err != nil {
		return nil, err
	}
	if err := v.configure(config, s.first, s.last); err != nil {
		return nil, err
	}
	return v.finish()
}

// unmarshal is json.Unmarshal for text that must be UTF-8: encoding/json would replace what is not.
func unmarshal(raw []byte, into any) error {
	if !utf8.Valid(raw) {
		return errors.New("file is not UTF-8")
	}
	return json.Unmarshal(raw, into)
}

// readModel reads the vocabulary and the merges.
func readModel(t *Tokenizer, raw json.RawMessage) (vocabulary, error) {
	v := vocabulary{t: t}
	var kind struct {
		Type   string          `json:"type"`
		Merges json.RawMessage `json:"merges"`
	}
	if err := json.Unmarshal(orNull(raw), &kind); err != nil {
		return v, fmt.Errorf("model: %w", err)
	}
	// Files older than the field have merges and no type.
	if kind.Type != "BPE" && !(kind.Type == "" && isSet(kind.Merges)) {
		return v, fmt.Errorf("model type %q is not supported; this build reads BPE", kind.Type)
	}
	var m model
	if err := json.Unmarshal(raw, &m); err != nil {
		return v, fmt.Errorf("model: %w", err)
	}
	switch {
	case m.Dropout != nil && *m.Dropout != 0:
		return v, fmt.Errorf("model: dropout %g is not supported", *m.Dropout)
	case m.ContinuingSubwordPrefix != nil && *m.ContinuingSubwordPrefix != "":
		return v, fmt.Errorf("model: continuing_subword_prefix %q is not supported", *m.ContinuingSubwordPrefix)
	case m.EndOfWordSuffix != nil && *m.EndOfWordSuffix != "":
		return v, fmt.Errorf("model: end_of_word_suffix %q is not supported", *m.EndOfWordSuffix)
	case t.scheme == byteLevel && m.ByteFallback:
		return v, errors.New("model: byte_fallback with a ByteLevel pre_tokenizer is not supported")
	}
	t.fuseUnknown, t.byteFallback, t.ignoreMerges = m.FuseUnk, m.ByteFallback, m.IgnoreMerges
	if err := v.readVocab(m.Vocab); err != nil {
		return v, fmt.Errorf("model: %w", err)
	}
	merges, err := readMerges(m.Merges)
	if err != nil {
		return v, fmt.Errorf("model: merges: %w", err)
	}
	v.ranked = merges
	if m.UnkToken != nil {
		if t.unknown, err = v.makeControl(*m.UnkToken); err != nil {
			return v, fmt.Errorf("model: unk_token %w", err)
		}
	}
	return v, nil
}

// readVocab reads {"piece": id, ...}. It does not go through a map: a piece that is there twice must be seen.
func (v *vocabulary) readVocab(raw json.RawMessage) error {
	dec := json.NewDecoder(bytes.NewReader(orNull(raw)))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return errors.New("vocab is no object of pieces and ids")
	}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return fmt.Errorf("vocab: %w", err)
		}
		text := tok.(string) // the decoder gives nothing else as a name
		id := int32(-1)      // a null leaves it
		if err := dec.Decode(&id); err != nil {
			return fmt.Errorf("vocab: %q: %w", text, err)
		}
		if err := v.put(id, text, ordinary); err != nil {
			return fmt.Errorf("vocab: %w", err)
		}
	}
	if v.t.scheme == sentencePiece && v.t.byteFallback {
		for id := range v.t.pieces {
			if _, ok := byteName(v.t.pieces[id].text); ok {
				v.t.pieces[id].kind = single
			}
		}
	}
	return nil
}

// put enters a new piece.
func (v *vocabulary) put(id int32, text string, k kind) error {
	if id < 0 || id >= maxVocab {
		return fmt.Errorf("%q has id %d, want 0 to %d", text, id, maxVocab-1)
	}
	if grow := int(id) + 1 - len(v.t.pieces); grow > 0 {
		v.t.pieces = append(v.t.pieces, make([]piece, grow)...)
	}
	p := &v.t.pieces[id]
	if p.kind != absent {
		return fmt.Errorf("%q and %q both have id %d", p.text, text, id)
	}
	p.text, p.kind = text, k
	return nil
}

// add enters the added tokens, which may name pieces of the vocabulary too.
func (v *vocabulary) add(tokens []addedToken) error {
	v.strips = map[int32]added{}
	seen := map[int32]bool{}
	for _, a := range tokens {
		k := defined
		if a.Special {
			k = control
		}
		if a.SingleWord {
			return fmt.Errorf("added token %q: single_word is not supported", a.Content)
		}
		if a.Content == "" {
			return fmt.Errorf("added token %d is empty", a.ID)
		}
		if seen[a.ID] {
			return fmt.Errorf("added token %d is listed twice", a.ID)
		}
		seen[a.ID] = true
		if a.ID >= 0 && int(a.ID) < len(v.t.pieces) && v.t.pieces[a.ID].text == a.Content {
			v.t.pieces[a.ID].kind = k
		} else if err := v.put(a.ID, a.Content, k); err != nil {
			return fmt.Errorf("added token: %w", err)
		}
		if a.LStrip || a.RStrip {
			v.strips[a.ID] = added{lstrip: a.LStrip, rstrip: a.RStrip}
		}
	}
	return nil
}

// readMerges reads ["a b", ...] or, as newer files have it, [["a","b"], ...].
func readMerges(raw json.RawMessage) ([][2]string, error) {
	if !isSet(raw) {
		return nil, nil
	}
	var pairs [][]string
	if json.Unmarshal(raw, &pairs) == nil {
		out := make([][2]string, len(pairs))
		for i, p := range pairs {
			if len(p) != 2 {
				return nil, fmt.Errorf("merge %d has %d parts, want 2", i, len(p))
			}
			out[i] = [2]string(p)
		}
		return out, nil
	}
	var lines []string
	if err := json.Unmarshal(raw, &lines); err != nil {
		return nil, err
	}
	return splitMerges(lines)
}

// splitMerges splits lines of two parts with one space between them.
func splitMerges(lines []string) ([][2]string, error) {
	out := make([][2]string, len(lines))
	for i, line := range lines {
		left, right, ok := cutSpace(line)
		if !ok {
			return nil, fmt.Errorf("merge %d, %q, is not two parts with a space between them", i, line)
		}
		out[i] = [2]string{left, right}
	}
	return out, nil
}

func cutSpace(line string) (left, right string, ok bool) {
	at := bytes.IndexByte([]byte(line), ' ')
	if at <= 0 || at == len(line)-1 || bytes.IndexByte([]byte(line[at+1:]), ' ') >= 0 {
		return "", "", false
	}
	return line[:at], line[at+1:], true
}

func isSet(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

func orNull(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage("null")
	}
	return raw
}
