package safetensors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

// dtypes gives the bytes of a value of each known type. Types below a byte (F4, F6_*) are not known here: nothing
// that this build could read uses them.
var dtypes = map[string]int{
	"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
	"U16": 2, "I16": 2, "F16": 2, "BF16": 2,
	"U32": 4, "I32": 4, "F32": 4,
	"U64": 8, "I64": 8, "F64": 8, "C64": 8,
}

const metadataKey = "__metadata__"

// parseHeader reads the JSON header of a file with dataLen bytes after it. Offsets in the result count from the
// first of those bytes. It is stricter than encoding/json: every name once, every field once, no unknown field,
// integers written as integers.
func parseHeader(raw []byte, dataLen int64) ([]Tensor, map[string]string, error) {
	if len(raw) == 0 || raw[0] != '{' {
		return nil, nil, errors.New("header does not begin with {")
	}
	if !utf8.Valid(raw) {
		return nil, nil, errors.New("header is not UTF-8")
	}
	h := &headerReader{dec: json.NewDecoder(bytes.NewReader(raw))}
	h.dec.UseNumber()
	var (
		tensors  []Tensor
		metadata map[string]string
	)
	err := h.object("header", maxTensors+1, func(name string) error {
		if name == metadataKey {
			metadata = map[string]string{}
			return h.object(metadataKey, maxTensors, func(key string) error {
				s, err := h.text(metadataKey + " " + strconv.Quote(key))
				metadata[key] = s
				return err
			})
		}
		t, err := h.tensor(name)
		if err != nil {
			return fmt.Errorf("tensor %s: %w", quoteName(name), err)
		}
		tensors = append(tensors, t)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	// What follows the object may only be the spaces that align the data.
	if rest := bytes.Trim(raw[h.dec.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return nil, nil, fmt.Errorf("header has %d bytes after its object", len(rest))
	}
	if err := checkPlaces(tensors, dataLen); err != nil {
		return nil, nil, err
	}
	return tensors, metadata, nil
}

// checkPlaces holds the tensors to the format's rule: in the order of their offsets they fill the data exactly.
func checkPlaces(tensors []Tensor, dataLen int64) error {
	slices.SortFunc(tensors, func(a, b Tensor) int {
		if a.Offset != b.Offset {
			return compare(a.Offset, b.Offset)
		}
		if a.Size != b.Size { // empty tensors first
			return compare(a.Size, b.Size)
		}
		return bytes.Compare([]byte(a.Name), []byte(b.Name))
	})
	var end int64
	for _, t := range tensors {
		switch {
		case t.Offset > dataLen || t.Size > dataLen-t.Offset:
			return fmt.Errorf("tensor %s: data_offsets end at %d, the data has %d bytes", quoteName(t.Name), t.Offset+t.Size, dataLen)
		case t.Offset < end:
			return fmt.Errorf("tensor %s: data_offsets begin at %d, inside the tensor before, which ends at %d", quoteName(t.Name), t.Offset, end)
		case t.Offset > end:
			return fmt.Errorf("tensor %s: data_offsets begin at %d, the tensor before ends at %d: a hole", quoteName(t.Name), t.Offset, end)
		}
		end += t.Size
	}
	if end != dataLen {
		return fmt.Errorf("tensors end at %d, the data has %d bytes", end, dataLen)
	}
	return nil
}

type headerReader struct{ dec *json.Decoder }

func (h *headerReader) tensor(name string) (Tensor, error) {
	t := Tensor{Name: name}
	if len(name) > maxName {
		return t, fmt.Errorf("name has %d bytes, limit %d", len(name), maxName)
	}
	var begin, end uint64
	fields := 0
	err := h.object("entry", 3, func(field string) error {
		fields++
		switch field {
		case "dtype":
			s, err := h.text(field)
			if err != nil {
				return err
			}
			if dtypes[s] == 0 {
				return fmt.Errorf("dtype %s is not known", quoteName(s))
			}
			t.DType = s
			return nil
		case "shape":
			dims, err := h.integers(field, maxDims)
			if err != nil {
				return err
			}
			t.Shape = make([]int, len(dims))
			for i, d := range dims {
				if d > math.MaxInt {
					return fmt.Errorf("shape has the dimension %d, limit %d", d, math.MaxInt)
				}
				t.Shape[i] = int(d)
			}
			return nil
		case "data_offsets":
			o, err := h.integers(field, 2)
			if err != nil {
				return err
			}
			if len(o) != 2 {
				return fmt.Errorf("data_offsets has %d numbers, want 2", len(o))
			}
			begin, end = o[0], o[1]
			return nil
		}
		return fmt.Errorf("unknown field %s", quoteName(field))
	})
	if err != nil {
		return t, err
	}
	if fields != 3 {
		return t, errors.New("has not all of dtype, shape, data_offsets")
	}
	if begin > end || end > math.MaxInt64 {
		return t, fmt.Errorf("data_offsets [%d,%d] are not an ascending range below 2^63", begin, end)
	}
	size, ok := sizeOf(t.Shape, dtypes[t.DType])
	if !ok {
		return t, fmt.Errorf("shape %v of %s has more than 2^63 bytes", t.Shape, t.DType)
	}
	if uint64(size) != end-begin {
		return t, fmt.Errorf("data_offsets hold %d bytes, shape %v of %s needs %d", end-begin, t.Shape, t.DType, size)
	}
	t.Offset, t.Size = int64(begin), size
	return t, nil
}

// sizeOf is the product of shape and width, unless it leaves int64. A zero dimension does not excuse an overflow before it.
func sizeOf(shape []int, width int) (int64, bool) {
	size := int64(width)
	for _, d := range shape {
		if d != 0 && size > math.MaxInt64/int64(d) {
			return 0, false
		}
		size *= int64(d)
	}
	return size, true
}

// object reads {...} and calls each for every name, which must read the value. Names are unique.
func (h *headerReader) object(what string, limit int, each func(name string) error) error {
	if err := h.delim(what, '{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for h.dec.More() {
		name, err := h.text(what + " name")
		if err != nil {
			return err
		}
		if seen[name] {
			return fmt.Errorf("%s names %s twice", what, quoteName(name))
		}
		if len(seen) == limit {
			return fmt.Errorf("%s has more than %d entries", what, limit)
		}
		seen[name] = true
		if err := each(name); err != nil {
			return err
		}
	}
	return h.delim(what, '}')
}

func (h *headerReader) integers(what string, limit int) ([]uint64, error) {
	if err := h.delim(what, '['); err != nil {
		return nil, err
	}
	var out []uint64
	for h.dec.More() {
		tok, err := h.dec.Token()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, jsonError(err))
		}
		n, ok := tok.(json.Number)
		if !ok {
			return nil, fmt.Errorf("%s holds something other than integers", what)
		}
		v, err := strconv.ParseUint(string(n), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s holds %s, which is no integer in [0, 2^64)", what, quoteName(string(n)))
		}
		if len(out) == limit {
			return nil, fmt.Errorf("%s has more than %d numbers", what, limit)
		}
		out = append(out, v)
	}
	return out, h.delim(what, ']')
}

func (h *headerReader) text(what string) (string, error) {
	tok, err := h.dec.Token()
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, jsonError(err))
	}
	s, ok := tok.(string)
	if !ok {
		return "", fmt.Errorf("%s is no string", what)
	}
	return s, nil
}

func (h *headerReader) delim(what string, want json.Delim) error {
	tok, err := h.dec.Token()
	if err != nil {
		return fmt.Errorf("%s: %w", what, jsonError(err))
	}
	if tok != want {
		return fmt.Errorf("%s: want %s", what, want)
	}
	return nil
}

// jsonError says of a header that stops early that it does.
func jsonError(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// quoteName quotes text from a file for an error, shortened.
func quoteName(s string) string {
	if len(s) > 120 {
		s = s[:120] + "..."
	}
	return strconv.Quote(s)
}

func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
