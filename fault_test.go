package ruche

import (
	"go/ast"
	"go/token"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// points gives the file of every point of the code. A point has one place: a passing of it says which write it was.
func points(t *testing.T) map[string]string {
	t.Helper()
	code := map[string]string{}
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_test.go") || path.Dir(s.path) == "storage/fault" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); !ok || x.Name != "fault" || sel.Sel.Name != "Step" && sel.Sel.Name != "Point" {
				return true
			}
			lit, ok := call.Args[0].(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				t.Errorf("%s: the name of a point is a string in its place", s.path)
				return true
			}
			name, _ := strconv.Unquote(lit.Value)
			if old, ok := code[name]; ok && sel.Sel.Name == "Step" {
				t.Errorf("the point %q stands in %s and in %s", name, old, s.path)
			}
			code[name] = s.path
			return true
		})
	}
	return code
}

// TestEveryDurableStepIsAPoint: the table "Durable before said" of docs/PROTOCOL.md names the points of the code, all of
// them and no other, and each row cites the package in which its point stands.
func TestEveryDurableStepIsAPoint(t *testing.T) {
	code := points(t)
	b, err := os.ReadFile("docs/PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(b), "| durable | point |")
	_, table, _ = strings.Cut(table, "\n")
	table, _, _ = strings.Cut(table, "\n\n")
	name := regexp.MustCompile("`([a-z-]+)`")
	said := map[string]bool{}
	for _, row := range strings.Split(table, "\n") {
		cells := strings.Split(row, " | ")
		if len(cells) != 6 || !strings.HasPrefix(row, "| ") || strings.HasPrefix(row, "| ---") {
			continue
		}
		found := name.FindAllStringSubmatch(cells[1], -1)
		if len(found) == 0 {
			t.Errorf("docs/PROTOCOL.md: the row %q names no point", cells[0])
		}
		for _, m := range found {
			said[m[1]] = true
			if code[m[1]] == "" {
				t.Errorf("docs/PROTOCOL.md names the point %q, which the code lacks", m[1])
			}
			if dir := path.Dir(code[m[1]]); !strings.Contains(cells[2], "`"+dir+"/") {
				t.Errorf("docs/PROTOCOL.md: the point %q stands in %s, its row cites %s", m[1], dir, cells[2])
			}
		}
	}
	for n, file := range code {
		if !said[n] {
			t.Errorf("%s: the point %q stands in no row of docs/PROTOCOL.md", file, n)
		}
	}
	if len(said) < 20 {
		t.Errorf("%d points were found in docs/PROTOCOL.md: the search is broken", len(said))
	}
}

// TestEveryPointIsStruck: the fault tests strike the points of the code, all of them. A name counts in a fault.Passing or
// in fault.Points only: "device" and "end" are words that stand there for other reasons too.
func TestEveryPointIsStruck(t *testing.T) {
	code, struck := points(t), map[string]bool{}
	for _, s := range sources(t) {
		if path.Base(s.path) != "faults_test.go" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			list, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			sel, ok := list.Type.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); !ok || x.Name != "fault" || sel.Sel.Name != "Passing" && sel.Sel.Name != "Points" {
				return true
			}
			for _, e := range list.Elts {
				if pair, ok := e.(*ast.KeyValueExpr); ok {
					e = pair.Value
				}
				if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					name, _ := strconv.Unquote(lit.Value)
					if struck[name] = true; code[name] == "" {
						t.Errorf("%s strikes the point %q, which the code lacks", s.path, name)
					}
				}
			}
			return true
		})
	}
	for name, file := range code {
		if !struck[name] {
			t.Errorf("%s: no fault test strikes the point %q", file, name)
		}
	}
}
