package coordinator

import (
	"context"
	"errors"
	"time"

	"github.com/ruche-federation/ruche/coordinator/round"
)

// lead is the leader's part: the tick that carries time into the log, the next RoundConfig of each task, the next Close
// of each round. Each is a pure function of the state, the clock and who is alive; a new leader simply goes on.
func (m *Member) lead(ctx context.Context) bool {
	if !m.log.Leading() {
		m.beyond = time.Time{}
		return false
	}
	now := m.cfg.Now()
	// The log's time never goes back: a future that a wrong clock stamps would stop all rounds until it is there. More
	// than f members that contradict this clock are not all lying.
	if !m.agreed(m.me) {
		return m.yield(ctx, now)
	}
	m.yieldLater = time.Time{}
	did := m.stamp(ctx, now)
	alive := m.peers.Alive()
	for i := range m.ch.Tasks {
		task := m.ch.Tasks[i].ID
		m.mu.Lock()
		rc, reason := m.machine.NextConfig(task, now, alive)
		newest, have := m.machine.Newest(task)
		m.mu.Unlock()
		if rc != nil && rc.Listed().Size() < m.ch.N {
			// Who is not listed can be missed no more: a member that is about to publish its keys is waited for.
			since, waiting := m.short[task]
			if !waiting {
				m.short[task] = now
			}
			if !waiting || now.Sub(since) < shortWait {
				continue
			}
		}
		delete(m.short, task)
		if rc != nil {
			if err := m.propose(ctx, round.ProposeCommand(rc)); err != nil {
				m.cfg.Logger.Warn("the proposal of a round was not applied", "task", task, "error", err)
			}
			did = true
			continue
		}
		if !have {
			m.cfg.Logger.Debug("no round can be proposed", "task", task, "reason", reason)
			continue
		}
		m.mu.Lock()
		c, due := m.machine.NextClose(newest.ID, now, alive)
		m.mu.Unlock()
		if due {
			if err := m.propose(ctx, round.CloseCommand(c)); err != nil {
				m.cfg.Logger.Warn("a close was not applied", "task", task, "error", err)
			}
			did = true
		}
	}
	return did
}

// agreed reports whether no more than f of the members that answer have another clock than one of them.
func (m *Member) agreed(member int) bool {
	return m.peers.Apart(member, m.ch.Timing.Slack.D()+m.ch.Timing.Tick.D()+aliveFor).Size() <= m.ch.F
}

// yield is what a leader does whose clock more than f members contradict: it proposes nothing, and hands leadership to one
// whose clock they do not contradict. It waits before the first try, since a clock that was just set is soon known, and
// between tries.
func (m *Member) yield(ctx context.Context, now time.Time) bool {
	m.alarms.raise(AlarmClock, errClock)
	if m.yieldLater.IsZero() {
		m.yieldLater = now.Add(aliveFor)
	}
	if now.Before(m.yieldLater) {
		return false
	}
	m.yieldLater = now.Add(yieldEvery)
	for _, to := range m.peers.Alive().Members() {
		if to == m.me || !m.agreed(to) {
			continue
		}
		call, cancel := context.WithTimeout(ctx, transferWait)
		err := m.log.HandOver(call, to)
		cancel()
		if err == nil {
			m.cfg.Logger.Warn("leadership is handed over: this clock is wrong", "to", m.ch.Members[to].Name)
			return true
		}
		m.cfg.Logger.Warn("leadership was not handed over", "to", m.ch.Members[to].Name, "error", err)
	}
	return false
}

// stamp proposes a tick when one is due. A clock beyond the horizon stamps nothing: after a standstill members publish keys
// first, within seconds; where that does not help, a clock is wrong.
func (m *Member) stamp(ctx context.Context, now time.Time) bool {
	if now.Sub(m.ticked) < m.ch.Timing.Tick.D() {
		return false
	}
	m.mu.Lock()
	horizon := m.machine.HorizonMs()
	m.mu.Unlock()
	if now.UnixMilli() > horizon {
		if m.beyond.IsZero() {
			m.beyond = now
		}
		if now.Sub(m.beyond) >= beyondFor {
			m.alarms.raise(AlarmClock, errBeyond)
		}
		return false
	}
	m.beyond, m.ticked = time.Time{}, now
	if err := m.propose(ctx, round.TickCommand(now.UnixMilli())); err != nil {
		m.cfg.Logger.Debug("the tick was not applied", "error", err)
	}
	return true
}

var (
	errClock  = errors.New("more than f other members' clocks contradict this one: as the leader it stamps and proposes nothing, and hands leadership over")
	errBeyond = errors.New("this clock is later than the keys of f+1 members reach: it is wrong, or too many members publish no keys; as the leader it stamps nothing")
)
