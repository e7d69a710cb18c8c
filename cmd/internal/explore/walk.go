package explore

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/ruche-federation/ruche/coordinator/round"
)

const (
	driftMax = 8  // a walk looks at so many steps of one kind before it takes one, at most
	backMax  = 32 // of the steps that lead back it takes one of so many
)

// walk goes through the states at random, step by step: for sizes whose pools are too many. It prunes nothing: each
// step is one that some member or the leader takes, a restored backup among them.
func (w *world) walk(r *Report) error {
	rng := rand.New(rand.NewPCG(w.opts.Seed, 1))
	seen := map[pool]bool{}
	for n := range w.opts.Walks {
		if err := w.stroll(r, rng, seen, value((n+1)%int(foreign))); err != nil {
			return fmt.Errorf("seed %d, walk %d: %w", w.opts.Seed, n, err)
		}
	}
	r.Pools = len(seen)
	return nil
}

// stroll is one walk. It leans towards a decision for aim; none: towards no decision more than another.
func (w *world) stroll(r *Report, rng *rand.Rand, seen map[pool]bool, aim value) error {
	var p pool
	at := make([]int, len(w.seats))
	for i, s := range w.seats {
		at[i] = s.start
	}
	for range w.opts.Steps {
		i := rng.IntN(len(w.seats))
		s := w.seats[i]
		own, err := s.does(at[i])
		if err != nil {
			return err
		}
		led := s.sees(at[i], func(k int) bool { return w.allowed(i, p, k) })
		var to step
		switch c := rng.IntN(100); {
		case c < 3 && !s.locals[at[i]].restored:
			l := s.locals[at[i]]
			to.to = s.local(local{said: l.said, restored: true, folder: s.backup()})
		case c < 50 && len(own) > 0:
			to = s.drift(rng, own, aim)
		case len(led) > 0:
			to = s.drift(rng, led, aim)
		default:
			continue
		}
		if s.far(to.to, aim) < s.far(at[i], aim) && rng.IntN(backMax) > 0 {
			continue
		}
		if to.said != 0 && s.locals[at[i]].restored {
			return violation("invariant 9: member %d signs %q after it was restored from a backup", i, to.said)
		}
		at[i] = to.to
		p[i] |= to.said
		r.Walked++
		look := &reach{serves: map[words]value{}, folded: map[words]map[value]bool{}}
		if err := s.note(look, s.locals[at[i]]); err != nil {
			return err
		}
		if !seen[p] {
			seen[p] = true
			r.see(w, p)
		}
		if err := errors.Join(w.check(p), w.checkSums(p, i, look)); err != nil {
			return err
		}
	}
	return nil
}

// drift picks a step, mostly one of those after which the first round is furthest: without a drift a walk loses itself in
// crashes and deadlines long before anybody votes.
func (s *seat) drift(rng *rand.Rand, steps []step, aim value) step {
	best := steps[rng.IntN(len(steps))]
	for range rng.IntN(driftMax) {
		if other := steps[rng.IntN(len(steps))]; s.far(other.to, aim) > s.far(best.to, aim) {
			best = other
		}
	}
	return best
}

// far orders states by how far the first round has come in them, then by what the member has signed. Dead ones come first, and
// whatever else leads away from the aim: every member's word for another value is one that its certificate lacks for good.
func (s *seat) far(l int, aim value) int {
	at := s.locals[l]
	c := &s.classes[at.class].shown
	r := &c.rounds[0]
	far := int(r.phase) * 100
	if aim != dead && (r.phase == round.Dead || r.decision == dead) || aim != none && r.decision != none && r.decision != aim {
		far = 0
	}
	if aim == setA || aim == setB {
		far += r.accepts
		if c.rounds[1].known || r.decision == none && c.timeMs > 0 { // the other config; a deadline that has passed decides for DEAD
			far -= 50
		}
		if at.said&(anyVote&^voteWord[aim]|expired1) != 0 {
			far -= 1000
		}
	}
	at.said.each(func(words) { far++ })
	return far
}
