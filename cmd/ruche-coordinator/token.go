package main

import (
	"crypto/rand"
	"fmt"
	"io"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator"
)

// tokensMax bounds one call: each token is a file, fsynced.
const tokensMax = 10000

func tokenCommand() *urfave.Command {
	return &urfave.Command{
		Name: "token", Usage: "issue single-use enrolment tokens; works while the member runs",
		Description: "A token is shown once and kept as a hash only. It enrols one device with this organisation.",
		Flags:       []urfave.Flag{&urfave.IntFlag{Name: "count", Value: 1, Usage: "how many"}},
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c, 0, 0, "[--count N]"); err != nil {
				return err
			}
			dir, err := cli.Dir(c)
			if err != nil {
				return err
			}
			n := c.Int("count")
			if n < 1 || n > tokensMax {
				return cli.BadUsage(fmt.Sprintf("give --count 1 to %d", tokensMax), "count is %d", n)
			}
			if _, err := coordinator.OpenHome(dir, rand.Reader); err != nil {
				return cli.WithHint(err, "run `ruche-coordinator init` in this folder first")
			}
			tokens := make([]string, n)
			for i := range tokens {
				if tokens[i], err = coordinator.NewToken(dir, rand.Reader); err != nil {
					return err
				}
			}
			return cli.Out(c).Value(map[string][]string{"tokens": tokens}, func(w io.Writer) error {
				for _, t := range tokens {
					if _, err := fmt.Fprintln(w, t); err != nil {
						return err
					}
				}
				cli.Out(c).Notef("shown once: hand each token to one device, over a private channel")
				return nil
			})
		},
	}
}
