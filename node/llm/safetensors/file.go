package safetensors

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/ruche-federation/ruche/node/llm/half"
)

// Tensor says where one tensor lies and how it is to be read.
type Tensor struct {
	Name   string
	DType  string // as the format spells it: "F32", "BF16", ...
	Shape  []int  // outermost first; empty for a scalar
	Offset int64  // of the first byte, from the start of the file
	Size   int64  // in bytes
}

// Values is the number of values in the tensor.
func (t Tensor) Values() int { return int(t.Size / int64(dtypes[t.DType])) }

// File is an open safetensors file. It is safe for concurrent use; Close ends it.
type File struct {
	name     string
	r        io.ReaderAt
	closer   io.Closer
	tensors  map[string]Tensor
	names    []string // sorted
	metadata map[string]string
}

// Open opens the file at path and checks its whole header.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	file, err := Read(f, st.Size(), path)
	if err != nil {
		f.Close()
		return nil, err
	}
	file.closer = f
	return file, nil
}

// Read reads a file of size bytes from r; name stands for it in errors. The File reads from r as long as it is used.
func Read(r io.ReaderAt, size int64, name string) (*File, error) {
	f := &File{name: name, r: r}
	if err := f.readHeader(size); err != nil {
		return nil, fmt.Errorf("safetensors: %s: %w", name, err)
	}
	return f, nil
}

func (f *File) readHeader(size int64) error {
	if size < 8 {
		return fmt.Errorf("file has %d bytes, less than the 8 of the header length", size)
	}
	var word [8]byte
	if err := readAt(f.r, word[:], 0); err != nil {
		return fmt.Errorf("header length: %w", err)
	}
	n := binary.LittleEndian.Uint64(word[:])
	if n > maxHeader {
		return fmt.Errorf("header has %d bytes, limit %d", n, maxHeader)
	}
	if int64(n) > size-8 {
		return fmt.Errorf("header has %d bytes, the file only %d after the length", n, size-8)
	}
	raw := make([]byte, n)
	if err := readAt(f.r, raw, 8); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	tensors, metadata, err := parseHeader(raw, size-8-int64(n))
	if err != nil {
		return err
	}
	f.metadata = metadata
	f.tensors = make(map[string]Tensor, len(tensors))
	for _, t := range tensors {
		t.Offset += 8 + int64(n)
		f.tensors[t.Name] = t
	}
	f.names = slices.Sorted(maps.Keys(f.tensors))
	return nil
}

// Close closes the file that Open opened.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// Names lists the tensors, sorted.
func (f *File) Names() []string { return slices.Clone(f.names) }

// Metadata is the header's free text, nil when there is none.
func (f *File) Metadata() map[string]string { return maps.Clone(f.metadata) }

// Tensor describes the named tensor.
func (f *File) Tensor(name string) (Tensor, bool) {
	t, ok := f.tensors[name]
	t.Shape = slices.Clone(t.Shape)
	return t, ok
}

// Float32 reads the named tensor as float32, row-major, with its shape.
func (f *File) Float32(name string) ([]float32, []int, error) {
	t, err := f.floats(name)
	if err != nil {
		return nil, nil, err
	}
	dst := make([]float32, t.Values())
	if err := f.read(t, dst); err != nil {
		return nil, nil, err
	}
	return dst, slices.Clone(t.Shape), nil
}

// ReadFloat32 reads the named tensor into dst, which must have exactly its number of values.
func (f *File) ReadFloat32(name string, dst []float32) error {
	t, err := f.floats(name)
	if err != nil {
		return err
	}
	if len(dst) != t.Values() {
		return fmt.Errorf("safetensors: %s: tensor %s has %d values, the destination %d", f.name, name, t.Values(), len(dst))
	}
	return f.read(t, dst)
}

func (f *File) floats(name string) (Tensor, error) {
	t, ok := f.tensors[name]
	if !ok {
		return Tensor{}, fmt.Errorf("safetensors: %s: no tensor %s", f.name, name)
	}
	switch t.DType {
	case "F32", "F16", "BF16":
		return t, nil
	}
	return Tensor{}, fmt.Errorf("safetensors: %s: tensor %s has dtype %s; this build reads F32, F16, BF16", f.name, name, t.DType)
}

func (f *File) read(t Tensor, dst []float32) error {
	width := dtypes[t.DType]
	buf := make([]byte, min(readChunk, int(t.Size)))
	at := t.Offset
	for len(dst) > 0 {
		n := min(len(dst), len(buf)/width)
		raw := buf[:n*width]
		if err := readAt(f.r, raw, at); err != nil {
			return fmt.Errorf("safetensors: %s: tensor %s: %w", f.name, t.Name, err)
		}
		switch t.DType {
		case "F32":
			half.DecodeF32(dst[:n], raw)
		case "F16":
			half.DecodeF16(dst[:n], raw)
		case "BF16":
			half.DecodeBF16(dst[:n], raw)
		}
		dst, at = dst[n:], at+int64(len(raw))
	}
	return nil
}

// readAt fills p or says why not: a reader may return io.EOF together with a whole p.
func readAt(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
