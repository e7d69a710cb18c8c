package llm

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/node/llm/safetensors"
	"github.com/ruche-federation/ruche/testdata/shared"
)

func readFile(t *testing.T, elem ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPEFTThereAndBack: an adapter that PEFT wrote keeps its values, and its weights' bytes.
func TestPEFTThereAndBack(t *testing.T) {
	m := loadStories(t)
	from := shared.Path(t, "models", "stories260K", "peft-r4")
	a, err := LoadPEFT(from, m)
	if err != nil {
		t.Fatal(err)
	}
	if a.Rank != 4 || a.Alpha != 8 || len(a.Modules) != 35 {
		t.Fatalf("rank %d, alpha %v, %d modules", a.Rank, a.Alpha, len(a.Modules))
	}
	one, two := t.TempDir(), filepath.Join(t.TempDir(), "a", "b")
	if err := a.WritePEFT(one, "stories260K"); err != nil {
		t.Fatal(err)
	}
	again, err := LoadPEFT(one, m)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.WritePEFT(two, "stories260K"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{peftConfigFile, peftWeightsFile} {
		if !bytes.Equal(readFile(t, one, name), readFile(t, two, name)) {
			t.Errorf("%s is written in two ways", name)
		}
	}
	if !bytes.Equal(readFile(t, one, peftWeightsFile), readFile(t, from, peftWeightsFile)) {
		t.Error("the weights' file is not the bytes that PEFT wrote")
	}
	// Every key that this program writes has PEFT's value.
	var ours, theirs map[string]any
	if err := json.Unmarshal(readFile(t, one, peftConfigFile), &ours); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(readFile(t, from, peftConfigFile), &theirs); err != nil {
		t.Fatal(err)
	}
	for k, v := range ours {
		want, ok := theirs[k]
		if k == "target_modules" {
			sorted := func(x any) []string {
				var out []string
				for _, s := range x.([]any) {
					out = append(out, s.(string))
				}
				slices.Sort(out)
				return out
			}
			if !slices.Equal(sorted(v), sorted(want)) {
				t.Errorf("target_modules %v, want %v", v, want)
			}
			continue
		}
		a, _ := json.Marshal(v)
		b, _ := json.Marshal(want)
		if !ok || !bytes.Equal(a, b) {
			t.Errorf("%s is %s, PEFT has %s", k, a, b)
		}
	}
}

// TestForeignAdapters: an adapter of another architecture or another shape says so.
func TestForeignAdapters(t *testing.T) {
	m := loadStories(t)
	_, err := LoadPEFT(shared.Path(t, "adapters", "gpt2-r8"), m)
	refused(t, err, "adapter_config.json", "fan_in_fan_out is set", "another architecture (GPT-2)")

	c := m.Config
	c.Dim, c.HeadDim = 32, 4
	narrow, err := NewModel(c)
	if err != nil {
		t.Fatal(err)
	}
	from := shared.Path(t, "models", "stories260K", "peft-r4")
	_, err = LoadPEFT(from, narrow)
	refused(t, err, peftWeightsFile, "model.layers.0.self_attn.q_proj.lora_A.weight has shape [4 64], want [4 32]")
	c = m.Config
	c.Layers = 4
	shallow, err := NewModel(c)
	if err != nil {
		t.Fatal(err)
	}
	_, err = LoadPEFT(from, shallow)
	refused(t, err, peftWeightsFile, "model.layers.4.", "belongs to no linear module of this model")
}

func TestPEFTRefusals(t *testing.T) {
	m := randomModel(t, oddConfigs["grouped, untied"], 1)
	a := randomAdapter(t, m, 2, []string{"q_proj"}, 2)
	type change = map[string]any
	load := func(change change, edit func(dir string)) error {
		dir := t.TempDir()
		if err := a.WritePEFT(dir, "base"); err != nil {
			t.Fatal(err)
		}
		var c map[string]any
		if err := json.Unmarshal(readFile(t, dir, peftConfigFile), &c); err != nil {
			t.Fatal(err)
		}
		for k, v := range change {
			c[k] = v
		}
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, peftConfigFile), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if edit != nil {
			edit(dir)
		}
		_, err = LoadPEFT(dir, m)
		if err != nil && !strings.Contains(err.Error(), dir) {
			t.Errorf("error %q does not name the folder", err)
		}
		return err
	}
	for _, c := range []change{{}, {"target_modules": "all-linear"}, {"init_lora_weights": "gaussian"}, {"lora_bias": false, "use_bdlora": nil, "a_key_of_the_future": 1}} {
		if err := load(c, nil); err != nil {
			t.Errorf("%v: %v", c, err)
		}
	}
	for _, x := range []struct {
		want   string
		change change
	}{
		{`peft_type is "IA3", this program reads LORA`, change{"peft_type": "IA3"}},
		{"r is 0, it must lie in [1, 1024]", change{"r": 0}},
		{"r is 1025", change{"r": 1025}},
		{"lora_alpha is 0, it must lie in (0, 65536]", change{"lora_alpha": 0}},
		{"lora_alpha is 1e+300", change{"lora_alpha": 1e300}},
		{`bias is "all"`, change{"bias": "all"}},
		{"use_dora is set", change{"use_dora": true}},
		{"use_rslora is set", change{"use_rslora": true}},
		{"lora_bias is set", change{"lora_bias": true}},
		{"modules_to_save is set", change{"modules_to_save": []string{"lm_head"}}},
		{"rank_pattern is set", change{"rank_pattern": change{"q_proj": 4}}},
		{"alpha_pattern is set", change{"alpha_pattern": change{"q_proj": 4}}},
		{"layer_replication is set", change{"layer_replication": []any{[]int{0, 2}}}},
		{`init_lora_weights is "pissa"`, change{"init_lora_weights": "pissa"}},
		{"r of type int", change{"r": "eight"}},
		{"lora_A.weight has shape [2 10], want [3 10]", change{"r": 3}},
	} {
		refused(t, load(x.change, nil), x.want)
	}
	weights := func(list ...safetensors.Values) func(string) {
		return func(dir string) {
			if err := safetensors.WriteFile(filepath.Join(dir, peftWeightsFile), list, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	q := peftPrefix + a.Modules[0].Name
	A := safetensors.Values{Name: q + ".lora_A.weight", Shape: []int{2, 10}, Data: a.Modules[0].A}
	B := safetensors.Values{Name: q + ".lora_B.weight", Shape: []int{24, 2}, Data: slices.Clone(a.Modules[0].B)}
	if err := load(nil, weights(A, B)); err != nil {
		t.Error(err)
	}
	refused(t, load(nil, weights(A)), q+".lora_B.weight")
	refused(t, load(nil, weights(B)), q+".lora_A.weight")
	refused(t, load(nil, weights()), "holds no tensors")
	refused(t, load(nil, weights(A, B, safetensors.Values{Name: q + ".lora_B.bias", Shape: []int{24}, Data: make([]float32, 24)})), "lora_B.bias belongs to no linear module")
	B.Data[9] = float32(math.NaN())
	refused(t, load(nil, weights(A, B)), "lora_B.weight: value 9 is NaN")
	refused(t, load(nil, func(dir string) {
		b := readFile(t, dir, peftWeightsFile)
		if err := os.WriteFile(filepath.Join(dir, peftWeightsFile), b[:len(b)-1], 0o600); err != nil {
			t.Fatal(err)
		}
	}), peftWeightsFile)
	refused(t, load(nil, func(dir string) { os.Remove(filepath.Join(dir, peftWeightsFile)) }), peftWeightsFile)
	refused(t, load(nil, func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, peftConfigFile), bytes.Repeat([]byte(" "), peftConfigMax+1), 0o600); err != nil {
			t.Fatal(err)
		}
	}), peftConfigFile, "has more than 1048576 bytes")
}

func TestNewAdapter(t *testing.T) {
	m := randomModel(t, oddConfigs["grouped, untied"], 1)
	for _, x := range []struct {
		want    string
		rank    int
		alpha   float64
		targets []string
	}{
		{"adapter rank is 0, it must lie in [1, 1024]", 0, 1, nil},
		{"adapter rank is 1025", 1025, 1, nil},
		{"adapter alpha is NaN, it must lie in (0, 65536]", 1, math.NaN(), nil},
		{"adapter alpha is -1", 1, -1, nil},
		{"no linear module of the model is named by [proj]", 1, 1, []string{"proj"}},
	} {
		_, err := NewAdapter(m, x.rank, x.alpha, x.targets)
		refused(t, err, x.want)
	}
	a, err := NewAdapter(m, 2, 4, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range m.Linear() {
		x := a.Modules[i]
		if x.Name != l.Name || x.In != l.In || x.Out != l.Out || len(x.A) != 2*l.In || len(x.B) != 2*l.Out {
			t.Errorf("module %d is %s, want %s", i, x.Name, l.Name)
		}
	}
	b := a.Clone()
	b.Modules[0].A[0], b.Modules[0].B[0] = 1, 1
	if a.Modules[0].A[0] != 0 || a.Modules[0].B[0] != 0 {
		t.Error("a clone shares its factors")
	}
}
