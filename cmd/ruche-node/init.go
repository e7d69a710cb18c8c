package main

import (
	"crypto/rand"
	"fmt"
	"io"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/node"
)

func initCommand() *urfave.Command {
	return &urfave.Command{
		Name: "init", Usage: "make the device: its keys and its base model",
		Description: "Without --base the device gets the small model that this program carries.",
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "base", Usage: "base model `PATH`: a Hugging Face folder, a .gguf file or a llama2.c .bin"},
			&urfave.StringFlag{Name: "tokenizer", Usage: "the model's tokenizer `FILE`, where the model brings none"},
		},
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c, 0, 0, "[--base PATH] [--tokenizer FILE]"); err != nil {
				return err
			}
			dir, err := cli.Dir(c)
			if err != nil {
				return err
			}
			o := node.InitOptions{BasePath: c.String("base"), Tokenizer: c.String("tokenizer")}
			if o.BasePath == "" {
				if o.Tokenizer != "" {
					return cli.BadUsage("give --base PATH too, or neither", "a tokenizer without a base model")
				}
				o.Embedded = embedded()
			}
			h, err := node.Init(dir, o, rand.Reader)
			if err != nil {
				return advise(err)
			}
			out := struct {
				Dir    string    `json:"dir"`
				Device string    `json:"device_id"`
				Base   node.Base `json:"base"`
			}{dir, h.Device().String(), h.Info.Base}
			return cli.Out(c).Value(out, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "device in %s\nbase model %s, %d parameters\n%s\n", dir, h.BasePath(), h.Info.Base.Parameters, h.Info.Base.SHA256)
				if err == nil {
					cli.Out(c).Notef("next: `ruche-node data import FILE`, then `ruche-node join CHARTER --member URL --token TOKEN`")
				}
				return err
			})
		},
	}
}
