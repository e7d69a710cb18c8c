package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator"
	"github.com/ruche-federation/ruche/storage/durable"
)

func rejoinCommand() *urfave.Command {
	return &urfave.Command{
		Name: "rejoin", Usage: "set the log of a stopped member aside, so that it learns the log anew from the others",
		Description: "For a member that stopped because its log is damaged, or contradicts what it acknowledged; `ruche-coordinator status` says so. " +
			"Its raft folder is kept under another name and must never come back. Keys, epochs, receipts, contributions and results stay. " +
			"At its next start the member has a new store and no vote, until the leader has taken it in: a majority of the others must be up. A consortium of one or two members needs a new charter instead.",
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c, 0, 0, ""); err != nil {
				return err
			}
			dir, err := cli.Dir(c)
			if err != nil {
				return err
			}
			to, err := coordinator.SetAside(c.Context, dir, time.Now())
			switch {
			case errors.Is(err, durable.ErrLocked):
				return cli.WithHint(err, "this member runs: stop it first")
			case errors.Is(err, coordinator.ErrTooFew):
				return cli.Fail("too_few_members", "found the consortium anew, with a new charter; the other members' folders and this one's stay as they are", "%w", err)
			case errors.Is(err, fs.ErrNotExist):
				return cli.Fail("no_log", "start the member with `ruche-coordinator run`: it has no log already", "folder %s holds no log", dir)
			case err != nil:
				return err
			}
			return cli.Out(c).Value(map[string]string{"set_aside": to}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s\n", to)
				cli.Out(c).Notef("start it with `ruche-coordinator run`; it waits until a majority of the others is up and the leader has taken it in")
				return err
			})
		},
	}
}
