package round

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// NextConfig is the round that a leader proposes for a task now, or why there is none. It lists the members of alive
// whose newest key package is in the first half of its life. A leader adds nothing to it and chooses nothing in it.
func (m *Machine) NextConfig(task string, now time.Time, alive statement.Mask) (*statement.RoundConfig, string) {
	l := m.line(task)
	if l == nil {
		return nil, "the task is not in the charter"
	}
	if l.newest != nil {
		if !l.newest.phase.Terminal() {
			return nil, fmt.Sprintf("round %d is %s", l.newest.rc.Seq, l.newest.phase)
		}
		if next := l.newest.rc.ProposedMs + l.everyMs(); now.UnixMilli() < next {
			return nil, fmt.Sprintf("the next round is due in %s", time.Duration(next-now.UnixMilli())*time.Millisecond)
		}
	}
	ms := now.UnixMilli()
	if behind := m.timeMs - ms; behind > m.ch.Timing.Slack.Milliseconds() {
		return nil, fmt.Sprintf("this clock is %d ms behind the log's", behind)
	}
	var packages []statement.Signed
	for j, k := range m.packages {
		if k != nil && alive.Has(j) && k.parsed.NotBeforeMs <= ms && ms <= k.parsed.HalfMs() {
			packages = append(packages, k.signed)
		}
	}
	if len(packages) < m.ch.Needed() {
		return nil, fmt.Sprintf("%d members are up with fresh epoch keys, needed are %d", len(packages), m.ch.Needed())
	}
	part := l.task.Layout.Factor
	if l.task.Kind == charter.KindVector {
		part = l.task.WindowPart(now)
	}
	start := l.nextStart(part)
	if err := l.checkStart(start); err != nil {
		return nil, err.Error()
	}
	rc, err := statement.NewRoundConfig(m.ch, task, l.seq+1, start, ms, packages)
	if err != nil {
		return nil, err.Error()
	}
	if rc.CloseMs <= m.timeMs {
		return nil, "the log time is past the close deadline that the round would have"
	}
	return rc, ""
}

// NextClose is the Close that a leader proposes for a round now, if one is due: the first when the candidates are
// frozen, a further one when the last is complete without a legal set or its members were silent for ack_timeout.
// Of the sets M within alive that were not tried, it prefers those without silent members, then without members that
// refused more than 20 % of the candidates, then the largest. The order decides nothing but how soon a round is legal.
func (m *Machine) NextClose(id label.Hash, now time.Time, alive statement.Mask) (*statement.Close, bool) {
	r := m.rounds[id]
	if r == nil || r.decided || (r.phase != Open && r.phase != Closed) || !r.frozen(m.timeMs) {
		return nil, false
	}
	timeout := m.line(r.rc.Task).task.Timings.AckTimeout.Milliseconds()
	var silent, suspect statement.Mask
	tried := map[statement.Mask]bool{}
	for _, c := range r.closes {
		tried[c.close.Active] = true
		if c.complete {
			suspect |= c.refusing()
			continue
		}
		if now.UnixMilli()-c.atMs < timeout {
			return nil, false
		}
		for _, j := range c.close.Active.Members() {
			if c.acks[j] == nil {
				silent |= 1 << j
			}
		}
	}
	var options []statement.Mask
	within := r.listed & alive
	for active := statement.Mask(1); active < 1<<m.ch.N; active++ {
		if active&^within == 0 && active.Size() >= m.ch.ActiveMin() && !tried[active] {
			options = append(options, active)
		}
	}
	if len(options) == 0 {
		return nil, false
	}
	best := slices.MinFunc(options, func(a, b statement.Mask) int {
		return cmp.Or(cmp.Compare((a&silent).Size(), (b&silent).Size()), cmp.Compare((a&suspect).Size(), (b&suspect).Size()),
			cmp.Compare(b.Size(), a.Size()), cmp.Compare(a, b))
	})
	return &statement.Close{Round: id, Active: best, Candidates: r.candidates()}, true
}

// refusing lists the members that refused more than 20 % of the candidates.
func (c *closing) refusing() (m statement.Mask) {
	for j, a := range c.acks {
		if a == nil {
			continue
		}
		refused := 0
		for _, v := range a.verdicts {
			if v != statement.OK {
				refused++
			}
		}
		if refused*5 > len(a.verdicts) {
			m |= 1 << j
		}
	}
	return m
}
