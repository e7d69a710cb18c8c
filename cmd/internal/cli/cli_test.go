package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"testing"
	"time"

	urfave "github.com/urfave/cli/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/crypto/pin"
)

type bee struct {
	Name string `json:"name"`
	Legs int    `json:"legs"`
}

// hive is a program with a list, an object and several ways to fail.
func hive() *urfave.App {
	app := New("hive", "a hive on the command line", "")
	app.Commands = []*urfave.Command{
		{Name: "bees", Usage: "its bees", Subcommands: []*urfave.Command{
			{Name: "list", Flags: []urfave.Flag{&urfave.StringFlag{Name: "colour", Aliases: []string{"c"}}, &urfave.BoolFlag{Name: "all"}},
				Action: func(c *urfave.Context) error {
					bees := []bee{{"maja", 6}, {"willi-the-lazy", 5}}
					return Rows(Out(c), bees, func() *Table {
						t := &Table{Columns: []string{"NAME", "LEGS"}}
						for _, b := range bees {
							t.Add(b.Name, b.Legs)
						}
						return t
					})
				}},
			{Name: "show", Action: func(c *urfave.Context) error {
				args, err := Args(c, 1, 1, "NAME")
				if err != nil {
					return err
				}
				return Out(c).Value(bee{args[0], 6}, func(w io.Writer) error {
					_, err := fmt.Fprintln(w, args[0], "has 6 legs")
					return err
				})
			}},
		}},
		{Name: "fail", Action: func(*urfave.Context) error { return Fail("no_honey", "wait for summer", "no honey left") }},
		{Name: "panic", Action: func(*urfave.Context) error { panic("a wasp") }},
		{Name: "wait", Action: func(c *urfave.Context) error { <-c.Context.Done(); return c.Context.Err() }},
	}
	return app
}

func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Run(context.Background(), hive(), append([]string{"hive"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestOutputFormats(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		want string // on stdout
	}{
		{"bees list", 0, "NAME             LEGS\nmaja             6\nwilli-the-lazy   5\n"},
		{"bees list --no-headers", 0, "maja             6\nwilli-the-lazy   5\n"},
		{"bees list --format jsonl", 0, "{\"name\":\"maja\",\"legs\":6}\n{\"name\":\"willi-the-lazy\",\"legs\":5}\n"},
		{"bees show maja", 0, "maja has 6 legs\n"},
		{"bees show maja --format jsonl", 0, `{"schema_version":"1","status":"ok","data":{"name":"maja","legs":6},"error_code":"","message":"","hint":""}` + "\n"},
		{"fail --format jsonl", 1, `{"schema_version":"1","status":"error","data":null,"error_code":"no_honey","message":"no honey left","hint":"wait for summer"}` + "\n"},
	} {
		code, out, _ := run(t, strings.Fields(c.args)...)
		if code != c.code || out != c.want {
			t.Errorf("hive %s: exit %d, printed\n%swant exit %d and\n%s", c.args, code, out, c.code, c.want)
		}
	}
}

func TestJSONIsOneEnvelopeAlone(t *testing.T) {
	for _, args := range []string{"bees list", "bees show maja", "fail", "panic", "bees show", "bees lisst", "bees list --wings 4", "--wings bees"} {
		_, out, _ := run(t, append([]string{"--format", "json"}, strings.Fields(args)...)...)
		d := json.NewDecoder(strings.NewReader(out))
		d.DisallowUnknownFields()
		var e envelope
		if err := d.Decode(&e); err != nil {
			t.Errorf("hive %s printed %q: %v", args, out, err)
			continue
		}
		if d.More() || e.Schema != "1" || e.Status == "error" && (e.ErrorCode == "" || e.Message == "") {
			t.Errorf("hive %s printed %q", args, out)
		}
	}
}

func TestErrorsForPeople(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		want []string // on stderr
	}{
		{"fail", 1, []string{"hive: no honey left\n", "hive: hint: wait for summer\n"}},
		{"panic", 5, []string{"hive: a bug in hive: a wasp\n", "hint: please report this"}},
		{"bees show", 4, []string{"0 arguments given", "usage: hive bees show NAME"}},
		{"bees show a b", 4, []string{"2 arguments given"}},
		{"bees lisst", 4, []string{`no command "lisst"`, "hive bees --help"}},
		{"lisst", 4, []string{`no command "lisst"`}},
		{"bees list --wings 4", 4, []string{"wings"}},
		{"bees list --format xml", 4, []string{`format "xml" is unknown`}},
	} {
		code, _, errs := run(t, strings.Fields(c.args)...)
		if code != c.code {
			t.Errorf("hive %s: exit %d, want %d", c.args, code, c.code)
		}
		for _, w := range c.want {
			if !strings.Contains(errs, w) {
				t.Errorf("hive %s: stderr %q lacks %q", c.args, errs, w)
			}
		}
	}
}

func TestHelpIsNoError(t *testing.T) {
	for _, args := range []string{"", "--help", "bees", "bees --help", "bees list --help"} {
		code, out, _ := run(t, strings.Fields(args)...)
		if code != 0 || !strings.Contains(out, "USAGE") {
			t.Errorf("hive %s: exit %d, printed %q", args, code, out)
		}
	}
}

func TestFlagsStandAnywhere(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"bees list --all x --dir d", "--dir d bees list --all x"},
		{"bees list x --colour red y", "bees list --colour red x y"},
		{"bees list x -c=red", "bees list -c=red x"},
		{"--dir d bees list", "--dir d bees list"},
		{"bees --format json list", "--format json bees list"},
		{"bees list -- --dir", "bees list -- --dir"},
		{"bees list x -- --all", "bees list x -- --all"},
		{"bees list x --wings 4", "bees list --wings x 4"},
		{"bees list --colour", "bees list --colour"},
		{"bees list - --all", "bees list --all -"},
		{"bees show list --dir d", "--dir d bees show list"},
	} {
		got := strings.Join(Arrange(hive(), append([]string{"hive"}, strings.Fields(c.in)...)), " ")
		if got != "hive "+c.want {
			t.Errorf("hive %s: arranged as %q, want %q", c.in, got, "hive "+c.want)
		}
	}
}

// TestExitStatusOfEveryGRPCCode is the table that scripts rely on.
func TestExitStatusOfEveryGRPCCode(t *testing.T) {
	want := map[codes.Code]int{codes.OK: OK, codes.Canceled: Failed, codes.Unknown: Failed, codes.InvalidArgument: Usage, codes.DeadlineExceeded: Timeout,
		codes.NotFound: Failed, codes.AlreadyExists: Failed, codes.PermissionDenied: Connect, codes.ResourceExhausted: Failed,
		codes.FailedPrecondition: Failed, codes.Aborted: Failed, codes.OutOfRange: Failed, codes.Unimplemented: Failed, codes.Internal: Failed,
		codes.Unavailable: Connect, codes.DataLoss: Failed, codes.Unauthenticated: Connect}
	for c := codes.OK; c <= codes.Unauthenticated; c++ {
		at, ok := statuses[c]
		if !ok || at.code != want[c] {
			t.Errorf("%v gives exit %d (known: %v), want %d", c, at.code, ok, want[c])
		}
		if c == codes.OK {
			continue
		}
		e := Classify(fmt.Errorf("asking a member: %w", status.Error(c, "no")))
		if e.Code != want[c] || e.Word == "" || !strings.Contains(e.Error(), "asking a member") {
			t.Errorf("%v: classified as %d %q %q", c, e.Code, e.Word, e)
		}
	}
	if e := Classify(status.Error(codes.Code(99), "of a later version")); e.Code != Failed {
		t.Errorf("an unknown code gives exit %d", e.Code)
	}
}

func TestClassifyOtherErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		word string
	}{
		{context.DeadlineExceeded, Timeout, "timeout"},
		{context.Canceled, Failed, "interrupted"},
		{&net.OpError{Op: "dial", Err: errors.New("refused")}, Connect, "unavailable"},
		{&pin.PeerError{Reason: "another key"}, Connect, "wrong_peer"},
		{fs.ErrNotExist, Failed, "not_found"},
		{fs.ErrPermission, Failed, "permission_denied"},
		{errors.New("whatever"), Failed, "failed"},
		{BadUsage("", "no"), Usage, "bad_arguments"},
		{WithHint(context.DeadlineExceeded, "sleep"), Timeout, "timeout"},
	} {
		e := Classify(fmt.Errorf("doing it: %w", c.err))
		if e.Code != c.code || e.Word != c.word {
			t.Errorf("%v: exit %d, word %q; want %d, %q", c.err, e.Code, e.Word, c.code, c.word)
		}
	}
	if Classify(nil) != nil || WithHint(nil, "x") != nil {
		t.Error("no error became one")
	}
}

func TestInterruptEndsTheCommand(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out, errs bytes.Buffer
	if code := Run(ctx, hive(), []string{"hive", "wait"}, &out, &errs); code != Failed {
		t.Errorf("exit %d, want %d", code, Failed)
	}
}

func TestNoColourInFilesAndPipes(t *testing.T) {
	o := &Output{Stdout: io.Discard}
	if s := o.Good("✓"); s != "✓" {
		t.Errorf("coloured for a pipe: %q", s)
	}
	p := (&Output{Stderr: io.Discard}).NewProgress()
	p.Setf("round %d", 1) // quiet: no terminal
	p.Done()
}

// TestProgressIsOneLine: what a member says of a round does not leave the line.
func TestProgressIsOneLine(t *testing.T) {
	var out bytes.Buffer
	p := &Progress{w: &out}
	p.Setf("%s is open", "a\n\x1b[2Jb")
	p.Done()
	if want := "\r\x1b[Ka\ufffd\ufffd[2Jb is open\r\x1b[K"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestAgeAndBytes(t *testing.T) {
	for d, want := range map[time.Duration]string{-time.Second: "0s", 42 * time.Second: "42s", 200 * time.Second: "3m20s", 2 * time.Hour: "2h",
		5*time.Hour + 12*time.Minute: "5h12m", 220 * time.Hour: "9d4h"} {
		if got := Age(d); got != want {
			t.Errorf("Age(%s) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 999: "999 B", 4195: "4.2 kB", 999960: "1.0 MB", 2_500_000: "2.5 MB", 3_000_000_000_000_000: "3000.0 TB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestVerdictShowsWhatFailed(t *testing.T) {
	verdict := func(format string) (int, string, string) {
		app := hive()
		app.Commands = append(app.Commands, &urfave.Command{Name: "judge", Action: func(c *urfave.Context) error {
			return Out(c).Verdict(bee{"maja", 5}, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, "maja has 5 legs")
				return err
			}, Fail("wrong_legs", "count again", "bees have 6 legs"))
		}})
		var out, errs bytes.Buffer
		code := Run(context.Background(), app, []string{"hive", "judge", "--format", format}, &out, &errs)
		return code, out.String(), errs.String()
	}
	if code, out, errs := verdict("table"); code != 1 || out != "maja has 5 legs\n" || !strings.Contains(errs, "bees have 6 legs") {
		t.Errorf("exit %d, printed %q and %q", code, out, errs)
	}
	want := `{"schema_version":"1","status":"error","data":{"name":"maja","legs":5},"error_code":"wrong_legs","message":"bees have 6 legs","hint":"count again"}` + "\n"
	if code, out, errs := verdict("jsonl"); code != 1 || out != want || errs != "" {
		t.Errorf("exit %d, printed %q and %q", code, out, errs)
	}
}

// TestAProgramWithoutAFolder takes no --dir, where everyone else does.
func TestAProgramWithoutAFolder(t *testing.T) {
	for _, c := range []struct {
		app  *urfave.App
		want int
	}{{hive(), OK}, {WithoutDir(hive()), Usage}} {
		var out, errs bytes.Buffer
		if code := Run(t.Context(), c.app, []string{"hive", "bees", "list", "--dir", "x"}, &out, &errs); code != c.want {
			t.Errorf("exit %d, want %d: %s", code, c.want, &errs)
		}
	}
}
