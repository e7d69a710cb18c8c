package lab

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
)

// drawer hands out randomness and remembers what looks like a secret.
type drawer struct {
	from    io.Reader
	secrets *secrets
	mu      sync.Mutex // guards from
}

// Read fills p. It never fails.
func (d *drawer) Read(p []byte) (int, error) {
	d.mu.Lock()
	n, err := io.ReadFull(d.from, p)
	d.mu.Unlock()
	if n >= secretMin && n <= secretMax {
		d.secrets.add(p[:n])
	}
	return n, err
}

// secrets knows every secret of a federation and looks for them in whatever is said. As an io.Writer it takes the log
// lines of all members and devices.
type secrets struct {
	found func(form string)

	mu    sync.Mutex // guards what follows; a leaf
	known int
	raw   map[uint64][][]byte // by their first 8 bytes
	text  map[uint64][]form   // printed forms, by their first 8 bytes
	begin [1 << 16]bool       // first 2 bytes of either: most places are ruled out by these
	tail  []byte              // the end of the last line written: forms may span writes
}

type form struct {
	name string
	text []byte
}

func newSecrets(found func(form string)) *secrets {
	return &secrets{found: found, raw: map[uint64][][]byte{}, text: map[uint64][]form{}}
}

// add makes b a secret, in pieces of 32 bytes: whoever prints half a key prints a secret.
func (s *secrets) add(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(b) > 0 {
		piece := bytes.Clone(b[:min(32, len(b))])
		b = b[len(piece):]
		if len(piece) < 16 || bytes.Count(piece, piece[:1]) == len(piece) {
			continue
		}
		s.known++
		key := binary.LittleEndian.Uint64(piece)
		s.raw[key] = append(s.raw[key], piece[:16])
		s.begin[binary.LittleEndian.Uint16(piece)] = true
		for _, f := range forms(piece) {
			key := binary.LittleEndian.Uint64(f.text)
			s.text[key] = append(s.text[key], f)
			s.begin[binary.LittleEndian.Uint16(f.text)] = true
		}
	}
}

// count is how many pieces of secrets are known.
func (s *secrets) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known
}

// forms are the ways in which Go code prints bytes by accident. 16 bytes are enough to know a secret by.
func forms(b []byte) []form {
	b = b[:16]
	list := strings.Fields(strings.Trim(fmt.Sprint(b), "[]"))
	quoted := strings.Trim(strconv.Quote(string(b)), `"`)
	return []form{
		{"bytes", b},
		{"hex", []byte(hex.EncodeToString(b))},
		{"upper-case hex", []byte(strings.ToUpper(hex.EncodeToString(b)))},
		{"base64", []byte(base64.RawStdEncoding.EncodeToString(b)[:20])},
		{"base64url", []byte(base64.RawURLEncoding.EncodeToString(b)[:20])},
		{"%v", []byte(strings.Join(list, " "))},
		{"a list of numbers", []byte(strings.Join(list, ","))},
		{"%q", []byte(quoted)},
	}
}

// Write takes log lines.
func (s *secrets) Write(p []byte) (int, error) {
	s.mu.Lock()
	hit := s.scanText(append(s.tail, p...))
	s.tail = bytes.Clone(p[max(0, len(p)-256):])
	s.mu.Unlock()
	if hit != "" {
		s.found(hit)
	}
	return len(p), nil
}

// flush looks at what is left of the last line.
func (s *secrets) flush() { _, _ = s.Write(make([]byte, 8)) }

// printed returns the form of the first secret in text, "" if there is none.
func (s *secrets) printed(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.scanText([]byte(text))
}

func (s *secrets) scanText(p []byte) string {
	for i := 0; i+8 <= len(p); i++ {
		if !s.begin[binary.LittleEndian.Uint16(p[i:])] {
			continue
		}
		for _, f := range s.text[binary.LittleEndian.Uint64(p[i:])] {
			if bytes.HasPrefix(p[i:], f.text) {
				return f.name
			}
		}
	}
	return ""
}

// within reports whether a secret stands in binary data as it is.
func (s *secrets) within(p []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 0; i+8 <= len(p); i++ {
		if !s.begin[binary.LittleEndian.Uint16(p[i:])] {
			continue
		}
		for _, b := range s.raw[binary.LittleEndian.Uint64(p[i:])] {
			if bytes.HasPrefix(p[i:], b) {
				return true
			}
		}
	}
	return false
}
