package round

import (
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// Wait is what keeps a round from going on: how much of it there is, and who could still bring it.
type Wait struct {
	What  string // "signatures", "close", "acks", "votes", "reveals", "results" or "expiries"
	Have  int
	Need  int
	Lacks statement.Mask // members that have not said it; none for a close, which is any leader's
}

// Waits says what a round waits for, by the log alone: nothing while it takes contributions or when it has ended for good.
func (m *Machine) Waits(id label.Hash) []Wait {
	r := m.rounds[id]
	if r == nil {
		return nil
	}
	said := func(has func(j int) bool) (who statement.Mask) {
		for j := range m.ch.N {
			if has(j) {
				who |= 1 << j
			}
		}
		return who
	}
	all := statement.Mask(1)<<m.ch.N - 1
	switch r.phase {
	case Proposed:
		return []Wait{{"signatures", r.signers().Size(), m.ch.Q, r.listed &^ r.signers()}}
	case Open:
		if r.frozen(m.timeMs) {
			return []Wait{{What: "close", Need: 1}}
		}
	case Closed:
		var out []Wait
		for _, c := range r.closes {
			if !c.complete {
				acked := said(func(j int) bool { return c.acks[j] != nil })
				out = append(out, Wait{"acks", acked.Size(), c.close.Active.Size(), c.close.Active &^ acked})
			}
		}
		if out == nil { // each was complete and none legal: the next leaves somebody out
			out = append(out, Wait{What: "close", Need: 1})
		}
		return out
	case Acked:
		voted := said(func(j int) bool { return r.votes[j] != nil })
		return []Wait{{"votes", r.votesFor(r.decision).Size(), m.ch.Q, r.listed &^ voted}}
	case Sealed:
		// Any 2f+1 members hold every subset f+1 times, or as often as it has holders.
		revealed := said(func(j int) bool { return r.reveals[j] != nil })
		return []Wait{{"reveals", revealed.Size(), m.ch.ActiveMin(), r.listed &^ revealed}}
	case Revealed:
		best := 0
		signed := said(func(j int) bool { return r.results[j] != nil })
		for _, j := range signed.Members() {
			best = max(best, r.resultSigners(r.results[j]).Size())
		}
		return []Wait{{"results", best, m.ch.Believe(), all &^ signed}}
	case Dead:
		// An expired round can still be certified dead, as long as nobody revealed.
		expired := said(func(j int) bool { return r.expired[j] != nil })
		revealed := said(func(j int) bool { return r.reveals[j] != nil })
		if r.death == Expired && revealed == 0 {
			return []Wait{{"expiries", expired.Size(), r.listed.Size(), r.listed &^ expired}}
		}
	}
	return nil
}
