package ruche

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/ruche-federation/ruche"

// source is one parsed Go file with its slash-separated path from the root.
type source struct {
	path string
	file *ast.File
}

// parsed reads the repository once for all tests of this package.
var parsed = sync.OnceValues(func() (out []source, err error) {
	fset := token.NewFileSet()
	err = filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && p != "." && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		out = append(out, source{filepath.ToSlash(p), f})
		return nil
	})
	return out, err
})

func sources(t *testing.T) []source {
	t.Helper()
	out, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func matches(pattern, pkg string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == prefix || strings.HasPrefix(pkg, prefix+"/")
	}
	return pattern == pkg
}

func matchesAny(patterns []string, pkg string) bool {
	for _, p := range patterns {
		if matches(p, pkg) {
			return true
		}
	}
	return false
}

type rule struct {
	left  string
	right []string
}

// readDeps parses deps.txt: direction rules in order, the first match wins, and owners of modules.
func readDeps(t *testing.T) (directions, owners []rule) {
	t.Helper()
	f, err := os.Open("deps.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		left, right, ok := strings.Cut(line, " :")
		if !ok {
			t.Fatalf("deps.txt: no colon in %q", line)
		}
		r := rule{strings.TrimSpace(left), strings.Fields(right)}
		if owned, ok := strings.CutPrefix(r.left, "owner "); ok {
			r.left = strings.TrimSpace(owned)
			owners = append(owners, r)
		} else {
			directions = append(directions, r)
		}
	}
	return directions, owners
}

// TestImportDirections holds deps.txt: who may import whom, and one owner per dependency.
func TestImportDirections(t *testing.T) {
	directions, owners := readDeps(t)
	for _, s := range sources(t) {
		pkg := path.Dir(s.path)
		if strings.HasSuffix(s.path, "_test.go") || strings.HasPrefix(pkg, "testdata") || pkg == "." {
			continue
		}
		var allowed []string
		found := false
		for _, d := range directions {
			if matches(d.left, pkg) {
				allowed, found = d.right, true
				break
			}
		}
		if !found {
			t.Errorf("%s: package %s stands in no line of deps.txt", s.path, pkg)
			continue
		}
		for _, imp := range s.file.Imports {
			p, _ := strconv.Unquote(imp.Path.Value)
			if rel, ours := strings.CutPrefix(p, module+"/"); ours {
				if !matchesAny(allowed, rel) {
					t.Errorf("%s imports %s, which deps.txt does not allow to %s", s.path, rel, pkg)
				}
				continue
			}
			for _, o := range owners {
				if (p == o.left || strings.HasPrefix(p, o.left+"/")) && !matchesAny(o.right, pkg) {
					t.Errorf("%s imports %s, which only %v may", s.path, p, o.right)
				}
			}
		}
	}
}

// TestEveryPackageSaysWhatItIs wants a package comment on every package, in doc.go or in its only file.
func TestEveryPackageSaysWhatItIs(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_test.go") {
			continue
		}
		pkg := path.Dir(s.path)
		has := s.file.Doc != nil && (strings.HasPrefix(s.file.Doc.Text(), "Package ") || strings.HasPrefix(s.file.Doc.Text(), "Command "))
		documented[pkg] = documented[pkg] || has
	}
	var missing []string
	for pkg, ok := range documented {
		if !ok {
			missing = append(missing, pkg)
		}
	}
	sort.Strings(missing)
	for _, pkg := range missing {
		t.Errorf("package %s has no package comment", pkg)
	}
}

// TestPureCodeTakesClocksAndRandomnessAsArguments: protocol code and mathematics never ask for the time or for
// randomness by themselves, and no production code imports testing.
func TestPureCodeTakesClocksAndRandomnessAsArguments(t *testing.T) {
	pure := []string{"crypto/...", "aggregation/...", "coordinator/charter", "coordinator/statement", "coordinator/round", "coordinator/epoch", "storage/...", "node/llm/...", "node/train"}
	for _, s := range sources(t) {
		pkg := path.Dir(s.path)
		if strings.HasSuffix(s.path, "_test.go") || strings.HasPrefix(pkg, "testdata") {
			continue
		}
		for _, imp := range s.file.Imports {
			p, _ := strconv.Unquote(imp.Path.Value)
			if p == "testing" {
				t.Errorf("%s imports testing in production code", s.path)
			}
			if p == "math/rand" {
				t.Errorf("%s imports math/rand", s.path)
			}
			if p == "crypto/rand" && matchesAny(pure, pkg) {
				t.Errorf("%s imports crypto/rand: randomness is an argument there", s.path)
			}
		}
		if !matchesAny(pure, pkg) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && (sel.Sel.Name == "Now" || sel.Sel.Name == "Since" || sel.Sel.Name == "Until") {
					t.Errorf("%s calls time.%s: the clock is an argument there", s.path, sel.Sel.Name)
				}
			}
			return true
		})
	}
}

// TestNoVagueNames keeps the house readable: a package is named for what it gives.
func TestNoVagueNames(t *testing.T) {
	vague := map[string]bool{"util": true, "utils": true, "common": true, "helpers": true, "helper": true, "types": true, "pkg": true, "misc": true}
	for _, s := range sources(t) {
		if vague[s.file.Name.Name] {
			t.Errorf("%s: package %s says nothing about what it gives", s.path, s.file.Name.Name)
		}
	}
}
