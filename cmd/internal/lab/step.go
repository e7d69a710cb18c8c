package lab

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ruche-federation/ruche/coordinator/round"
)

// Start lets every member publish its epoch keys, then enrols the devices. No round is proposed before Begin.
func (f *Federation) Start() error {
	published := func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for i := range f.Seats {
			if _, _, ok := f.views[0].observer.KeyPackage(i); !ok {
				return false
			}
		}
		return true
	}
	if err := f.RunUntil("all key packages are in the log", published, 20); err != nil {
		return err
	}
	for _, d := range f.Devices {
		if err := d.enrol(); err != nil {
			return err
		}
	}
	return f.Check()
}

// Begin lets the leader propose rounds, closes and ticks.
func (f *Federation) Begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leading = true
}

// Step gives every running member a turn, in an order that the seed chooses, and moves the clock.
func (f *Federation) Step() error { return f.step(nil) }

// step ends early, between two turns, when cond holds.
func (f *Federation) step(cond func() bool) error {
	f.steps++
	if err := f.elect(); err != nil {
		return err
	}
	f.mu.Lock()
	liar := f.lyingLeader()
	f.mu.Unlock()
	if liar != nil {
		if err := liar.lead(); err != nil {
			return err
		}
	}
	for _, i := range f.rng.Perm(len(f.Seats)) {
		if err := f.turn(f.Seats[i]); err != nil {
			return err
		}
		if cond != nil && cond() {
			return nil
		}
	}
	f.Advance(stepSpan)
	return nil
}

// turn delivers entries to one member, lets it work once, and checks everything.
func (f *Federation) turn(s *Seat) error {
	p := s.process.Load()
	if p == nil {
		return nil
	}
	if !p.dead.Load() {
		f.turns++
		if err := f.deliver(s, s.Pace == 0 && f.rng.IntN(4) > 0); err != nil {
			return err
		}
		p.member.Work(p.ctx)
	}
	if p.dead.Load() {
		s.Crash()
	}
	if f.onTurn != nil {
		f.onTurn()
	}
	return f.Check()
}

// deliver applies entries at a member: all of them, or as many as the seed says.
func (f *Federation) deliver(s *Seat, all bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := s.live()
	if p == nil || s.Held {
		return nil
	}
	to := s.view.last()
	if !all && to > p.applied && s.Index != f.leader {
		to = p.applied + f.rng.Uint64N(to-p.applied+1)
	}
	if !all && s.Pace > 0 && s.Index != f.leader {
		to = min(to, p.applied+s.Pace)
	}
	_, err := p.applyTo(to)
	return err
}

// RunUntil steps until cond holds, looking after every turn.
func (f *Federation) RunUntil(what string, cond func() bool, steps int) error {
	for range steps {
		if cond() {
			return nil
		}
		if err := f.step(cond); err != nil {
			return err
		}
	}
	if cond() {
		return nil
	}
	v, _ := f.Round()
	return fmt.Errorf("after %d steps it is not so that %s: round %d is %s %s (%s), members %v are up, leader %d", steps, what, seqOf(v), v.Phase, v.Death, v.Reason, f.Up(), f.Leader())
}

// Devices' steps: each runs beside the delivery of entries, as in life; members work before and after.

// Contribute lets devices take one step each, one after the other. Errors of devices are returned joined: most tests
// expect none, some expect nothing else.
func (f *Federation) Contribute(devices ...*Device) error {
	var errs []error
	for _, d := range devices {
		if err := f.during(func() error { return d.step() }); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d.Name, err))
		}
	}
	return errors.Join(append(errs, f.Check())...)
}

// during runs functions side by side while entries are delivered to every member that is not held. It begins with
// everybody up to date.
func (f *Federation) during(run ...func() error) error {
	if err := f.settle(); err != nil {
		return err
	}
	errs := make([]error, len(run))
	var wg sync.WaitGroup
	for i := range run {
		wg.Go(func() { errs[i] = run[i]() })
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for {
		select {
		case <-done:
			for _, s := range f.Seats {
				if p := s.process.Load(); p != nil && p.dead.Load() {
					s.Crash()
				}
			}
			return errors.Join(errs...)
		case <-time.After(pumpEvery):
			if err := f.settle(); err != nil {
				f.fail("delivering: %v", err)
			}
		}
	}
}

// settle delivers everything to everybody, and has a leader chosen if there is none.
func (f *Federation) settle() error {
	if err := f.elect(); err != nil {
		return err
	}
	for _, s := range f.Seats {
		if err := f.deliver(s, true); err != nil {
			return fmt.Errorf("member %d: %w", s.Index, err)
		}
	}
	return nil
}

func seqOf(v round.View) uint64 {
	if v.Config == nil {
		return 0
	}
	return v.Config.Seq
}
