package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Bug is a defect of the product that a run found, and the test that keeps it out.
type Bug struct {
	Found   string `json:"found"` // the layer that found it
	Symptom string `json:"symptom"`
	Cause   string `json:"cause"`
	Fix     string `json:"fix"`
	Test    string `json:"test"` // package and name
}

const (
	reportFile = "durability.md"
	bugsFile   = "bugs.json"
)

// report writes the page from the results and the bugs in dir. The same files give the same bytes.
func report(dir string) ([]byte, error) {
	results, err := readResults(dir)
	if err != nil {
		return nil, err
	}
	var bugs []Bug
	b, err := os.ReadFile(filepath.Join(dir, bugsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		if err := json.Unmarshal(b, &bugs); err != nil {
			return nil, fmt.Errorf("%s: %w", bugsFile, err)
		}
	}
	return page(results, bugs), nil
}

// readResults reads every result in dir, by layer. Files without a layer are something else.
func readResults(dir string) ([]Result, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var out []Result
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var probe struct {
			Layer string `json:"layer"`
		}
		if json.Unmarshal(b, &probe) != nil || probe.Layer == "" {
			continue
		}
		var r Result
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&r); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
		out = append(out, r)
	}
	slices.SortStableFunc(out, func(a, b Result) int { return strings.Compare(a.Layer, b.Layer) })
	return out, nil
}

// page is the report as Markdown.
func page(results []Result, bugs []Bug) []byte {
	var b bytes.Buffer
	b.WriteString("# Durability\n\n")
	b.WriteString("What was broken on purpose, how often, and what was lost. Written by `make durability` from the results beside it; nobody edits it by hand.\n")
	b.WriteString("Each layer has its command to repeat it. A violation is something lost, said twice, or untrue; any makes the command fail.\n\n")
	b.WriteString("| layer | violations | in | where |\n| --- | --- | --- | --- |\n")
	for _, r := range results {
		found := fmt.Sprint(len(r.Violations))
		if r.Skipped != "" {
			found = "skipped: " + cell(r.Skipped)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s, %d cores, load %.1f at its beginning; commit %s, %s |\n", cell(r.Layer), found, span(r.Seconds), cell(r.Machine.CPU), r.Machine.Cores, r.Machine.Load, cell(r.Commit), cell(r.Date))
	}
	for _, r := range results {
		fmt.Fprintf(&b, "\n## %s\n\n%s.\n\n    %s\n", r.Layer, strings.TrimSuffix(r.About, "."), r.Command)
		if r.Skipped != "" {
			fmt.Fprintf(&b, "\nSkipped: %s.\n", strings.TrimSuffix(r.Skipped, "."))
			continue
		}
		if len(r.Counts) > 0 {
			b.WriteString("\n| | |\n| --- | --- |\n")
		}
		for _, c := range r.Counts {
			fmt.Fprintf(&b, "| %s | %d |\n", cell(c.Name), c.N)
		}
		if len(r.Times) > 0 {
			b.WriteString("\n| seconds | times | p50 | p99 | worst | resolution |\n| --- | --- | --- | --- | --- | --- |\n")
		}
		for _, t := range r.Times {
			fmt.Fprintf(&b, "| %s | %d | %.3f | %.3f | %.3f | %s |\n", cell(t.Name), t.N, t.P50, t.P99, t.Worst, cell(t.Resolution))
		}
		for _, v := range r.Violations {
			fmt.Fprintf(&b, "\nVIOLATION: %s\n", v)
		}
	}
	b.WriteString("\n## Bugs found\n\n")
	if len(bugs) == 0 {
		b.WriteString("None.\n")
		return b.Bytes()
	}
	b.WriteString("| found by | symptom | cause | fix | test |\n| --- | --- | --- | --- | --- |\n")
	for _, x := range bugs {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", cell(x.Found), cell(x.Symptom), cell(x.Cause), cell(x.Fix), cell(x.Test))
	}
	return b.Bytes()
}

// cell keeps a text inside its cell of a table.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ", "\r", " ").Replace(s)
}

func span(seconds float64) string {
	if seconds < 120 {
		return fmt.Sprintf("%.0f s", seconds)
	}
	return fmt.Sprintf("%.0f min", seconds/60)
}
