// Package cli gives every program its contract with people and scripts: Main runs an urfave/cli application and returns
// the exit status.
//
// Exit status: 0 ok; 1 the object or the server said no, or the thing ended badly; 2 no connection, or not the
// expected peer; 3 out of time; 4 bad arguments; 5 a bug in this program.
//
// Output: results on stdout, everything else on stderr. `--format table` is for people. `--format json` prints one envelope,
//
//	{"schema_version":"1","status":"ok|error","data":…,"error_code":"…","message":"…","hint":"…"}
//
// and nothing else. `--format jsonl` prints the same envelope on one line, except for lists: there it is one object per
// line without an envelope, as `kubectl` and `jq` users expect, so that a list can be cut and streamed; an error is
// always an envelope, on one line. Times in JSON are RFC 3339 in UTC, units stand in field names.
//
// Flags may stand anywhere, before or after the command's name and its arguments: Arrange moves each to the innermost
// command that defines it before urfave/cli, which wants flags first, sees them. What follows `--` is never a flag.
//
// A program looks like this:
//
//	app := cli.New("ruche", "look at a consortium", "~/.ruche")
//	app.Commands = []*urfave.Command{{Name: "version", Action: func(c *urfave.Context) error {
//		return cli.Out(c).Value(info, func(w io.Writer) error { … })
//	}}}
//	os.Exit(cli.Main(app))
package cli
