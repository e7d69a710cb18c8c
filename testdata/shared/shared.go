// Package shared finds the test material that is kept beside the repository, not in it.
package shared

import (
	"os"
	"path/filepath"
	"testing"
)

// Root returns the folder that holds go.mod, searched upwards from the test's working directory.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the test's working directory")
		}
		dir = up
	}
}

// Path returns the path of a file or folder below ../shared/data, seen from the repository's root,
// or skips the test, naming what is missing.
func Path(t testing.TB, elem ...string) string {
	t.Helper()
	p := filepath.Join(append([]string{Root(t), "..", "shared", "data"}, elem...)...)
	if _, err := os.Stat(p); err != nil {
		t.Skipf("skipped: shared test material %s is not beside the repository", filepath.Join(elem...))
	}
	return p
}
