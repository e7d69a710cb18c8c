package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"path/filepath"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/aggregation/commons"
	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/crypto/label"
)

func adaptersCommand() *urfave.Command {
	return &urfave.Command{Name: "adapters", Usage: "published states: list them, export one for other programs",
		Subcommands: []*urfave.Command{listAdaptersCommand(), exportCommand()}}
}

// adapterLine is one line of `adapters list`.
type adapterLine struct {
	Model        string `json:"model"`
	Task         string `json:"task"`
	Seq          uint64 `json:"seq"`
	Kind         string `json:"kind"`
	Contributors uint32 `json:"contributors"`
	PublishedAt  string `json:"published_at"`
	Round        string `json:"round"`
	Label        string `json:"label"`

	publishedMs int64
}

func listAdaptersCommand() *urfave.Command {
	return &urfave.Command{
		Name: "list", Usage: "every published state and its round, oldest first; members keep the bytes of the newest",
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
			list, _, err := listRounds(c.Context, k, c.String("task"))
			if err != nil {
				return err
			}
			lines := adapterLines(k.ch, list.GetRounds())
			return cli.Rows(cli.Out(c), lines, func() *cli.Table { return adaptersTable(lines, time.Now()) })
		},
	}
}

func adapterLines(ch *charter.Charter, rounds []*coordpb.RoundSummary) []adapterLine {
	lines := []adapterLine{}
	for _, r := range rounds {
		if r.GetPhase() != round.Published.String() {
			continue
		}
		l := adapterLine{Model: hex.EncodeToString(r.GetModelHash()), Task: r.GetTaskId(), Seq: r.GetSeq(), Contributors: r.GetContributors(),
			PublishedAt: cli.Time(r.GetEndedMs()), Round: hex.EncodeToString(r.GetRoundId()), publishedMs: r.GetEndedMs()}
		if t, ok := ch.Task(l.Task); ok {
			l.Kind = t.Kind
		}
		if ch.Demo {
			l.Label = cli.DemoLabel
		}
		lines = append(lines, l)
	}
	return lines
}

func adaptersTable(lines []adapterLine, now time.Time) *cli.Table {
	t := &cli.Table{Columns: []string{"MODEL", "TASK", "SEQ", "KIND", "SET", "AGE", "ROUND"}}
	for _, l := range lines {
		t.Add(l.Model, l.Task, l.Seq, l.Kind, l.Contributors, cli.Age(now.Sub(time.UnixMilli(l.publishedMs))), l.Round)
	}
	return t
}

func exportCommand() *urfave.Command {
	return &urfave.Command{
		Name: "export", Usage: "verify a published adapter and write it as a PEFT directory",
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "peft", Usage: "the `FOLDER` to write; it must not exist"},
			&urfave.StringFlag{Name: "round", Value: "latest", Usage: "the published `ROUND`"},
			&urfave.StringFlag{Name: "base", Usage: "the base model at `PATH`, in the form the devices load"},
			&urfave.StringFlag{Name: "tokenizer", Usage: "the tokenizer `FILE` of a llama2.c base"},
		},
		Description: roundHint,
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c, 0, 0, "--peft FOLDER --base PATH [--round ROUND]"); err != nil {
				return err
			}
			for _, name := range []string{"peft", "base"} {
				if c.String(name) == "" {
					return cli.BadUsage("give --"+name, "--%s is missing", name)
				}
			}
			k, err := dial(c)
			if err != nil {
				return err
			}
			defer k.close()
			e, err := verifiedState(c.Context, k, c.String("round"))
			if err != nil {
				return err
			}
			if err := e.writePEFT(c.String("base"), c.String("tokenizer"), c.String("peft")); err != nil {
				return err
			}
			out := map[string]any{"folder": c.String("peft"), "model": e.model.Hash(), "task": e.task.ID, "seq": e.model.Seq, "round": e.round, "label": ""}
			if k.ch.Demo {
				out["label"] = cli.DemoLabel
			}
			return cli.Out(c).Value(out, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s/%d, state %s, verified: %s\n", e.task.ID, e.model.Seq, e.model.Hash(), c.String("peft"))
				return err
			})
		},
	}
}

// exported is a state whose every signature and byte was checked.
type exported struct {
	task  *charter.Task
	model layout.Model
	round label.Hash
}

// verifiedState fetches a published state and the round that made it, and refuses it unless everything checks out.
func verifiedState(ctx context.Context, k *consortium, name string) (*exported, error) {
	id, rec, member, err := fetchRound(ctx, k, name, anAdapter)
	if err != nil {
		return nil, err
	}
	var state []byte
	src := roundSources(ctx, k, member, false)
	fetch := src.state
	src.state = func(model label.Hash) ([]byte, error) {
		b, err := fetch(model)
		state = b
		return b, err
	}
	a := verifyRound(k.ch, id, rec, src)
	for _, f := range a.findings {
		if f.Result == markFailed {
			return nil, cli.Fail("verification_failed", "see `ruche rounds verify --all-members "+id.String()+"`", "round %s, check %s: %s", id, f.Check, cli.Printable(f.Detail))
		}
	}
	if state == nil && a.result != nil {
		return nil, cli.Fail("not_found", "members keep the newest states of a task only: take a later --round; with --member, ask another", "state %s of round %s is not to be had", a.result.Model, id)
	}
	if a.result == nil {
		return nil, cli.Fail("not_published", "see `ruche adapters list`", "round %s is %s, it has no result", id, cli.Printable(rec.GetPhase()))
	}
	m, err := parseState(a.task, a.rc.Seq, a.result.Model, state)
	if err != nil {
		return nil, err
	}
	return &exported{task: a.task, model: m, round: id}, nil
}

// fetchState fetches a published state's bytes from one member; the caller checks them.
func fetchState(ctx context.Context, k *consortium, member int, model label.Hash) ([]byte, error) {
	values := 0
	for i := range k.ch.Tasks {
		values = max(values, k.ch.Tasks[i].Layout.D())
	}
	return askOne(ctx, k, member, func(ctx context.Context, c coordpb.DeviceClient) ([]byte, error) {
		stream, err := c.GetAdapter(ctx, &coordpb.GetAdapterRequest{ModelHash: model[:]})
		if err != nil {
			return nil, err
		}
		return coordpb.ReceiveChunks(layout.CanonicalSizeMax(values), stream.Recv)
	})
}

// factors gives the adapter's tensors by name: the trained ones from the state, the frozen ones from the public seed.
func (e *exported) factors() (map[string][]float32, error) {
	trained, err := e.task.Layout.Split(e.model.Values)
	if err != nil {
		return nil, err
	}
	out := make(map[string][]float32, 2*len(trained))
	for i, t := range e.task.Layout.Trained {
		out[t.Name] = trained[i]
	}
	for _, t := range e.task.Layout.Frozen {
		if out[t.Name] = commons.Orthonormal(e.task.InitSeed, t); out[t.Name] == nil {
			return nil, fmt.Errorf("frozen factor %s cannot be derived", t.Name)
		}
	}
	return out, nil
}

func absolute(path string) string {
	if p, err := filepath.Abs(path); err == nil {
		return p
	}
	return path
}
