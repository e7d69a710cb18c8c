package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/node"
)

func runCommand() *urfave.Command {
	return &urfave.Command{
		Name: "run", Usage: "take part in the commons until interrupted",
		Flags: append(roundFlags(),
			&urfave.BoolFlag{Name: "observe", Usage: "follow the commons and measure it, never contribute"}),
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c, 0, 0, "[--observe] [--floor N] [--task ID]"); err != nil {
				return err
			}
			dir, o, err := roundOptions(c)
			if err != nil {
				return err
			}
			h, err := node.OpenHome(dir)
			if err != nil {
				return advise(err)
			}
			node.LimitMemory(h.Info.Base.Parameters)
			return advise(node.Run(c.Context, dir, o))
		},
	}
}

// roundFlags are those of every command that takes part in rounds.
func roundFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "task", Usage: "the task's `ID`, where the charter has several of the kind"},
		&urfave.UintFlag{Name: "floor", Usage: "the smallest cohort `N` that you accept; default 20, or the charter's under a demo charter"},
		&urfave.BoolFlag{Name: "keep-encoded", Usage: "keep each encoded vector in clear, for comparisons; demo charters only"},
	}
}

// roundOptions reads them, and says DEMO, NOT PRIVATE where that is so.
func roundOptions(c *urfave.Context) (string, node.RunOptions, error) {
	var o node.RunOptions
	dir, err := cli.Dir(c)
	if err != nil {
		return "", o, err
	}
	logger, err := cli.Logger(c)
	if err != nil {
		return "", o, err
	}
	if c.Uint("floor") > math.MaxUint32 {
		return "", o, cli.BadUsage("give a --floor of at most 65536", "floor is %d", c.Uint("floor"))
	}
	if err := announce(c, dir); err != nil {
		return "", o, err
	}
	o = node.RunOptions{Task: c.String("task"), Observe: c.Bool("observe"), KeepEncoded: c.Bool("keep-encoded"), Floor: uint32(c.Uint("floor")),
		Now: time.Now, Rand: rand.Reader, Logger: logger}
	return dir, o, nil
}

// announce says on stderr what a demo charter is not.
func announce(c *urfave.Context, dir string) error {
	h, err := node.OpenHome(dir)
	if err != nil {
		return advise(err)
	}
	ch, _, err := h.Charter()
	if err != nil {
		return advise(err)
	}
	if ch.Demo {
		cli.Out(c).Notef("%s: cohorts of consortium %s hide nobody", cli.DemoLabel, ch.Consortium)
	}
	return nil
}

func contributeCommand() *urfave.Command {
	return &urfave.Command{
		Name: "contribute", Usage: "contribute a vector of your own to a task of kind vector",
		Description: "Waits for an open round, contributes, and waits until the consortium acknowledges it; with --once, until the round has ended.",
		Flags: append(roundFlags(),
			&urfave.StringFlag{Name: "vector", Usage: "a safetensors `FILE` with the task's tensors"},
			&urfave.BoolFlag{Name: "once", Usage: "wait for the end of the round too"}),
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c, 0, 0, "--vector FILE.safetensors [--task ID] [--once]"); err != nil {
				return err
			}
			if c.String("vector") == "" {
				return cli.BadUsage("give --vector FILE.safetensors", "no vector")
			}
			dir, o, err := roundOptions(c)
			if err != nil {
				return err
			}
			node.LimitMemory(0)
			got, err := node.Contribute(c.Context, dir, node.ContributeOptions{RunOptions: o, Vector: c.String("vector"), Once: c.Bool("once")})
			if got == nil {
				return advise(err)
			}
			if err == nil && c.Bool("once") && got.End != "published" {
				err = cli.Fail("round_"+got.End, "the next round may take it: try again", "round %d ended %s", got.Seq, got.End)
			}
			return cli.Out(c).Verdict(got, func(w io.Writer) error { return printContribution(w, cli.Out(c), got) }, advise(err))
		},
	}
}

func printContribution(w io.Writer, o *cli.Output, got *node.Contribution) error {
	t := &cli.Table{Columns: []string{"FIELD", "VALUE"}}
	if got.Label != "" {
		t.Add("privacy", o.Bad(got.Label))
	}
	t.Add("task", got.Task)
	t.Add("round", fmt.Sprintf("%d (%s)", got.Seq, got.Round))
	t.Add("sent", cli.Bytes(uint64(got.Bytes)))
	t.Add("receipts", strings.Join(got.Receipts, ", "))
	if got.End != "" {
		t.Add("end", got.End)
		t.Add("result", got.Model)
	}
	return t.Write(w, false)
}
