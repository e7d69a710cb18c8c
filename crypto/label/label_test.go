package label

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
)

// TestLabelsAreDistinct reads the constants from the source, so that a new one cannot be forgotten here.
func TestLabelsAreDistinct(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "label.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]map[string]string{"Tag": {}, "Stmt": {}, "Purpose": {}}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for i, name := range spec.Names {
			for kind, names := range seen {
				if !strings.HasPrefix(name.Name, kind) {
					continue
				}
				value, err := strconv.Unquote(spec.Values[i].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				if before, twice := names[value]; twice {
					t.Errorf("%s and %s are both %q", before, name.Name, value)
				}
				names[value] = name.Name
				if value == "" || strings.ContainsRune(value, 0) {
					t.Errorf("%s is %q: a label is not empty and holds no zero byte", name.Name, value)
				}
				if n := len(Context(value)); n > 255 {
					t.Errorf("%s makes a context of %d bytes, ML-DSA takes 255", name.Name, n)
				}
			}
		}
		return true
	})
	for kind, names := range seen {
		if len(names) < 3 {
			t.Errorf("only %d constants begin with %s", len(names), kind)
		}
	}
}

func TestSumAndSigningAreWhatTheProtocolSays(t *testing.T) {
	want := Hash(sha256.Sum256([]byte("ruche/secagg/v1/commit\x00abc")))
	if got := Sum(TagCommit, []byte("ab"), nil, []byte("c")); got != want {
		t.Errorf("Sum = %v, want %v", got, want)
	}
	h := New(TagCommit)
	h.Write([]byte("abc"))
	if got := Hash(h.Sum(nil)); got != want {
		t.Errorf("New = %v, want %v", got, want)
	}
	body := sha256.Sum256([]byte("body"))
	if got, want := Signing(StmtVote, []byte("body")), append([]byte("ruche/secagg/v1/vote\x00"), body[:]...); !bytes.Equal(got, want) {
		t.Errorf("Signing = %q, want %q", got, want)
	}
	if got := Context(StmtVote); string(got) != "ruche/secagg/v1/vote" {
		t.Errorf("Context = %q", got)
	}
	if PRGSalt != "ruche/secagg/v1/prg" || BoxInfo != "ruche/secagg/v1/box" {
		t.Errorf("PRGSalt %q, BoxInfo %q", PRGSalt, BoxInfo)
	}
}

func TestHashHasOneSpelling(t *testing.T) {
	h := Sum(TagModel, []byte("x"))
	got, err := ParseHash(h.String())
	if err != nil || got != h || h.IsZero() || !(Hash{}).IsZero() {
		t.Fatalf("%v, %v", got, err)
	}
	data, err := json.Marshal(map[string]Hash{"id": h})
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]Hash
	if err := json.Unmarshal(data, &back); err != nil || back["id"] != h {
		t.Fatalf("%s came back as %v, %v", data, back, err)
	}
	s := h.String()
	for _, bad := range []string{"", s[:63], s + "0", strings.ToUpper(Sum(TagModel).String()), "g" + s[1:], s[:62] + "0x", " " + s[1:]} {
		if _, err := ParseHash(bad); err == nil {
			t.Errorf("%q was read as a hash", bad)
		}
	}
	if _, err := HashFromBytes(h[:31]); err == nil {
		t.Error("31 bytes were read as a hash")
	}
	if got, err := HashFromBytes(h[:]); err != nil || got != h {
		t.Errorf("%v, %v", got, err)
	}
}

func FuzzParseHash(f *testing.F) {
	f.Add(Sum(TagModel).String())
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if h, err := ParseHash(s); err == nil && h.String() != s {
			t.Errorf("%q was read as %v", s, h)
		}
	})
}
