package gguf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/ruche-federation/ruche/node/llm/half"
)

// Tensor says where one tensor lies and how it is to be read.
type Tensor struct {
	Name   string
	Type   string // as llama.cpp spells it: "F32", "BF16", "Q4_0", ...
	Shape  []int  // outermost first
	Offset int64  // of the first byte, from the start of the file
	Size   int64  // in bytes
}

// Values is the number of values in the tensor.
func (t Tensor) Values() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// File is an open GGUF file. It is safe for concurrent use; Close ends it.
type File struct {
	name    string
	r       io.ReaderAt
	closer  io.Closer
	keys    []string // in the order of the file
	values  map[string]any
	tensors map[string]Tensor
	names   []string // in the order of the file
}

// ErrMissing is inside the error of a getter whose key is not in the file.
var ErrMissing = errors.New("key is not in the file")

// Open opens the file at path and checks everything but the tensors' values.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("gguf: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("gguf: %w", err)
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
	f := &File{name: name, r: r, values: map[string]any{}, tensors: map[string]Tensor{}}
	if err := f.readHeader(size); err != nil {
		return nil, fmt.Errorf("gguf: %s: %w", name, err)
	}
	return f, nil
}

// Close closes the file that Open opened.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// Names lists the tensors in the order of the file.
func (f *File) Names() []string { return slices.Clone(f.names) }

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
		return fmt.Errorf("gguf: %s: tensor %s has %d values, the destination %d", f.name, name, t.Values(), len(dst))
	}
	return f.read(t, dst)
}

func (f *File) floats(name string) (Tensor, error) {
	t, ok := f.tensors[name]
	if !ok {
		return Tensor{}, fmt.Errorf("gguf: %s: no tensor %s", f.name, name)
	}
	switch t.Type {
	case "F32", "F16", "BF16":
		return t, nil
	}
	return Tensor{}, fmt.Errorf("gguf: %s: tensor %s has type %s; this build reads F32, F16, BF16", f.name, name, t.Type)
}

func (f *File) read(t Tensor, dst []float32) error {
	width := 2
	if t.Type == "F32" {
		width = 4
	}
	buf := make([]byte, min(readChunk, int(t.Size)))
	at := t.Offset
	for len(dst) > 0 {
		n := min(len(dst), len(buf)/width)
		raw := buf[:n*width]
		if got, err := f.r.ReadAt(raw, at); got < len(raw) {
			return fmt.Errorf("gguf: %s: tensor %s: %w", f.name, t.Name, short(err))
		}
		switch t.Type {
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

// short says of a file that stops early that it does.
func short(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
