package charter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// unmarshalStrict reads one JSON value into v. encoding/json alone would fold the case of keys, keep the last of two
// equal keys and stop after the first value: two readers could then see different rules in the same signed bytes.
func unmarshalStrict(data []byte, v any) error {
	if err := checkKeys(data); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	return nil
}

// checkKeys walks the tokens: one value, no key twice in one object, every key in lower-case snake form.
func checkKeys(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := walk(d, 0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("something follows the JSON value")
	}
	return nil
}

func walk(d *json.Decoder, depth int) error {
	if depth > JSONDepthMax {
		return fmt.Errorf("JSON nests deeper than %d", JSONDepthMax)
	}
	tok, err := d.Token()
	if err != nil {
		return err
	}
	open, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '{' {
			tok, err := d.Token()
			if err != nil {
				return err
			}
			key, _ := tok.(string)
			if !snake(key) {
				return fmt.Errorf("unknown field %.40q", key)
			}
			if seen[key] {
				return fmt.Errorf("field %q stands twice", key)
			}
			seen[key] = true
		}
		if err := walk(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token() // the closing delimiter
	return err
}

func snake(key string) bool {
	for _, r := range key {
		if !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_') {
			return false
		}
	}
	return key != ""
}
