//go:build unix

package main

import (
	"strings"
	"testing"
)

// BenchmarkFailover kills the leader of an open round ten times, and stops it ten times. Promised: p99 under 3 s after a
// kill.
func BenchmarkFailover(b *testing.B) {
	o := options{programs: built(b), kills: 10, values: 20_000}
	b.ResetTimer()
	for range b.N {
		r, err := runFailover(b.Context(), o, b.Logf)
		must(b, err)
		for _, t := range r.Times {
			switch {
			case strings.HasPrefix(t.Name, "from SIGKILL"):
				b.ReportMetric(t.P99, "kill-p99-s")
				b.ReportMetric(t.P50, "kill-p50-s")
			case strings.HasPrefix(t.Name, "from SIGTERM"):
				b.ReportMetric(t.P99, "stop-p99-s")
			}
		}
	}
}

// TestFailover: one leader killed and one stopped, and every device that came meanwhile has its ack.
func TestFailover(t *testing.T) {
	if testing.Short() {
		t.Skip("runs four processes for some seconds")
	}
	r, err := runFailover(t.Context(), options{programs: built(t), kills: 1, values: 500}, t.Logf)
	must(t, err)
	if len(r.Times) != 4 || r.Counts[2].N < 4 {
		t.Errorf("%+v", r)
	}
}
