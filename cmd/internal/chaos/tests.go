package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/cmd/internal/explore"
)

// tested is a layer that is a test of some package: the report runs it at its full size and counts what it logs.
type tested struct {
	layer   string
	about   string
	env     []string
	args    []string // of `go test`
	figures *regexp.Regexp
}

func testedLayers() []tested {
	return []tested{
		{"virtual partitions", "Three and five replicas over whole rounds in virtual time, with members that sign real statements: partitions, cuts of one direction, crashes, transfers, snapshots; what was acknowledged is never lost or moved, all replicas are equal at equal index, a round has one result",
			[]string{"RUCHE_PARTITIONS=10000"}, []string{"-run", "^TestPartitions$", "-timeout", "2h", "./coordinator/replica"}, regexp.MustCompile(`partitions: (\{.*\})`)},
		{"liars", "A lying leader that shows members different logs, and up to f lying members, with crashes and restored backups between, by the seed; every invariant of the protocol is checked after every turn",
			[]string{"RUCHE_LAB=all"}, []string{"-run", "^TestSiege$", "-timeout", "2h", "./cmd/internal/lab"}, regexp.MustCompile(`siege_test\.go:\d+: (.*?); rounds`)},
		{"fail points", "Every durable step of docs/PROTOCOL.md fails before and after it is on disk. Those of a round, 18, fail in a whole federation, with an error and with a death, at a member, at the leader or at a device, and then everything that " +
			"was said is checked; those of a home, an enrolment, a journal, raft and its log fail in the tests of their packages, and what is there is used again",
			nil, []string{"-tags", "faults", "-run", "^TestFault", "-timeout", "2h", "./storage/...", "./coordinator/...", "./node/...", "./cmd/internal/lab"}, regexp.MustCompile(`faults_test\.go:\d+: ((?:\d+ points, )?\d+ cases)$`)},
		{"leadership transfer", "Four replicas in one process, in real time: the leader hands over, as it does in a planned stop, until the next command is committed; the mean of 100",
			nil, []string{"-run", "^$", "-bench", "^BenchmarkLeadershipTransfer$", "-benchtime", "100x", "./coordinator/replica"}, regexp.MustCompile(`^BenchmarkLeadershipTransfer\S*\s+\d+\s+(\d+ ns/op)`)},
	}
}

func testsCommand() *urfave.Command {
	return &urfave.Command{
		Name: "tests", Usage: "run the layers that are tests, the exploration and the mutants at their full size; write their results to a folder",
		Flags: []urfave.Flag{&urfave.StringFlag{Name: "results", Value: "bin", Usage: "the `FOLDER`"}, &urfave.StringFlag{Name: "only", Usage: "layers whose name contains `TEXT`"}},
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c, 0, 0, ""); err != nil {
				return err
			}
			var bad []string
			one := func(name string, run func(ctx context.Context, r *Result) error) error {
				if !strings.Contains(name, c.String("only")) {
					return nil
				}
				cli.Out(c).Notef("%s", name)
				began := time.Now()
				r := newResult(c.Context, name, "", "make durability TESTS=1", 0)
				if err := run(c.Context, r); err != nil {
					return err
				}
				r.Seconds = time.Since(began).Round(time.Second).Seconds()
				r.print()
				bad = append(bad, r.Violations...)
				return r.save(filepath.Join(c.String("results"), strings.ReplaceAll(name, " ", "-")+".json"))
			}
			err := one("exploration", explored)
			for _, l := range testedLayers() {
				err = errors.Join(err, one(l.layer, l.run))
			}
			if err = errors.Join(err, one("mutants", mutated)); err != nil {
				return err
			}
			if len(bad) > 0 {
				return cli.Fail("violations", "the tests named in the results repeat them", "%s", strings.Join(bad, "; "))
			}
			return nil
		},
	}
}

// run runs a layer's test. A test that fails is a violation; one that logs no figures is a mistake here.
func (l *tested) run(ctx context.Context, r *Result) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-count=1", "-v"}, l.args...)...)
	cmd.Env = append(os.Environ(), l.env...)
	out, err := cmd.CombinedOutput()
	r.About = l.about
	r.Command = strings.TrimSpace(strings.Join(l.env, " ") + " go test -v " + strings.Join(l.args, " "))
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		return err
	}
	if err != nil {
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "--- FAIL") {
				r.Violations = append(r.Violations, strings.TrimSpace(line))
			}
		}
		if len(r.Violations) == 0 {
			return fmt.Errorf("%s: %w: %.2000s", l.layer, err, out)
		}
	}
	if err := r.figures(out, l.figures); err != nil && len(r.Violations) == 0 {
		return fmt.Errorf("%s: %w", l.layer, err)
	}
	return nil
}

// figures adds up what the lines of a test's log say: either JSON, or numbers with a name, separated by commas. The
// matching lines are counted as runs.
func (r *Result) figures(out []byte, lines *regexp.Regexp) error {
	at := map[string]int{}
	add := func(name string, n int) {
		i, ok := at[name]
		if !ok {
			i = len(r.Counts)
			at[name] = i
			r.count(name, 0)
		}
		r.Counts[i].N += n
	}
	for line := range strings.Lines(string(out)) {
		m := lines.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			continue
		}
		add("runs", 1)
		if strings.HasPrefix(m[1], "{") {
			d := json.NewDecoder(strings.NewReader(m[1]))
			d.Token() // the opening brace; what follows keeps its order
			for d.More() {
				name, err := d.Token()
				if err != nil {
					return err
				}
				var n float64
				if err := d.Decode(&n); err != nil {
					return err
				}
				add(strings.ReplaceAll(fmt.Sprint(name), "_", " "), int(n))
			}
			continue
		}
		for _, part := range strings.Split(m[1], ", ") {
			number, name, ok := strings.Cut(part, " ")
			n, err := strconv.Atoi(number)
			if !ok || err != nil {
				return fmt.Errorf("%q is no number with a name", part)
			}
			add(name, n)
		}
	}
	if len(r.Counts) == 0 {
		return errors.New("the test logged no figures")
	}
	return nil
}

// explored searches (3,1) and (4,1) completely and goes at random through larger ones.
func explored(_ context.Context, r *Result) error {
	r.About = "Opening, vote and reveal with real members, a leader that shows each its own log, f liars, crashes, restarts and restored backups: every state for (3,1) and (4,1), random walks for (5,1) and (7,2)"
	r.Command = "RUCHE_EXPLORE=full go test -v -timeout 2h ./cmd/internal/explore"
	for _, o := range []struct {
		name string
		explore.Options
	}{
		{"(3,1)", explore.Options{N: 3, F: 1}},
		{"(4,1) opening", explore.Options{N: 4, F: 1, Part: explore.Opening}},
		{"(4,1) vote and reveal", explore.Options{N: 4, F: 1, Part: explore.VoteAndReveal}},
		{"(5,1) walks", explore.Options{N: 5, F: 1, Walks: 120, Steps: 400, Seed: 1}},
		{"(7,2) walks", explore.Options{N: 7, F: 2, Walks: 120, Steps: 400, Seed: 1}},
	} {
		found, err := explore.Run(o.Options)
		if err != nil && !errors.As(err, new(*explore.Violation)) {
			return err
		}
		if err != nil {
			r.Violations = append(r.Violations, o.name+": "+err.Error())
			continue
		}
		for _, name := range found.Missing(o.Options) {
			r.Violations = append(r.Violations, fmt.Sprintf("%s reached no %s: this run proves nothing", o.name, name))
		}
		r.count(o.name+": states", found.Pools)
		if o.Walks > 0 {
			r.count(o.name+": steps", found.Walked)
		} else {
			r.count(o.name+": transitions", found.Transitions)
			r.count(o.name+": states of single members", found.Locals)
			r.count(o.name+": of these restored from a backup", found.Restored)
		}
		for _, name := range explore.Landmarks() {
			if n := found.Reached[name]; n > 0 {
				r.count(o.name+": states with "+name, n)
			}
		}
	}
	return nil
}

// mutated removes one check of the product at a time.
func mutated(ctx context.Context, r *Result) error {
	r.About = "The product with one of its checks removed at a time: a test has to notice"
	r.Command = "make mutants"
	var out, progress bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", "run", "./cmd/internal/mutants", "--format", "json")
	cmd.Stdout, cmd.Stderr = &out, &progress
	failed := cmd.Run()
	var list []struct{ Name, Outcome string }
	if err := json.Unmarshal(out.Bytes(), &list); err != nil {
		return fmt.Errorf("mutants: %w: %.2000s", errors.Join(failed, err), progress.Bytes())
	}
	caught := 0
	for _, m := range list {
		if m.Outcome == "caught" {
			caught++
		} else {
			r.Violations = append(r.Violations, m.Name+": "+m.Outcome)
		}
	}
	r.count("mutants", len(list))
	r.count("caught", caught)
	return nil
}
