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

// TestFiguresOfLayers: what the layers' tests log is found, and nothing else.
func TestFiguresOfLayers(t *testing.T) {
	lines := map[string][]Count{
		"    faults_test.go:160: 18 points, 232 cases":                         {{"points", 18}, {"cases", 232}},
		"    faults_test.go:110: 2 cases":                                      {{"cases", 2}},
		"    faults_test.go:140: 12 failures before \"guard\"":                 nil,
		"BenchmarkLeadershipTransfer-2   \t     100\t  14876543 ns/op":         {{"ns/op", 14876543}},
		"    siege_test.go:60: 12 turns, 3 lies; rounds 1":                     {{"turns", 12}, {"lies", 3}},
		"    partition_test.go:9: partitions: {\"hours\":1,\"commands\":1024}": {{"hours", 1}, {"commands", 1024}},
	}
	for line, want := range lines {
		var got []Count
		for _, l := range testedLayers() {
			r := &Result{}
			if r.figures([]byte(line), l.figures) == nil {
				got = append(got, r.Counts[1:]...) // the first counts the runs
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", line, got, want)
		}
	}
}
