package node

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/node/llm/safetensors"
)

func writeVector(t testing.TB, metadata map[string]string, tensors ...safetensors.Values) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "v.safetensors")
	must(t, safetensors.WriteFile(path, tensors, metadata))
	return path
}

func meanValues(v ...float32) safetensors.Values {
	return safetensors.Values{Name: "mean", DType: "F32", Shape: []int{len(v)}, Data: v}
}

func TestAVectorIsReadAsTheTaskWantsIt(t *testing.T) {
	task := meanTask(t)
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	good := meanValues(1, 2, 3, 4, 5, 6)
	for _, s := range []struct {
		name string
		path string
		want string // of the refusal
		tail float64
	}{
		{name: "as it should be", path: writeVector(t, nil, good), tail: 1},
		{name: "with a metric", path: writeVector(t, map[string]string{"examples": "12"}, good), tail: 12},
		{name: "a metric that is no number", path: writeVector(t, map[string]string{"examples": "many"}, good), want: "no number in [0, 64]"},
		{name: "a metric out of range", path: writeVector(t, map[string]string{"examples": "65"}, good), want: "no number in [0, 64]"},
		{name: "too short", path: writeVector(t, nil, meanValues(1, 2, 3)), want: `tensor "mean" has shape [3], task average wants [6]`},
		{name: "another shape", path: writeVector(t, nil, safetensors.Values{Name: "mean", DType: "F32", Shape: []int{2, 3}, Data: good.Data}), want: "has shape [2 3]"},
		{name: "another name", path: writeVector(t, nil, safetensors.Values{Name: "median", DType: "F32", Shape: []int{6}, Data: good.Data}), want: `no tensor "mean", which task average is about; it has median`},
		{name: "one too many", path: writeVector(t, nil, good, safetensors.Values{Name: "zeal", DType: "F32", Shape: []int{1}, Data: []float32{1}}), want: `the tensor "zeal", which task average does not take`},
		{name: "NaN", path: writeVector(t, nil, meanValues(1, 2, nan, 4, 5, 6)), want: "value 2 is NaN"},
		{name: "infinity", path: writeVector(t, nil, meanValues(1, 2, 3, 4, 5, inf)), want: "value 5 is -Inf"},
		{name: "no file", path: filepath.Join(t.TempDir(), "nowhere"), want: "no such file"},
	} {
		u, err := ReadVector(s.path, &task)
		if s.want != "" {
			if err == nil || !strings.Contains(err.Error(), s.want) {
				t.Errorf("%s: got %v, want ...%s...", s.name, err, s.want)
			}
			continue
		}
		if err != nil || len(u.Body) != 6 || u.Body[5] != 6 || len(u.Tail) != 1 || u.Tail[0] != s.tail {
			t.Errorf("%s: got %+v, %v", s.name, u, err)
		}
	}
	commons := commonsTask(t, someBase(), []layout.Module{{Name: "m", In: 8, Out: 8}})
	if _, err := ReadVector(writeVector(t, nil, good), &commons); err == nil || !strings.Contains(err.Error(), "of kind lora") {
		t.Errorf("another kind: %v", err)
	}
}
