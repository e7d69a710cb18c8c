//go:build unix

package main

import (
	"regexp"
	"slices"
	"testing"
)

// TestFigures: what tests log is added up, JSON or words alike, and a test that logs nothing is noticed.
func TestFigures(t *testing.T) {
	r := &Result{}
	line := regexp.MustCompile(`x: (.*)`)
	must(t, r.figures([]byte("x: 3 points, 12 cases\nother\nx: 4 points, 1 cases"), line))
	must(t, r.figures([]byte("x: {\"partitions\":5,\"virtual_hours\":2.9}\n"), line))
	want := []Count{{"runs", 2}, {"points", 7}, {"cases", 13}, {"runs", 1}, {"partitions", 5}, {"virtual hours", 2}}
	if !slices.Equal(r.Counts, want) {
		t.Errorf("%v, want %v", r.Counts, want)
	}
	if err := r.figures([]byte("x: many points\n"), line); err == nil {
		t.Error("a figure without a number passes")
	}
	if err := (&Result{}).figures([]byte("--- PASS\n"), line); err == nil {
		t.Error("a test without figures passes")
	}
}
