package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/testdata/users"
)

// lines writes a users' file: each user with one record of the given number of characters.
func lines(sizes map[string]int) string {
	var b strings.Builder
	for name, n := range sizes {
		fmt.Fprintf(&b, "{\"user\":%q,\"text\":%q}\n", name, strings.Repeat("é", n))
	}
	return b.String()
}

func TestPeopleWithTheMostTextBecomeDevices(t *testing.T) {
	people, err := readPeople(strings.NewReader(lines(map[string]int{"a": 900, "b": 500, "c": 499, "d": 900, "e": 2000, "f": 600})), 5)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, p := range people {
		got += p.Name
		if p.Newcomer {
			got += "*"
		}
	}
	if want := "eadf*b"; got != want {
		t.Errorf("order %s, want %s: most text first, ties by name, every fourth a newcomer", got, want)
	}
	if _, err := readPeople(strings.NewReader(lines(map[string]int{"a": 900, "b": 499})), 2); err == nil || !strings.Contains(err.Error(), "1 of 2 users") {
		t.Errorf("too few users: %v", err)
	}
}

func TestPeopleFilesThatAreNone(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":    "hello\n",
		"no user":    `{"text":"x"}` + "\n",
		"no text":    `{"user":"x"}` + "\n",
		"wrong type": `{"user":1,"text":"x"}` + "\n",
	} {
		if _, err := readPeople(strings.NewReader(text), 1); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOurOwnUsersMakeADemo(t *testing.T) {
	people, err := readPeople(users.Open(), 16)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range people {
		if p.Chars < 2*textMin {
			t.Errorf("%s has %d characters", p.Name, p.Chars)
		}
	}
}

func TestRecipeShrinksWithTheModel(t *testing.T) {
	for _, x := range []struct{ parameters, context, tokens, most int }{
		{200_000, 256, 0, tokensSmall}, {3_000_000, 256, 0, 700}, {135_000_000, 2048, 0, tokensLeast}, {200_000, 64, 0, tokensSmall}, {200_000, 256, 1000, 1000},
	} {
		r := recipeFor(x.parameters, x.context, x.tokens)
		n := r.Steps * r.Batch * r.Window
		if n > x.most || n < 2 || r.Window > x.context || r.Steps < 1 || r.Batch < 1 {
			t.Errorf("%d parameters, context %d, %d tokens asked: %d steps of %d x %d", x.parameters, x.context, x.tokens, r.Steps, r.Batch, r.Window)
		}
	}
}

func good() *Report {
	r := &Report{Rounds: []RoundReport{{Seq: 1, State: "published", SumEqualsPlain: true}, {Seq: 2, State: "published", SumEqualsPlain: true, LeaderKilled: true},
		{Seq: 3, State: "published", SumEqualsPlain: true}, {Seq: 4, State: "published", SumEqualsPlain: true}}}
	r.Loss.Newcomers = NewcomersLoss{Base: 3, AloneBest: 2.8, AloneMedian: 2.9, Rounds: []float64{2.9, 2.8, 2.7, 2.6}}
	r.Loss.Participants = ParticipantsLoss{Base: 3.1, AloneMean: 2.7, Rounds: []float64{2.9, 2.8, 2.7, 2.5}}
	return r
}

func TestTheJudgeFailsEveryBrokenPromise(t *testing.T) {
	r := good()
	if r.judge(4, 2); r.Status != "ok" {
		t.Fatalf("a good report fails: %v", r.Failures)
	}
	for name, spoil := range map[string]func(*Report){
		"a dead round":           func(r *Report) { r.Rounds[2].State = "dead" },
		"a sum that differs":     func(r *Report) { r.Rounds[0].SumEqualsPlain = false },
		"a missing round":        func(r *Report) { r.Rounds = r.Rounds[:3] },
		"no kill":                func(r *Report) { r.Rounds[1].LeaderKilled = false },
		"little gain":            func(r *Report) { r.Loss.Newcomers.Rounds[3] = 2.75 },
		"single adapters better": func(r *Report) { r.Loss.Newcomers.AloneBest = 2.65 },
		"nothing measured":       func(r *Report) { r.Loss.Newcomers.Rounds = nil },
	} {
		r := good()
		spoil(r)
		if r.judge(4, 2); r.Status != "failed" || len(r.Failures) == 0 {
			t.Errorf("%s passes", name)
		}
	}
}

func TestReportNamesAreFixed(t *testing.T) {
	b, err := json.Marshal(good())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"schema_version", "status", "base", "charter", "participants", "newcomers", "rounds", "loss", "peak_rss_bytes", "seconds",
		"sha256", "parameters", "state", "contributors", "refused", "bytes_up_mean", "bytes_plain", "train", "upload", "close", "vote", "reveal", "publish",
		"leader", "leader_killed", "adapter_sha256", "sum_equals_plain", "unit", "alone_mean", "alone_best", "alone_median", "device_max", "member_max"} {
		if !bytes.Contains(b, []byte(`"`+name+`":`)) {
			t.Errorf("the report has no %q", name)
		}
	}
}

func TestThePlotIsAPicture(t *testing.T) {
	d := xml.NewDecoder(strings.NewReader(plot(good())))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
