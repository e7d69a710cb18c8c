package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ruche-federation/ruche/node/llm/half"
)

// Values is one tensor to write.
type Values struct {
	Name  string
	DType string // "F32" (also when empty), "F16" or "BF16": values are rounded to nearest even
	Shape []int  // outermost first
	Data  []float32
}

// Write writes tensors and metadata (as {"format": "pt"}; nil for none) to w. The bytes depend on nothing but what is
// written: wider types first, then by name, the header padded with spaces to a multiple of eight bytes, as the
// reference implementation does.
func Write(w io.Writer, tensors []Values, metadata map[string]string) error {
	tensors = slices.Clone(tensors)
	seen := make(map[string]bool, len(tensors))
	for i, t := range tensors {
		if t.DType == "" {
			tensors[i].DType, t.DType = "F32", "F32"
		}
		if err := t.check(); err != nil {
			return fmt.Errorf("safetensors: write tensor %s: %w", quoteName(t.Name), err)
		}
		if seen[t.Name] {
			return fmt.Errorf("safetensors: write tensor %s: the name occurs twice", quoteName(t.Name))
		}
		seen[t.Name] = true
	}
	if len(tensors) > maxTensors {
		return fmt.Errorf("safetensors: write: %d tensors, limit %d", len(tensors), maxTensors)
	}
	slices.SortFunc(tensors, func(a, b Values) int {
		if r := typeOrder(b.DType) - typeOrder(a.DType); r != 0 {
			return r
		}
		return strings.Compare(a.Name, b.Name)
	})

	header := appendHeader(tensors, metadata)
	if len(header) > maxHeader {
		return fmt.Errorf("safetensors: write: header has %d bytes, limit %d", len(header), maxHeader)
	}
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	if _, err := w.Write(append(out, header...)); err != nil {
		return fmt.Errorf("safetensors: write header: %w", err)
	}
	var buf []byte
	for _, t := range tensors {
		for rest := t.Data; len(rest) > 0; {
			n := min(len(rest), readChunk/4)
			switch t.DType {
			case "F32":
				buf = half.AppendF32(buf[:0], rest[:n])
			case "F16":
				buf = half.AppendF16(buf[:0], rest[:n])
			case "BF16":
				buf = half.AppendBF16(buf[:0], rest[:n])
			}
			if _, err := w.Write(buf); err != nil {
				return fmt.Errorf("safetensors: write tensor %s: %w", quoteName(t.Name), err)
			}
			rest = rest[n:]
		}
	}
	return nil
}

// WriteFile writes a whole file or none: into a temporary file beside path, synced, then renamed. Whoever needs the
// new name itself to survive a power cut syncs the folder.
func WriteFile(path string, tensors []Values, metadata map[string]string) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	defer func() {
		if err != nil {
			tmp.Close()
			os.Remove(tmp.Name())
		}
	}()
	if err := Write(tmp, tensors, metadata); err != nil {
		return err
	}
	if err := tmp.Chmod(0o644); err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	if err := tmp.Sync(); err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	return nil
}

func (t Values) check() error {
	if t.Name == "" || t.Name == metadataKey || len(t.Name) > maxName {
		return fmt.Errorf("the name is empty, reserved or has more than %d bytes", maxName)
	}
	if typeOrder(t.DType) == 0 {
		return fmt.Errorf("dtype %s; this build writes F32, F16, BF16", quoteName(t.DType))
	}
	if len(t.Shape) > maxDims {
		return fmt.Errorf("shape has %d dimensions, limit %d", len(t.Shape), maxDims)
	}
	for _, d := range t.Shape {
		if d < 0 {
			return fmt.Errorf("shape %v has a negative dimension", t.Shape)
		}
	}
	if n, ok := sizeOf(t.Shape, 1); !ok || n != int64(len(t.Data)) {
		return fmt.Errorf("shape %v does not hold %d values", t.Shape, len(t.Data))
	}
	return nil
}

// typeOrder ranks the writable types as the reference implementation does, the widest highest; 0 for all others.
func typeOrder(dtype string) int {
	return 1 + slices.Index([]string{"F16", "BF16", "F32"}, dtype)
}

func appendHeader(tensors []Values, metadata map[string]string) []byte {
	h := []byte{'{'}
	if len(metadata) > 0 {
		h = append(appendJSON(h, metadataKey), ":{"...)
		for i, k := range slices.Sorted(maps.Keys(metadata)) {
			if i > 0 {
				h = append(h, ',')
			}
			h = appendJSON(append(appendJSON(h, k), ':'), metadata[k])
		}
		h = append(h, '}')
	}
	offset := 0
	for _, t := range tensors {
		if len(h) > 1 {
			h = append(h, ',')
		}
		end := offset + len(t.Data)*dtypes[t.DType]
		shape := t.Shape
		if shape == nil {
			shape = []int{}
		}
		h = append(appendJSON(h, t.Name), `:{"dtype":`...)
		h = append(appendJSON(h, t.DType), `,"shape":`...)
		h = append(appendJSON(h, shape), `,"data_offsets":`...)
		h = append(appendJSON(h, [2]int{offset, end}), '}')
		offset = end
	}
	h = append(h, '}')
	for len(h)%8 != 0 {
		h = append(h, ' ')
	}
	return h
}

// appendJSON appends v without HTML's escapes. Strings, integers and lists of them cannot fail.
func appendJSON(dst []byte, v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return dst
	}
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte{'\n'})...)
}
