package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// Stream decodes tokens one by one as they are generated. It holds back the bytes of a character until the last of
// them has come, so that each part it returns is UTF-8.
type Stream struct {
	t     *Tokenizer
	held  []byte // the beginning of a character
	strip bool   // the next byte begins the text
}

// Stream begins to decode. start says that the first token begins a text, as for Decode; false, that it continues one,
// as an answer continues a prompt: then a leading space stays.
func (t *Tokenizer) Stream(start bool) *Stream { return &Stream{t: t, strip: start && t.strip} }

// Next returns the text that id completes, which may be none.
func (s *Stream) Next(id int32) string {
	raw := s.t.raw(id)
	if raw == "" {
		return ""
	}
	if s.strip {
		s.strip = false
		raw = strings.TrimPrefix(raw, " ")
	}
	s.held = append(s.held, raw...)
	return s.take(false)
}

// Flush returns what is held back, U+FFFD for each byte, and makes the stream ready for the text that follows.
func (s *Stream) Flush() string { return s.take(true) }

func (s *Stream) take(all bool) string {
	var b strings.Builder
	rest := s.held
	for len(rest) > 0 && (all || utf8.FullRune(rest)) {
		r, n := utf8.DecodeRune(rest)
		b.WriteRune(r)
		rest = rest[n:]
	}
	s.held = append(s.held[:0], rest...)
	return b.String()
}
