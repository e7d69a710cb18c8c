package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/cmd/internal/consortium"
)

// unsyncedVerb is for the control of a power cut alone, and takes another program's command line.
const unsyncedVerb = "unsynced"

func main() {
	if len(os.Args) > 2 && os.Args[1] == unsyncedVerb {
		fmt.Fprintln(os.Stderr, unsynced(os.Args[2:])) // it returns with an error only
		os.Exit(cli.Failed)
	}
	os.Exit(cli.Main(newApp()))
}

func newApp() *urfave.App {
	app := cli.New("chaos", "breaks a consortium of real processes and looks for what is lost", "")
	app.Commands = []*urfave.Command{
		layer("kills", "SIGKILL members and devices while devices contribute", "kills", "processes to kill", 40, runKills),
		layer("failover", "how long devices wait when the leader dies or stops", "kills", "leaders to kill; as many are told to stop", 20, runFailover),
		layer("powercuts", "cut the power of members' disks while devices contribute", "cuts", "disks to cut", 20, runPowercuts),
		layer("partitions", "cut links between members while devices contribute", "partitions", "partitions", 20, runPartitions),
		testsCommand(),
		reportCommand(),
	}
	return app
}

// runFlags are those of every verb that runs a consortium.
func runFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "bin", Value: "bin", Usage: "the `FOLDER` with the programs"},
		&urfave.StringFlag{Name: "out", Usage: "write the result to this JSON `FILE`"},
		&urfave.StringFlag{Name: "keep", Usage: "work in this `FOLDER` and leave everything there"},
		&urfave.BoolFlag{Name: "proxy", Usage: "partitions by proxies, also where network namespaces are possible"},
		&urfave.Uint64Flag{Name: "seed", Value: 1, Usage: "of the schedule"},
		&urfave.IntFlag{Name: "devices", Value: 6, Usage: "devices that contribute"},
		&urfave.IntFlag{Name: "values", Value: 20_000, Usage: "numbers in a contribution"},
	}
}

// layer is a verb that runs a consortium and breaks it so many times.
func layer(name, usage, flag, unit string, most int, run func(context.Context, options, func(string, ...any)) (*Result, error)) *urfave.Command {
	return &urfave.Command{
		Name: name, Usage: usage,
		Flags: append(runFlags(), &urfave.IntFlag{Name: flag, Value: most, Usage: unit}),
		Action: func(c *urfave.Context) error {
			return verb(c, func(ctx context.Context, o options, say func(string, ...any)) (*Result, error) {
				if o.kills = c.Int(flag); o.kills < 1 || o.kills > faultsMax {
					return nil, cli.BadUsage("chaos "+name+" --help lists the flags", "--%s is %d, it must lie in [1, %d]", flag, o.kills, faultsMax)
				}
				o.command = fmt.Sprintf("make %s %s=%d SEED=%d", name, strings.ToUpper(flag), o.kills, o.seed)
				return run(ctx, o, say)
			})
		},
	}
}

func reportCommand() *urfave.Command {
	return &urfave.Command{
		Name: "report", Usage: "write " + reportFile + " from the results in a folder",
		Flags: []urfave.Flag{&urfave.StringFlag{Name: "results", Value: filepath.Join("docs", "benchmarks"), Usage: "the `FOLDER`"}},
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c, 0, 0, ""); err != nil {
				return err
			}
			dir := c.String("results")
			b, err := report(dir)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, reportFile), b, 0o644)
		},
	}
}

// verb runs one layer, prints and writes its result, and fails if it holds a violation.
func verb(c *urfave.Context, run func(context.Context, options, func(string, ...any)) (*Result, error)) error {
	if _, err := cli.Args(c, 0, 0, ""); err != nil {
		return err
	}
	began := time.Now()
	say := func(format string, args ...any) {
		cli.Out(c).Notef("%6.1f s  %s", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	programs, err := consortium.FindPrograms(c.String("bin"))
	if err != nil {
		return err
	}
	o := options{programs: programs, seed: c.Uint64("seed"), devices: c.Int("devices"), values: c.Int("values"), keep: c.String("keep"), proxy: c.Bool("proxy")}
	if o.devices < 4 || o.devices > devicesMax || o.values < 1 {
		return cli.BadUsage("chaos --help lists the flags", "--devices is %d, it must lie in [4, %d]; --values is %d", o.devices, devicesMax, o.values)
	}
	r, err := run(c.Context, o, say)
	if err != nil {
		return err
	}
	r.print()
	if out := c.String("out"); out != "" {
		if err := r.save(filepath.Clean(out)); err != nil {
			return err
		}
	}
	if len(r.Violations) > 0 {
		return cli.Fail("violations", "the folder named above holds every log", "%s: %s", r.Layer, strings.Join(r.Violations, "; "))
	}
	return nil
}
