package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/node"
	"github.com/ruche-federation/ruche/node/participant"
)

func statusCommand() *urfave.Command {
	return &urfave.Command{
		Name: "status", Usage: "how the device in this folder fares; exit status 1 unless it runs",
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c, 0, 0, ""); err != nil {
				return err
			}
			dir, err := cli.Dir(c)
			if err != nil {
				return err
			}
			if _, err := node.OpenHome(dir); err != nil {
				return advise(err)
			}
			now := time.Now()
			all, err := node.Statuses(dir, now)
			if errors.Is(err, fs.ErrNotExist) {
				return cli.Fail("never_ran", "start it with `ruche-node run`", "no device has run in %s yet", dir)
			}
			if err != nil {
				return err
			}
			age := now.Sub(all[0].Updated)
			r := &statusReport{Status: all[0], AgeSeconds: float64(age.Milliseconds()) / 1000, Others: all[1:]}
			switch r.State {
			case node.StateStopped:
				err = cli.Fail("stopped", "start it with `ruche-node run`", "the device is not running; what it said last is %s old", cli.Age(age))
			case node.StateStale:
				err = cli.Fail("stale", "look at its log: is it suspended, its disk full, or the machine overloaded?", "a process has the folder and has written no status for %s", cli.Age(age.Abs()))
			}
			o := cli.Out(c)
			return o.Verdict(r, func(w io.Writer) error { return r.print(w, o, now) }, err)
		},
	}
}

// statusReport is the task of the process that has the folder, or had it last, and what became of the others.
type statusReport struct {
	node.Status
	AgeSeconds float64       `json:"age_seconds"`
	Others     []node.Status `json:"other_tasks"`
}

func (s *statusReport) print(w io.Writer, o *cli.Output, now time.Time) error {
	t := &cli.Table{Columns: []string{"FIELD", "VALUE"}}
	if s.Label != "" {
		t.Add("privacy", o.Bad(s.Label))
	}
	t.Add("consortium", s.Consortium)
	t.Add("charter", s.Charter)
	task := s.Task
	if s.Observe {
		task += ", observing"
	}
	t.Add("task", task)
	state := o.Good(s.State)
	if s.State == node.StateStopped || s.State == node.StateStale {
		state = o.Bad(s.State)
	}
	if s.PID != 0 {
		state += fmt.Sprintf(", process %d", s.PID)
	}
	t.Add("state", state)
	t.Add("adopted", fmt.Sprintf("round %d, %s", s.Seq, s.Adapter))
	t.Add("contributions", fmt.Sprintf("%d, %d acknowledged, %d published", s.Contributions, s.Acknowledged, s.Published))
	for _, e := range s.Evaluations {
		t.Add(fmt.Sprintf("loss, round %d", e.Seq), fmt.Sprintf("%.4f nats per token over %d tokens (%s)", e.Loss, e.Tokens, e.Split))
	}
	if s.PeakRSSBytes > 0 {
		t.Add("memory", cli.Bytes(uint64(s.PeakRSSBytes)))
	}
	if s.LastError != "" {
		t.Add("last error", s.LastError)
	}
	for _, other := range s.Others {
		t.Add("other task", fmt.Sprintf("%s: %s, last heard %s ago", other.Task, other.State, cli.Age(now.Sub(other.Updated))))
	}
	return t.Write(w, false)
}

func ledgerCommand() *urfave.Command {
	return &urfave.Command{
		Name: "ledger", Usage: "what left this device",
		Subcommands: []*urfave.Command{{
			Name: "show", Usage: "every entry, oldest first: what left, when, to whom, and what became of it",
			Action: func(c *urfave.Context) error {
				if _, err := cli.Args(c, 0, 0, ""); err != nil {
					return err
				}
				dir, err := cli.Dir(c)
				if err != nil {
					return err
				}
				h, err := node.OpenHome(dir)
				if err != nil {
					return advise(err)
				}
				if ch, _, err := h.Charter(); err == nil && ch.Demo {
					cli.Out(c).Notef("%s: cohorts of consortium %s hide nobody", cli.DemoLabel, ch.Consortium)
				}
				entries, err := participant.ReadLedger(filepath.Join(dir, node.LedgerFile))
				if err != nil && !errors.Is(err, fs.ErrNotExist) { // nothing ever left
					return err
				}
				return cli.Rows(cli.Out(c), entries, func() *cli.Table { return ledgerTable(entries) })
			},
		}},
	}
}

func ledgerTable(entries []participant.Entry) *cli.Table {
	t := &cli.Table{Columns: []string{"TIME", "KIND", "TASK", "ROUND", "BYTES", "WHAT", "MEMBERS"}}
	for _, e := range entries {
		what, bytes, members := e.What, "", ""
		switch e.Kind {
		case participant.KindAck:
			what = fmt.Sprintf("%d receipts", len(e.Receipts))
		case participant.KindEnd:
			what = e.End
		}
		if e.Bytes > 0 {
			bytes = cli.Bytes(uint64(e.Bytes))
		}
		for i, m := range e.To {
			if i > 0 {
				members += ", "
			}
			members += m
		}
		t.Add(e.Time.UTC().Format(time.RFC3339), e.Kind, e.Task, e.Seq, bytes, what, members)
	}
	return t
}
