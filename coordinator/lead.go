package coordinator

import (
	"context"
	"errors"

	"github.com/ruche-federation/ruche/coordinator/round"
)

// lead is the leader's part: the tick that carries time into the log, the next RoundConfig of each task, the next Close
// of each round. Each is a pure function of the state, the clock and who is alive; a new leader simply goes on.
func (m *Member) lead(ctx context.Context) bool {
	if !m.log.Leading() {
		return false
	}
	now := m.cfg.Now()
	did := false
	tick := m.ch.Timing.Tick.D()
	// The log's time never goes back: a future that a wrong clock stamps would stop all rounds until it is there. More
	// than f members that contradict this clock are not all lying.
	wrong := m.peers.Apart(m.ch.Timing.Slack.D()+tick+aliveFor).Size() > m.ch.F
	if now.Sub(m.ticked) >= tick {
		m.ticked = now
		if wrong {
			m.alarms.raise(AlarmClock, errClock)
		} else if err := m.propose(ctx, round.TickCommand(now.UnixMilli())); err != nil {
			m.cfg.Logger.Debug("the tick was not applied", "error", err)
		}
		did = true
	}
	if wrong {
		return did
	}
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

var errClock = errors.New("more than f other members' clocks contradict this one: as the leader it stamps and proposes nothing")
