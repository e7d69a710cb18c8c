package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestACheckedFile: what was written is read, and nothing else is: no flipped bit, no cut, no file under another's name.
func TestACheckedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "note")
	if _, err := ReadChecked(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, data := range []string{"", "no newline", strings.Repeat("x", MaxChecked) + "\n"} {
		if err := WriteChecked(path, []byte(data), 0o600); err == nil {
			t.Errorf("took %d bytes, %.10q", len(data), data)
		}
	}
	for _, data := range []string{"\n", "5 abc\n", "a\nb\n", strings.Repeat("x", MaxChecked-1) + "\n"} {
		if err := WriteChecked(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadChecked(path); err != nil || string(got) != data {
			t.Fatalf("%d bytes, %v, of %.10q", len(got), err, data)
		}
	}
	if err := WriteChecked(path, []byte("5 abc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what, path string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadChecked(path); !errors.As(err, new(*CorruptError)) {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	for i := range whole {
		for bit := range 8 {
			b := append([]byte(nil), whole...)
			b[i] ^= 1 << bit
			refused("a flipped bit", path, b)
		}
		refused("cut off", path, whole[:i])
	}
	refused("one byte more", path, append(append([]byte(nil), whole...), '\n'))
	refused("twice", path, append(append([]byte(nil), whole...), whole...))
	refused("far too long", path, make([]byte, 2*MaxChecked))
	refused("another's", filepath.Join(filepath.Dir(path), "other"), whole)
}
