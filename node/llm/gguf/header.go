package gguf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"unicode/utf8"
)

// Types of values, by the number the format gives them.
const (
	typeUint8 = iota
	typeInt8
	typeUint16
	typeInt16
	typeUint32
	typeInt32
	typeFloat32
	typeBool
	typeString
	typeArray
	typeUint64
	typeInt64
	typeFloat64
)

// tensorType describes how a type of tensor packs values: count of them in size bytes.
type tensorType struct {
	name        string
	count, size int64
}

// tensorTypes are ggml's types by number (ggml.h, enum ggml_type). Sizes are needed of all of them, to know where the
// next tensor begins; gaps are types that ggml removed.
var tensorTypes = map[uint32]tensorType{
	0: {"F32", 1, 4}, 1: {"F16", 1, 2}, 2: {"Q4_0", 32, 18}, 3: {"Q4_1", 32, 20},
	6: {"Q5_0", 32, 22}, 7: {"Q5_1", 32, 24}, 8: {"Q8_0", 32, 34}, 9: {"Q8_1", 32, 36},
	10: {"Q2_K", 256, 84}, 11: {"Q3_K", 256, 110}, 12: {"Q4_K", 256, 144}, 13: {"Q5_K", 256, 176},
	14: {"Q6_K", 256, 210}, 15: {"Q8_K", 256, 292}, 16: {"IQ2_XXS", 256, 66}, 17: {"IQ2_XS", 256, 74},
	18: {"IQ3_XXS", 256, 98}, 19: {"IQ1_S", 256, 50}, 20: {"IQ4_NL", 32, 18}, 21: {"IQ3_S", 256, 110},
	22: {"IQ2_S", 256, 82}, 23: {"IQ4_XS", 256, 136}, 24: {"I8", 1, 1}, 25: {"I16", 1, 2}, 26: {"I32", 1, 4},
	27: {"I64", 1, 8}, 28: {"F64", 1, 8}, 29: {"IQ1_M", 256, 56}, 30: {"BF16", 1, 2},
	34: {"TQ1_0", 256, 54}, 35: {"TQ2_0", 256, 66}, 39: {"MXFP4", 32, 17},
}

func (f *File) readHeader(size int64) error {
	d := &decoder{r: bufio.NewReaderSize(io.NewSectionReader(f.r, 0, size), 1<<16), left: size}
	var magic [4]byte
	d.bytes(magic[:])
	if d.err == nil && string(magic[:]) != "GGUF" {
		return fmt.Errorf("magic is %q, want \"GGUF\"", magic[:])
	}
	switch version := d.uint32(); {
	case d.err != nil:
	case version == 2 || version == 3:
	case version&0xffff == 0 && version != 0:
		return errors.New("file is big-endian; this build reads little-endian")
	default:
		return fmt.Errorf("version is %d; this build reads 2 and 3", version)
	}
	tensors, keys := d.uint64(), d.uint64()
	if d.err != nil {
		return fmt.Errorf("header: %w", d.err)
	}
	if tensors > maxTensors {
		return fmt.Errorf("header counts %d tensors, limit %d", tensors, maxTensors)
	}
	if keys > maxKeys {
		return fmt.Errorf("header counts %d keys, limit %d", keys, maxKeys)
	}
	for i := range keys {
		if err := f.readKey(d); err != nil {
			return fmt.Errorf("key %d of %d: %w", i+1, keys, err)
		}
	}
	alignment, err := f.UintOr("general.alignment", defaultAlignment)
	if err != nil {
		return err
	}
	if alignment == 0 || alignment > maxAlignment || alignment&(alignment-1) != 0 {
		return fmt.Errorf("general.alignment is %d, want a power of two up to %d", alignment, maxAlignment)
	}
	list := make([]Tensor, tensors)
	for i := range list {
		if list[i], err = readTensor(d); err != nil {
			return fmt.Errorf("tensor %d of %d: %w", i+1, tensors, err)
		}
		if _, twice := f.tensors[list[i].Name]; twice {
			return fmt.Errorf("tensor %s occurs twice", quote(list[i].Name))
		}
		f.tensors[list[i].Name] = list[i]
		f.names = append(f.names, list[i].Name)
	}
	return f.place(list, size-d.left, size, int64(alignment))
}

// place holds the tensors to the format's rule: one after the other, each at the next multiple of the alignment, the
// last one's padding optional. used is the size of the header.
func (f *File) place(list []Tensor, used, size, alignment int64) error {
	pad := func(n int64) int64 { return (n + alignment - 1) &^ (alignment - 1) }
	if len(list) == 0 {
		if size > pad(used) {
			return fmt.Errorf("%d bytes follow the header of a file without tensors", size-used)
		}
		return nil
	}
	start := pad(used)
	if start > size {
		return fmt.Errorf("tensors begin at %d, the file has %d bytes", start, size)
	}
	var next int64
	for _, t := range list {
		if t.Offset != next {
			return fmt.Errorf("tensor %s lies at %d, want %d: after the tensor before, aligned to %d", quote(t.Name), t.Offset, next, alignment)
		}
		if t.Offset > size-start || t.Size > size-start-t.Offset {
			return fmt.Errorf("tensor %s needs %d bytes at %d, the data has %d", quote(t.Name), t.Size, t.Offset, size-start)
		}
		next = pad(t.Offset + t.Size)
		t.Offset += start
		f.tensors[t.Name] = t
	}
	if size-start > next {
		return fmt.Errorf("%d bytes follow the last tensor", size-start-next)
	}
	return nil
}

func readTensor(d *decoder) (Tensor, error) {
	t := Tensor{Name: d.text(maxName)}
	dims := d.uint32()
	if d.err == nil && (dims == 0 || dims > maxDims) {
		return t, fmt.Errorf("%s has %d dimensions, want 1 to %d", quote(t.Name), dims, maxDims)
	}
	values := int64(1)
	for i := uint32(0); i < dims && d.err == nil; i++ {
		n := d.uint64()
		if n > math.MaxInt64 || n != 0 && values > math.MaxInt64/int64(n) {
			return t, fmt.Errorf("%s has more than 2^63 values", quote(t.Name))
		}
		values *= int64(n)
		if n > math.MaxInt {
			return t, fmt.Errorf("%s has the dimension %d, limit %d", quote(t.Name), n, math.MaxInt)
		}
		t.Shape = append([]int{int(n)}, t.Shape...)
	}
	number, offset := d.uint32(), d.uint64()
	if d.err != nil {
		return t, d.err
	}
	kind, known := tensorTypes[number]
	if !known {
		return t, fmt.Errorf("%s has type number %d, which this build does not know", quote(t.Name), number)
	}
	t.Type = kind.name
	if int64(t.Shape[len(t.Shape)-1])%kind.count != 0 {
		return t, fmt.Errorf("%s has rows of %d values, type %s packs %d at a time", quote(t.Name), t.Shape[len(t.Shape)-1], kind.name, kind.count)
	}
	if values/kind.count > math.MaxInt64/2/kind.size {
		return t, fmt.Errorf("%s has more than 2^62 bytes", quote(t.Name))
	}
	t.Size = values / kind.count * kind.size
	if offset > math.MaxInt64 {
		return t, fmt.Errorf("%s lies at %d, beyond 2^63", quote(t.Name), offset)
	}
	t.Offset = int64(offset)
	return t, nil
}

func (f *File) readKey(d *decoder) error {
	key := d.text(maxKey)
	if d.err != nil {
		return d.err
	}
	if _, twice := f.values[key]; twice {
		return fmt.Errorf("%s occurs twice", quote(key))
	}
	v := d.value(d.uint32(), 0)
	if d.err != nil {
		return fmt.Errorf("%s: %w", quote(key), d.err)
	}
	f.values[key] = v
	f.keys = append(f.keys, key)
	return nil
}

// decoder reads fields one after the other; the first error stays.
type decoder struct {
	r    *bufio.Reader
	left int64 // bytes of the file not read yet
	read int64
	err  error
}

func (d *decoder) bytes(p []byte) {
	if d.err != nil {
		clear(p)
		return
	}
	if d.read += int64(len(p)); d.read > maxHeaderBytes {
		d.err = fmt.Errorf("keys and tensor list have more than %d bytes", maxHeaderBytes)
		return
	}
	if int64(len(p)) > d.left {
		d.err = io.ErrUnexpectedEOF
		return
	}
	if _, err := io.ReadFull(d.r, p); err != nil {
		d.err = short(err)
		return
	}
	d.left -= int64(len(p))
}

func (d *decoder) uint8() uint8 { var b [1]byte; d.bytes(b[:]); return b[0] }
func (d *decoder) uint16() uint16 {
	var b [2]byte
	d.bytes(b[:])
	return binary.LittleEndian.Uint16(b[:])
}
func (d *decoder) uint32() uint32 {
	var b [4]byte
	d.bytes(b[:])
	return binary.LittleEndian.Uint32(b[:])
}
func (d *decoder) uint64() uint64 {
	var b [8]byte
	d.bytes(b[:])
	return binary.LittleEndian.Uint64(b[:])
}
func (d *decoder) float32() float32 { return math.Float32frombits(d.uint32()) }
func (d *decoder) float64() float64 { return math.Float64frombits(d.uint64()) }

// bool takes 0 and 1 only, as the format asks.
func (d *decoder) bool() bool {
	b := d.uint8()
	if d.err == nil && b > 1 {
		d.err = fmt.Errorf("a bool is %d, want 0 or 1", b)
	}
	return b == 1
}

// text reads a string of at most limit bytes. The length is checked against the file before memory is taken.
func (d *decoder) text(limit uint64) string {
	n := d.uint64()
	if d.err != nil {
		return ""
	}
	if n > limit {
		d.err = fmt.Errorf("a string has %d bytes, limit %d", n, limit)
		return ""
	}
	if int64(n) > d.left {
		d.err = io.ErrUnexpectedEOF
		return ""
	}
	p := make([]byte, n)
	d.bytes(p)
	return string(p)
}

func (d *decoder) value(kind uint32, depth int) any {
	switch kind {
	case typeUint8:
		return d.uint8()
	case typeInt8:
		return int8(d.uint8())
	case typeUint16:
		return d.uint16()
	case typeInt16:
		return int16(d.uint16())
	case typeUint32:
		return d.uint32()
	case typeInt32:
		return int32(d.uint32())
	case typeFloat32:
		return d.float32()
	case typeBool:
		return d.bool()
	case typeString:
		return d.text(maxText)
	case typeUint64:
		return d.uint64()
	case typeInt64:
		return int64(d.uint64())
	case typeFloat64:
		return d.float64()
	case typeArray:
		return d.array(depth + 1)
	}
	if d.err == nil {
		d.err = fmt.Errorf("value has type number %d, which this build does not know", kind)
	}
	return nil
}

func (d *decoder) array(depth int) any {
	kind, n := d.uint32(), d.uint64()
	if d.err != nil {
		return nil
	}
	if depth > maxNesting {
		d.err = fmt.Errorf("arrays are nested deeper than %d", maxNesting)
		return nil
	}
	if n > maxArray {
		d.err = fmt.Errorf("an array has %d elements, limit %d", n, maxArray)
		return nil
	}
	count := int(n)
	switch kind {
	case typeUint8:
		return fill(d, count, 1, d.uint8)
	case typeInt8:
		return fill(d, count, 1, func() int8 { return int8(d.uint8()) })
	case typeUint16:
		return fill(d, count, 2, d.uint16)
	case typeInt16:
		return fill(d, count, 2, func() int16 { return int16(d.uint16()) })
	case typeUint32:
		return fill(d, count, 4, d.uint32)
	case typeInt32:
		return fill(d, count, 4, func() int32 { return int32(d.uint32()) })
	case typeFloat32:
		return fill(d, count, 4, d.float32)
	case typeBool:
		return fill(d, count, 1, d.bool)
	case typeString:
		return fill(d, count, 8, func() string { return d.text(maxText) })
	case typeUint64:
		return fill(d, count, 8, d.uint64)
	case typeInt64:
		return fill(d, count, 8, func() int64 { return int64(d.uint64()) })
	case typeFloat64:
		return fill(d, count, 8, d.float64)
	case typeArray:
		return fill(d, count, 12, func() any { return d.array(depth + 1) })
	}
	d.err = fmt.Errorf("an array has elements of type number %d, which this build does not know", kind)
	return nil
}

// fill reads n elements of at least width bytes each. That many bytes must be left in the file before memory is taken.
func fill[T any](d *decoder, n int, width int64, read func() T) []T {
	if int64(n) > d.left/width {
		d.err = io.ErrUnexpectedEOF
		return nil
	}
	out := make([]T, n)
	for i := range out {
		if out[i] = read(); d.err != nil {
			return nil
		}
	}
	return out
}

// quote quotes text from a file for an error, shortened.
func quote(s string) string {
	if len(s) > 120 {
		s = s[:120] + "..."
	}
	if !utf8.ValidString(s) {
		return strconv.QuoteToASCII(s)
	}
	return strconv.Quote(s)
}
