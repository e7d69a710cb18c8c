package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/crypto/label"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

// golden compares what a person sees with a file that a reviewer has read.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		must(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; run with -update and read the diff. Got\n%s", path, got)
	}
}

func TestWhatPeopleSee(t *testing.T) {
	h := newHive(t, nil)
	o := &cli.Output{Format: cli.FormatTable}
	var b bytes.Buffer
	must(t, printCharter(&b, o, h.ch, describe(h.ch, true)))
	golden(t, "charter-show", b.Bytes())

	now := time.UnixMilli(epoch0 + 30*hourMs)
	id := func(s string) []byte { h := label.Sum(label.TagRoundConfig, []byte(s)); return h[:] }
	var lines []roundLine
	for _, r := range []*coordpb.RoundSummary{
		{RoundId: id("1"), TaskId: "commons", Seq: 1, Phase: "published", Accepted: 100, Target: 100, Contributors: 99, ModelHash: id("m"), OpenedMs: epoch0, EndedMs: epoch0 + hourMs},
		{RoundId: id("2"), TaskId: "commons", Seq: 2, Phase: "dead", Death: "certified", Accepted: 2, Target: 100, OpenedMs: epoch0 + 24*hourMs, EndedMs: epoch0 + 25*hourMs},
		{RoundId: id("3"), TaskId: "commons", Seq: 3, Phase: "open", Accepted: 41, Target: 100, OpenedMs: epoch0 + 30*hourMs - 75_000},
		{RoundId: id("4"), TaskId: "steps", Seq: 1, Phase: "proposed", Target: 100},
	} {
		lines = append(lines, toLine(r, true))
	}
	b.Reset()
	must(t, roundsTable(lines, now).Write(&b, true))
	golden(t, "rounds-list", b.Bytes())

	p := h.publish(1, nil)
	r, err := reportRound(h.ch, p.id, p.rec, "org-0")
	must(t, err)
	b.Reset()
	must(t, r.print(&b, o))
	golden(t, "rounds-show", b.Bytes())

	p.rec.Votes = p.rec.Votes[:2]
	v := &verifyReport{ID: p.id.String(), Task: "commons", Seq: 1, Label: cli.DemoLabel}
	a := verifyRound(h.ch, p.id, p.rec, h.sources(p))
	v.Members = []memberReport{{Member: "org-0", Result: markFailed, Phase: "published", Checks: a.findings, Failed: a.failed()}}
	b.Reset()
	must(t, v.print(&b, o))
	golden(t, "rounds-verify", b.Bytes())
}

func TestWhoCanOpenWhat(t *testing.T) {
	for _, c := range []struct {
		n, f int
		want string
	}{
		{1, 0, "The one member sees every contribution"},
		{2, 1, "All 2 members together could open a single contribution; fewer cannot."},
		{4, 1, "Any 2 of the 4 members together could open a single contribution; 1 cannot."},
		{7, 2, "Any 3 of the 7 members together could open a single contribution; 2 cannot."},
	} {
		if got := whoCanOpen(&charter.Charter{N: c.n, F: c.f}); !strings.HasPrefix(got, c.want) {
			t.Errorf("(%d,%d): %q", c.n, c.f, got)
		}
	}
}

func TestRoundNames(t *testing.T) {
	h := newHive(t, nil)
	hash := func(s string) label.Hash {
		h, err := label.ParseHash(s + strings.Repeat("0", 64-len(s)))
		must(t, err)
		return h
	}
	var rounds []*coordpb.RoundSummary
	add := func(id, task string, seq uint64, phase string) {
		x := hash(id)
		rounds = append(rounds, &coordpb.RoundSummary{RoundId: x[:], TaskId: task, Seq: seq, Phase: phase})
	}
	add("aabbcc01", "commons", 1, "published")
	add("aabbcc02", "commons", 2, "dead")
	add("aabbcc03", "commons", 3, "open")
	add("ddeeff01", "steps", 1, "published")
	for _, c := range []struct {
		name string
		want wanted
		id   string // empty: refused
		code int
	}{
		{"commons/1", anyRound, "aabbcc01", 0},
		{"commons/3", anyRound, "aabbcc03", 0},
		{"commons/latest", anyRound, "aabbcc03", 0},
		{"steps/latest", anyRound, "ddeeff01", 0},
		{"AABBCC02", anyRound, "aabbcc02", 0},
		{"ddeeff", anyRound, "ddeeff01", 0},
		{"aabbcc", anyRound, "", cli.Usage},
		{"ddee", anyRound, "", cli.Usage},
		{"latest", anyRound, "", cli.Usage}, // two tasks
		{"latest", anAdapter, "aabbcc01", 0},
		{"commons/latest", anAdapter, "aabbcc01", 0},
		{"commons/3", anAdapter, "", cli.Failed},
		{"aabbcc03", anAdapter, "", cli.Failed},
		{"commons/9", anyRound, "", cli.Failed},
		{"other/1", anyRound, "", cli.Usage},
		{"commons/-1", anyRound, "", cli.Usage},
		{"commons/", anyRound, "", cli.Usage},
		{"", anyRound, "", cli.Usage},
		{strings.Repeat("a", 65), anyRound, "", cli.Usage},
		{hash("12").String(), anyRound, "12", 0}, // a whole id is not looked up
	} {
		got, err := roundNamed(h.ch, rounds, c.name, c.want)
		if c.id == "" {
			if e := cli.Classify(err); e == nil || e.Code != c.code {
				t.Errorf("%q: %v, want exit %d", c.name, err, c.code)
			}
		} else if err != nil || got != hash(c.id) {
			t.Errorf("%q: %s, %v; want %s", c.name, got, err, c.id)
		}
	}
}
