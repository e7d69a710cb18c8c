package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator/charter"
)

// charterReport is `charter show` in JSON: the charter as it is signed, and what follows from it.
type charterReport struct {
	Hash         string            `json:"hash"`
	Signed       bool              `json:"signed"` // by all n members, verified
	Label        string            `json:"label"`  // DEMO, NOT PRIVATE; or empty
	WhoCanOpen   string            `json:"who_can_open"`
	Needed       int               `json:"needed_up"`
	Fingerprints map[string]string `json:"identity_fingerprints"`
	Charter      json.RawMessage   `json:"charter"`
}

func showCharterCommand() *urfave.Command {
	return &urfave.Command{
		Name: "show", Usage: "verify a charter and say what it allows; a draft is shown as one", ArgsUsage: "[FILE]",
		Action: func(c *urfave.Context) error {
			args, err := cli.Args(c, 0, 1, "[FILE]")
			if err != nil {
				return err
			}
			path := c.String("charter")
			if len(args) == 1 {
				path = args[0]
			}
			if path == "" {
				return cli.BadUsage("give a FILE, --charter FILE or RUCHE_CHARTER", "no charter given")
			}
			ch, signed, err := readCharterOrDraft(path)
			if err != nil {
				return err
			}
			r := describe(ch, signed)
			return cli.Out(c).Value(r, func(w io.Writer) error { return printCharter(w, cli.Out(c), ch, r) })
		},
	}
}

// readCharterOrDraft reads charter.json, verified, or a draft.
func readCharterOrDraft(path string) (ch *charter.Charter, signed bool, err error) {
	data, err := readBounded(path, charter.FileBytesMax)
	if err != nil {
		return nil, false, err
	}
	ch, err = charter.ParseFile(data)
	if err == nil {
		return ch, true, nil
	}
	if ch, derr := charter.Parse(data); derr == nil {
		return ch, false, nil
	}
	return nil, false, cli.WithHint(fmt.Errorf("%s: %w", path, err), "do not use it: get the charter from an organisation you trust")
}

func describe(ch *charter.Charter, signed bool) *charterReport {
	r := &charterReport{Hash: ch.Hash().String(), Signed: signed, WhoCanOpen: whoCanOpen(ch), Needed: ch.Needed(), Fingerprints: map[string]string{}, Charter: ch.Body()}
	if ch.Demo {
		r.Label = cli.DemoLabel
	}
	for _, m := range ch.Members {
		r.Fingerprints[m.Name] = fingerprint(m)
	}
	return r
}

// fingerprint is what two organisations read to each other: SHA-256 of the identity key.
func fingerprint(m charter.Card) string {
	sum := sha256.Sum256(m.Identity)
	return hex.EncodeToString(sum[:])
}

// whoCanOpen says in words who could read a single contribution.
func whoCanOpen(ch *charter.Charter) string {
	switch {
	case ch.N == 1:
		return "The one member sees every contribution: this is not secure aggregation."
	case ch.F+1 == ch.N:
		return fmt.Sprintf("All %d members together could open a single contribution; fewer cannot.", ch.N)
	}
	return fmt.Sprintf("Any %d of the %d members together could open a single contribution; %d cannot.", ch.F+1, ch.N, ch.F)
}

func printCharter(w io.Writer, o *cli.Output, ch *charter.Charter, r *charterReport) error {
	if r.Label != "" {
		fmt.Fprintf(w, "%s\n\n", o.Bad(r.Label))
	}
	state := fmt.Sprintf("signed by all %d members", ch.N)
	if !r.Signed {
		state = o.Bad("DRAFT, not signed")
	}
	head := &cli.Table{Columns: make([]string, 2)}
	head.Add("consortium", ch.Consortium)
	head.Add("charter", r.Hash)
	head.Add("state", state)
	head.Add("members", fmt.Sprintf("n %d, f %d, q %d", ch.N, ch.F, ch.Q))
	head.Add("open", r.WhoCanOpen)
	head.Add("run", fmt.Sprintf("Rounds need %d members up; %s.", ch.Needed(), missing(ch.N-ch.Needed())))
	head.Add("certify", fmt.Sprintf("A set, or a round's death: %d votes. A result: %d signatures. A device's ack: %d receipts.", ch.Q, ch.Believe(), ch.AckReceipts()))
	head.Add("cohorts", fmt.Sprintf("At least %d devices, counted without those of the %d largest authorities.", ch.MinContributors, ch.AuthoritiesFaulty))
	head.Add("clocks", fmt.Sprintf("epoch keys live %s, slack %s, tick %s, members' profile %s", ch.Timing.EpochLife.D(), ch.Timing.Slack.D(), ch.Timing.Tick.D(), cmp.Or(ch.Timing.Profile, charter.ProfileWAN)))
	if err := head.Write(w, false); err != nil {
		return err
	}
	fmt.Fprintln(w)
	members := &cli.Table{Columns: []string{"INDEX", "NAME", "DEVICE URL", "MESH", "IDENTITY FINGERPRINT (SHA-256)"}}
	for i, m := range ch.Members {
		members.Add(i, m.Name, m.DeviceURL, m.MeshAddr, fingerprint(m))
	}
	if err := members.Write(w, true); err != nil {
		return err
	}
	fmt.Fprintln(w)
	tasks := &cli.Table{Columns: []string{"TASK", "KIND", "VALUES", "TAIL", "COHORT", "CLIP", "EVERY", "CLOSE", "ACK", "REVEAL", "WINDOW"}}
	for i := range ch.Tasks {
		t := &ch.Tasks[i]
		reveal := t.Timings.RevealAfter.D().String()
		if t.Timings.RevealAfter == 0 {
			reveal = "epoch"
		}
		tasks.Add(t.ID, t.Kind, t.Layout.D(), t.Layout.TailLen(), fmt.Sprintf("%d-%d", t.Cohort.NMin, t.Cohort.NMax), t.Encoding.CReal, t.Timings.Every.D(),
			t.Timings.CloseAfter.D(), t.Timings.AckAfter.D(), reveal, t.Window)
	}
	if err := tasks.Write(w, true); err != nil {
		return err
	}
	for i := range ch.Tasks {
		if t := &ch.Tasks[i]; t.Kind == charter.KindLoRA {
			if _, err := fmt.Fprintf(w, "\n%s trains base %s: rank %d, alpha %g, %d steps of %d x %d tokens, lr %g\n", t.ID, t.Base, t.Recipe.Rank, t.Recipe.Alpha,
				t.Recipe.Steps, t.Recipe.Batch, t.Recipe.Window, t.Recipe.LR); err != nil {
				return err
			}
		}
	}
	return nil
}

func missing(n int) string {
	if n <= 0 {
		return "none may be missing"
	}
	return fmt.Sprintf("any %d may be missing", n)
}
