package main

import (
	"io"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/node"
)

func joinCommand() *urfave.Command {
	return &urfave.Command{
		Name: "join", Usage: "pin a consortium's charter and enrol with a token",
		Description: "The charter file must be signed by all its members. Get it from somebody you trust: everything after it rests on it.",
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "member", Usage: "`URL` of the device port of the member that issued the token, or its name in the charter"},
			&urfave.StringFlag{Name: "token", EnvVars: []string{"RUCHE_TOKEN"}, Usage: "the single-use enrolment `TOKEN`"},
		},
		Action: func(c *urfave.Context) error {
			args, err := cli.Args(c, 1, 1, "CHARTER --member URL --token TOKEN")
			if err != nil {
				return err
			}
			dir, err := cli.Dir(c)
			if err != nil {
				return err
			}
			if c.String("member") == "" || c.String("token") == "" {
				return cli.BadUsage("give --member URL and --token TOKEN, as the member's operator told you", "no member or no token")
			}
			j, err := node.Join(c.Context, dir, args[0], c.String("member"), c.String("token"), time.Now)
			if err != nil {
				return advise(err)
			}
			o := cli.Out(c)
			return o.Value(j, func(w io.Writer) error {
				t := &cli.Table{Columns: []string{"FIELD", "VALUE"}}
				if j.Demo {
					t.Add("privacy", o.Bad(cli.DemoLabel))
				}
				t.Add("consortium", j.Consortium)
				t.Add("charter", j.Charter)
				t.Add("certified by", j.Authority)
				t.Add("until", j.Expires.Format(time.RFC3339))
				for _, task := range j.Tasks {
					word := o.Good("ready")
					if !task.Ready {
						word = o.Bad("not for this device: ") + task.Reason
					}
					t.Add("task "+task.ID, task.Kind+", "+word)
				}
				if j.Already {
					o.Notef("this device was enrolled already; the token is not used up")
				}
				return t.Write(w, false)
			})
		},
	}
}
