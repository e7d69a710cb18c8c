package main

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/node"
)

func askCommand() *urfave.Command {
	return &urfave.Command{
		Name: "ask", Usage: "let the local model, with the commons, go on from a text; nothing leaves the device",
		Flags: []urfave.Flag{
			&urfave.IntFlag{Name: "tokens", Usage: "the most tokens `N` of the answer"},
			&urfave.Float64Flag{Name: "temperature", Value: 0.8, Usage: "`T` of the sampling; 0: always the most likely token"},
			&urfave.Float64Flag{Name: "top-p", Value: 0.9, Usage: "sample among the most likely tokens that make up this `PART`"},
		},
		Action: func(c *urfave.Context) error {
			args, err := cli.Args(c, 1, -1, "TEXT")
			if err != nil {
				return err
			}
			dir, err := cli.Dir(c)
			if err != nil {
				return err
			}
			if err := announce(c, dir); err != nil && !errors.Is(err, node.ErrNotJoined) { // before joining there is the base alone
				return err
			}
			text := strings.Join(args, " ")
			var seed [8]byte
			if _, err := io.ReadFull(rand.Reader, seed[:]); err != nil {
				return err
			}
			o := node.AskOptions{Tokens: c.Int("tokens"), Temperature: c.Float64("temperature"), TopP: c.Float64("top-p"), Seed: binary.LittleEndian.Uint64(seed[:])}
			out := cli.Out(c)
			if out.Format == cli.FormatTable {
				if err := node.Ask(c.Context, dir, text, out.Stdout, o); err != nil {
					return advise(err)
				}
				_, err := fmt.Fprintln(out.Stdout)
				return err
			}
			var answer strings.Builder
			if err := node.Ask(c.Context, dir, text, &answer, o); err != nil {
				return advise(err)
			}
			return out.Value(map[string]string{"answer": answer.String()}, nil)
		},
	}
}
