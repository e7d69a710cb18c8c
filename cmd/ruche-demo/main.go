// Command ruche-demo founds a consortium and its devices on one machine, as separate processes of the real programs,
// runs rounds, kills the leader on the way, and checks what it promises: every round published, every opened sum equal
// to the plain sum bit for bit, newcomers better off than with the base and than with any single participant's adapter.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/cmd/internal/consortium"
	"github.com/ruche-federation/ruche/coordinator/charter"
)

// options are the flags.
type options struct {
	base, tokenizer, users           string
	members, faults, devices, rounds int
	localTokens, killLeader          int
	seed                             uint64
	report, plot                     string
	keep                             bool
}

func main() {
	var o options
	app := cli.WithoutDir(cli.New("ruche-demo", "a consortium and its devices on this machine, as real processes", ""))
	app.Flags = append(app.Flags,
		&urfave.StringFlag{Name: "base", Usage: "base model: a Hugging Face folder, a GGUF file or a llama2.c .bin (default: the built-in tiny model)", Destination: &o.base},
		&urfave.StringFlag{Name: "tokenizer", Usage: "tokenizer of a llama2.c .bin", Destination: &o.tokenizer},
		&urfave.StringFlag{Name: "users", Usage: "JSON lines {\"user\",\"text\"} (default: the built-in users)", Destination: &o.users},
		&urfave.IntFlag{Name: "members", Value: 4, Usage: "members of the consortium", Destination: &o.members},
		&urfave.IntFlag{Name: "faults", Value: 1, Usage: "members that may crash or lie", Destination: &o.faults},
		&urfave.IntFlag{Name: "devices", Value: 16, Usage: "devices; every fourth is a newcomer that never contributes", Destination: &o.devices},
		&urfave.IntFlag{Name: "rounds", Value: 4, Usage: "rounds to run", Destination: &o.rounds},
		&urfave.IntFlag{Name: "local-tokens", Usage: "tokens that a device trains on in a round (default: fewer the larger the model)", Destination: &o.localTokens},
		&urfave.IntFlag{Name: "kill-leader", Value: 2, Usage: "round in which the leader is killed after half of the contributions; 0 never", Destination: &o.killLeader},
		&urfave.Uint64Flag{Name: "seed", Value: 1, Usage: "public seed of the frozen adapter factors", Destination: &o.seed},
		&urfave.StringFlag{Name: "report", Usage: "write the report to this JSON file, and a plot beside it as SVG", Destination: &o.report},
		&urfave.BoolFlag{Name: "keep", Usage: "leave everything running and say where", Destination: &o.keep},
	)
	app.Action = func(c *urfave.Context) error {
		if c.Args().Present() {
			return cli.BadUsage("ruche-demo --help lists the flags", "ruche-demo takes no arguments, got %q", c.Args().First())
		}
		if err := o.check(); err != nil {
			return err
		}
		return demo(c.Context, o, cli.Out(c))
	}
	os.Exit(cli.Main(app))
}

func (o *options) check() error {
	switch {
	case o.devices < 4 || o.devices > 200:
		return cli.BadUsage("ruche-demo --help lists the flags", "--devices is %d, it must lie in [4, 200]: every fourth is a newcomer, and a round needs three", o.devices)
	case o.members < 1 || o.members > consortium.MembersMax:
		return cli.BadUsage("ruche-demo --help lists the flags", "--members is %d, it must lie in [1, %d]", o.members, consortium.MembersMax)
	case o.rounds < 1 || o.rounds > 1000:
		return cli.BadUsage("ruche-demo --help lists the flags", "--rounds is %d, it must lie in [1, 1000]", o.rounds)
	case o.localTokens < 0 || o.killLeader < 0:
		return cli.BadUsage("ruche-demo --help lists the flags", "--local-tokens and --kill-leader cannot be negative")
	}
	return nil
}

// demo is the whole of it.
func demo(ctx context.Context, o options, out *cli.Output) (err error) {
	began := time.Now()
	say := func(s string) { fmt.Fprintf(os.Stderr, "%6.1f s  %s\n", time.Since(began).Seconds(), s) }
	say("DEMO, NOT PRIVATE: cohorts of three and trusted enrolment; everything runs on this machine")
	programs, err := consortium.FindPrograms("")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ruche-demo-")
	if err != nil {
		return err
	}
	var running []*consortium.Process
	defer func() {
		if o.keep && ctx.Err() == nil {
			say(fmt.Sprintf("left running in %s; stop it with: pkill -f %s", dir, dir))
			return
		}
		_ = consortium.StopAll(running, 8*time.Second) // what does not end is killed
		if err != nil {
			say("logs are kept in " + dir)
			return
		}
		os.RemoveAll(dir)
	}()
	people, err := o.people()
	if err != nil {
		return err
	}
	l, err := prepareLearning(o, dir)
	if err != nil {
		return err
	}
	participants := 0
	for _, p := range people {
		if !p.Newcomer {
			participants++
		}
	}
	say(fmt.Sprintf("base model %s: %d parameters; %d participants and %d newcomers, %d local tokens a round", l.source.Path, l.source.Parameters, participants, len(people)-participants, l.task.Recipe.Steps*l.task.Recipe.Batch*l.task.Recipe.Window))
	l.cohort(participants)
	c, err := consortium.Found(ctx, consortium.Founding{Programs: programs, Dir: dir, Name: "demo", Members: o.members, Faults: o.faults, Tasks: []charter.Task{l.task}, Say: say})
	if err != nil {
		return err
	}
	defer c.Close()
	running = append(running, c.Members...)
	if err := c.Start(ctx); err != nil {
		return err
	}
	devices, err := enrolAll(ctx, c, dir, o, people, say)
	if err != nil {
		return err
	}
	for _, d := range devices {
		if err := d.process.Start(); err != nil {
			return err
		}
		running = append(running, d.process)
	}
	kill := o.killLeader
	if kill > o.rounds || o.faults == 0 {
		kill = 0
	}
	w := &watcher{c: c, devices: devices, rounds: o.rounds, target: participants, killRound: kill, keep: o.keep, say: say}
	if err := w.follow(ctx); err != nil {
		return err
	}
	report := &Report{SchemaVersion: "1", Base: BaseReport{l.source.Path, l.source.SHA256, l.source.Parameters},
		Charter:      CharterReport{c.Charter.N, c.Charter.F, c.Charter.Q, c.Charter.Demo},
		Participants: participants, Newcomers: len(people) - participants}
	if err := w.fill(report); err != nil {
		return err
	}
	if !o.keep {
		_ = consortium.StopAll(running, 8*time.Second) // what does not end is killed
	}
	for _, d := range devices {
		report.PeakRSS.DeviceMax = max(report.PeakRSS.DeviceMax, d.peak())
	}
	for _, m := range c.Members {
		report.PeakRSS.MemberMax = max(report.PeakRSS.MemberMax, m.PeakRSS())
	}
	say("every participant trains alone, for comparison")
	if err := l.compare(ctx, report, devices, o.rounds); err != nil {
		return err
	}
	report.Seconds = time.Since(began).Seconds()
	report.judge(o.rounds, kill)
	if err := save(o.report, report); err != nil {
		return err
	}
	return finish(out, report)
}

// enrolAll prepares every device with the real programs, a few at a time.
func enrolAll(ctx context.Context, c *consortium.Consortium, dir string, o options, people []person, say func(string)) ([]*device, error) {
	say(fmt.Sprintf("enrolling %d devices", len(people)))
	devices := make([]*device, len(people))
	errs := make([]error, len(people))
	slots := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for i, who := range people {
		wg.Add(1)
		slots <- struct{}{}
		go func() {
			defer wg.Done()
			defer func() { <-slots }()
			devices[i], errs[i] = prepare(ctx, c, dir, o.base, o.tokenizer, i, who)
		}()
	}
	wg.Wait()
	return devices, errors.Join(errs...)
}

// save writes the report and, beside it, the plot.
func save(path string, r *Report) error {
	if path == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(strings.TrimSuffix(path, filepath.Ext(path))+".svg", []byte(plot(r)), 0o644)
}

// finish prints the table and fails unless every check held.
func finish(out *cli.Output, r *Report) error {
	if err := out.Value(r, func(w io.Writer) error { return table(w, r) }); err != nil {
		return err
	}
	if r.Status != "ok" {
		return cli.Fail("checks_failed", "the report above names each check that failed; the logs are kept", "%s", strings.Join(r.Failures, "; "))
	}
	return nil
}
