package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator/doctor"
)

func doctorCommand() *urfave.Command {
	return &urfave.Command{
		Name: "doctor", Usage: "look at a stopped member's folder: what happened, what it means, what to do; exit status 1 on a problem",
		Description: "Nothing in the folder is changed. While the member runs, only what it writes whole is looked at. With --deep every file " +
			"that rounds left is read and compared with its hash, checksum or signature; for each that is damaged or foreign it says what becomes of it.",
		Flags: []urfave.Flag{&urfave.BoolFlag{Name: "deep", Usage: "read every file, which may take minutes"}},
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c, 0, 0, ""); err != nil {
				return err
			}
			dir, err := cli.Dir(c)
			if err != nil {
				return err
			}
			look := doctor.Examine
			if c.Bool("deep") {
				p := cli.Out(c).NewProgress()
				look = func(dir string, now time.Time) (*doctor.Examination, error) {
					defer p.Done()
					return doctor.Deep(dir, now, func(file string, read, total int64) {
						p.Setf("%s of %s read: %s", cli.Bytes(uint64(read)), cli.Bytes(uint64(total)), file)
					})
				}
			}
			x, err := look(dir, time.Now())
			if err != nil {
				return err
			}
			return cli.Out(c).Verdict(x, func(w io.Writer) error { return printExamination(w, cli.Out(c), x) }, doctorVerdict(x))
		},
	}
}

// doctorVerdict is the first problem, if there is any: its word, and what to do.
func doctorVerdict(x *doctor.Examination) error {
	var first *doctor.Finding
	n := 0
	for i := range x.Findings {
		if f := &x.Findings[i]; f.Level == doctor.Problem {
			if n++; first == nil {
				first = f
			}
		}
	}
	if first == nil {
		return nil
	}
	more := ""
	if n > 1 {
		more = fmt.Sprintf(", and %d more", n-1)
	}
	return cli.Fail(first.Word, first.Do, "%s%s", first.What, more)
}

func printExamination(w io.Writer, o *cli.Output, x *doctor.Examination) error {
	if x.Demo {
		fmt.Fprintf(w, "%s\n\n", o.Bad(cli.DemoLabel))
	}
	t := &cli.Table{Columns: []string{"LEVEL", "AREA", "FINDING"}}
	for _, f := range x.Findings {
		level := string(f.Level)
		switch f.Level {
		case doctor.OK:
			level = o.Good(level)
		case doctor.Warning, doctor.Problem:
			level = o.Bad(level)
		}
		t.Add(level, f.Area, f.What)
		if f.Means != "" {
			t.Add("", "", "means: "+f.Means)
		}
		if f.Do != "" {
			t.Add("", "", "do: "+f.Do)
		}
	}
	if err := t.Write(w, !o.NoHeaders); err != nil {
		return err
	}
	promises := &cli.Table{Columns: []string{"EPOCH", "STATE", "ROUND", "VOTED", "REVEALED", "EXPIRED"}}
	for _, e := range x.Epochs {
		if len(e.Promises) == 0 {
			promises.Add(e.Number, e.State, "", "", "", "")
		}
		for _, p := range e.Promises {
			expired := ""
			if p.Expired {
				expired = "yes"
			}
			promises.Add(e.Number, e.State, short(p.Round), short(p.Voted), short(p.Revealed), expired)
		}
	}
	if len(promises.Rows) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return promises.Write(w, !o.NoHeaders)
}

// short is enough of a hash to compare by eye.
func short(hash string) string { return strings.TrimSpace(hash[:min(len(hash), 16)]) }
