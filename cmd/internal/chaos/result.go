package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ruche-federation/ruche/cmd/internal/consortium"
)

// Result is what a run of one layer found, as a file in docs/benchmarks. Other programs may write such files too: the
// report takes every file there with a layer.
type Result struct {
	SchemaVersion string   `json:"schema_version"` // "1"
	Layer         string   `json:"layer"`          // one or two words, the line in the table
	About         string   `json:"about"`          // what was done, a sentence
	Command       string   `json:"command"`        // to repeat it
	Seed          uint64   `json:"seed,omitempty"`
	Commit        string   `json:"commit"`
	Date          string   `json:"date"` // UTC, the day
	Machine       Machine  `json:"machine"`
	Seconds       float64  `json:"seconds"`
	Counts        []Count  `json:"counts"`
	Times         []Times  `json:"times,omitempty"`
	Violations    []string `json:"violations"`
	Skipped       string   `json:"skipped,omitempty"` // why nothing was done
}

// Machine is where it ran.
type Machine struct {
	CPU    string  `json:"cpu"`
	Cores  int     `json:"cores"`
	System string  `json:"system"`
	Load   float64 `json:"load"` // average of the minute before the run began: what else the machine had to do
}

// Count is a number with a name. The order is the author's.
type Count struct {
	Name string `json:"name"`
	N    int    `json:"n"`
}

// Times are the spread of measured times, in seconds.
type Times struct {
	Name       string  `json:"name"`
	N          int     `json:"n"`
	P50        float64 `json:"p50_s"`
	P99        float64 `json:"p99_s"`
	Worst      float64 `json:"worst_s"`
	Resolution string  `json:"resolution"`
}

// newResult begins a result.
func newResult(ctx context.Context, layer, about, command string, seed uint64) *Result {
	return &Result{SchemaVersion: "1", Layer: layer, About: about, Command: command, Seed: seed, Commit: commit(ctx), Date: time.Now().UTC().Format(time.DateOnly),
		Machine: thisMachine(), Counts: []Count{}, Violations: []string{}}
}

func (r *Result) count(name string, n int) { r.Counts = append(r.Counts, Count{name, n}) }

// timed adds a spread.
func (r *Result) timed(name, resolution string, all []time.Duration) {
	if len(all) == 0 {
		return
	}
	slices.Sort(all)
	at := func(share float64) float64 {
		return all[min(len(all)-1, int(share*float64(len(all))))].Round(time.Millisecond).Seconds()
	}
	r.Times = append(r.Times, Times{Name: name, N: len(all), P50: at(0.5), P99: at(0.99), Worst: at(1), Resolution: resolution})
}

// save writes the result.
func (r *Result) save(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// commit names the sources that ran, as far as git knows.
func commit(ctx context.Context) string {
	out, err := consortium.Command(ctx, "git", "rev-parse", "--short=12", "HEAD")
	if err != nil {
		return "unknown"
	}
	name := strings.TrimSpace(string(out))
	if out, err := consortium.Command(ctx, "git", "status", "--porcelain", "--untracked-files=no", "--", ":!docs"); err == nil && len(out) > 0 {
		name += " and changes"
	}
	return name
}

func thisMachine() Machine {
	m := Machine{CPU: "unknown", Cores: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH}
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		if first, _, ok := strings.Cut(string(b), " "); ok {
			m.Load, _ = strconv.ParseFloat(first, 64) // 0 where the system does not say
		}
	}
	return m
}

// print is the result for people.
func (r *Result) print() {
	if r.Skipped != "" {
		fmt.Printf("%s: skipped: %s\n", r.Layer, r.Skipped)
		return
	}
	fmt.Printf("%s, seed %d, commit %s, %s, %d cores, load %.1f, %.0f s\n", r.Layer, r.Seed, r.Commit, r.Machine.CPU, r.Machine.Cores, r.Machine.Load, r.Seconds)
	for _, c := range r.Counts {
		fmt.Printf("  %8d  %s\n", c.N, c.Name)
	}
	for _, t := range r.Times {
		fmt.Printf("  %s: %d, p50 %.3f s, p99 %.3f s, worst %.3f s (%s)\n", t.Name, t.N, t.P50, t.P99, t.Worst, t.Resolution)
	}
	for _, v := range r.Violations {
		fmt.Printf("  VIOLATION: %s\n", v)
	}
}
