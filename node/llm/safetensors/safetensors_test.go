package safetensors

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ruche-federation/ruche/testdata/shared"
)

// file puts a header and data together as they lie on disk.
func file(header string, data []byte) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(out, header...), data...)
}

func read(raw []byte) (*File, error) { return Read(bytes.NewReader(raw), int64(len(raw)), "test") }

func TestWrittenTensorsComeBack(t *testing.T) {
	tensors := []Values{
		{Name: "b", Shape: []int{2, 3}, Data: []float32{1, -2, 3.5, 0, math.MaxFloat32, 6}},
		{Name: "a", Shape: []int{2}, DType: "BF16", Data: []float32{1, -0.5}},
		{Name: "h", Shape: []int{3}, DType: "F16", Data: []float32{65504, 0.25, -1}},
		{Name: "scalar", Data: []float32{7}},
		{Name: "nothing", Shape: []int{4, 0}, Data: nil},
		{Name: "<odd & \u2028>", Shape: []int{1}, Data: []float32{8}},
	}
	var buf bytes.Buffer
	if err := Write(&buf, tensors, map[string]string{"format": "pt"}); err != nil {
		t.Fatal(err)
	}
	if n := binary.LittleEndian.Uint64(buf.Bytes()); n%8 != 0 {
		t.Errorf("header of %d bytes: the data is not aligned to 8", n)
	}
	f, err := read(buf.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if f.Metadata()["format"] != "pt" {
		t.Errorf("metadata %v", f.Metadata())
	}
	for _, want := range tensors {
		got, shape, err := f.Float32(want.Name)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want.Data) || !slices.Equal(shape, want.Shape) {
			t.Errorf("%s: got %v %v, want %v %v", want.Name, shape, got, want.Shape, want.Data)
		}
		into := make([]float32, len(want.Data))
		if err := f.ReadFloat32(want.Name, into); err != nil || !slices.Equal(into, want.Data) {
			t.Errorf("%s: read into a buffer: %v %v", want.Name, into, err)
		}
	}
	if _, _, err := f.Float32("c"); err == nil || !strings.Contains(err.Error(), "no tensor c") {
		t.Errorf("a missing tensor: %v", err)
	}
	if err := f.ReadFloat32("b", make([]float32, 5)); err == nil {
		t.Error("a destination of the wrong length is taken")
	}

	// The order of the arguments does not show in the bytes.
	slices.Reverse(tensors)
	var again bytes.Buffer
	if err := Write(&again, tensors, map[string]string{"format": "pt"}); err != nil || !bytes.Equal(buf.Bytes(), again.Bytes()) {
		t.Errorf("the same tensors in another order give other bytes (%v)", err)
	}
}

// Each header below is refused for the reason named beside it.
func TestDamagedHeadersAreRefused(t *testing.T) {
	entry := func(shape, offsets string) string {
		return `{"dtype":"F32","shape":` + shape + `,"data_offsets":` + offsets + `}`
	}
	for _, c := range []struct{ header, want string }{
		{``, "does not begin with {"},
		{`[]`, "does not begin with {"},
		{` {}`, "does not begin with {"},
		{`{"a":` + entry(`[2]`, `[0,8]`) + `} x`, "after its object"},
		{`{"a":` + entry(`[2]`, `[0,8]`), "header: unexpected EOF"},
		{`{"a":` + entry(`[1]`, `[0,4]`) + `,"a":` + entry(`[1]`, `[4,8]`) + `}`, `names "a" twice`},
		{`{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, `names "dtype" twice`},
		{`{"a":{"dtype":"F32","shape":[2]}}`, "has not all of"},
		{`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}}`, `more than 3`},
		{`{"a":{"dtype":"F32","shape":[2],"offsets":[0,8]}}`, `unknown field "offsets"`},
		{`{"a":{"dtype":"Q4","shape":[2],"data_offsets":[0,8]}}`, `dtype "Q4" is not known`},
		{`{"a":{"dtype":7,"shape":[2],"data_offsets":[0,8]}}`, `dtype is no string`},
		{`{"a":` + entry(`[2.0]`, `[0,8]`) + `}`, `"2.0", which is no integer`},
		{`{"a":` + entry(`[-2]`, `[0,8]`) + `}`, `"-2", which is no integer`},
		{`{"a":` + entry(`[2e0]`, `[0,8]`) + `}`, `"2e0", which is no integer`},
		{`{"a":` + entry(`["2"]`, `[0,8]`) + `}`, `something other than integers`},
		{`{"a":` + entry(`[9223372036854775807,2]`, `[0,8]`) + `}`, `more than 2^63 bytes`},
		{`{"a":` + entry(`[4294967296,4294967296,0]`, `[0,8]`) + `}`, `more than 2^63 bytes`},
		{`{"a":` + entry(`[18446744073709551615]`, `[0,8]`) + `}`, `has the dimension`},
		{`{"a":` + entry(`[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2]`, `[0,8]`) + `}`, `more than 16 numbers`},
		{`{"a":` + entry(`[2]`, `[8,0]`) + `}`, `not an ascending range`},
		{`{"a":` + entry(`[2]`, `[0]`) + `}`, `has 1 numbers, want 2`},
		{`{"a":` + entry(`[2]`, `[0,8,16]`) + `}`, `more than 2 numbers`},
		{`{"a":` + entry(`[3]`, `[0,8]`) + `}`, `hold 8 bytes, shape [3] of F32 needs 12`},
		{`{"a":` + entry(`[3]`, `[0,12]`) + `}`, `end at 12, the data has 8`},
		{`{"a":` + entry(`[1]`, `[0,4]`) + `}`, `tensors end at 4, the data has 8`},
		{`{}`, `tensors end at 0, the data has 8`},
		{`{"a":` + entry(`[1]`, `[4,8]`) + `}`, `a hole`},
		{`{"a":` + entry(`[2]`, `[0,8]`) + `,"b":` + entry(`[1]`, `[4,8]`) + `}`, `inside the tensor before`},
		{`{"__metadata__":{"a":1},"a":` + entry(`[2]`, `[0,8]`) + `}`, `is no string`},
		{`{"__metadata__":{"a":"1","a":"2"},"a":` + entry(`[2]`, `[0,8]`) + `}`, `names "a" twice`},
		{`{"__metadata__":[],"a":` + entry(`[2]`, `[0,8]`) + `}`, `want {`},
		{`{"a":` + entry(`[2]`, `[0,8]`) + `,}`, `invalid character`},
		{`{"a":` + entry(`[2,]`, `[0,8]`) + `}`, `invalid character`},
		{"{\"a\xff\":" + entry(`[2]`, `[0,8]`) + `}`, `not UTF-8`},
		{`{"` + strings.Repeat("n", maxName+1) + `":` + entry(`[2]`, `[0,8]`) + `}`, `limit 4096`},
	} {
		_, err := read(file(c.header, make([]byte, 8)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80s: got %v, want %q", c.header, err, c.want)
		}
	}
	if _, err := read([]byte("short")); err == nil {
		t.Error("a file of 5 bytes is read")
	}
	for _, n := range []uint64{9, maxHeader + 1, 1 << 63, math.MaxUint64} {
		if _, err := read(append(binary.LittleEndian.AppendUint64(nil, n), "{}      "...)); err == nil {
			t.Errorf("a header length of %d in a file of 16 bytes is read", n)
		}
	}
}

func TestOtherTypesAreRefusedByName(t *testing.T) {
	f, err := read(file(`{"ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}`, make([]byte, 8)))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Float32("ids"); err == nil || !strings.Contains(err.Error(), "tensor ids has dtype I64; this build reads F32, F16, BF16") {
		t.Error(err)
	}
}

func TestWriteRefusesWhatItCouldNotRead(t *testing.T) {
	for _, v := range []Values{
		{Name: "", Data: []float32{1}},
		{Name: "__metadata__", Data: []float32{1}},
		{Name: "a", DType: "F64", Data: []float32{1}},
		{Name: "a", Shape: []int{2}, Data: []float32{1}},
		{Name: "a", Shape: []int{-1, -1}, Data: []float32{1}},
		{Name: "a", Shape: make([]int, maxDims+1)},
	} {
		if err := Write(&bytes.Buffer{}, []Values{v}, nil); err == nil {
			t.Errorf("%+v is written", v)
		}
	}
	if err := Write(&bytes.Buffer{}, []Values{{Name: "a"}, {Name: "a"}}, nil); err == nil {
		t.Error("a name is written twice")
	}
}

func TestAnyTensorsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in []Values
		for i := range rapid.IntRange(0, 6).Draw(t, "tensors") {
			v := Values{
				Name:  fmt.Sprintf("%s%d", rapid.StringN(0, 8, 16).Draw(t, "name"), i),
				Shape: rapid.SliceOfN(rapid.IntRange(0, 5), 0, 3).Draw(t, "shape"),
				DType: rapid.SampledFrom([]string{"F32", "F16", "BF16"}).Draw(t, "dtype"),
			}
			n, _ := sizeOf(v.Shape, 1)
			for range n {
				v.Data = append(v.Data, float32(rapid.IntRange(-64, 64).Draw(t, "value")))
			}
			in = append(in, v)
		}
		var buf bytes.Buffer
		if err := Write(&buf, in, nil); err != nil {
			t.Fatal(err)
		}
		f, err := read(buf.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if len(f.Names()) != len(in) {
			t.Fatalf("%d tensors came back, %d went in", len(f.Names()), len(in))
		}
		for _, v := range in {
			got, shape, err := f.Float32(v.Name)
			if err != nil || !slices.Equal(got, v.Data) || !slices.Equal(shape, v.Shape) {
				t.Fatalf("%q: %v %v %v", v.Name, got, shape, err)
			}
		}
	})
}

// A published adapter is written again, byte for byte as the reference implementation wrote it.
func TestPublishedFilesRoundTripToTheByte(t *testing.T) {
	for _, path := range []string{"models/stories260K/hf/model.safetensors", "models/stories260K/peft-r4/adapter_model.safetensors", "families/qwen2/model.safetensors"} {
		full := shared.Path(t, filepath.FromSlash(path))
		f, err := Open(full)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var values []Values
		for _, name := range f.Names() {
			data, shape, err := f.Float32(name)
			if err != nil {
				t.Fatal(err)
			}
			info, _ := f.Tensor(name)
			values = append(values, Values{Name: name, DType: info.DType, Shape: shape, Data: data})
		}
		var buf bytes.Buffer
		if err := Write(&buf, values, f.Metadata()); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(full)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(buf.Bytes(), want) {
			t.Errorf("%s: %d bytes written, the file has %d, and they differ", path, buf.Len(), len(want))
		}
	}
}

func TestShardedModel(t *testing.T) {
	dir := shared.Path(t, "families", "llama3")
	f, err := OpenIndexed(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if len(f.Files()) != 2 {
		t.Fatalf("files: %v", f.Files())
	}
	for _, name := range f.Names() {
		data, shape, err := f.Float32(name)
		if err != nil {
			t.Fatal(err)
		}
		n, _ := sizeOf(shape, 1)
		if int64(len(data)) != n {
			t.Errorf("%s: %d values in shape %v", name, len(data), shape)
		}
	}
}

func TestFolders(t *testing.T) {
	put := func(t *testing.T, dir, name string, tensors ...string) {
		t.Helper()
		var values []Values
		for i, n := range tensors {
			values = append(values, Values{Name: n, Shape: []int{1}, Data: []float32{float32(i)}})
		}
		if err := WriteFile(filepath.Join(dir, name), values, nil); err != nil {
			t.Fatal(err)
		}
	}
	index := func(t *testing.T, dir, weightMap string) {
		t.Helper()
		raw := `{"metadata":{"total_size":8},"weight_map":` + weightMap + `}`
		if err := os.WriteFile(filepath.Join(dir, indexName), []byte(raw), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("one file", func(t *testing.T) {
		dir := t.TempDir()
		put(t, dir, singleName, "a", "b")
		f, err := OpenIndexed(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if !reflect.DeepEqual(f.Names(), []string{"a", "b"}) {
			t.Error(f.Names())
		}
		left, _ := os.ReadDir(dir)
		if len(left) != 1 {
			t.Errorf("writing left %v behind", left)
		}
	})
	for _, c := range []struct{ name, weightMap, want string }{
		{"two files", `{"a":"1.safetensors","b":"2.safetensors"}`, ""},
		{"a tensor elsewhere", `{"a":"2.safetensors","b":"1.safetensors"}`, `which the index says is here`},
		{"a tensor unnamed", `{"a":"1.safetensors","b":"3.safetensors"}`, `tensor "c" is not in the index`},
		{"a file missing", `{"a":"4.safetensors"}`, "no such file"},
		{"a path", `{"a":"../1.safetensors"}`, "not the plain name"},
		{"a backslash", `{"a":"..\\1.safetensors"}`, "not the plain name"},
		{"another kind", `{"a":"1.bin"}`, "not the plain name"},
		{"a name twice", `{"a":"1.safetensors","a":"2.safetensors"}`, `names "a" twice`},
		{"no tensors", `{}`, "no weight_map, or an empty one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, dir, "1.safetensors", "a")
			put(t, dir, "2.safetensors", "b")
			put(t, dir, "3.safetensors", "b", "c")
			index(t, dir, c.weightMap)
			f, err := OpenIndexed(dir)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				f.Close()
			} else if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	var buf bytes.Buffer
	if err := Write(&buf, []Values{{Name: "a", Shape: []int{2, 2}, Data: []float32{1, 2, 3, 4}}, {Name: "b", DType: "F16", Data: []float32{1}}}, map[string]string{"format": "pt"}); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Add(file(`{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}`, make([]byte, 4)))
	f.Add(file(`{}`, nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		file, err := read(raw)
		if err != nil {
			return
		}
		var total int64
		for _, name := range file.Names() {
			info, _ := file.Tensor(name)
			total += info.Size
			if _, _, err := file.Float32(name); err != nil && !strings.Contains(err.Error(), "this build reads") {
				t.Fatalf("a file whose header was accepted cannot be read: %v", err)
			}
		}
		if total > int64(len(raw)) {
			t.Fatalf("tensors of %d bytes in a file of %d", total, len(raw))
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{},"weight_map":{"a":"1.safetensors"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		weights, err := parseIndex(raw)
		if err != nil {
			return
		}
		for _, shard := range weights {
			if strings.ContainsAny(shard, `/\`) || shard == ".." {
				t.Fatalf("the index reaches %q", shard)
			}
		}
	})
}
