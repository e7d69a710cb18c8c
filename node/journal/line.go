package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// LineError says which line of an imported file is wrong, and how, in words of its own: what a JSON decoder would quote
// is the owner's text.
type LineError struct {
	Line   int // from 1
	Reason string
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Reason) }

var (
	errNotObject = errors.New(`not a JSON object of the form {"user": "...", "text": "..."}`)
	errNoUser    = errors.New("user is missing or empty")
	errNoText    = errors.New("text is missing or blank")
)

// parseLine reads one line, strictly: one object, the fields user and text once each, both strings, nothing after it.
// Its errors quote nothing.
func parseLine(line []byte) (user, text string, err error) {
	if !utf8.Valid(line) {
		return "", "", errors.New("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(line))
	if tok, err := d.Token(); err != nil || tok != json.Delim('{') {
		return "", "", errNotObject
	}
	seen := map[string]bool{}
	for d.More() {
		name, ok := stringToken(d)
		if !ok {
			return "", "", errNotObject
		}
		if name != "user" && name != "text" {
			return "", "", errors.New("a field other than user and text")
		}
		if seen[name] {
			return "", "", fmt.Errorf("%s stands twice", name)
		}
		seen[name] = true
		value, ok := stringToken(d)
		if !ok {
			return "", "", fmt.Errorf("%s is not a string", name)
		}
		if name == "user" {
			user = value
		} else {
			text = value
		}
	}
	if tok, err := d.Token(); err != nil || tok != json.Delim('}') {
		return "", "", errNotObject
	}
	if _, err := d.Token(); err != io.EOF {
		return "", "", errors.New("something stands after the object")
	}
	switch {
	case strings.TrimSpace(user) == "":
		return "", "", errNoUser
	case len(user) > UserBytesMax:
		return "", "", fmt.Errorf("user has %d bytes, limit %d", len(user), UserBytesMax)
	case strings.TrimSpace(text) == "":
		return "", "", errNoText
	}
	return user, text, nil
}

func stringToken(d *json.Decoder) (string, bool) {
	tok, err := d.Token()
	s, ok := tok.(string)
	return s, ok && err == nil
}
