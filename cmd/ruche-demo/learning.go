package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/node"
	"github.com/ruche-federation/ruche/node/journal"
	"github.com/ruche-federation/ruche/node/llm"
	"github.com/ruche-federation/ruche/testdata/models/tiny"
	"github.com/ruche-federation/ruche/testdata/users"
)

// The demo's recipe (learning design 3.3): rank 8 on all linear layers, B trained, A fixed and orthonormal.
const (
	rank          = 8
	rate          = 1e-2
	batchMost     = 8
	windowMost    = 96
	stepsMost     = 8
	tokensSmall   = batchMost * windowMost * stepsMost // for models up to smallModel
	smallModel    = 300_000
	batchBuiltIn  = 4 // the built-in model and users learn enough from less, and the demo ends sooner
	windowBuiltIn = 64
	tokensLeast   = 2 * windowMost
	integerBound  = 2253
)

// learning is the base model and the task that is learned.
type learning struct {
	language *node.Language
	source   llm.Source
	task     charter.Task
}

// prepareLearning loads the base and writes the task that the charter will hold.
func prepareLearning(o options, dir string) (*learning, error) {
	base := o.base
	if base == "" {
		base = filepath.Join(dir, "base")
		if err := os.CopyFS(base, tiny.Files); err != nil {
			return nil, err
		}
	}
	language, err := node.LoadLanguage(base, o.tokenizer)
	if err != nil {
		return nil, err
	}
	m, src := language.Model, language.Source
	l := &learning{language: language, source: src}
	if o.base == "" {
		l.source.Path = "built-in tiny model"
	}
	var modules []layout.Module
	for _, x := range m.Linear() {
		modules = append(modules, layout.Module{Name: x.Name, In: x.In, Out: x.Out})
	}
	lay, err := layout.LoRA(modules, rank, rank, layout.StandardTail())
	if err != nil {
		return nil, err
	}
	t := charter.NewTask("commons", charter.KindLoRA)
	t.Base, t.Layout = src.SHA256, lay
	var seed [8]byte
	binary.BigEndian.PutUint64(seed[:], o.seed)
	t.InitSeed = label.Sum(label.TagTask, seed[:])
	t.Recipe = recipeFor(src.Parameters, m.Context, o.localTokens)
	if o.base == "" && o.localTokens == 0 {
		t.Recipe.Steps, t.Recipe.Batch, t.Recipe.Window = stepsMost, batchBuiltIn, windowBuiltIn
	}
	t.Encoding = charter.Encoding{CReal: t.Recipe.ClipFor(lay.D()), C: integerBound}
	t.Timings = charter.Timings{
		Every: duration(200 * time.Millisecond), CloseAfter: duration(4 * time.Minute), AckTimeout: duration(4 * time.Second),
		AckAfter: duration(time.Minute), RevealAfter: duration(2 * time.Minute),
	}
	l.task = t
	return l, nil
}

func duration(d time.Duration) charter.Duration { return charter.Duration(d) }

// cohort sets the round's target: every participant.
func (l *learning) cohort(participants int) {
	l.task.Cohort = charter.Cohort{NMin: 3, NMax: uint32(participants)}
}

// recipeFor shares the local tokens out: fewer the larger the model, so that a device's round stays short; steps are
// given up last.
func recipeFor(parameters, context, tokens int) charter.Recipe {
	if tokens == 0 {
		tokens = tokensSmall
		if parameters > smallModel {
			tokens = max(tokensLeast, int(float64(tokens)*smallModel/float64(parameters)))
		}
	}
	window := min(windowMost, context)
	batch := min(batchMost, max(1, tokens/(stepsMost*window)))
	steps := max(1, tokens/(batch*window))
	return charter.Recipe{Rank: rank, Alpha: rank, Steps: steps, Batch: batch, Window: window, LR: rate, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8}
}

// people reads the users' file.
func (o *options) people() ([]person, error) {
	if o.users != "" {
		return openPeople(o.users, o.devices)
	}
	return readPeople(users.Open(), o.devices)
}

// compare trains every participant alone, with as many local steps as the rounds had, and measures these adapters on its
// own held-out text and on the newcomers.
func (l *learning) compare(ctx context.Context, r *Report, devices []*device, rounds int) error {
	var mu sync.Mutex // guards the two lists
	var alone, onNewcomers []float64
	var work errgroup.Group
	work.SetLimit(runtime.GOMAXPROCS(0)) // small products share processors better between people than within one
	for _, d := range devices {
		if d.person.Newcomer {
			continue
		}
		work.Go(func() error {
			own, others, err := l.compareOne(ctx, d, devices, rounds)
			if err != nil {
				return fmt.Errorf("%s alone: %w", d.person.Name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			alone, onNewcomers = append(alone, own), append(onNewcomers, others)
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		return err
	}
	if len(alone) == 0 || len(onNewcomers) == 0 {
		return errors.New("nobody to compare with")
	}
	for _, v := range alone {
		r.Loss.Participants.AloneMean += v / float64(len(alone))
	}
	slices.Sort(onNewcomers)
	r.Loss.Newcomers.AloneBest = onNewcomers[0]
	r.Loss.Newcomers.AloneMedian = onNewcomers[len(onNewcomers)/2]
	return nil
}

// compareOne trains one participant alone and returns its loss on its own held-out text and the newcomers' mean loss.
func (l *learning) compareOne(ctx context.Context, d *device, devices []*device, rounds int) (own, others float64, err error) {
	seed := label.Sum(label.TagTrainSeed, []byte(d.person.Name))
	values, err := node.TrainAlone(ctx, l.language, &l.task, rounds*l.task.Recipe.Steps, seed, journal.Train.Of(d.person.Records))
	if err != nil {
		return 0, 0, err
	}
	if own, err = l.loss(ctx, values, d.person); err != nil {
		return 0, 0, err
	}
	sum, n := 0.0, 0
	for _, x := range devices {
		if !x.person.Newcomer {
			continue
		}
		v, err := l.loss(ctx, values, x.person)
		if err != nil {
			return 0, 0, err
		}
		sum, n = sum+v, n+1
	}
	if n == 0 {
		return 0, 0, errors.New("there are no newcomers")
	}
	return own, sum / float64(n), nil
}

// loss is a person's mean token loss with an adapter: on the held-out part of a participant's text, on all of a newcomer's.
func (l *learning) loss(ctx context.Context, values []float32, who person) (float64, error) {
	heldOut := journal.Test
	if who.Newcomer {
		heldOut = journal.All
	}
	sum, tokens, err := node.Evaluate(ctx, l.language, &l.task, values, heldOut.Of(who.Records))
	if err != nil {
		return 0, err
	}
	if tokens == 0 {
		return 0, fmt.Errorf("%s has no text to measure on", who.Name)
	}
	return sum / float64(tokens), nil
}

// peak is the most memory a device's process held: what it says itself, or what its parent learned at its end.
func (d *device) peak() uint64 {
	p := d.process.PeakRSS()
	if s, err := d.status(); err == nil && s.PeakRSSBytes > 0 {
		p = max(p, uint64(s.PeakRSSBytes))
	}
	return p
}
