package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/cmd/internal/consortium"
	"github.com/ruche-federation/ruche/coordinator"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/node"
	"github.com/ruche-federation/ruche/node/llm/safetensors"
	"github.com/ruche-federation/ruche/testdata/models/tiny"
)

// probes are devices that each contribute once, to a round that stays open: what they wait for is the consortium and
// nothing else. They run in this process; the members are processes of their own.
type probes struct {
	c      *consortium.Consortium
	dir    string
	vector string
	base   string // the model that the first device was given
	made   int
	idle   []string // folders of enrolled devices that have not contributed
}

const (
	probeEvery = 100 * time.Millisecond // after a kill a device begins an upload this often, until one is acknowledged
	probesIdle = 48                     // enrolled before each kill
	probeWait  = 5 * time.Minute        // for the slowest of them
)

// openRound is a task with one round that stays open: so many uploads and so long do not close it.
func openRound(values int) (charter.Task, error) {
	t, err := newTask(charter.DemoCohortFloor, values)
	if err != nil {
		return t, err
	}
	t.Window = "24h"
	t.Cohort.NMax = 10_000
	t.Timings.CloseAfter = charter.Duration(4 * time.Hour)
	return t, nil
}

// runFailover is the verb: the leader is killed, or told to stop, again and again, and each time the question is how long
// it takes until a device that comes just then has its contribution acknowledged.
func runFailover(ctx context.Context, o options, say func(string, ...any)) (_ *Result, err error) {
	r := newResult(ctx, "failover", "The leader of 4 members dies while a round is open, and devices go on contributing: how long until the next of them has its ack", o.command, 0)
	began := time.Now()
	dir, tidy, err := workplace(o.keep)
	if err != nil {
		return nil, err
	}
	defer func() { tidy(err == nil && len(r.Violations) == 0) }()
	task, err := openRound(o.values)
	if err != nil {
		return nil, err
	}
	c, err := consortium.Found(ctx, consortium.Founding{Programs: o.programs, Dir: dir, Name: "chaos", Members: membersOfRun, Faults: faultsOfRun,
		Tasks: []charter.Task{task}, Say: func(text string) { say("%s", text) }})
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, m := range c.Members {
			m.Kill()
		}
		c.Close()
	}()
	if err := c.Start(ctx); err != nil {
		return nil, err
	}
	p, err := newProbes(c, dir, &task)
	if err != nil {
		return nil, err
	}
	var next, worst, stopped, calm []time.Duration
	for i := range 2 * o.kills {
		if err := p.ready(ctx); err != nil {
			return nil, err
		}
		// What an upload takes when nothing is wrong, beside what it takes now.
		quiet, _, err := p.uploads(ctx, 1)
		if err != nil {
			return nil, err
		}
		calm = append(calm, quiet)
		leader, err := p.leader(ctx)
		if err != nil {
			return nil, err
		}
		planned := i%2 == 1
		ended := make(chan error, 1)
		if planned {
			go func() { ended <- c.Members[leader].Stop(stopWait) }()
		} else {
			c.Members[leader].Kill()
		}
		first, slowest, err := p.uploads(ctx, probesIdle-1)
		if err != nil {
			return nil, err
		}
		if planned {
			stopped = append(stopped, first)
			if err := <-ended; err != nil { // it had to be killed, or said that something went wrong
				r.Violations = append(r.Violations, err.Error())
			}
		} else {
			next, worst = append(next, first), append(worst, slowest)
			say("kill %d of %d: the next upload had its ack after %.3f s", i/2+1, o.kills, first.Seconds())
		}
		if err := c.Members[leader].Start(); err != nil {
			return nil, err
		}
	}
	acks, err := p.acknowledged(ctx)
	if err != nil {
		return nil, err
	}
	r.count("SIGKILLs of the leader", len(next))
	r.count("planned stops of the leader", len(stopped))
	r.count("devices that contributed, each acknowledged", acks)
	r.timed("from SIGKILL of the leader to the next ack", fmt.Sprintf("an upload begins every %s", probeEvery), next)
	r.timed("the longest that a device waited which came then", "1 ms", worst)
	r.timed("from SIGTERM of the leader to the next ack", fmt.Sprintf("an upload begins every %s", probeEvery), stopped)
	r.timed("an upload when nothing is wrong, check-in included", "1 ms", calm)
	r.Seconds = time.Since(began).Round(time.Second).Seconds()
	return r, nil
}

func newProbes(c *consortium.Consortium, dir string, task *charter.Task) (*probes, error) {
	p := &probes{c: c, dir: filepath.Join(dir, "devices"), vector: filepath.Join(dir, "vector.safetensors")}
	t := task.Layout.Trained[0]
	return p, safetensors.WriteFile(p.vector, []safetensors.Values{{Name: t.Name, Shape: t.Shape, Data: make([]float32, task.Layout.D())}},
		map[string]string{layout.MetricExamples: "1"})
}

// ready enrols devices and waits until every member is up and has applied what the others have.
func (p *probes) ready(ctx context.Context) error {
	if err := p.c.AwaitLeader(ctx, returnWait); err != nil {
		return err
	}
	deadline := time.Now().Add(returnWait)
	for behind := true; behind; {
		var least, most uint64
		for i, client := range p.c.Clients {
			applied := uint64(0)
			call, cancel := context.WithTimeout(ctx, askWait)
			if list, err := client.ListMembers(call, &coordpb.ListMembersRequest{}); err == nil {
				for _, m := range list.GetMembers() {
					if m.GetSelf() {
						applied = m.GetApplied()
					}
				}
			}
			cancel()
			if i == 0 || applied < least {
				least = applied
			}
			most = max(most, applied)
		}
		// A tick or two may lie between two answers.
		if behind = least == 0 || most-least > 10; behind {
			if time.Now().After(deadline) {
				return fmt.Errorf("a member is behind after %s: applied %d to %d", returnWait, least, most)
			}
			if err := pause(ctx, probeEvery); err != nil {
				return err
			}
		}
	}
	var mu sync.Mutex
	enrolling, ctx := errgroup.WithContext(ctx)
	enrolling.SetLimit(4)
	if p.base == "" {
		if err := p.enrol(ctx, &mu); err != nil {
			return err
		}
	}
	for range probesIdle - len(p.idle) {
		enrolling.Go(func() error { return p.enrol(ctx, &mu) })
	}
	return enrolling.Wait()
}

// leader is who leads; between two leaders it waits for the next.
func (p *probes) leader(ctx context.Context) (int, error) {
	for deadline := time.Now().Add(returnWait); ; {
		i, err := p.c.Leader(ctx)
		if err == nil || time.Now().After(deadline) {
			return i, err
		}
		if err := pause(ctx, probeEvery); err != nil {
			return 0, err
		}
	}
}

// enrol makes one more device.
func (p *probes) enrol(ctx context.Context, mu *sync.Mutex) error {
	mu.Lock()
	i, o := p.made, node.InitOptions{BasePath: p.base}
	p.made++
	mu.Unlock()
	dir := filepath.Join(p.dir, fmt.Sprint(i))
	if o.BasePath == "" {
		o.Embedded = tiny.Files
	}
	home, err := node.Init(dir, o, rand.Reader)
	if err != nil {
		return err
	}
	authority := i % len(p.c.Dirs)
	token, err := coordinator.NewToken(p.c.Dirs[authority], rand.Reader)
	if err != nil {
		return err
	}
	if _, err := node.Join(ctx, dir, p.c.CharterPath, p.c.Charter.Members[authority].DeviceURL, token, time.Now); err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	p.base = home.BasePath()
	p.idle = append(p.idle, dir)
	return nil
}

// uploads begins an upload every now and then, at most n, until one of them is acknowledged, and waits for those that it
// has begun. It gives the time from now to the first ack, and the longest that any of them waited for its own.
func (p *probes) uploads(ctx context.Context, n int) (first, slowest time.Duration, err error) {
	began := time.Now()
	var mu sync.Mutex
	done := make(chan struct{})
	var all errgroup.Group
	for i := range n {
		if i > 0 {
			select {
			case <-done:
			case <-time.After(probeEvery):
			}
			if mu.Lock(); first > 0 {
				mu.Unlock()
				break
			}
			mu.Unlock()
		}
		dir := p.idle[0]
		p.idle = p.idle[1:]
		all.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, probeWait)
			defer cancel()
			at := time.Now()
			_, err := node.Contribute(ctx, dir, node.ContributeOptions{Vector: p.vector,
				RunOptions: node.RunOptions{Now: time.Now, Rand: rand.Reader, Logger: slog.New(slog.DiscardHandler)}})
			if err != nil {
				return fmt.Errorf("device %s: %w", filepath.Base(dir), err)
			}
			mu.Lock()
			defer mu.Unlock()
			if first == 0 {
				first = time.Since(began)
				close(done)
			}
			slowest = max(slowest, time.Since(at))
			return nil
		})
	}
	err = all.Wait()
	if err == nil && first == 0 {
		err = errors.New("no upload was acknowledged")
	}
	return first, slowest, err
}

// acknowledged counts what the round holds, which must be all that was acknowledged.
func (p *probes) acknowledged(ctx context.Context) (int, error) {
	contributed := p.made - len(p.idle)
	for deadline := time.Now().Add(returnWait); ; {
		rounds, err := p.c.Rounds(ctx)
		switch {
		case err == nil && len(rounds) == 1 && int(rounds[0].GetAccepted()) == contributed:
			return contributed, nil
		case time.Now().After(deadline):
			return 0, errors.Join(fmt.Errorf("%d devices have an ack, the members hold %v", contributed, rounds), err)
		}
		if err := pause(ctx, probeEvery); err != nil { // who holds all of them may not have answered in time
			return 0, err
		}
	}
}
