package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	urfave "github.com/urfave/cli/v2"
)

// Names of the flags that New gives to every program.
const (
	flagDir       = "dir"
	flagFormat    = "format"
	flagNoHeaders = "no-headers"
	flagLogFormat = "log-format"
	flagLogLevel  = "log-level"
)

// New returns an application with the flags that all programs share. dir is the default of --dir ("" for none).
func New(name, usage, dir string) *urfave.App {
	return &urfave.App{
		Name: name, Usage: usage, Version: version(), HideHelpCommand: true,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: flagDir, EnvVars: []string{"RUCHE_DIR"}, Value: dir, Usage: "the program's `FOLDER`"},
			&urfave.StringFlag{Name: flagFormat, EnvVars: []string{"RUCHE_FORMAT"}, Value: FormatTable, Usage: "output as `table|json|jsonl`"},
			&urfave.BoolFlag{Name: flagNoHeaders, Usage: "tables without their first line"},
			&urfave.StringFlag{Name: flagLogFormat, EnvVars: []string{"RUCHE_LOG_FORMAT"}, Value: "text", Usage: "log on stderr as `text|json`"},
			&urfave.StringFlag{Name: flagLogLevel, EnvVars: []string{"RUCHE_LOG_LEVEL"}, Value: "info", Usage: "`debug|info|warn|error`"},
		},
	}
}

// WithoutDir takes --dir away from a program that has no folder of its own: a flag that changes nothing is not there.
func WithoutDir(app *urfave.App) *urfave.App {
	app.Flags = slices.DeleteFunc(app.Flags, func(f urfave.Flag) bool { return f.Names()[0] == flagDir })
	return app
}

// version is what the Go toolchain recorded at build time: the module's version, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && !strings.Contains(v, s.Value[:min(12, len(s.Value))]):
			v += " " + s.Value
		case s.Key == "vcs.modified" && s.Value == "true" && !strings.Contains(v, "dirty"):
			v += " modified"
		}
	}
	return strings.TrimSpace(v)
}

// Main runs app with this process's arguments and returns the exit status. SIGINT and SIGTERM end the context once; a
// second one ends the process.
func Main(app *urfave.App) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // from then on a signal has its usual effect
	return Run(ctx, app, os.Args, os.Stdout, os.Stderr)
}

// Run is Main for a caller that brings its own context, arguments and streams. args[0] is the program's name. Standard
// input is app.Reader. One call at a time in a process: urfave/cli keeps its help flag in a variable of the package.
func Run(ctx context.Context, app *urfave.App, args []string, stdout, stderr io.Writer) (code int) {
	prepare(app)
	app.Writer, app.ErrWriter = stdout, stderr
	args = Arrange(app, args)
	format := formatOf(args)
	defer func() {
		if p := recover(); p != nil {
			e := &Error{Code: Bug, Word: "internal_bug", Hint: "please report this with the command that you ran and the lines above",
				Err: fmt.Errorf("a bug in %s: %v", app.Name, p)}
			_, _ = stderr.Write(debug.Stack()) // nothing is left to do where stderr is gone
			report(format, stdout, stderr, app.Name, e)
			code = Bug
		}
	}()
	err := app.RunContext(ctx, args)
	if err == nil {
		return OK
	}
	e := Classify(err)
	if errors.Is(err, syscall.EPIPE) {
		return e.Code // whoever read us has left
	}
	report(format, stdout, stderr, app.Name, e)
	return e.Code
}

// report tells an error to whoever listens: an envelope on stdout for programs, lines on stderr for people.
func report(format string, stdout, stderr io.Writer, name string, e *Error) {
	if format == FormatTable {
		fmt.Fprintf(stderr, "%s: %s\n", name, message(e))
		if e.Hint != "" {
			fmt.Fprintf(stderr, "%s: hint: %s\n", name, e.Hint)
		}
		return
	}
	_ = writeJSON(stdout, format, envelope{Schema: schemaVersion, Status: "error", Data: e.Data, ErrorCode: e.Word, Message: message(e), Hint: e.Hint})
}

// prepare makes urfave return its complaints as errors of ours instead of printing help and leaving the process.
func prepare(app *urfave.App) {
	usage := func(c *urfave.Context, err error, _ bool) error {
		return BadUsage(fmt.Sprintf("see `%s --help`", path(c)), "%w", err)
	}
	app.OnUsageError = usage
	app.ExitErrHandler = func(*urfave.Context, error) {}
	if app.Action == nil {
		app.Action = chooseCommand
	}
	before := app.Before
	app.Before = func(c *urfave.Context) error {
		if err := checkFormat(c.String(flagFormat)); err != nil {
			return err // before anything is done
		}
		if before != nil {
			return before(c)
		}
		return nil
	}
	var walk func([]*urfave.Command)
	walk = func(list []*urfave.Command) {
		for _, c := range list {
			c.OnUsageError = usage
			c.HideHelpCommand = true
			if c.Action == nil && len(c.Subcommands) > 0 {
				c.Action = chooseCommand
			}
			walk(c.Subcommands)
		}
	}
	walk(app.Commands)
}

// chooseCommand is what a name that only groups others does: help without arguments, an error with them.
func chooseCommand(c *urfave.Context) error {
	if !c.Args().Present() {
		if len(c.Lineage()) <= 2 {
			return urfave.ShowAppHelp(c)
		}
		return urfave.ShowSubcommandHelp(c)
	}
	return BadUsage(fmt.Sprintf("see `%s --help`", path(c)), "no command %q", c.Args().First())
}

func path(c *urfave.Context) string {
	if c.Command != nil && c.Command.HelpName != "" {
		return c.Command.HelpName
	}
	return c.App.Name
}

// Dir is the folder of --dir or RUCHE_DIR, with a leading ~ resolved. None is an error.
func Dir(c *urfave.Context) (string, error) {
	dir := c.String(flagDir)
	if dir == "" {
		return "", BadUsage("give --dir FOLDER or set RUCHE_DIR", "no folder given")
	}
	if rest, ok := strings.CutPrefix(dir, "~"); ok && (rest == "" || rest[0] == '/' || rest[0] == filepath.Separator) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", BadUsage("give --dir FOLDER or set RUCHE_DIR", "folder %s: %w", dir, err)
		}
		dir = filepath.Join(home, rest)
	}
	return dir, nil
}

// Args wants from least to most positional arguments (most < 0: any number), named in usage.
func Args(c *urfave.Context, least, most int, usage string) ([]string, error) {
	n := c.Args().Len()
	if n < least || most >= 0 && n > most {
		return nil, BadUsage(fmt.Sprintf("usage: %s %s", path(c), usage), "%d arguments given", n)
	}
	return c.Args().Slice(), nil
}

// Arrange moves each flag to the place where urfave/cli looks for it: behind the innermost command that defines it and
// before the positional arguments. A flag that no command defines stays with the innermost, which then refuses it.
func Arrange(app *urfave.App, args []string) []string {
	if len(args) == 0 {
		return nil
	}
	type level struct {
		name  string
		known []urfave.Flag
		flags []string
	}
	levels := []*level{{name: args[0], known: app.Flags}}
	commands := app.Commands
	var positional []string
	rest := args[1:]
	for len(rest) > 0 {
		arg := rest[0]
		rest = rest[1:]
		if arg == "--" {
			positional = append(append(positional, arg), rest...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			if len(positional) == 0 {
				if i := slices.IndexFunc(commands, func(c *urfave.Command) bool { return c.HasName(arg) }); i >= 0 {
					levels = append(levels, &level{name: arg, known: commands[i].Flags})
					commands = commands[i].Subcommands
					continue
				}
			}
			positional = append(positional, arg)
			continue
		}
		name, _, valued := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		at := levels[len(levels)-1]
		var found urfave.Flag
		for i := len(levels) - 1; i >= 0 && found == nil; i-- {
			for _, f := range levels[i].known {
				if slices.Contains(f.Names(), name) {
					at, found = levels[i], f
				}
			}
		}
		at.flags = append(at.flags, arg)
		if found == nil || valued {
			continue
		}
		if _, isBool := found.(*urfave.BoolFlag); !isBool && len(rest) > 0 {
			at.flags = append(at.flags, rest[0])
			rest = rest[1:]
		}
	}
	var out []string
	for _, l := range levels {
		out = append(append(out, l.name), l.flags...)
	}
	return append(out, positional...)
}

// formatOf finds the output format even where the arguments are wrong: the complaint has to have it.
func formatOf(args []string) string {
	format := os.Getenv("RUCHE_FORMAT")
	for i, a := range args {
		if a == "--" {
			break
		}
		if !strings.HasPrefix(a, "-") {
			continue
		}
		if name, value, ok := strings.Cut(strings.TrimLeft(a, "-"), "="); name == flagFormat {
			if ok {
				format = value
			} else if i+1 < len(args) {
				format = args[i+1]
			}
		}
	}
	if format != FormatJSON && format != FormatJSONL {
		return FormatTable
	}
	return format
}

// message is the error's text on one line. It may quote a server, which must not move our cursor.
func message(e *Error) string {
	return Printable(strings.ReplaceAll(strings.TrimSpace(e.Err.Error()), "\n", "; "))
}
