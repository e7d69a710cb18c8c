package main

import (
	"os"
	"path/filepath"
	"runtime"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
)

func main() { os.Exit(cli.Main(newApp())) }

func newApp() *urfave.App {
	app := cli.New("ruche-node", "one person's device: a private journal, a local model, and a part in the commons", defaultDir())
	app.Commands = []*urfave.Command{initCommand(), dataCommand(), joinCommand(), runCommand(), statusCommand(), askCommand(), contributeCommand(), ledgerCommand()}
	return app
}

// defaultDir is where the system keeps a person's application data.
func defaultDir() string {
	switch {
	case os.Getenv("XDG_DATA_HOME") != "":
		return filepath.Join(os.Getenv("XDG_DATA_HOME"), "ruche-node")
	case runtime.GOOS == "darwin":
		return "~/Library/Application Support/ruche-node"
	case runtime.GOOS == "windows" && os.Getenv("LocalAppData") != "":
		return filepath.Join(os.Getenv("LocalAppData"), "ruche-node")
	}
	return "~/.local/share/ruche-node"
}
