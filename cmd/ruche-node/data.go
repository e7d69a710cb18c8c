package main

import (
	"fmt"
	"io"
	"os"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/node"
	"github.com/ruche-federation/ruche/node/journal"
)

func dataCommand() *urfave.Command {
	return &urfave.Command{
		Name: "data", Usage: "the owner's private journal",
		Subcommands: []*urfave.Command{{
			Name: "import", Usage: `add records from a file of JSON lines {"user": "...", "text": "..."}; - reads standard input`,
			Description: "All lines are checked before one is added. Texts that are there already are kept once. Works while the device runs.",
			Flags:       []urfave.Flag{&urfave.StringFlag{Name: "user", Usage: "`NAME` of the owner, where the file has records of several users"}},
			Action:      importData,
		}},
	}
}

func importData(c *urfave.Context) error {
	args, err := cli.Args(c, 1, 1, "FILE [--user NAME]")
	if err != nil {
		return err
	}
	dir, err := cli.Dir(c)
	if err != nil {
		return err
	}
	logger, err := cli.Logger(c)
	if err != nil {
		return err
	}
	in := c.App.Reader
	if args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return advise(err)
		}
		defer f.Close()
		in = f
	}
	done, records, err := node.ImportData(c.Context, dir, in, c.String("user"), time.Now, logger)
	if err != nil {
		return advise(err)
	}
	out := struct {
		journal.Imported
		Records int `json:"records"`
	}{done, records}
	return cli.Out(c).Value(out, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%d records added, %d known already, %d of other users left out; the journal has %d\n", done.Added, done.Repeats, done.Others, records)
		return err
	})
}
