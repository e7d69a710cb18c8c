package coordinator

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/crypto/label"
)

// repairer pulls what the log accepted and this member lacks, before a Close asks for it (coordinator design, 4.3 and
// 4.4): it was away, or its disk is new, or a copy to it was given up. The list is the applied log; nobody is asked what
// there is. Its fields are its loop's own.
type repairer struct {
	m     *Member
	held  map[label.Hash]map[label.Hash]bool // by round: contributions that were seen here, whole
	drops uint64                             // dropped here until held was begun: rot is found after it was seen whole
	since map[label.Hash]time.Time           // when a contribution was first seen to be lacking
	later map[label.Hash]time.Time           // not to be tried before
	free  time.Time                          // when the bytes pulled so far are paid for
}

// need is a contribution that this member lacks.
type need struct {
	v      round.View
	k      round.Candidate
	copies int // known ones: the holders that its Accept names, this member aside
}

// lack is what the last look found, for operators.
type lack struct {
	mu             sync.Mutex // guards what follows
	lacking, under int
}

func (l *lack) set(lacking, under int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lacking, l.under = lacking, under
}

func (l *lack) get() (lacking, under uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint32(l.lacking), uint32(l.under)
}

func newRepairer(m *Member) *repairer {
	return &repairer{m: m, held: map[label.Hash]map[label.Hash]bool{}, since: map[label.Hash]time.Time{}, later: map[label.Hash]time.Time{}}
}

// run repairs until the context ends, a few contributions at a time and no faster than the bound.
func (r *repairer) run(ctx context.Context) {
	tick := time.NewTicker(repairEvery)
	defer tick.Stop()
	for {
		for {
			did, wait := r.pass(ctx)
			if !did || !pause(ctx, wait) {
				break
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func pause(ctx context.Context, wait time.Duration) bool {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// pass looks, and pulls the first few of what is due. It reports whether it got any, and how long what it got has to be
// paid for.
func (r *repairer) pass(ctx context.Context) (did bool, wait time.Duration) {
	now := r.m.cfg.Now()
	due := r.look(now)
	due = due[:min(len(due), repairPulls)]
	got := make([]bool, len(due))
	var wg sync.WaitGroup
	for i, n := range due {
		wg.Go(func() {
			_, err := r.m.obtain(ctx, n.v, n.k)
			if got[i] = err == nil; err != nil && ctx.Err() == nil {
				r.m.cfg.Logger.Info("a contribution that is lacking here was not to be had; it is tried again", "round", n.v.ID.String(), "error", err)
			}
		})
	}
	wg.Wait()
	for i, n := range due {
		if !got[i] {
			r.later[n.k.Header] = now.Add(repairRetry)
			continue
		}
		did = true
		r.free = later(r.free, now).Add(time.Duration(float64(n.k.Size) / repairRate * float64(time.Second)))
	}
	return did, r.free.Sub(r.m.cfg.Now())
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// look lists what is lacking and due now, the most endangered first, and counts for the status. While the log is far behind
// the clock nothing is due: what it shows as open may long have ended.
func (r *repairer) look(now time.Time) []need {
	m := r.m
	type live struct {
		v          round.View
		candidates []round.Candidate
	}
	var rounds []live
	m.mu.Lock()
	behind := now.UnixMilli()-m.machine.TimeMs() > m.ch.Timing.Slack.Milliseconds()
	for _, v := range m.machine.Rounds() {
		switch {
		case v.Phase < round.Open || v.Phase > round.Sealed || v.Decided && m.machine.Set(v.ID) == nil:
		case v.Decided:
			rounds = append(rounds, live{v, m.machine.Set(v.ID)})
		default:
			rounds = append(rounds, live{v, m.machine.Candidates(v.ID)})
		}
	}
	m.mu.Unlock()
	if drops := m.shelf.Drops(); drops != r.drops {
		r.drops, r.held = drops, nil
	}
	var due []need
	lacking, under := 0, 0
	held, since, later := map[label.Hash]map[label.Hash]bool{}, map[label.Hash]time.Time{}, map[label.Hash]time.Time{}
	for _, l := range rounds {
		here := r.held[l.v.ID]
		if here == nil {
			here = map[label.Hash]bool{}
		}
		held[l.v.ID] = here
		for _, k := range l.candidates {
			copies := (k.Holders &^ (1 << m.me)).Size()
			if here[k.Header] || m.shelf.Has(l.v.ID, k.Header) {
				here[k.Header] = true
				if copies+1 < m.ch.AckReceipts() {
					under++
				}
				continue
			}
			lacking++
			if copies < m.ch.AckReceipts() {
				under++
			}
			first, ok := r.since[k.Header]
			if !ok {
				first = now
			}
			since[k.Header] = first
			if at := r.later[k.Header]; now.Before(at) {
				later[k.Header] = at
			} else if now.Sub(first) >= repairAfter {
				due = append(due, need{l.v, k, copies})
			}
		}
	}
	r.held, r.since, r.later = held, since, later
	m.lack.set(lacking, under)
	if behind {
		return nil
	}
	slices.SortStableFunc(due, endangered)
	return due
}

// endangered orders what is lacking: the fewest known copies first, then the oldest round, then the log's order.
func endangered(a, b need) int {
	return cmp.Or(cmp.Compare(a.copies, b.copies), cmp.Compare(a.v.Index, b.v.Index), cmp.Compare(a.k.Index, b.k.Index))
}
