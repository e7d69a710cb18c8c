package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Margins that newcomers must gain, in nats per token.
const (
	gainOverBase  = 0.3
	gainOverAlone = 0.1
)

// judge fills Status and Failures: the demo's promises, each checked against the report alone.
func (r *Report) judge(rounds, killed int) {
	fail := func(format string, args ...any) { r.Failures = append(r.Failures, fmt.Sprintf(format, args...)) }
	if len(r.Rounds) != rounds {
		fail("%d rounds ended, %d were asked for", len(r.Rounds), rounds)
	}
	sawKill := false
	for _, x := range r.Rounds {
		if x.State != "published" {
			fail("round %d is %s", x.Seq, x.State)
			continue
		}
		if !x.SumEqualsPlain {
			fail("round %d: the opened sum is not the plain sum", x.Seq)
		}
		sawKill = sawKill || x.LeaderKilled
	}
	if killed > 0 && !sawKill {
		fail("the leader was to be killed in round %d and was not", killed)
	}
	end, ok := last(r.Loss.Newcomers.Rounds)
	switch {
	case !ok || r.Loss.Newcomers.Base == 0:
		fail("the newcomers' loss was not measured")
	default:
		// One short round cannot be held to what four must show.
		if want := gainOverBase; rounds >= 4 && r.Loss.Newcomers.Base-end < want {
			fail("newcomers are %.3f nats per token below the base, promised are %.1f", r.Loss.Newcomers.Base-end, want)
		} else if end >= r.Loss.Newcomers.Base {
			fail("newcomers are not better off than with the base (%.3f, base %.3f)", end, r.Loss.Newcomers.Base)
		}
		if want := gainOverAlone; rounds >= 4 && r.Loss.Newcomers.AloneBest-end < want {
			fail("newcomers are %.3f nats per token below the best single adapter, promised are %.1f", r.Loss.Newcomers.AloneBest-end, want)
		}
	}
	r.Status = "ok"
	if len(r.Failures) > 0 {
		r.Status = "failed"
	}
}

// table is the report for people.
func table(w io.Writer, r *Report) error {
	t := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	fmt.Fprintf(w, "DEMO, NOT PRIVATE    n %d, f %d, q %d    %d participants, %d newcomers\n\n", r.Charter.N, r.Charter.F, r.Charter.Q, r.Participants, r.Newcomers)
	fmt.Fprintln(t, "ROUND\tSTATE\tSET\tSUM = PLAIN\tNEWCOMERS\tPARTICIPANTS\tLEADER\tUPLOAD\tTRAIN+UPLOAD\tOPEN THE SUM")
	fmt.Fprintf(t, "base\t\t\t\t%.3f\t%.3f\n", r.Loss.Newcomers.Base, r.Loss.Participants.Base)
	for i, x := range r.Rounds {
		leader := x.Leader
		if x.LeaderKilled {
			leader += " (killed)"
		}
		fmt.Fprintf(t, "%d\t%s\t%d\t%v\t%s\t%s\t%s\t%.1f kB (plain %.1f)\t%.1f s\t%.1f s\n", x.Seq, x.State, x.Contributors, x.SumEqualsPlain,
			at(r.Loss.Newcomers.Rounds, i), at(r.Loss.Participants.Rounds, i), leader, x.BytesUpMean/1e3, float64(x.BytesPlain)/1e3,
			x.Seconds.Train+x.Seconds.Upload, x.Seconds.Close+x.Seconds.Vote+x.Seconds.Reveal+x.Seconds.Publish)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nloss in nats per token, on text nobody trained on; participants alone: %.3f on their own text; single adapters on newcomers: best %.3f, median %.3f\n",
		r.Loss.Participants.AloneMean, r.Loss.Newcomers.AloneBest, r.Loss.Newcomers.AloneMedian)
	fmt.Fprintf(w, "largest device %.0f MB, largest member %.0f MB, %.1f s in all\n", float64(r.PeakRSS.DeviceMax)/1e6, float64(r.PeakRSS.MemberMax)/1e6, r.Seconds)
	for _, f := range r.Failures {
		fmt.Fprintln(w, "FAILED:", f)
	}
	_, err := fmt.Fprintln(w, "status:", r.Status)
	return err
}

func at(v []float64, i int) string {
	if i >= len(v) || v[i] == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3f", v[i])
}
