package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// result is what became of one mutant.
type result struct {
	Name    string  `json:"name"`
	Promise string  `json:"promise"`
	Test    string  `json:"test"`
	Outcome string  `json:"outcome"`           // caught, survived, or what went wrong
	Noticed string  `json:"noticed,omitempty"` // what the test said first
	Seconds float64 `json:"seconds"`
}

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	only := flags.String("only", "", "run those whose name contains this")
	format := flags.String("format", "text", "text or json")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *format != "text" && *format != "json" {
		return fmt.Errorf("format is %q, it must be text or json", *format)
	}
	root, err := repository()
	if err != nil {
		return err
	}
	progress := stdout
	if *format == "json" {
		progress = stderr
	}
	var chosen []Mutant
	for _, m := range mutants() {
		if strings.Contains(m.Name, *only) {
			chosen = append(chosen, m)
		}
	}
	if err := healthy(root, chosen, progress); err != nil {
		return err
	}
	var results []result
	bad := 0
	for i, m := range chosen {
		begun := time.Now()
		r := result{Name: m.Name, Promise: m.Promise, Test: m.Package + " " + m.Test, Outcome: "caught"}
		var err error
		if r.Noticed, err = kill(root, m); err != nil {
			r.Outcome = err.Error()
			bad++
		}
		r.Seconds = time.Since(begun).Seconds()
		results = append(results, r)
		fmt.Fprintf(progress, "%2d/%d  %5.1f s  %-50s %s\n", i+1, len(chosen), r.Seconds, m.Name, r.Outcome)
	}
	if *format == "json" {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(results); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d mutants were not caught", bad, len(chosen))
	}
	fmt.Fprintf(progress, "%d mutants, all caught\n", len(chosen))
	return nil
}

// healthy runs every named test on the source as it is: a test that fails anyway proves nothing.
func healthy(root string, list []Mutant, progress io.Writer) error {
	tests := map[string][]string{}
	var order []string
	for _, m := range list {
		if tests[m.Package] == nil {
			order = append(order, m.Package)
		}
		tests[m.Package] = append(tests[m.Package], m.Test)
	}
	for _, pkg := range order {
		out, err := goTest(root, "", pkg, "^("+strings.Join(tests[pkg], "|")+")$")
		if err != nil {
			return fmt.Errorf("%s fails without a mutation: %w\n%s", pkg, err, out)
		}
		fmt.Fprintf(progress, "ok     %s\n", pkg)
	}
	return nil
}

// says finds a failing test's first words, or those of a panic.
var says = regexp.MustCompile(`(?m)[a-z_]+\.go:[0-9]+: .*$|^panic: .*$`)

// kill demands that m compiles and its test fails, and returns what the test said.
func kill(root string, m Mutant) (noticed string, err error) {
	dir, err := os.MkdirTemp("", "ruche-mutant-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	overlay, err := m.overlay(root, dir)
	if err != nil {
		return "", err
	}
	out, err := goTest(root, overlay, m.Package, "^"+m.Test+"$")
	switch {
	case err == nil:
		return "", errors.New("SURVIVED")
	case !errors.As(err, new(*exec.ExitError)):
		return "", err
	case strings.Contains(out, "panic: test timed out"):
		return "", fmt.Errorf("the test noticed nothing, it hangs: %s", out)
	case !strings.Contains(out, "--- FAIL: "+m.Test) && !strings.Contains(out, "panic: "):
		return "", fmt.Errorf("no test failed, it did not run: %s", out)
	}
	return says.FindString(out), nil
}

// overlay writes the edited files into dir and returns the file that names them.
func (m Mutant) overlay(root, dir string) (string, error) {
	edited := map[string]string{}
	for _, e := range m.Edits {
		path := filepath.Join(root, filepath.FromSlash(e.File))
		text, ok := edited[path]
		if !ok {
			b, err := os.ReadFile(path)
			if err != nil {
				return "", err
			}
			text = string(b)
		}
		if n := strings.Count(text, e.Old); n != 1 {
			return "", fmt.Errorf("%s: the old text stands %d times, want once: %q", e.File, n, e.Old)
		}
		edited[path] = strings.Replace(text, e.Old, e.New, 1)
	}
	replace := map[string]string{}
	for path, text := range edited {
		to := filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[path] = to
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, b, 0o600)
}

func goTest(root, overlay, pkg, pattern string) (string, error) {
	args := []string{"test", "-count=1", "-vet=off", "-timeout=10m", "-run", pattern}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	args = append(args, "./"+pkg)
	if pkg == "coordinator/round" {
		args = append(args, "-rapid.nofailfile", "-rapid.shrinktime=1ms") // what makes a mutant fail is neither kept in the repository nor sought the least of
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// repository is the folder of go.mod, upwards from here.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod here or above: run this in the repository")
		}
		dir = up
	}
}
