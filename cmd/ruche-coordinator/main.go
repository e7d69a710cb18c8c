package main

import (
	"os"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
)

func main() { os.Exit(cli.Main(newApp())) }

func newApp() *urfave.App {
	app := cli.New("ruche-coordinator", "one organisation's member of a consortium", "")
	app.Commands = []*urfave.Command{initCommand(), runCommand(), tokenCommand(), statusCommand(), doctorCommand(), rejoinCommand()}
	return app
}
