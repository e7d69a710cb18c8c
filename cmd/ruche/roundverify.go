package main

import (
	"bytes"
	"context"
	"fmt"
	"io"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/crypto/label"
)

// verifyReport is `rounds verify`.
type verifyReport struct {
	ID      string         `json:"id"`
	Task    string         `json:"task"`
	Seq     uint64         `json:"seq"`
	Label   string         `json:"label"`
	Members []memberReport `json:"members"` // one, or with --all-members all
}

// memberReport is what one member's record is worth.
type memberReport struct {
	Member  string    `json:"member"`
	Result  string    `json:"result"` // ok, failed, or absent: it did not answer or does not keep the round
	Phase   string    `json:"phase"`
	Detail  string    `json:"detail"` // why absent, or in what it differs from the first member
	Checks  []finding `json:"checks"`
	Failed  int       `json:"failed"`
	Missing int       `json:"absent"`
}

func verifyRoundCommand() *urfave.Command {
	return &urfave.Command{
		Name: "verify", Usage: "recompute a round from what a member serves; exit status 1 if anything is wrong", ArgsUsage: "ROUND",
		Description: "Checks the round certificate, every contribution's signature and enrolment, the list of candidates, every ack, the set by the set rule,\n" +
			"the votes, the reveals, the result and the published state's bytes. Only the charter is believed. " + roundHint,
		Flags: []urfave.Flag{&urfave.BoolFlag{Name: "all-members", Usage: "verify what every member serves, and compare"}},
		Action: func(c *urfave.Context) error {
			args, err := cli.Args(c, 1, 1, "ROUND [--all-members]")
			if err != nil {
				return err
			}
			k, err := dial(c)
			if err != nil {
				return err
			}
			defer k.close()
			r, err := verifyNamed(c.Context, k, args[0], c.Bool("all-members"))
			if err != nil {
				return err
			}
			return cli.Out(c).Verdict(r, func(w io.Writer) error { return r.print(w, cli.Out(c)) }, r.verdict())
		},
	}
}

// verifyNamed audits the round at one member, or at all of them.
func verifyNamed(ctx context.Context, k *consortium, name string, all bool) (*verifyReport, error) {
	id, rec, member, err := fetchRound(ctx, k, name, anyRound)
	if err != nil {
		return nil, err
	}
	r := &verifyReport{ID: id.String(), Task: rec.GetTaskId(), Seq: rec.GetSeq()}
	if k.ch.Demo {
		r.Label = cli.DemoLabel
	}
	first := auditMember(ctx, k, member, id, rec, all)
	if !all {
		r.Members = []memberReport{first}
		return r, nil
	}
	for i := range k.ch.N {
		if i == member {
			r.Members = append(r.Members, first)
			continue
		}
		other, err := getRound(ctx, k, i, id)
		if err != nil {
			r.Members = append(r.Members, memberReport{Member: k.ch.Members[i].Name, Result: markAbsent, Detail: err.Error(), Checks: []finding{}})
			continue
		}
		at := auditMember(ctx, k, i, id, other, all)
		if d := difference(rec, other); d != "" {
			at.Result, at.Detail = markFailed, d
			at.Failed++
		}
		r.Members = append(r.Members, at)
	}
	return r, nil
}

func auditMember(ctx context.Context, k *consortium, member int, id label.Hash, rec *coordpb.RoundRecord, alone bool) memberReport {
	a := verifyRound(k.ch, id, rec, roundSources(ctx, k, member, alone))
	at := memberReport{Member: k.ch.Members[member].Name, Result: markOK, Phase: rec.GetPhase(), Checks: a.findings, Failed: a.failed()}
	for _, f := range a.findings {
		if f.Result == markAbsent {
			at.Missing++
		}
	}
	if at.Failed > 0 {
		at.Result = markFailed
	}
	return at
}

// difference says in what two members contradict each other. One that is behind, or keeps less, does not.
func difference(a, b *coordpb.RoundRecord) string {
	for _, f := range []struct {
		what string
		a, b []byte
	}{
		{"candidates", a.GetClosedAcceptsHash(), b.GetClosedAcceptsHash()},
		{"decision", a.GetDecision(), b.GetDecision()},
		{"result", a.GetResult().GetBody(), b.GetResult().GetBody()},
	} {
		if len(f.a) > 0 && len(f.b) > 0 && !bytes.Equal(f.a, f.b) {
			return "has another " + f.what + " than the member asked first"
		}
	}
	return ""
}

func (r *verifyReport) verdict() error {
	failed := 0
	for _, m := range r.Members {
		failed += m.Failed
	}
	if failed == 0 {
		return nil
	}
	return cli.Fail("verification_failed", "keep this output (--format json), and compare with the other members: --all-members", "round %s: %d %s failed", r.ID, failed, plural(failed, "check", "checks"))
}

func (r *verifyReport) print(w io.Writer, o *cli.Output) error {
	mark := func(result string) string {
		switch result {
		case markOK:
			return o.Good("✓")
		case markFailed:
			return o.Bad("✗")
		}
		return "–"
	}
	head := &cli.Table{Columns: make([]string, 2)}
	if r.Label != "" {
		head.Add("privacy", o.Bad(r.Label))
	}
	head.Add("round", r.ID)
	head.Add("task", fmt.Sprintf("%s/%d", r.Task, r.Seq))
	if err := head.Write(w, false); err != nil {
		return err
	}
	for _, m := range r.Members {
		if len(r.Members) > 1 && m.Result == markOK {
			continue // one line below is enough
		}
		t := &cli.Table{Columns: make([]string, 3)}
		for _, f := range m.Checks {
			t.Add(mark(f.Result), f.Check, f.Detail)
		}
		if len(t.Rows) > 0 {
			fmt.Fprintf(w, "\nas %s serves it\n", m.Member)
			if err := t.Write(w, false); err != nil {
				return err
			}
		}
	}
	fmt.Fprintln(w)
	t := &cli.Table{Columns: []string{"MEMBER", "RESULT", "PHASE", "OK", "FAILED", "ABSENT", "DETAIL"}}
	for _, m := range r.Members {
		t.Add(m.Member, mark(m.Result), m.Phase, len(m.Checks)-m.Missing-failedChecks(m), m.Failed, m.Missing, m.Detail)
	}
	return t.Write(w, !o.NoHeaders)
}

func failedChecks(m memberReport) (n int) {
	for _, f := range m.Checks {
		if f.Result == markFailed {
			n++
		}
	}
	return n
}
