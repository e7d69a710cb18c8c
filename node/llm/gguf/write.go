package gguf

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/ruche-federation/ruche/node/llm/half"
)

// KeyValue is one key to write. Value is a uint8, int8, uint16, ..., float64, bool, string, or a slice of one of them.
type KeyValue struct {
	Key   string
	Value any
}

// Values is one tensor to write.
type Values struct {
	Name  string
	Type  string // "F32" (also when empty), "F16" or "BF16": values are rounded to nearest even
	Shape []int  // outermost first
	Data  []float32
}

// Write writes a version 3 file to w: keys and tensors in the given order, aligned to 32 bytes unless
// general.alignment, a uint32, says otherwise. The same arguments give the same bytes.
func Write(w io.Writer, keys []KeyValue, tensors []Values) error {
	alignment := defaultAlignment
	out := []byte("GGUF")
	out = binary.LittleEndian.AppendUint32(out, 3)
	out = binary.LittleEndian.AppendUint64(out, uint64(len(tensors)))
	out = binary.LittleEndian.AppendUint64(out, uint64(len(keys)))
	seen := map[string]bool{}
	for _, kv := range keys {
		if kv.Key == "" || len(kv.Key) > maxKey || seen[kv.Key] {
			return fmt.Errorf("gguf: write key %s: empty, twice or more than %d bytes", quote(kv.Key), maxKey)
		}
		seen[kv.Key] = true
		if kv.Key == "general.alignment" {
			a, ok := kv.Value.(uint32)
			if !ok || a == 0 || a > maxAlignment || a&(a-1) != 0 {
				return fmt.Errorf("gguf: write: general.alignment is %v, want a uint32 that is a power of two up to %d", kv.Value, maxAlignment)
			}
			alignment = int(a)
		}
		var err error
		if out, err = appendValue(appendText(out, kv.Key), kv.Value); err != nil {
			return fmt.Errorf("gguf: write key %s: %w", quote(kv.Key), err)
		}
	}
	pad := func(n int) int { return (n + alignment - 1) &^ (alignment - 1) }
	offset := 0
	clear(seen)
	for _, t := range tensors {
		number, width, err := t.check()
		if err == nil && seen[t.Name] {
			err = fmt.Errorf("the name occurs twice")
		}
		if err != nil {
			return fmt.Errorf("gguf: write tensor %s: %w", quote(t.Name), err)
		}
		seen[t.Name] = true
		out = binary.LittleEndian.AppendUint32(appendText(out, t.Name), uint32(len(t.Shape)))
		for _, n := range slices.Backward(t.Shape) {
			out = binary.LittleEndian.AppendUint64(out, uint64(n))
		}
		out = binary.LittleEndian.AppendUint32(out, number)
		out = binary.LittleEndian.AppendUint64(out, uint64(offset))
		offset = pad(offset + width*len(t.Data))
	}
	if len(tensors) > 0 {
		out = append(out, make([]byte, pad(len(out))-len(out))...)
	}
	if _, err := w.Write(out); err != nil {
		return fmt.Errorf("gguf: write header: %w", err)
	}
	for _, t := range tensors {
		if err := t.write(w, pad); err != nil {
			return fmt.Errorf("gguf: write tensor %s: %w", quote(t.Name), err)
		}
	}
	return nil
}

func (t Values) check() (number uint32, width int, err error) {
	switch t.Type {
	case "", "F32":
		number, width = 0, 4
	case "F16":
		number, width = 1, 2
	case "BF16":
		number, width = 30, 2
	default:
		return 0, 0, fmt.Errorf("type %s; this build writes F32, F16, BF16", quote(t.Type))
	}
	if t.Name == "" || len(t.Name) > maxName {
		return 0, 0, fmt.Errorf("the name is empty or has more than %d bytes", maxName)
	}
	if len(t.Shape) == 0 || len(t.Shape) > maxDims {
		return 0, 0, fmt.Errorf("%d dimensions, want 1 to %d", len(t.Shape), maxDims)
	}
	n := 1
	for _, d := range t.Shape {
		if d < 0 || d != 0 && n > math.MaxInt/d {
			return 0, 0, fmt.Errorf("shape %v is negative or too large", t.Shape)
		}
		n *= d
	}
	if n != len(t.Data) {
		return 0, 0, fmt.Errorf("shape %v does not hold %d values", t.Shape, len(t.Data))
	}
	return number, width, nil
}

func (t Values) write(w io.Writer, pad func(int) int) error {
	var buf []byte
	written := 0
	for rest := t.Data; len(rest) > 0; {
		n := min(len(rest), readChunk/4)
		switch t.Type {
		case "F16":
			buf = half.AppendF16(buf[:0], rest[:n])
		case "BF16":
			buf = half.AppendBF16(buf[:0], rest[:n])
		default:
			buf = half.AppendF32(buf[:0], rest[:n])
		}
		if _, err := w.Write(buf); err != nil {
			return err
		}
		written += len(buf)
		rest = rest[n:]
	}
	_, err := w.Write(make([]byte, pad(written)-written))
	return err
}

func appendText(dst []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint64(dst, uint64(len(s))), s...)
}

// appendValue appends the type's number and the value.
func appendValue(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case uint8:
		return scalar(dst, typeUint8, v)
	case int8:
		return scalar(dst, typeInt8, v)
	case uint16:
		return scalar(dst, typeUint16, v)
	case int16:
		return scalar(dst, typeInt16, v)
	case uint32:
		return scalar(dst, typeUint32, v)
	case int32:
		return scalar(dst, typeInt32, v)
	case float32:
		return scalar(dst, typeFloat32, v)
	case bool:
		return scalar(dst, typeBool, v)
	case uint64:
		return scalar(dst, typeUint64, v)
	case int64:
		return scalar(dst, typeInt64, v)
	case float64:
		return scalar(dst, typeFloat64, v)
	case string:
		return appendText(binary.LittleEndian.AppendUint32(dst, typeString), v), nil
	case []uint8:
		return array(dst, typeUint8, v)
	case []int8:
		return array(dst, typeInt8, v)
	case []uint16:
		return array(dst, typeUint16, v)
	case []int16:
		return array(dst, typeInt16, v)
	case []uint32:
		return array(dst, typeUint32, v)
	case []int32:
		return array(dst, typeInt32, v)
	case []float32:
		return array(dst, typeFloat32, v)
	case []bool:
		return array(dst, typeBool, v)
	case []uint64:
		return array(dst, typeUint64, v)
	case []int64:
		return array(dst, typeInt64, v)
	case []float64:
		return array(dst, typeFloat64, v)
	case []string:
		dst = binary.LittleEndian.AppendUint32(dst, typeArray)
		dst = binary.LittleEndian.AppendUint32(dst, typeString)
		dst = binary.LittleEndian.AppendUint64(dst, uint64(len(v)))
		for _, s := range v {
			dst = appendText(dst, s)
		}
		return dst, nil
	}
	return nil, fmt.Errorf("a value of type %T cannot be written", v)
}

func scalar(dst []byte, kind uint32, v any) ([]byte, error) {
	return binary.Append(binary.LittleEndian.AppendUint32(dst, kind), binary.LittleEndian, v)
}

func array[T any](dst []byte, kind uint32, v []T) ([]byte, error) {
	dst = binary.LittleEndian.AppendUint32(dst, typeArray)
	dst = binary.LittleEndian.AppendUint32(dst, kind)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(len(v)))
	return binary.Append(dst, binary.LittleEndian, v)
}
