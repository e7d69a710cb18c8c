package layout

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ruche-federation/ruche/crypto/label"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// twoModules is listed out of order on purpose: LoRA sorts.
func twoModules(t testing.TB) Layout {
	t.Helper()
	l, err := LoRA([]Module{
		{Name: "model.layers.2.self_attn.q_proj", In: 16, Out: 24},
		{Name: "model.layers.10.mlp.down_proj", In: 32, Out: 8},
	}, 4, 8, StandardTail())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func plainVector(t testing.TB) Layout {
	t.Helper()
	l, err := Vector("embedding", 10, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func smallModel(l Layout) Model {
	m := Model{TaskID: "vector-demo", LayoutHash: l.Hash(), Seq: 7, Values: make([]float32, l.D())}
	for i := range m.Values {
		m.Values[i] = float32(i) - 2.5
	}
	m.Values[3] = float32(math.Copysign(0, -1)) // a state is bits: −0 stays −0
	return m
}

func TestLoRAListsModulesByNameAndPairsTheirFactors(t *testing.T) {
	l := twoModules(t)
	want := Layout{
		Factor: FactorB, Rank: 4, Alpha: 8, Tail: StandardTail(),
		Trained: []Tensor{
			{"model.layers.10.mlp.down_proj.lora_B.weight", []int{8, 4}},
			{"model.layers.2.self_attn.q_proj.lora_B.weight", []int{24, 4}},
		},
		Frozen: []Tensor{
			{"model.layers.10.mlp.down_proj.lora_A.weight", []int{4, 32}},
			{"model.layers.2.self_attn.q_proj.lora_A.weight", []int{4, 16}},
		},
	}
	if !reflect.DeepEqual(l, want) {
		t.Fatalf("got %+v\nwant %+v", l, want)
	}
	if l.D() != 8*4+24*4 || l.TailLen() != 3 || l.TailIndex(MetricLossAfter) != 2 || l.TailIndex("joules") != -1 {
		t.Fatalf("D %d, tail %d, loss_after at %d", l.D(), l.TailLen(), l.TailIndex(MetricLossAfter))
	}
	values := make([]float32, l.D())
	values[8*4] = 1
	parts, err := l.Split(values)
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) != 2 || len(parts[0]) != 32 || len(parts[1]) != 96 || parts[1][0] != 1 {
		t.Fatalf("the second tensor does not begin where the first ends: %d and %d values", len(parts[0]), len(parts[1]))
	}
	if _, err := l.Split(values[1:]); err == nil {
		t.Error("a vector of another length was split")
	}
}

func TestValidateNamesWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*Layout)
		want  string
	}{
		{"no tensor", func(l *Layout) { l.Trained = nil }, "trains no tensor"},
		{"unknown factor", func(l *Layout) { l.Factor = "C" }, `factor "C"`},
		{"factor A is not trained by this version", func(l *Layout) { l.Factor = "A" }, `factor "A"`},
		{"order", func(l *Layout) { l.Trained[0], l.Trained[1] = l.Trained[1], l.Trained[0] }, "strictly ascending"},
		{"same name twice", func(l *Layout) { l.Frozen[1] = l.Frozen[0] }, "strictly ascending"},
		{"empty name", func(l *Layout) { l.Trained[0].Name = "" }, "limits 1 and 200"},
		{"long name", func(l *Layout) { l.Trained[0].Name = strings.Repeat("x", 201) }, "201 bytes"},
		{"name with a space", func(l *Layout) { l.Trained[0].Name = "a b" }, "visible ASCII"},
		{"name with another script", func(l *Layout) { l.Trained[0].Name = "éa" }, "visible ASCII"},
		{"no dimensions", func(l *Layout) { l.Trained[0].Shape = nil }, "0 dimensions"},
		{"six dimensions", func(l *Layout) { l.Trained[0].Shape = []int{1, 1, 1, 1, 1, 1} }, "6 dimensions"},
		{"zero dimension", func(l *Layout) { l.Trained[0].Shape[0] = 0 }, "below 1"},
		{"negative dimension", func(l *Layout) { l.Trained[0].Shape[0] = -8 }, "below 1"},
		{"product beyond an int", func(l *Layout) { l.Trained[0].Shape = []int{math.MaxInt, math.MaxInt} }, "more than"},
		{"too many values", func(l *Layout) { l.Trained[0].Shape = []int{ValuesMax / 4, 4} }, "more trained values"},
		{"rank zero", func(l *Layout) { l.Rank = 0 }, "rank 0"},
		{"rank other than the shapes'", func(l *Layout) { l.Rank = 5 }, "want [out 5]"},
		{"rank above the inputs", func(l *Layout) { l.Frozen[1].Shape[1] = 3 }, "fewer than rank 4"},
		{"alpha NaN", func(l *Layout) { l.Alpha = math.NaN() }, "alpha NaN"},
		{"alpha negative", func(l *Layout) { l.Alpha = -1 }, "alpha -1"},
		{"missing frozen", func(l *Layout) { l.Frozen = l.Frozen[:1] }, "1 frozen tensors for 2"},
		{"B without its A", func(l *Layout) { l.Frozen[0].Name = "a" + SuffixA }, "not the B and A factors"},
		{"metric twice", func(l *Layout) { l.Tail[1].Name = l.Tail[0].Name }, "twice"},
		{"metric range zero", func(l *Layout) { l.Tail[0].Max = 0 }, "range [0, 0]"},
		{"metric range NaN", func(l *Layout) { l.Tail[0].Max = math.NaN() }, "range"},
		{"metric range infinite", func(l *Layout) { l.Tail[0].Max = math.Inf(1) }, "range"},
		{"too many metrics", func(l *Layout) { l.Tail = make([]Metric, TailMax+1) }, "17 metrics, limit 16"},
		{"vector with a rank", func(l *Layout) { l.Factor = FactorVector }, "has frozen tensors"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := twoModules(t)
			c.spoil(&l)
			err := l.Validate()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
			if _, err := Parse(l.Canonical()); err == nil {
				t.Fatal("its canonical bytes were parsed")
			}
		})
	}
	l := plainVector(t)
	l.Alpha = math.Copysign(0, -1)
	if l.Validate() == nil {
		t.Error("alpha −0 gives one layout two hashes")
	}
}

func TestEveryLayoutHasOneByteString(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLayout(t)
		parsed, err := Parse(l.Canonical())
		if err != nil {
			t.Fatalf("%+v: %v", l, err)
		}
		if !reflect.DeepEqual(parsed, l) {
			t.Fatalf("parsed %+v\nwrote  %+v", parsed, l)
		}
		if parsed.Hash() != l.Hash() {
			t.Fatal("hash changed")
		}
	})
}

func TestTwoLayoutsDifferInTheirHash(t *testing.T) {
	base := twoModules(t).Hash()
	for name, change := range map[string]func(*Layout){
		"rank and shapes": func(l *Layout) {
			l.Rank = 2
			for i := range l.Trained {
				l.Trained[i].Shape[1], l.Frozen[i].Shape[0] = 2, 2
			}
		},
		"alpha":        func(l *Layout) { l.Alpha = 16 },
		"shape":        func(l *Layout) { l.Trained[0].Shape[0]++ },
		"metric order": func(l *Layout) { l.Tail[1], l.Tail[2] = l.Tail[2], l.Tail[1] },
		"metric range": func(l *Layout) { l.Tail[0].Max++ },
		"no metrics":   func(l *Layout) { l.Tail = nil },
	} {
		l := twoModules(t)
		change(&l)
		if err := l.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if l.Hash() == base {
			t.Errorf("%s: same hash", name)
		}
	}
}

func TestLayoutTravelsAsJSON(t *testing.T) {
	for _, l := range []Layout{twoModules(t), plainVector(t)} {
		text, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		var back Layout
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&back); err != nil {
			t.Fatal(err)
		}
		if back.Hash() != l.Hash() {
			t.Fatalf("%s reads as %+v", text, back)
		}
	}
	text, _ := json.Marshal(plainVector(t))
	if want := `{"factor":"vector","trained":[{"name":"embedding","shape":[10]}]}`; string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
}

func TestGoldenBytes(t *testing.T) {
	lora, vector := twoModules(t), plainVector(t)
	for name, data := range map[string][]byte{
		"layout-lora-v1.hex":   lora.Canonical(),
		"layout-vector-v1.hex": vector.Canonical(),
		"model-v1.hex":         smallModel(vector).Canonical(),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name)
			text := hex.EncodeToString(data) + "\n"
			if *update {
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if text != string(want) {
				t.Fatalf("canonical bytes changed: got %swant %s", text, want)
			}
			parse := func(data []byte) error {
				if strings.HasPrefix(name, "model") {
					_, err := ParseModel(data, ValuesMax)
					return err
				}
				_, err := Parse(data)
				return err
			}
			if err := parse(data); err != nil {
				t.Fatal(err)
			}
			next := bytes.Clone(data)
			next[0] = Version + 1
			if err := parse(next); err == nil || !strings.Contains(err.Error(), "version 2, this program reads version 1") {
				t.Errorf("next version: %v", err)
			}
			if err := parse(append(bytes.Clone(data), 0)); err == nil || !strings.Contains(err.Error(), "1 trailing bytes") {
				t.Errorf("trailing byte: %v", err)
			}
			for n := range data {
				if parse(data[:n]) == nil {
					t.Errorf("the first %d of %d bytes were accepted", n, len(data))
				}
			}
		})
	}
}

func TestGoldenHashes(t *testing.T) {
	for _, c := range []struct {
		what string
		got  label.Hash
		want string
	}{
		{"LoRA layout", twoModules(t).Hash(), "f53f89ad5142eb1b82c71e2bf7fde8d606bdfe0a9359da5b55f278eed975c992"},
		{"vector layout", plainVector(t).Hash(), "8457cf1a6be484118e2a0a41c6d15faac3fa8dc0b7745cb3a1c88618358e9998"},
		{"model", smallModel(plainVector(t)).Hash(), "9a4cf3c2bc21d5fc2304caa531debcb02f0bfa7f161f3352d1d2fe1945b36c42"},
	} {
		if c.got.String() != c.want {
			t.Errorf("hash of the %s is %v, want %s", c.what, c.got, c.want)
		}
	}
}

func TestAListCannotClaimMoreThanItsBytes(t *testing.T) {
	b := appendString([]byte{Version}, FactorVector)
	for _, count := range []uint32{TensorsMax, TensorsMax + 1, math.MaxUint32} {
		if _, err := Parse(binary.BigEndian.AppendUint32(bytes.Clone(b), count)); err == nil {
			t.Errorf("a list of %d tensors without bytes was accepted", count)
		}
	}
	if _, err := Parse(make([]byte, CanonicalMax+1)); err == nil || !strings.Contains(err.Error(), "limit 4194304") {
		t.Errorf("oversized layout: %v", err)
	}
}

// drawLayout draws a valid layout.
func drawLayout(t *rapid.T) Layout {
	var tail []Metric
	for i := range rapid.IntRange(0, 4).Draw(t, "metrics") {
		tail = append(tail, Metric{string(rune('a' + i)), rapid.Float64Range(1e-6, MetricMaxMax).Draw(t, "max")})
	}
	names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z.0-9]{1,12}`), 1, 6, rapid.ID).Draw(t, "names")
	var l Layout
	var err error
	if rapid.Bool().Draw(t, "vector") {
		l, err = Vector(names[0], rapid.IntRange(1, 5000).Draw(t, "d"), tail)
	} else {
		rank := rapid.IntRange(1, 8).Draw(t, "rank")
		var modules []Module
		for _, n := range names {
			modules = append(modules, Module{n, rapid.IntRange(rank, 40).Draw(t, "in"), rapid.IntRange(1, 40).Draw(t, "out")})
		}
		l, err = LoRA(modules, rank, rapid.Float64Range(0.5, 64).Draw(t, "alpha"), tail)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func FuzzParse(f *testing.F) {
	f.Add(twoModules(f).Canonical())
	f.Add(plainVector(f).Canonical())
	f.Add([]byte{Version})
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Parse(data)
		if err != nil {
			return
		}
		if err := l.Validate(); err != nil {
			t.Fatalf("parsed a layout that is none: %v", err)
		}
		if !bytes.Equal(l.Canonical(), data) {
			t.Fatal("two byte strings for one layout")
		}
	})
}
