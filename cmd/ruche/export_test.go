package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/aggregation/commons"
	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/node/llm"
	"github.com/ruche-federation/ruche/testdata/shared"
)

// trained is an exported state of a task on a real small model.
func trained(t *testing.T, path string) *exported {
	t.Helper()
	b, err := readBase(path, "")
	must(t, err)
	task := charter.NewTask("commons", charter.KindLoRA)
	task.Base = b.sha256
	task.Layout, err = layout.LoRA(b.modules, 4, 8, layout.StandardTail())
	must(t, err)
	task.InitSeed[0] = 1
	m := task.Init()
	m.Seq = 3
	for i := range m.Values {
		m.Values[i] = float32(i%17-8) / 256
	}
	return &exported{task: &task, model: m}
}

func TestAnAdapterLeavesAsPEFTAndComesBackEqual(t *testing.T) {
	path := shared.Path(t, "models", "stories260K", "hf")
	e := trained(t, path)
	dir := filepath.Join(t.TempDir(), "out", "adapter")
	must(t, e.writePEFT(path, "", dir))
	m, _, _, err := llm.Load(path, llm.LoadOptions{})
	must(t, err)
	a, err := llm.LoadPEFT(dir, m)
	must(t, err)
	if a.Rank != 4 || a.Alpha != 8 || len(a.Modules) != len(m.Linear()) {
		t.Fatalf("rank %d, alpha %g, %d modules", a.Rank, a.Alpha, len(a.Modules))
	}
	parts, err := e.task.Layout.Split(e.model.Values)
	must(t, err)
	byName := map[string][]float32{}
	for i, tensor := range e.task.Layout.Trained {
		byName[tensor.Name] = parts[i]
	}
	for _, mod := range a.Modules {
		wantA := commons.Orthonormal(e.task.InitSeed, layout.Tensor{Name: mod.Name + layout.SuffixA, Shape: []int{4, mod.In}})
		for i, v := range mod.A {
			if v != wantA[i] {
				t.Fatalf("%s: A[%d] is %v, the public seed gives %v", mod.Name, i, v, wantA[i])
			}
		}
		for i, v := range mod.B {
			if want := byName[mod.Name+layout.SuffixB][i]; v != want {
				t.Fatalf("%s: B[%d] is %v, the state has %v", mod.Name, i, v, want)
			}
		}
	}
	again := filepath.Join(t.TempDir(), "again")
	must(t, e.writePEFT(path, "", again))
	for _, name := range []string{"adapter_config.json", "adapter_model.safetensors"} {
		x, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		y, err := os.ReadFile(filepath.Join(again, name))
		must(t, err)
		if !bytes.Equal(x, y) {
			t.Errorf("%s differs between two exports", name)
		}
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(dir), ".*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestExportRefuses(t *testing.T) {
	path := shared.Path(t, "models", "stories260K", "hf")
	for _, c := range []struct {
		name, word string
		spoil      func(e *exported) (base, dir string)
	}{
		{"another base", "other_base", func(e *exported) (string, string) {
			e.task.Base = strings.Repeat("ab", 32)
			return path, "x"
		}},
		{"no base at all", "not_found", func(*exported) (string, string) { return "nowhere", "x" }},
		{"a folder that exists", "exists", func(*exported) (string, string) { return path, t.TempDir() }},
		{"a vector", "no_adapter", func(e *exported) (string, string) {
			l, err := layout.Vector("v", 4, nil)
			must(t, err)
			e.task.Layout, e.task.Kind, e.model.LayoutHash = l, charter.KindVector, l.Hash()
			return path, "x"
		}},
	} {
		e := trained(t, path)
		base, dir := c.spoil(e)
		if err := cli.Classify(e.writePEFT(base, "", dir)); err == nil || err.Word != c.word || err.Hint == "" {
			t.Errorf("%s: %v, want %s", c.name, err, c.word)
		}
	}
}

// TestALoraTaskFromTheBaseItself drafts a charter from a model file.
func TestALoraTaskFromTheBaseItself(t *testing.T) {
	path := shared.Path(t, "models", "stories260K", "hf")
	h := newHive(t, nil)
	dir := t.TempDir()
	var cards []string
	for i, m := range h.ch.Members {
		data, err := charter.SignCard(m, h.identities[i])
		must(t, err)
		card := filepath.Join(dir, m.Name+".json")
		must(t, os.WriteFile(card, data, 0o600))
		cards = append(cards, card)
	}
	out := filepath.Join(dir, "draft.json")
	code, _, errs := ruche(t, "charter", "new", "--cards", strings.Join(cards, ","), "--consortium", "Essaim", "--task-lora", "tiny="+path, "--rank", "4", "--steps", "5", "-o", out)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	_, ch, err := readDraft(out)
	must(t, err)
	task, ok := ch.Task("tiny")
	if !ok || task.Base != trained(t, path).task.Base || task.Recipe.Rank != 4 || task.Recipe.Steps != 5 || task.Recipe.Alpha != 4 || task.Layout.D() != 12000 || task.Layout.TailLen() != 3 {
		t.Errorf("task %+v", task.Recipe)
	}
}
