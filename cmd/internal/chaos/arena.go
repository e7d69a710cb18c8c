package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/cmd/internal/consortium"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/crypto/label"
)

// arena is a consortium with devices that contribute without end, and what was seen of it.
type arena struct {
	c       *consortium.Consortium
	dir     string
	devices []*device
	rec     *recorder
	proofs  proofs
	say     func(format string, args ...any)

	enough  chan struct{} // devices begin nothing new once it is closed
	looping *errgroup.Group
	stop    context.CancelFunc
	seeing  sync.WaitGroup
}

// setting is what an arena is made of.
type setting struct {
	programs consortium.Programs
	dir      string
	members  int
	faults   int
	devices  int
	values   int
	seed     uint64
	folders  []string
	places   []consortium.Place
	watch    func([]*consortium.Process) // told of the members before they start; may be nil
	within   []string                    // a command that runs every member, if no places are given
	say      func(format string, args ...any)
}

// newTask is a task whose rounds follow each other quickly. A round closes with one device short of all, so that one that
// is dead holds up nobody.
func newTask(devices, values int) (charter.Task, error) {
	t := charter.NewTask("steps", charter.KindVector)
	var err error
	t.Layout, err = layout.Vector("steps", values, layout.StandardTail()[:1])
	t.InitSeed = label.Sum(label.TagTask, []byte(t.ID))
	t.Encoding = charter.Encoding{CReal: 1, C: 2253}
	t.Window = "1s"
	t.Cohort = charter.Cohort{NMin: charter.DemoCohortFloor, NMax: uint32(max(charter.DemoCohortFloor, devices-1))}
	t.Timings = charter.Timings{Every: charter.Duration(500 * time.Millisecond), CloseAfter: charter.Duration(6 * time.Second),
		AckTimeout: charter.Duration(2 * time.Second), AckAfter: charter.Duration(30 * time.Second), RevealAfter: charter.Duration(10 * time.Minute)}
	return t, err
}

// open founds the consortium, starts it, enrols the devices and lets them contribute.
func open(ctx context.Context, s setting) (_ *arena, err error) {
	task, err := newTask(s.devices, s.values)
	if err != nil {
		return nil, err
	}
	a := &arena{dir: s.dir, say: s.say, enough: make(chan struct{})}
	a.c, err = consortium.Found(ctx, consortium.Founding{Programs: s.programs, Dir: s.dir, Name: "chaos", Members: s.members, Faults: s.faults,
		Tasks: []charter.Task{task}, Folders: s.folders, Places: s.places, Within: s.within, Say: func(text string) { s.say("%s", text) }})
	if err != nil {
		return nil, err
	}
	a.rec = newRecorder(a.c)
	if s.watch != nil {
		s.watch(a.c.Members)
	}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if err := a.c.Start(ctx); err != nil {
		return nil, err
	}
	a.say("enrolling %d devices", s.devices)
	a.devices = make([]*device, s.devices)
	enrolling, ectx := errgroup.WithContext(ctx)
	enrolling.SetLimit(4)
	for i := range a.devices {
		enrolling.Go(func() (err error) {
			a.devices[i], err = newDevice(ectx, a.c, s.dir, i, &task, s.seed)
			return err
		})
	}
	if err := enrolling.Wait(); err != nil {
		return nil, err
	}
	seen, stop := context.WithCancel(ctx)
	a.stop = stop
	a.seeing.Go(func() { a.rec.run(seen) })
	a.looping, _ = errgroup.WithContext(ctx)
	for _, d := range a.devices {
		a.looping.Go(func() error { return d.loop(ctx, a.enough) })
	}
	return a, nil
}

// settle lets the devices come to an end and everything that they were told with them.
func (a *arena) settle(ctx context.Context) error {
	close(a.enough)
	ended := make(chan error, 1)
	go func() { ended <- a.looping.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			return err
		}
	case <-time.After(settleWait):
		// The last round may lack contributors and go on without end: what was acknowledged in it must be held.
		for _, d := range a.devices {
			d.process.Kill()
		}
		if err := <-ended; err != nil {
			return err
		}
	}
	return a.c.AwaitLeader(ctx, returnWait)
}

// gather is the evidence at this time.
func (a *arena) gather(ctx context.Context) (*Evidence, error) {
	e := &Evidence{Charter: a.c.Charter, Proofs: &a.proofs}
	dirs := map[label.Hash]string{}
	for _, d := range a.devices {
		w, err := d.witness()
		if err != nil {
			return nil, err
		}
		e.Devices = append(e.Devices, w)
		dirs[d.id] = d.dir
	}
	// After the ledgers: whatever they speak of, members have heard of by now, or read it in their logs when they have a
	// leader again.
	for deadline := time.Now().Add(returnWait); ; {
		heard := 0
		for i, m := range a.c.Members {
			if !m.Running() {
				continue
			}
			if err := a.rec.ask(ctx, i, true); err == nil {
				heard++
			}
		}
		if e.Rounds = a.rec.said(); heard > 0 && e.complete() {
			break
		}
		if time.Now().After(deadline) {
			if heard == 0 {
				return nil, errors.New("no member answers")
			}
			break
		}
		if err := pause(ctx, recordEvery); err != nil {
			return nil, err
		}
	}
	// Devices went on meanwhile. What they have sent since stands in their ledgers before it stands in a round; what they
	// were told since, members may not have told us of.
	for i, d := range a.devices {
		w, err := d.witness()
		if err != nil {
			return nil, err
		}
		e.Devices[i].sentSince(w.Ledger)
	}
	e.Encoded = func(device, round label.Hash, lanes int) ([]uint32, error) {
		dir, ok := dirs[device]
		if !ok {
			return nil, errors.New("none of this run's devices")
		}
		return consortium.Encoded(dir, round, lanes)
	}
	return e, nil
}

// held asks the signers of receipts whether they hold what they signed for, as far as they are up. A round that has ended
// meanwhile may have dropped it.
func (a *arena) held(ctx context.Context, promises []Promise) (asked int, violations []string) {
	for _, p := range promises {
		for _, member := range p.Signers {
			if !a.c.Members[member].Running() {
				continue
			}
			call, cancel := context.WithTimeout(ctx, holdWait)
			q, err := a.c.Clients[member].QueryUpload(call, &coordpb.QueryUploadRequest{RoundId: p.Round[:], HeaderHash: p.Header[:]})
			cancel()
			if err != nil {
				continue // it is being started
			}
			asked++
			if q.GetComplete() {
				continue
			}
			call, cancel = context.WithTimeout(ctx, holdWait)
			r, err := a.c.Clients[member].GetRound(call, &coordpb.GetRoundRequest{RoundId: p.Round[:]})
			cancel()
			if err == nil && !terminal(r) {
				violations = append(violations, fmt.Sprintf("member %d signed a receipt for the contribution of %s to round %d and does not hold it", member, p.Device, r.GetSeq()))
			}
		}
	}
	return asked, violations
}

// faulty lists the devices' processes that ended by themselves for no good reason.
func (a *arena) faulty() (bad []string, ends map[string]int) {
	ends = map[string]int{}
	for _, d := range a.devices {
		d.mu.Lock()
		bad = append(bad, d.bad...)
		for word, n := range d.ends {
			ends[word] += n
		}
		d.mu.Unlock()
	}
	return bad, ends
}

// close ends whatever runs.
func (a *arena) close() {
	if a.stop != nil {
		a.stop()
	}
	a.seeing.Wait()
	for _, d := range a.devices {
		if d != nil {
			d.process.Kill()
		}
	}
	for _, m := range a.c.Members {
		m.Kill()
	}
	a.c.Close()
}

// workplace makes a folder for a run, and a function that removes it unless it is to be kept.
func workplace(keep string) (string, func(ok bool), error) {
	if keep != "" {
		dir, err := filepath.Abs(keep)
		if err != nil {
			return "", nil, err
		}
		return dir, func(bool) {}, os.MkdirAll(dir, 0o700)
	}
	dir, err := os.MkdirTemp("", "ruche-chaos-")
	return dir, func(ok bool) {
		if ok {
			os.RemoveAll(dir)
		} else {
			fmt.Fprintln(os.Stderr, "logs and folders are kept in "+dir)
		}
	}, err
}
