package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/crypto/label"
)

func charterCommand() *urfave.Command {
	return &urfave.Command{Name: "charter", Usage: "found a consortium: new, sign, assemble; or read its charter: show",
		Subcommands: []*urfave.Command{newCommand(), signCommand(), assembleCommand(), showCharterCommand()}}
}

func newCommand() *urfave.Command {
	return &urfave.Command{
		Name: "new", Usage: "draft a charter from the members' cards, for all of them to sign",
		Description: "Tasks come from --task files (a task of the charter as JSON), --task-lora and --task-vector; the flags below --task-vector shape the latter two only.\n" +
			"Without --demo the defaults suit organisations and a round a day; with it, a rehearsal on one machine.",
		Flags: append([]urfave.Flag{
			&urfave.StringSliceFlag{Name: "cards", Usage: "the members' card.json `FILES`, in the order that numbers them"},
			&urfave.StringFlag{Name: "consortium", Usage: "its `NAME`"},
			&urfave.IntFlag{Name: "faults", Value: -1, Usage: "f, `MEMBERS` that may crash or lie together (default: 1; 0 for one member, 2 for seven)"},
			&urfave.IntFlag{Name: "authorities-faulty", Value: -1, Usage: "f_E, enrolment authorities assumed dishonest (default: f, demo 0)"},
			&urfave.BoolFlag{Name: "demo", Usage: "allow cohorts of 3, which hide nobody; labelled wherever it shows"},
			&urfave.UintFlag{Name: "min-contributors", Usage: "no task has a floor below it (default: the least n-min of the tasks)"},
			&urfave.DurationFlag{Name: "epoch-life", Value: charter.EpochLifeMax, Usage: "life of the members' epoch keys"},
			&urfave.DurationFlag{Name: "slack", Usage: "tolerated difference of two members' clocks (default: 5m, demo 2s)"},
			&urfave.DurationFlag{Name: "tick", Usage: "how often time enters the log (default: 30s, demo 500ms)"},
			&urfave.StringFlag{Name: "profile", Usage: "distance between the members, as all of them wait for each other: `wan|lan|loopback` (default: wan, demo loopback)"},
			&urfave.StringFlag{Name: "out", Aliases: []string{"o"}, Value: "charter-draft.json", Usage: "the draft's `FILE`"},
		}, taskFlags()...),
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c, 0, 0, "--cards FILES --consortium NAME --task FILE"); err != nil {
				return err
			}
			body, err := draft(c)
			if err != nil {
				return err
			}
			ch, err := charter.Parse(body)
			if err != nil {
				return err
			}
			if err := writeNew(c.String("out"), body); err != nil {
				return err
			}
			return cli.Out(c).Value(map[string]any{"charter": ch.Hash(), "file": c.String("out"), "members": ch.N, "demo": ch.Demo}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "draft %s of charter %s\n", c.String("out"), ch.Hash())
				demoLine(cli.Out(c), ch)
				cli.Out(c).Notef("read it (`ruche charter show %s`), then every member runs `ruche charter sign`", c.String("out"))
				return err
			})
		},
	}
}

// draft makes the body of a charter from the flags.
func draft(c *urfave.Context) ([]byte, error) {
	if c.String("consortium") == "" {
		return nil, cli.BadUsage("give --consortium NAME", "--consortium is missing")
	}
	var cards []charter.Card
	for _, path := range splitList(c.StringSlice("cards")) {
		data, err := readBounded(path, charter.CardBytesMax)
		if err != nil {
			return nil, err
		}
		card, err := charter.ParseCard(data)
		if err != nil {
			return nil, cli.WithHint(fmt.Errorf("%s: %w", path, err), "ask that organisation for the card.json that `ruche-coordinator init` wrote")
		}
		cards = append(cards, card)
	}
	if len(cards) == 0 {
		return nil, cli.BadUsage("give --cards a.json,b.json,…", "no cards given")
	}
	demo := c.Bool("demo")
	f := c.Int("faults")
	if f < 0 {
		f = faultsFor(len(cards))
	}
	o := charter.Options{Consortium: c.String("consortium"), Demo: demo, F: f, AuthoritiesFaulty: c.Int("authorities-faulty"), MinContributors: int(c.Uint("min-contributors")),
		Timing: charter.Timing{EpochLife: charter.Duration(c.Duration("epoch-life")),
			Slack: durationOr(c, "slack", pick(demo, 2*time.Second, 5*time.Minute)),
			Tick:  durationOr(c, "tick", pick(demo, 500*time.Millisecond, 30*time.Second)), Profile: c.String("profile")}}
	if o.Timing.Profile == "" {
		o.Timing.Profile = pick(demo, charter.ProfileLoopback, charter.ProfileWAN)
	}
	if o.AuthoritiesFaulty < 0 {
		o.AuthoritiesFaulty = pick(demo, 0, f)
	}
	var err error
	if o.Tasks, err = tasks(c, demo); err != nil {
		return nil, err
	}
	if o.MinContributors == 0 {
		o.MinContributors = int(o.Tasks[0].Cohort.NMin)
		for _, t := range o.Tasks {
			o.MinContributors = min(o.MinContributors, int(t.Cohort.NMin))
		}
	}
	body, err := charter.Draft(cards, o)
	if err != nil {
		return nil, &cli.Error{Code: cli.Usage, Word: "bad_charter", Hint: "correct the flag or the file that the message names", Err: err}
	}
	return body, nil
}

// faultsFor is the f of SA 2.2's row for n members that lets one be missing where any does. Sizes outside the table get 1
// and are refused by name.
func faultsFor(n int) int {
	switch n {
	case 1:
		return 0
	case 7:
		return 2
	}
	return 1
}

// splitList accepts a flag given several times, each with several values between commas.
func splitList(in []string) []string {
	var out []string
	for _, s := range in {
		for _, v := range strings.Split(s, ",") {
			if v = strings.TrimSpace(v); v != "" {
				out = append(out, v)
			}
		}
	}
	return out
}

func pick[T any](demo bool, inDemo, otherwise T) T {
	if demo {
		return inDemo
	}
	return otherwise
}

// durationOr is the flag's value where it was given.
func durationOr(c *urfave.Context, name string, otherwise time.Duration) charter.Duration {
	if c.IsSet(name) {
		return charter.Duration(c.Duration(name))
	}
	return charter.Duration(otherwise)
}

// freshSeed is a task's public seed: random, so that nobody chose the frozen factors, and in the charter for all to see.
func freshSeed() (label.Hash, error) {
	var h label.Hash
	_, err := rand.Read(h[:])
	return h, err
}
