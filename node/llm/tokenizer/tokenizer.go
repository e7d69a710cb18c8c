package tokenizer

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Tokenizer is one model's vocabulary and the rules that go with it. It does not change once read and is safe for
// concurrent use.
type Tokenizer struct {
	scheme  scheme
	pieces  []piece
	ids     map[string]int32 // what text may become: bytes (byte-level) or spelling of every ordinary piece
	special map[string]int32 // every other piece by its spelling
	bytes   [256]int32       // the token of each single byte, -1 where there is none
	merges  map[pair]merge   // ranked merges; nil where scores order them
	ranked  []pair           // the same, in order of rank
	scores  []float32        // by id; nil where ranks order the merges
	longest int              // bytes of the longest ordinary piece
	added   []added          // special pieces as EncodeSpecial recognises them

	unknown, bos, eos int32 // -1: none
	addBOS            bool
	fuseUnknown       bool // runs of unknown characters become one token
	byteFallback      bool // unknown characters become the tokens of their bytes
	ignoreMerges      bool // a word that is a piece is that piece, whatever the merges say

	pattern pattern // byte-level: how words are cut
	compose bool    // text is composed (NFC) first

	space       string // SentencePiece: how a space is spelled
	prefix      prefix
	splitSpaces bool // SentencePiece: every space begins a word, merges do not cross it
	splitRuns   bool // SentencePiece: no piece crosses from a word to a space, so each run of spaces begins a word
	strip       bool // decoding drops one space at the start of a text
}

type scheme uint8

const (
	byteLevel scheme = iota
	sentencePiece
)

// prefix says when a SentencePiece vocabulary puts a space before a text.
type prefix uint8

const (
	prefixNever   prefix = iota
	prefixAlways         // before every text that is not empty
	prefixMissing        // before every text that does not begin with one
	prefixFirst          // as prefixMissing, but not after a special token
)

type kind uint8

const (
	absent   kind = iota // an id without a token
	ordinary             // made from text
	control              // special: never made from text, prints nothing
	defined              // added but not special: never made from text, prints its spelling
	single               // SentencePiece: stands for one byte
)

type piece struct {
	text string // as the vocabulary spells it
	kind kind
	raw  string // the bytes it adds to a text
}

type pair struct{ left, right int32 }

type merge struct{ rank, id int32 }

type added struct {
	text           string
	id             int32
	lstrip, rstrip bool // takes the spaces before, after it along
}

// Encode returns the tokens of text, without BOS or EOS. Names of special tokens inside the text are text.
func (t *Tokenizer) Encode(text string) []int32 {
	m := merger{t: t}
	return t.encode(&m, nil, text, true)
}

// EncodeSpecial is Encode, except that the names of special and added tokens become those tokens. It is for what a
// template wrote. What a person wrote must go through Encode: otherwise it could speak in the model's or the
// system's name.
func (t *Tokenizer) EncodeSpecial(text string) []int32 {
	var (
		m    = merger{t: t}
		out  []int32
		from int
	)
	for i := 0; i < len(text); {
		a, ok := t.addedAt(text[i:])
		if !ok {
			i++
			continue
		}
		before, end := text[from:i], i+len(a.text)
		if a.lstrip {
			before = strings.TrimRightFunc(before, isSpace)
		}
		if a.rstrip {
			end = len(text) - len(strings.TrimLeftFunc(text[end:], isSpace))
		}
		out = append(t.encode(&m, out, before, from == 0), a.id)
		i, from = end, end
	}
	return t.encode(&m, out, text[from:], from == 0)
}

// addedAt returns the longest added token that s begins with. The list is sorted so that it is met first.
func (t *Tokenizer) addedAt(s string) (added, bool) {
	i, _ := slices.BinarySearchFunc(t.added, s[0], func(a added, c byte) int { return int(a.text[0]) - int(c) })
	for ; i < len(t.added) && t.added[i].text[0] == s[0]; i++ {
		if strings.HasPrefix(s, t.added[i].text) {
			return t.added[i], true
		}
	}
	return added{}, false
}

func (t *Tokenizer) encode(m *merger, out []int32, text string, first bool) []int32 {
	if text == "" {
		return out
	}
	if t.compose {
		text = norm.NFC.String(text)
	}
	if t.scheme == byteLevel {
		for word := range t.pattern.words(text) {
			out = m.word(word, out)
		}
		return out
	}
	if t.space != " " {
		text = strings.ReplaceAll(text, " ", t.space)
	}
	switch t.prefix {
	case prefixAlways:
		text = t.space + text
	case prefixMissing, prefixFirst:
		if (t.prefix == prefixMissing || first) && !strings.HasPrefix(text, t.space) {
			text = t.space + text
		}
	}
	for text != "" {
		end := t.endWord(text)
		out = m.word(text[:end], out)
		text = text[end:]
	}
	return out
}

// endWord returns the length of the first word of a SentencePiece text: what can be merged apart from the rest.
func (t *Tokenizer) endWord(text string) int {
	from := 1
	switch {
	case t.splitSpaces:
	case t.splitRuns:
		for from = 0; strings.HasPrefix(text[from:], t.space); from += len(t.space) {
		}
	default:
		return len(text)
	}
	if i := strings.Index(text[from:], t.space); i >= 0 {
		return from + i
	}
	return len(text)
}

// Decode returns the text of ids. Control tokens add nothing; bytes that are no UTF-8 become U+FFFD one by one. A
// vocabulary that puts a space before a text takes it away again: use a Stream for ids that continue a text.
func (t *Tokenizer) Decode(ids []int32) string {
	s := t.Stream(true)
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(s.Next(id))
	}
	b.WriteString(s.Flush())
	return b.String()
}

// Bytes returns what the token adds to a text, which may end within a character. It is empty for control tokens and
// for ids that are not in the vocabulary.
func (t *Tokenizer) Bytes(id int32) []byte { return []byte(t.raw(id)) }

func (t *Tokenizer) raw(id int32) string {
	if id < 0 || int(id) >= len(t.pieces) {
		return ""
	}
	return t.pieces[id].raw
}

// Piece returns the token as the vocabulary spells it, special ones too: for people who look at tokens.
func (t *Tokenizer) Piece(id int32) string {
	if id < 0 || int(id) >= len(t.pieces) {
		return ""
	}
	return t.pieces[id].text
}

// ID returns the token that the vocabulary spells so ("<|eot_id|>").
func (t *Tokenizer) ID(piece string) (int32, bool) {
	if id, ok := t.special[piece]; ok {
		return id, true
	}
	if t.scheme == byteLevel {
		raw, ok := spelled(piece)
		if !ok {
			return -1, false
		}
		piece = raw
	}
	if id, ok := t.ids[piece]; ok {
		return id, true
	}
	return -1, false
}

// VocabSize is the number of ids: one more than the largest.
func (t *Tokenizer) VocabSize() int { return len(t.pieces) }

// BOS is the token that begins a text, -1 where the vocabulary has none.
func (t *Tokenizer) BOS() int32 { return t.bos }

// EOS is the token that ends a text, -1 where none is named.
func (t *Tokenizer) EOS() int32 { return t.eos }

// AddBOS says whether the model was trained on texts that begin with BOS.
func (t *Tokenizer) AddBOS() bool { return t.addBOS && t.bos >= 0 }

// IsControl says whether the token is special: never text.
func (t *Tokenizer) IsControl(id int32) bool {
	return id >= 0 && int(id) < len(t.pieces) && t.pieces[id].kind == control
}

// vocabulary is what the readers gather before finish checks it and builds the lookup tables.
type vocabulary struct {
	t      *Tokenizer
	ranked [][2]string     // merges by spelling
	strips map[int32]added // lstrip and rstrip of special tokens that have them
}

// finish fills everything in v.t that follows from its pieces.
func (v vocabulary) finish() (*Tokenizer, error) {
	t := v.t
	if len(t.pieces) == 0 || len(t.pieces) > maxVocab {
		return nil, fmt.Errorf("vocabulary has %d ids, want 1 to %d", len(t.pieces), maxVocab)
	}
	if t.scores != nil && len(t.scores) != len(t.pieces) {
		return nil, fmt.Errorf("vocabulary has %d scores for %d ids", len(t.scores), len(t.pieces))
	}
	t.ids = make(map[string]int32, len(t.pieces))
	t.special = map[string]int32{}
	for i := range t.bytes {
		t.bytes[i] = -1
	}
	for i := range t.pieces {
		if err := t.index(int32(i), v.strips); err != nil {
			return nil, err
		}
	}
	if t.scheme == sentencePiece {
		t.byteFallback = t.byteFallback && !slices.Contains(t.bytes[:], -1)
		t.splitRuns = !t.crosses()
	} else {
		for b := range t.bytes {
			if id, ok := t.ids[string([]byte{byte(b)})]; ok {
				t.bytes[b] = id
			}
		}
	}
	if t.scores == nil {
		if err := t.rank(v.ranked); err != nil {
			return nil, err
		}
	}
	// Longest first among those that begin alike: addedAt takes the first.
	slices.SortFunc(t.added, func(a, b added) int {
		if a.text[0] != b.text[0] {
			return int(a.text[0]) - int(b.text[0])
		}
		if len(a.text) != len(b.text) {
			return len(b.text) - len(a.text)
		}
		return strings.Compare(a.text, b.text)
	})
	for _, id := range []int32{t.unknown, t.bos, t.eos} {
		if id < -1 || int(id) >= len(t.pieces) {
			return nil, fmt.Errorf("special token %d is beyond the vocabulary of %d", id, len(t.pieces))
		}
	}
	return t, nil
}

// crosses says whether merges may run from a word into the space after it. Where no piece does, cutting there first
// changes nothing but the time it takes.
func (t *Tokenizer) crosses() bool {
	if _, ok := t.ids[t.space]; !ok {
		return true
	}
	for text := range t.ids {
		for strings.HasPrefix(text, t.space) {
			text = text[len(t.space):]
		}
		if strings.Contains(text, t.space) {
			return true
		}
	}
	return false
}

// index enters one piece into the tables.
func (t *Tokenizer) index(id int32, strips map[int32]added) error {
	p := &t.pieces[id]
	if len(p.text) > maxPiece {
		return fmt.Errorf("token %d has %d bytes, limit %d", id, len(p.text), maxPiece)
	}
	if p.text == "" {
		p.kind = absent // nothing spells it and it prints nothing
		return nil
	}
	key, table := p.text, t.special
	switch p.kind {
	case absent:
		return nil
	case defined:
		p.raw = p.text
	case single:
		b, ok := byteName(p.text)
		if !ok {
			return fmt.Errorf("token %d, %q, is said to be a byte", id, p.text)
		}
		p.raw = string([]byte{b})
		t.bytes[b] = id
	case ordinary:
		if t.scheme == sentencePiece {
			p.raw, table = strings.ReplaceAll(p.text, t.space, " "), t.ids
		} else if raw, ok := spelled(p.text); ok {
			p.raw, key, table = raw, raw, t.ids
		} else {
			p.raw = p.text // no text becomes it; it prints as it is, as in the reference
		}
	}
	if before, twice := table[key]; twice {
		return fmt.Errorf("token %q occurs twice, as %d and %d", p.text, before, id)
	}
	table[key] = id
	switch p.kind {
	case ordinary:
		t.longest = max(t.longest, len(key))
	case control, defined:
		a := strips[id]
		a.text, a.id = p.text, id
		t.added = append(t.added, a)
	}
	return nil
}

// rank builds the table of merges. One whose result is special is left out: text must not become a control token.
func (t *Tokenizer) rank(merges [][2]string) error {
	if len(merges) > maxMerges {
		return fmt.Errorf("vocabulary has %d merges, limit %d", len(merges), maxMerges)
	}
	t.merges = make(map[pair]merge, len(merges))
	for i, m := range merges {
		left, lok := t.ID(m[0])
		right, rok := t.ID(m[1])
		to, ok := t.ID(m[0] + m[1])
		if !lok || !rok || !ok {
			return fmt.Errorf("merge %d, %q with %q: a part or the result is not in the vocabulary", i, m[0], m[1])
		}
		p := pair{left, right}
		if _, twice := t.merges[p]; twice {
			return fmt.Errorf("merge %d, %q with %q, occurs twice", i, m[0], m[1])
		}
		if t.pieces[left].kind != ordinary || t.pieces[right].kind != ordinary || t.pieces[to].kind != ordinary {
			continue
		}
		t.merges[p] = merge{int32(i), to}
		t.ranked = append(t.ranked, p)
	}
	return nil
}

// byteName reads the name of a byte token: "<0x0A>".
func byteName(s string) (byte, bool) {
	if len(s) != 6 || s[:3] != "<0x" || s[5] != '>' {
		return 0, false
	}
	var b byte
	for _, c := range []byte(s[3:5]) {
		switch {
		case '0' <= c && c <= '9':
			b = b<<4 | (c - '0')
		case 'A' <= c && c <= 'F':
			b = b<<4 | (c - 'A' + 10)
		default:
			return 0, false
		}
	}
	return b, true
}

func isSpace(r rune) bool {
	var b [utf8.UTFMax]byte
	c, _ := classAt(string(b[:utf8.EncodeRune(b[:], r)]), 0)
	return c == space
}
