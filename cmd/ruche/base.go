package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/node/llm"
)

// base is what a charter and an export need of a base model.
type base struct {
	sha256  string
	modules []layout.Module
	linear  []llm.Module
}

// readBase reads the base model at path with the engine that devices use. A llama2.c file needs a tokenizer beside it.
func readBase(path, tokenizer string) (*base, error) {
	m, _, src, err := llm.Load(path, llm.LoadOptions{Tokenizer: tokenizer})
	if err != nil {
		return nil, cli.WithHint(fmt.Errorf("base model: %w", err), "give a Hugging Face folder, a GGUF file, or a llama2.c .bin with --tokenizer")
	}
	b := &base{sha256: src.SHA256, linear: m.Linear()}
	for _, l := range b.linear {
		b.modules = append(b.modules, layout.Module{Name: l.Name, In: l.In, Out: l.Out})
	}
	return b, nil
}

// writePEFT writes the adapter as a PEFT directory at dir, which must not exist: it appears complete or not at all.
func (e *exported) writePEFT(path, tokenizer, dir string) error {
	if e.model.LayoutHash != e.task.Layout.Hash() || e.task.Layout.Factor != layout.FactorB {
		return cli.Fail("no_adapter", "choose a round of a task of kind lora: --round TASK/latest", "task %s is of kind %s: its state is no adapter", e.task.ID, e.task.Kind)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return cli.Fail("exists", "choose another --peft", "%s exists", dir)
	}
	b, err := readBase(path, tokenizer)
	if err != nil {
		return err
	}
	if b.sha256 != e.task.Base {
		return cli.Fail("other_base", "give the files that the devices load: the same conversion, the same tokenizer", "base model %s has SHA-256 %s, task %s trains on %s", path, b.sha256, e.task.ID, e.task.Base)
	}
	a, err := e.adapter(b.linear)
	if err != nil {
		return err
	}
	dir = absolute(dir)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	part, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+"-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(part) // nothing is left there after the rename
	if err := a.WritePEFT(part, filepath.Base(absolute(path))); err != nil {
		return err
	}
	if err := os.Chmod(part, 0o755); err != nil {
		return err
	}
	return os.Rename(part, dir)
}

// adapter puts both factors into the engine's form.
func (e *exported) adapter(linear []llm.Module) (*llm.Adapter, error) {
	factors, err := e.factors()
	if err != nil {
		return nil, err
	}
	a := &llm.Adapter{Rank: e.task.Layout.Rank, Alpha: e.task.Layout.Alpha}
	used := 0
	for _, l := range linear {
		A, B := factors[l.Name+layout.SuffixA], factors[l.Name+layout.SuffixB]
		if A == nil && B == nil {
			continue
		}
		if len(A) != a.Rank*l.In || len(B) != l.Out*a.Rank {
			return nil, fmt.Errorf("module %s of the base is %d x %d, the layout has another shape", l.Name, l.Out, l.In)
		}
		a.Modules = append(a.Modules, llm.AdapterModule{Name: l.Name, In: l.In, Out: l.Out, A: A, B: B})
		used += 2
	}
	if used != len(factors) {
		return nil, fmt.Errorf("the layout has %d factors, the base has modules for %d of them", len(factors), used)
	}
	return a, nil
}
