package gguf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ruche-federation/ruche/testdata/shared"
)

func read(raw []byte) (*File, error) { return Read(bytes.NewReader(raw), int64(len(raw)), "test") }

func write(t testing.TB, keys []KeyValue, tensors []Values) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := Write(&buf, keys, tensors); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

var everyType = []KeyValue{
	{"u8", uint8(200)}, {"i8", int8(-3)}, {"u16", uint16(60000)}, {"i16", int16(-5)}, {"u32", uint32(4e9)}, {"i32", int32(-7)},
	{"f32", float32(0.5)}, {"bool", true}, {"text", "héllo"}, {"u64", uint64(1 << 63)}, {"i64", int64(-9)}, {"f64", 0.1},
	{"u8s", []uint8{1, 2}}, {"i8s", []int8{-1}}, {"u16s", []uint16{3}}, {"i16s", []int16{-4}}, {"u32s", []uint32{5}},
	{"i32s", []int32{-6, 7}}, {"f32s", []float32{1, 2}}, {"bools", []bool{true, false}}, {"texts", []string{"", "a", "▁b"}},
	{"u64s", []uint64{8}}, {"i64s", []int64{-8}}, {"f64s", []float64{1e300}}, {"none", []string{}},
}

func TestEveryTypeOfValueComesBack(t *testing.T) {
	f, err := read(write(t, everyType, nil))
	if err != nil {
		t.Fatal(err)
	}
	for i, kv := range everyType {
		got, ok := f.Value(kv.Key)
		if !ok || !reflect.DeepEqual(got, kv.Value) {
			t.Errorf("%s: got %v, want %v", kv.Key, got, kv.Value)
		}
		if f.Keys()[i] != kv.Key {
			t.Errorf("key %d is %s, want %s", i, f.Keys()[i], kv.Key)
		}
	}
}

func TestGettersSayWhatIsWrong(t *testing.T) {
	f, err := read(write(t, append(slices.Clone(everyType), KeyValue{"notoken", uint32(NoToken)}, KeyValue{"token", uint32(17)}, KeyValue{"minus", int32(-1)}), nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"u8", "u16", "u32", "u64"} {
		if _, err := f.Uint(key); err != nil {
			t.Error(err)
		}
	}
	if _, err := f.Uint("i32"); err == nil || !strings.Contains(err.Error(), `"i32" is a int32, want an integer that is not negative`) {
		t.Error(err)
	}
	if _, err := f.Text("u8"); err == nil {
		t.Error("an integer is read as text")
	}
	if _, err := f.Strings("i32s"); err == nil {
		t.Error("integers are read as strings")
	}
	if _, err := f.Float("absent"); !errors.Is(err, ErrMissing) {
		t.Error(err)
	}
	if v, err := f.UintOr("absent", 5); v != 5 || err != nil {
		t.Error(v, err)
	}
	if _, err := f.UintOr("text", 5); err == nil {
		t.Error("a default hides a value of the wrong type")
	}
	for _, c := range []struct {
		key string
		id  int32
		ok  bool
	}{{"token", 17, true}, {"notoken", 0, false}, {"minus", 0, false}, {"absent", 0, false}} {
		if id, ok, err := f.Token(c.key); id != c.id || ok != c.ok || err != nil {
			t.Errorf("%s: %d %v %v", c.key, id, ok, err)
		}
	}
	if _, _, err := f.Token("u64"); err == nil {
		t.Error("a token of 2^63 is read")
	}
	if ids, err := f.Int32s("u32s"); err != nil || !slices.Equal(ids, []int32{5}) {
		t.Error(ids, err)
	}
}

func TestTensorsComeBack(t *testing.T) {
	tensors := []Values{
		{Name: "a", Shape: []int{2, 3}, Data: []float32{1, 2, 3, 4, 5, 6}},
		{Name: "b", Type: "F16", Shape: []int{3}, Data: []float32{0.5, -1, 65504}},
		{Name: "c", Type: "BF16", Shape: []int{1, 2, 1, 1}, Data: []float32{1, -2}},
		{Name: "d", Shape: []int{0}},
	}
	for _, alignment := range []uint32{32, 1, 4096} {
		f, err := read(write(t, []KeyValue{{"general.alignment", alignment}}, tensors))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range tensors {
			got, shape, err := f.Float32(want.Name)
			if err != nil || !slices.Equal(got, want.Data) || !slices.Equal(shape, want.Shape) {
				t.Errorf("alignment %d, %s: %v %v %v", alignment, want.Name, got, shape, err)
			}
			if info, _ := f.Tensor(want.Name); info.Offset%int64(alignment) != 0 {
				t.Errorf("%s lies at %d, alignment %d", want.Name, info.Offset, alignment)
			}
		}
		if err := f.ReadFloat32("a", make([]float32, 7)); err == nil {
			t.Error("a destination of the wrong length is taken")
		}
		if _, _, err := f.Float32("z"); err == nil || !strings.Contains(err.Error(), "no tensor z") {
			t.Error(err)
		}
	}
}

// raw builds a file field by field, to be wrong in one of them.
type raw []byte

func (r raw) u32(v uint32) raw  { return binary.LittleEndian.AppendUint32(r, v) }
func (r raw) u64(v uint64) raw  { return binary.LittleEndian.AppendUint64(r, v) }
func (r raw) text(s string) raw { return append(r.u64(uint64(len(s))), s...) }
func (r raw) pad() raw          { return append(r, make([]byte, (32-len(r)%32)%32)...) }
func (r raw) zeros(n int) raw   { return append(r, make([]byte, n)...) }
func header(tensors, keys uint64) raw {
	return raw("GGUF").u32(3).u64(tensors).u64(keys)
}

// tensor appends the description of one tensor, dimensions in the order of the file.
func (r raw) tensor(name string, kind uint32, offset uint64, dims ...uint64) raw {
	r = r.text(name).u32(uint32(len(dims)))
	for _, d := range dims {
		r = r.u64(d)
	}
	return r.u32(kind).u64(offset)
}

func TestDamagedFilesAreRefused(t *testing.T) {
	key := func(kind uint32) raw { return header(0, 1).text("k").u32(kind) }
	for _, c := range []struct {
		name string
		file raw
		want string
	}{
		{"empty", raw(""), "unexpected EOF"},
		{"magic", raw("GGML").u32(3).u64(0).u64(0), `magic is "GGML"`},
		{"version 1", raw("GGUF").u32(1).u64(0).u64(0), "version is 1; this build reads 2 and 3"},
		{"version 4", raw("GGUF").u32(4).u64(0).u64(0), "version is 4; this build reads 2 and 3"},
		{"big-endian", raw("GGUF").u32(3 << 24).u64(0).u64(0), "big-endian"},
		{"many keys", header(0, maxKeys+1), "limit 65536"},
		{"many tensors", header(maxTensors+1, 0), "limit 65536"},
		{"cut key", header(0, 1), "key 1 of 1"},
		{"long key", header(0, 1).u64(maxKey + 1), "limit 65535"},
		{"cut text", key(typeString).u64(5).zeros(4), "unexpected EOF"},
		{"long text", key(typeString).u64(maxText + 1), "a string has 16777217 bytes"},
		{"huge text", key(typeString).u64(math.MaxUint64), "a string has"},
		{"key twice", header(0, 2).text("k").u32(typeUint8).zeros(1).text("k").u32(typeUint8).zeros(1), `"k" occurs twice`},
		{"type of value", key(13), "type number 13"},
		{"bool", append(key(typeBool), 2), "a bool is 2"},
		{"type of element", key(typeArray).u32(99).u64(0), "elements of type number 99"},
		{"long array", key(typeArray).u32(typeUint8).u64(maxArray + 1), "an array has 4194305 elements"},
		{"cut array", key(typeArray).u32(typeUint64).u64(3).zeros(23), "unexpected EOF"},
		{"nested array", key(typeArray).u32(typeArray).u64(1).u32(typeArray).u64(1).u32(typeUint8).u64(1).zeros(9), "nested deeper than 2"},
		{"alignment 0", header(0, 1).text("general.alignment").u32(typeUint32).u32(0), "want a power of two"},
		{"alignment 48", header(0, 1).text("general.alignment").u32(typeUint32).u32(48), "want a power of two"},
		{"alignment text", header(0, 1).text("general.alignment").u32(typeString).text("x"), "want an integer"},
		{"trailing bytes", header(0, 0).pad().zeros(1), "follow the header"},
		{"no dimensions", header(1, 0).tensor("a", 0, 0), "has 0 dimensions"},
		{"five dimensions", header(1, 0).tensor("a", 0, 0, 1, 1, 1, 1, 1), "has 5 dimensions"},
		{"long name", header(1, 0).u64(maxName + 1), "limit 1024"},
		{"overflow", header(1, 0).tensor("a", 0, 0, 1<<32, 1<<32), "more than 2^63 values"},
		{"too large", header(1, 0).tensor("a", 0, 0, 1<<62), "more than 2^62 bytes"},
		{"type of tensor", header(1, 0).tensor("a", 31, 0, 32), "type number 31"},
		{"row of a block type", header(1, 0).tensor("a", 2, 0, 33), "type Q4_0 packs 32"},
		{"tensor twice", header(2, 0).tensor("a", 0, 0, 1).tensor("a", 0, 32, 1).pad().zeros(64), `"a" occurs twice`},
		{"no data", header(1, 0).tensor("a", 0, 0, 8).pad(), "the data has 0"},
		{"cut data", header(1, 0).tensor("a", 0, 0, 9).pad().zeros(35), "needs 36 bytes at 0, the data has 35"},
		{"misaligned", header(1, 0).tensor("a", 0, 4, 8).pad().zeros(64), "lies at 4, want 0"},
		{"overlap", header(2, 0).tensor("a", 0, 0, 16).tensor("b", 0, 32, 8).pad().zeros(128), "lies at 32, want 64"},
		{"hole", header(2, 0).tensor("a", 0, 0, 8).tensor("b", 0, 64, 8).pad().zeros(128), "lies at 64, want 32"},
		{"beyond", header(1, 0).tensor("a", 0, 1<<63, 8).pad().zeros(32), "beyond 2^63"},
		{"bytes after the last", header(1, 0).tensor("a", 0, 0, 8).pad().zeros(33), "1 bytes follow the last tensor"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := read(c.file); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if _, err := read(header(1, 0).tensor("a", 0, 0, 3).pad().zeros(12)); err != nil {
		t.Errorf("the last tensor's padding is optional: %v", err)
	}
}

func TestQuantisedTensorsAreRefusedByName(t *testing.T) {
	f, err := read(header(1, 0).tensor("blk.0.attn_q.weight", 2, 0, 32, 2).pad().zeros(64))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = f.Float32("blk.0.attn_q.weight")
	if err == nil || !strings.Contains(err.Error(), "tensor blk.0.attn_q.weight has type Q4_0; this build reads F32, F16, BF16") {
		t.Error(err)
	}
}

func TestWriteRefusesWhatItCouldNotRead(t *testing.T) {
	for _, kv := range [][]KeyValue{
		{{"", uint8(1)}}, {{"k", 1}}, {{"k", nil}}, {{"k", uint8(1)}, {"k", uint8(1)}}, {{"general.alignment", uint32(3)}}, {{"general.alignment", 32}},
	} {
		if err := Write(&bytes.Buffer{}, kv, nil); err == nil {
			t.Errorf("%v is written", kv)
		}
	}
	for _, v := range []Values{
		{Name: "", Shape: []int{1}, Data: []float32{1}},
		{Name: "a", Data: []float32{1}},
		{Name: "a", Shape: []int{2}, Data: []float32{1}},
		{Name: "a", Shape: []int{-1, -1}, Data: []float32{1}},
		{Name: "a", Shape: []int{1, 1, 1, 1, 1}, Data: []float32{1}},
		{Name: "a", Type: "Q8_0", Shape: []int{1}, Data: []float32{1}},
	} {
		if err := Write(&bytes.Buffer{}, nil, []Values{v}); err == nil {
			t.Errorf("%+v is written", v)
		}
	}
}

func TestAnyFileRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var keys []KeyValue
		for i, s := range rapid.SliceOfN(rapid.SliceOfN(rapid.String(), 0, 4), 0, 5).Draw(t, "keys") {
			keys = append(keys, KeyValue{string(rune('a' + i)), s})
		}
		var tensors []Values
		for i := range rapid.IntRange(0, 5).Draw(t, "tensors") {
			v := Values{Name: string(rune('a' + i)), Shape: rapid.SliceOfN(rapid.IntRange(0, 5), 1, 4).Draw(t, "shape")}
			n := 1
			for _, d := range v.Shape {
				n *= d
			}
			v.Data = rapid.SliceOfN(rapid.Float32(), n, n).Draw(t, "data")
			tensors = append(tensors, v)
		}
		var buf bytes.Buffer
		if err := Write(&buf, keys, tensors); err != nil {
			t.Fatal(err)
		}
		f, err := read(buf.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range keys {
			if got, err := f.Strings(kv.Key); err != nil || !slices.Equal(got, kv.Value.([]string)) {
				t.Fatalf("%s: %v %v", kv.Key, got, err)
			}
		}
		for _, v := range tensors {
			if got, shape, err := f.Float32(v.Name); err != nil || !slices.Equal(got, v.Data) || !slices.Equal(shape, v.Shape) {
				t.Fatalf("%s: %v %v %v", v.Name, got, shape, err)
			}
		}
	})
}

// A published file is written again, byte for byte.
func TestPublishedFileRoundTripsToTheByte(t *testing.T) {
	path := shared.Path(t, "models", "stories260K", "stories260K-f32.gguf")
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if dim, err := f.Uint("llama.embedding_length"); dim != 64 || err != nil {
		t.Error(dim, err)
	}
	if _, ok, err := f.Token("tokenizer.ggml.padding_token_id"); ok || err != nil {
		t.Errorf("4294967295 is taken for a token (%v)", err)
	}
	var keys []KeyValue
	for _, k := range f.Keys() {
		v, _ := f.Value(k)
		keys = append(keys, KeyValue{k, v})
	}
	var tensors []Values
	for _, name := range f.Names() {
		data, shape, err := f.Float32(name)
		if err != nil {
			t.Fatal(err)
		}
		tensors = append(tensors, Values{Name: name, Shape: shape, Data: data})
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := write(t, keys, tensors); !bytes.Equal(got, want) {
		t.Errorf("%d bytes written, the file has %d, and they differ", len(got), len(want))
	}
}

func FuzzRead(f *testing.F) {
	f.Add(write(f, everyType, []Values{{Name: "a", Shape: []int{2}, Data: []float32{1, 2}}, {Name: "b", Type: "F16", Shape: []int{1}, Data: []float32{1}}}))
	f.Add([]byte(header(1, 0).tensor("q", 2, 0, 32).pad().zeros(18)))
	f.Add([]byte(header(0, 1).text("k").u32(typeArray).u32(typeArray).u64(1).u32(typeUint8).u64(1).zeros(9)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		file, err := read(raw)
		if err != nil {
			return
		}
		for _, name := range file.Names() {
			if _, _, err := file.Float32(name); err != nil && !strings.Contains(err.Error(), "this build reads") {
				t.Fatalf("a file whose header was accepted cannot be read: %v", err)
			}
		}
		for _, key := range file.Keys() {
			file.Token(key)
			file.Uint(key)
			file.Int32s(key)
		}
	})
}
