package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator/charter"
)

// Defaults of the convenience flags. The recipe is the learning design's for small models (3.3); C is SA 3.2's bound of the
// checked profile.
const (
	loraID        = "commons"
	integerClip   = 2253
	vectorClip    = 1.0
	windowDefault = "24h"
)

func taskFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringSliceFlag{Name: "task", Usage: "a task as JSON `FILE`; may be repeated"},
		&urfave.StringSliceFlag{Name: "task-lora", Usage: "train an adapter of the base model at `[NAME=]PATH`; it must be given in the form that the devices load"},
		&urfave.StringFlag{Name: "tokenizer", Usage: "the tokenizer `FILE` of a llama2.c base"},
		&urfave.StringSliceFlag{Name: "task-vector", Usage: "average a vector of D values: `NAME=D`; may be repeated"},
		&urfave.StringFlag{Name: "window", Value: windowDefault, Usage: "what a --task-vector covers: a duration, or a name for one window for ever"},
		&urfave.UintFlag{Name: "n-min", Usage: "least contributors of a round (default: 100, demo 3)"},
		&urfave.UintFlag{Name: "n-max", Usage: "a round closes with so many (default: 1000, demo 100)"},
		&urfave.Float64Flag{Name: "clip", Usage: "L2 clip of a contribution (default: from the recipe for an adapter, 1 for a vector)"},
		&urfave.DurationFlag{Name: "every", Usage: "least time from one round to the next (default: 24h, demo 1s)"},
		&urfave.DurationFlag{Name: "close-after", Usage: "devices contribute for so long at most (default: 10h, demo 2m)"},
		&urfave.DurationFlag{Name: "ack-timeout", Usage: "a silent member is left out after it (default: 10m, demo 5s)"},
		&urfave.DurationFlag{Name: "ack-after", Usage: "from the close to the end of the decision (default: 1h, demo 1m)"},
		&urfave.DurationFlag{Name: "reveal-after", Usage: "from there to the reveal deadline; 0: as long as the epoch keys live"},
		&urfave.IntFlag{Name: "rank", Value: 8, Usage: "of the adapter"},
		&urfave.Float64Flag{Name: "alpha", Usage: "the adapter adds alpha/rank·B·A (default: the rank)"},
		&urfave.IntFlag{Name: "steps", Value: 8, Usage: "local steps in a round"},
		&urfave.IntFlag{Name: "batch", Value: 8, Usage: "sequences a step"},
		&urfave.IntFlag{Name: "tokens", Value: 96, Usage: "tokens a sequence"},
		&urfave.Float64Flag{Name: "lr", Value: 1e-2, Usage: "local Adam's rate"},
		&urfave.Float64Flag{Name: "beta1", Value: 0.9},
		&urfave.Float64Flag{Name: "beta2", Value: 0.99},
		&urfave.Float64Flag{Name: "weight-decay"},
		&urfave.Float64Flag{Name: "grad-clip", Value: 1, Usage: "gradient norm of a step"},
	}
}

// tasks gathers the tasks of all flags, files first.
func tasks(c *urfave.Context, demo bool) ([]charter.Task, error) {
	var out []charter.Task
	for _, path := range splitList(c.StringSlice("task")) {
		t, err := readTask(path)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	for _, arg := range c.StringSlice("task-lora") {
		t, err := loraTask(c, demo, arg)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	for _, arg := range splitList(c.StringSlice("task-vector")) {
		t, err := vectorTask(c, demo, arg)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	if len(out) == 0 {
		return nil, cli.BadUsage("give --task FILE, --task-lora BASE or --task-vector NAME=D", "no task given")
	}
	return out, nil
}

// readTask reads a task file strictly. Fields of later versions may be left out.
func readTask(path string) (charter.Task, error) {
	t := charter.NewTask("", "")
	data, err := readBounded(path, taskFileBytesMax)
	if err != nil {
		return t, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return t, cli.WithHint(fmt.Errorf("task file %s: %w", path, err), "`ruche charter show --format json` shows what a task looks like")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return t, fmt.Errorf("task file %s: something follows the JSON value", path)
	}
	return t, nil
}

// shape sets what adapters and vectors share.
func shape(c *urfave.Context, demo bool, t *charter.Task, clip float64) (err error) {
	if t.InitSeed, err = freshSeed(); err != nil {
		return err
	}
	if c.IsSet("clip") {
		clip = c.Float64("clip")
	}
	t.Encoding = charter.Encoding{CReal: clip, C: integerClip}
	t.Cohort = charter.Cohort{NMin: uintOr(c, "n-min", pick[uint32](demo, charter.DemoCohortFloor, 100)), NMax: uintOr(c, "n-max", pick[uint32](demo, 100, 1000))}
	t.Timings = charter.Timings{
		Every:       durationOr(c, "every", pick(demo, time.Second, 24*time.Hour)),
		CloseAfter:  durationOr(c, "close-after", pick(demo, 2*time.Minute, 10*time.Hour)),
		AckTimeout:  durationOr(c, "ack-timeout", pick(demo, 5*time.Second, 10*time.Minute)),
		AckAfter:    durationOr(c, "ack-after", pick(demo, time.Minute, time.Hour)),
		RevealAfter: durationOr(c, "reveal-after", 0),
	}
	return nil
}

func uintOr(c *urfave.Context, name string, otherwise uint32) uint32 {
	if c.IsSet(name) {
		return uint32(min(c.Uint(name), 1<<31))
	}
	return otherwise
}

func vectorTask(c *urfave.Context, demo bool, arg string) (charter.Task, error) {
	name, size, ok := strings.Cut(arg, "=")
	d, err := strconv.Atoi(size)
	if !ok || err != nil || d < 1 {
		return charter.Task{}, cli.BadUsage("give --task-vector NAME=D, as in steps=24", "--task-vector %q is not of that form", arg)
	}
	t := charter.NewTask(name, charter.KindVector)
	if t.Layout, err = layout.Vector(name, d, layout.StandardTail()[:1]); err != nil {
		return t, cli.WithHint(fmt.Errorf("task %s: %w", name, err), "choose another D")
	}
	t.Window = c.String("window")
	return t, shape(c, demo, &t, vectorClip)
}

func loraTask(c *urfave.Context, demo bool, arg string) (charter.Task, error) {
	name, path := loraID, arg
	if _, err := os.Stat(arg); err != nil {
		if before, after, ok := strings.Cut(arg, "="); ok {
			name, path = before, after
		}
	}
	t := charter.NewTask(name, charter.KindLoRA)
	base, err := readBase(path, c.String("tokenizer"))
	if err != nil {
		return t, err
	}
	t.Base = base.sha256
	r := charter.Recipe{Rank: c.Int("rank"), Alpha: c.Float64("alpha"), Steps: c.Int("steps"), Batch: c.Int("batch"), Window: c.Int("tokens"), LR: c.Float64("lr"),
		Beta1: c.Float64("beta1"), Beta2: c.Float64("beta2"), Eps: 1e-8, WeightDecay: c.Float64("weight-decay"), Clip: c.Float64("grad-clip")}
	if !c.IsSet("alpha") {
		r.Alpha = float64(r.Rank)
	}
	t.Recipe = r
	if t.Layout, err = layout.LoRA(base.modules, r.Rank, r.Alpha, layout.StandardTail()); err != nil {
		return t, cli.WithHint(fmt.Errorf("task %s: %w", name, err), "choose another --rank")
	}
	return t, shape(c, demo, &t, r.ClipFor(t.Layout.D()))
}
