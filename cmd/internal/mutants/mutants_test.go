package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheListIsOfThisSource: every old text stands once in its file, and every named test exists, so that the list cannot
// rot while nobody runs it.
func TestTheListIsOfThisSource(t *testing.T) {
	root, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, m := range mutants() {
		if names[m.Name] {
			t.Errorf("%s: stands twice", m.Name)
		}
		names[m.Name] = true
		if m.Promise == "" || len(m.Edits) == 0 {
			t.Errorf("%s: says nothing or changes nothing", m.Name)
		}
		if _, err := m.overlay(root, t.TempDir()); err != nil {
			t.Errorf("%s: %v", m.Name, err)
		}
		files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(m.Package), "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			found = found || strings.Contains(string(b), "func "+m.Test+"(t *testing.T)")
		}
		if !found {
			t.Errorf("%s: package %s has no test %s", m.Name, m.Package, m.Test)
		}
	}
}

// TestAnOldTextHasToStandOnce: what is missing or ambiguous is refused, and nothing is laid over the source.
func TestAnOldTextHasToStandOnce(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.go"), []byte("one two two"), 0o600); err != nil {
		t.Fatal(err)
	}
	for old, ok := range map[string]bool{"one": true, "two": false, "three": false} {
		m := Mutant{Edits: []Edit{{"a.go", old, "x"}}}
		if _, err := m.overlay(dir, t.TempDir()); (err == nil) != ok {
			t.Errorf("%q: %v", old, err)
		}
	}
}
