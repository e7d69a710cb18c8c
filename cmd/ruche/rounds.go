package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
)

func roundsCommand() *urfave.Command {
	return &urfave.Command{Name: "rounds", Usage: "list, show, verify or wait for rounds",
		Subcommands: []*urfave.Command{listRoundsCommand(), showRoundCommand(), verifyRoundCommand(), waitRoundCommand()}}
}

// roundLine is one line of `rounds list`.
type roundLine struct {
	ID           string  `json:"id"`
	Task         string  `json:"task"`
	Seq          uint64  `json:"seq"`
	Phase        string  `json:"phase"`
	Death        string  `json:"death"`
	OpenedAt     string  `json:"opened_at"`
	EndedAt      string  `json:"ended_at"`
	Accepted     uint32  `json:"accepted"`
	Target       uint32  `json:"target"`
	Contributors uint32  `json:"contributors"` // of the decided set
	Model        string  `json:"model"`
	Label        string  `json:"label"`
	ServedBy     string  `json:"served_by"`         // the member whose knowledge this is
	Hears        string  `json:"hears"`             // the leader that it hears; empty: nobody, and what it knows is old
	HeardAge     float64 `json:"heard_age_seconds"` // since it last heard one; -1: never

	openedMs int64
}

func toLine(r *coordpb.RoundSummary, demo bool) roundLine {
	l := roundLine{ID: hex.EncodeToString(r.GetRoundId()), Task: r.GetTaskId(), Seq: r.GetSeq(), Phase: r.GetPhase(), Death: r.GetDeath(),
		OpenedAt: cli.Time(r.GetOpenedMs()), EndedAt: cli.Time(r.GetEndedMs()), Accepted: r.GetAccepted(), Target: r.GetTarget(),
		Contributors: r.GetContributors(), Model: hex.EncodeToString(r.GetModelHash()), openedMs: r.GetOpenedMs()}
	if demo {
		l.Label = cli.DemoLabel
	}
	return l
}

func listRoundsCommand() *urfave.Command {
	return &urfave.Command{
		Name: "list", Usage: "every round a member keeps, oldest first",
		Flags: []urfave.Flag{&urfave.StringFlag{Name: "task", Usage: "of this `TASK` only"}},
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c, 0, 0, "[--task TASK]"); err != nil {
				return err
			}
			k, err := dial(c)
			if err != nil {
				return err
			}
			defer k.close()
			list, member, err := listRounds(c.Context, k, c.String("task"))
			if err != nil {
				return err
			}
			if note := standingNote(k.ch, member, list.GetStanding()); note != "" {
				cli.Out(c).Notef("%s", note)
			}
			lines := make([]roundLine, len(list.GetRounds()))
			for i, r := range list.GetRounds() {
				lines[i] = toLine(r, k.ch.Demo)
				lines[i].ServedBy, lines[i].Hears, lines[i].HeardAge = k.ch.Members[member].Name, list.GetStanding().GetLeader(), heardAge(list.GetStanding())
			}
			return cli.Rows(cli.Out(c), lines, func() *cli.Table { return roundsTable(lines, time.Now()) })
		},
	}
}

func roundsTable(lines []roundLine, now time.Time) *cli.Table {
	t := &cli.Table{Columns: []string{"ID", "TASK", "SEQ", "PHASE", "AGE", "ACCEPTED/TARGET", "SET", "MODEL"}}
	for _, l := range lines {
		phase, age, set := l.Phase, "", ""
		if l.Death != "" {
			phase += " (" + l.Death + ")"
		}
		if l.openedMs > 0 {
			age = cli.Age(now.Sub(time.UnixMilli(l.openedMs)))
		}
		if l.Contributors > 0 {
			set = fmt.Sprint(l.Contributors)
		}
		t.Add(l.ID, l.Task, l.Seq, phase, age, fmt.Sprintf("%d/%d", l.Accepted, l.Target), set, l.Model)
	}
	return t
}

func waitRoundCommand() *urfave.Command {
	return &urfave.Command{
		Name: "wait", Usage: "wait until a round is published; exit status 1 if it dies, 3 after --for", ArgsUsage: "ROUND",
		Description: "ROUND may be TASK/SEQ of a round that does not exist yet.",
		Flags:       []urfave.Flag{&urfave.DurationFlag{Name: "for", Value: 30 * time.Minute, Usage: "at most so long"}},
		Action: func(c *urfave.Context) error {
			args, err := cli.Args(c, 1, 1, "ROUND [--for 30m]")
			if err != nil {
				return err
			}
			k, err := dial(c)
			if err != nil {
				return err
			}
			defer k.close()
			ctx, cancel := context.WithTimeout(c.Context, c.Duration("for"))
			defer cancel()
			line, err := waitRound(ctx, k, args[0], cli.Out(c).NewProgress())
			if err != nil {
				return err
			}
			return cli.Rows(cli.Out(c), []roundLine{line}, func() *cli.Table { return roundsTable([]roundLine{line}, time.Now()) })
		},
	}
}

// waitRound polls until the round has ended. Members that do not answer, and a round that is not there yet, are waited for.
func waitRound(ctx context.Context, k *consortium, name string, p *cli.Progress) (roundLine, error) {
	defer p.Done()
	for {
		list, _, err := listRounds(ctx, k, "")
		if err == nil {
			rounds := list.GetRounds()
			id, err := roundNamed(k.ch, rounds, name, anyRound)
			if err != nil && cli.Classify(err).Code == cli.Usage {
				return roundLine{}, err
			}
			for _, r := range rounds {
				if err != nil || string(r.GetRoundId()) != string(id[:]) {
					continue
				}
				line := toLine(r, k.ch.Demo)
				switch line.Phase {
				case round.Published.String():
					return line, nil
				case round.Dead.String():
					return line, cli.Fail("round_dead", "see `ruche rounds show "+line.ID+"`", "round %s is dead (%s)", line.ID, line.Death)
				}
				p.Setf("%s/%d %s, %d of %d contributions", line.Task, line.Seq, line.Phase, line.Accepted, line.Target)
			}
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = ctx.Err()
			}
			return roundLine{}, &cli.Error{Code: cli.Timeout, Word: "timeout", Hint: "see `ruche rounds list`, or wait longer (--for)", Err: fmt.Errorf("waiting for round %s: %w", name, err)}
		case <-time.After(watchEvery):
		}
	}
}
