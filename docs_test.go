package ruche

import (
	"bytes"
	"go/ast"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// texts returns every file of the repository that a person reads or writes, by its slash-separated path from the root.
// Binary and large files are left out.
func texts(t *testing.T, keep func(path string) bool) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != "." && (name == ".git" || name == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		p = filepath.ToSlash(p)
		if name == ".git" { // of a linked work tree
			return nil
		}
		if !d.Type().IsRegular() || !keep(p) {
			return nil
		}
		if info, err := d.Info(); err != nil || info.Size() > 1<<20 {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if bytes.IndexByte(b, 0) < 0 {
			out[p] = string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func markdown(p string) bool { return strings.HasSuffix(p, ".md") }

var (
	fence   = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")
	inline  = regexp.MustCompile("`([^`\n]+)`")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	notSlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors are the fragments that a page's headings can be linked by.
func anchors(page string) map[string]bool {
	out := map[string]bool{}
	for _, h := range heading.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		out[strings.ReplaceAll(notSlug.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-")] = true
	}
	return out
}

// TestDocumentLinksResolve follows every relative link of every page.
func TestDocumentLinksResolve(t *testing.T) {
	pages := texts(t, markdown)
	for p, page := range pages {
		for _, l := range link.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
			if strings.Contains(l[1], "://") || strings.HasPrefix(l[1], "mailto:") {
				continue
			}
			file, fragment, _ := strings.Cut(l[1], "#")
			target := p
			if file != "" {
				target = path.Join(path.Dir(p), file)
				if _, err := os.Stat(target); err != nil {
					t.Errorf("%s links to %s, which is not there", p, l[1])
					continue
				}
			}
			if fragment != "" && markdown(target) && !anchors(pages[target])[fragment] {
				t.Errorf("%s links to %s, which has no such heading", p, l[1])
			}
		}
	}
}

// TestEveryDecisionIsListed: a page that nothing links to is not read.
func TestEveryDecisionIsListed(t *testing.T) {
	pages := texts(t, func(p string) bool { return path.Dir(p) == "docs/decisions" })
	for p := range pages {
		if name := path.Base(p); name != "README.md" && !strings.Contains(pages["docs/decisions/README.md"], "("+name+")") {
			t.Errorf("%s stands in no line of docs/decisions/README.md", p)
		}
	}
}

// vocabulary is what a program's source knows: the names of its commands, which of them have commands of their own, and
// the names of its flags.
type vocabulary struct{ verbs, groups, flags map[string]bool }

// programs reads the vocabularies of cmd/ruche* from the urfave/cli literals in their source.
func programs(t *testing.T) map[string]vocabulary {
	t.Helper()
	out := map[string]vocabulary{}
	all := sources(t)
	for _, dir := range []string{"ruche", "ruche-node", "ruche-coordinator", "ruche-demo"} {
		v := vocabulary{map[string]bool{}, map[string]bool{}, map[string]bool{"dir": true, "format": true, "no-headers": true, "log-format": true, "log-level": true, "help": true, "version": true}}
		found := false
		for _, s := range all {
			if path.Dir(s.path) != "cmd/"+dir || strings.HasSuffix(s.path, "_test.go") {
				continue
			}
			found = true
			ast.Inspect(s.file, func(n ast.Node) bool {
				if lit, ok := n.(*ast.CompositeLit); ok {
					v.read(lit)
				}
				return true
			})
		}
		if found {
			out[dir] = v
		}
	}
	return out
}

// read takes over the Name and Aliases of one literal. A literal without a type stands in a list of commands.
func (v vocabulary) read(lit *ast.CompositeLit) {
	into := v.verbs
	if sel, ok := lit.Type.(*ast.SelectorExpr); ok && strings.HasSuffix(sel.Sel.Name, "Flag") {
		into = v.flags
	} else if lit.Type != nil && !(ok && sel.Sel.Name == "Command") {
		return
	}
	var names []string
	group := false
	for _, e := range lit.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		key, _ := kv.Key.(*ast.Ident)
		if key != nil && key.Name == "Subcommands" {
			group = true
		}
		if key == nil || key.Name != "Name" && key.Name != "Aliases" {
			continue
		}
		ast.Inspect(kv.Value, func(n ast.Node) bool {
			if b, ok := n.(*ast.BasicLit); ok && b.Kind == token.STRING {
				if s, err := strconv.Unquote(b.Value); err == nil {
					names = append(names, s)
				}
			}
			return true
		})
	}
	for _, n := range names {
		into[n] = true
		if group {
			v.groups[n] = true
		}
	}
}

// called finds programs of this repository in shell text, each with the words that follow it in the same command.
var called = regexp.MustCompile("(?:^|[\\s(\"'])(ruche(?:-node|-coordinator|-demo)?)((?:[ \t]+[^\\s;&|<>)`]+)*)")

// checkCalls compares the verbs and flags of every call in a text with what the programs' source knows.
func checkCalls(known map[string]vocabulary, text string, fault func(call, word string)) (calls int) {
	for _, m := range called.FindAllStringSubmatch(strings.ReplaceAll(text, "\\\n", " "), -1) {
		v, ok := known[m[1]]
		if !ok {
			fault(m[0], m[1])
			continue
		}
		calls++
		verb := true // a verb may still come
		flag := false
		for _, w := range strings.Fields(m[2]) {
			if name, ok := strings.CutPrefix(w, "-"); ok {
				name, _, flag = strings.Cut(strings.TrimPrefix(name, "-"), "=")
				if flag = !flag; name != "" && !v.flags[name] {
					fault(m[0], w)
				}
				continue
			}
			if flag || !verb {
				flag = false
				continue // a flag's value, or an argument
			}
			if !v.verbs[w] {
				fault(m[0], w)
			}
			verb = v.groups[w]
		}
	}
	return calls
}

// TestDocumentedCommandsExist: every `make TARGET` of a page stands in the Makefile, and every verb and flag of a
// program stands in its source. What the commands do is cmd/internal/byhand's affair.
func TestDocumentedCommandsExist(t *testing.T) {
	known := programs(t)
	b, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllStringSubmatch(string(b), -1) {
		targets[m[1]] = true
	}
	makes := regexp.MustCompile(`\bmake[ \t]+([a-z][a-z-]*)`)
	calls := 0
	for p, page := range texts(t, markdown) {
		code := ""
		for _, f := range fence.FindAllStringSubmatch(page, -1) {
			if f[1] == "sh" {
				code += f[2]
			}
		}
		for _, c := range inline.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
			code += c[1] + "\n"
		}
		for _, m := range makes.FindAllStringSubmatch(code, -1) {
			if !targets[m[1]] {
				t.Errorf("%s mentions `make %s`, which the Makefile lacks", p, m[1])
			}
		}
		calls += checkCalls(known, code, func(call, word string) {
			t.Errorf("%s: %q: the program knows no %s", p, strings.TrimSpace(call), word)
		})
	}
	if calls < 20 {
		t.Errorf("%d calls of our programs were found in all pages: the search is broken", calls)
	}
}

// TestProgramTableIsComplete: README's table names every program's every verb, and none that does not exist.
func TestProgramTableIsComplete(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `(ruche[a-z-]*)` \\|.*\\|(.*)\\|$")
	rows := row.FindAllStringSubmatch(string(b), -1)
	for _, m := range rows {
		v, ok := programs(t)[m[1]]
		if !ok {
			t.Errorf("README's table names %s, which is not in cmd", m[1])
			continue
		}
		said := map[string]bool{}
		for _, c := range inline.FindAllStringSubmatch(m[2], -1) {
			for _, w := range strings.Fields(c[1]) {
				said[w] = true
				if !v.verbs[w] {
					t.Errorf("README's table: %s has no verb %s", m[1], w)
				}
			}
		}
		for verb := range v.verbs {
			if !said[verb] {
				t.Errorf("README's table leaves out `%s %s`", m[1], verb)
			}
		}
	}
	if len(rows) != len(programs(t)) {
		t.Errorf("README's table has %d programs, cmd has %d", len(rows), len(programs(t)))
	}
}

// TestDocumentedSymbolsExist: documents cite symbols, never lines. A cell "`dir/file.go` `Name`" means that very file;
// `package.Name` and `Type.Method` must be declared somewhere under that package or on that type.
func TestDocumentedSymbolsExist(t *testing.T) {
	declared := map[string]bool{}  // "file.go Name", "package.Name", "Type.Method"
	qualifier := map[string]bool{} // packages and types of ours
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_test.go") {
			continue
		}
		pkg := s.file.Name.Name
		qualifier[pkg] = true
		add := func(name string) {
			declared[s.path+" "+name] = true
			declared[pkg+"."+name] = true
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				add(d.Name.Name)
				if d.Recv != nil {
					recv := d.Recv.List[0].Type
					if star, ok := recv.(*ast.StarExpr); ok {
						recv = star.X
					}
					if id, ok := recv.(*ast.Ident); ok {
						qualifier[id.Name] = true
						declared[id.Name+"."+d.Name.Name] = true
						add(id.Name + "." + d.Name.Name)
					}
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						add(spec.Name.Name)
					case *ast.ValueSpec:
						for _, n := range spec.Names {
							add(n.Name)
						}
					}
				}
			}
		}
	}
	inFile := regexp.MustCompile("`([a-z0-9_/-]+\\.go)` `([\\w.]+)`")
	qualified := regexp.MustCompile(`^\*?([A-Za-z]\w*)\.([A-Za-z]\w*(?:\.\w+)?)(?:\(.*\))?$`)
	found := 0
	for p, page := range texts(t, func(p string) bool {
		return markdown(p) && (strings.HasPrefix(p, "docs/") || !strings.Contains(p, "/"))
	}) {
		page = fence.ReplaceAllString(page, "")
		for _, m := range inFile.FindAllStringSubmatch(page, -1) {
			found++
			if !declared[m[1]+" "+m[2]] {
				t.Errorf("%s cites %s in %s, which is not declared there", p, m[2], m[1])
			}
		}
		for _, c := range inline.FindAllStringSubmatch(page, -1) {
			m := qualified.FindStringSubmatch(c[1])
			if m == nil || !qualifier[m[1]] || slices.Contains([]string{".go", ".json", ".cert"}, path.Ext(c[1])) {
				continue
			}
			found++
			if !declared[m[1]+"."+m[2]] {
				t.Errorf("%s cites `%s`, which is not declared", p, c[1])
			}
		}
	}
	if found < 30 {
		t.Errorf("%d symbols were found in the documents: the search is broken", found)
	}
}

// TestTestdataIsListed: every file of a testdata folder that is no Go source is named, by itself or by a pattern, in a
// README between it and its testdata folder, or, from the root, in testdata/README.md. What a fuzzer found is its own.
func TestTestdataIsListed(t *testing.T) {
	readmes := texts(t, func(p string) bool { return path.Base(p) == "README.md" && strings.Contains(p, "testdata") })
	listed := func(readme, rel string) bool {
		for _, c := range inline.FindAllStringSubmatch(readmes[readme], -1) {
			if ok, _ := path.Match(c[1], rel); ok || strings.TrimSuffix(c[1], "/") == path.Dir(rel) {
				return true
			}
		}
		for _, cell := range strings.Split(strings.ReplaceAll(readmes[readme], "\n", "|"), "|") {
			if strings.TrimSpace(cell) == rel {
				return true
			}
		}
		return false
	}
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		p = filepath.ToSlash(p)
		if d.IsDir() {
			if p == ".git" || p == "bin" || strings.HasSuffix(p, "testdata/fuzz") {
				return filepath.SkipDir
			}
			return nil
		}
		at := strings.Index("/"+p, "/testdata/")
		if at < 0 || strings.HasSuffix(p, ".go") || path.Base(p) == "README.md" {
			return nil
		}
		ok := listed("testdata/README.md", p)
		for dir := path.Dir(p); !ok && strings.Contains("/"+dir+"/", "/testdata/"); dir = path.Dir(dir) {
			ok = listed(path.Join(dir, "README.md"), strings.TrimPrefix(p, dir+"/"))
		}
		if !ok {
			t.Errorf("%s stands in no README", p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestFilesStayShort: a file that passes 600 lines hides a noun. The exceptions say why they may.
func TestFilesStayShort(t *testing.T) {
	const linesMax = 600
	allowed := map[string]string{
		"coordinator/coordpb/coordinator.pb.go":      "generated",
		"coordinator/coordpb/coordinator_grpc.pb.go": "generated",
	}
	for p, text := range texts(t, func(p string) bool { return strings.HasSuffix(p, ".go") }) {
		limit := linesMax
		if strings.HasSuffix(p, "_test.go") {
			limit = 800 // stories and tables
		}
		if n := strings.Count(text, "\n"); n > limit && allowed[p] == "" {
			t.Errorf("%s has %d lines, limit %d", p, n, limit)
		}
	}
}

// TestNothingNamesAMachine: the repository stands by itself. It names no folder of the machine it was written on and no
// host but those of standards, licences and examples.
func TestNothingNamesAMachine(t *testing.T) {
	hosts := []string{"127.0.0.1", "localhost", "example", "host", "github.com", "pkg.go.dev", "go.dev", "www.w3.org", "www.apache.org",
		"www.rfc-editor.org", "datatracker.ietf.org", "csrc.nist.gov", "eprint.iacr.org", "arxiv.org", "huggingface.co"}
	url := regexp.MustCompile(`\bhttps?://([A-Za-z0-9][A-Za-z0-9.-]*)`)
	// Written in two halves, so that this file does not name what it forbids.
	folder := regexp.MustCompile(`(?:^|[\s"'` + "`" + `(=:])(/(?:wo` + `rk|ro` + `ot|ho` + `me|Us` + `ers|tm` + `p|mn` + `t)/[\w.-]+)`)
	open := regexp.MustCompile(`\b(?:TO` + `DO|FIX` + `ME|XX` + `X)\b`)
	for p, text := range texts(t, func(p string) bool { return !strings.HasSuffix(p, ".pb.go") && p != "go.sum" && p != "LICENSE" }) {
		for _, m := range url.FindAllStringSubmatch(text, -1) {
			host := strings.ToLower(strings.TrimSuffix(m[1], "."))
			if !slices.Contains(hosts, host) && !strings.HasSuffix(host, ".example") && !strings.HasSuffix(host, "-") {
				t.Errorf("%s names the host %s", p, m[1])
			}
		}
		for _, m := range folder.FindAllStringSubmatch(text, -1) {
			t.Errorf("%s names the folder %s", p, m[1])
		}
		if m := open.FindString(text); m != "" {
			t.Errorf("%s has a %s: finish it, or say in words what is missing", p, m)
		}
	}
}
