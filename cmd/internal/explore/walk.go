package explore

import (
	"errors"
	"fmt"
	"math/rand/v2"
)

// walk goes through the states at random, step by step: for sizes whose pools are too many. It prunes nothing: each
// step is one that some member or the leader takes, a restored backup among them.
func (w *world) walk(r *Report) error {
	rng := rand.New(rand.NewPCG(w.opts.Seed, 1))
	seen := map[pool]bool{}
	for n := range w.opts.Walks {
		if err := w.stroll(r, rng, seen); err != nil {
			return fmt.Errorf("seed %d, walk %d: %w", w.opts.Seed, n, err)
		}
	}
	r.Pools = len(seen)
	return nil
}

func (w *world) stroll(r *Report, rng *rand.Rand, seen map[pool]bool) error {
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
			to = own[rng.IntN(len(own))]
		case len(led) > 0:
			to = led[rng.IntN(len(led))]
		default:
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
