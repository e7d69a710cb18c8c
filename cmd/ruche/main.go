package main

import (
	"os"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
)

func main() { os.Exit(cli.Main(newApp())) }

func newApp() *urfave.App {
	app := cli.New("ruche", "look at a consortium, and found one", "~/.ruche")
	app.Flags = append(app.Flags,
		&urfave.StringFlag{Name: "charter", EnvVars: []string{"RUCHE_CHARTER"}, Usage: "the charter `FILE` (default: charter.json in --dir)"},
		&urfave.StringFlag{Name: "member", Usage: "ask this member only, by `NAME` or index"},
		&urfave.DurationFlag{Name: "timeout", Value: 30 * time.Second, Usage: "how long one member may take to answer"},
	)
	app.Commands = []*urfave.Command{charterCommand(), roundsCommand(), membersCommand(), adaptersCommand()}
	return app
}
