package coordinator

import (
	"time"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
)

// standing is how fresh this member's knowledge is: a member without a leader shows what it knew last, and says so. A
// leader steps down within its lease once it hears no majority, and a silent leader is believed for leaderFor, so what
// this says is never more than a few seconds too kind.
func (m *Member) standing() *coordpb.Standing {
	l := m.log.Status()
	now := m.cfg.Now()
	out := &coordpb.Standing{Applied: l.Applied, AgeMs: -1}
	switch {
	case m.log.Leading():
		out.Leader, out.AgeMs = m.ch.Members[m.me].Name, 0
	case !l.Contact.IsZero():
		age := max(0, now.Sub(l.Contact))
		out.AgeMs = age.Milliseconds()
		if l.Leader >= 0 && l.Leader != m.me && age < leaderFor {
			out.Leader = m.ch.Members[l.Leader].Name
		}
	}
	alive := m.peers.Alive()
	if need := m.ch.Needed(); alive.Size() < need {
		all := statement.Mask(1)<<m.ch.N - 1
		out.Waits = append(out.Waits, round.ToWait(round.Wait{What: "members up", Have: alive.Size(), Need: need, Lacks: all &^ alive}))
	}
	return out
}

// roundWaits are what the live rounds wait for, in words, for operators.
func (m *Member) roundWaits() []RoundWait {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []RoundWait
	for _, v := range m.machine.Rounds() {
		if v.Phase == round.Published || v.Death == round.Certified || v.Phase == round.Dead && !v.Newest {
			continue
		}
		for _, w := range m.machine.Waits(v.ID) {
			at := RoundWait{Task: v.Config.Task, Seq: v.Config.Seq, Phase: v.Phase.String(), What: w.What, Have: w.Have, Need: w.Need}
			for _, j := range w.Lacks.Members() {
				at.Lacks = append(at.Lacks, m.ch.Members[j].Name)
			}
			out = append(out, at)
		}
	}
	return out
}

// RoundWait is what a round waits for.
type RoundWait struct {
	Task  string   `json:"task"`
	Seq   uint64   `json:"seq"`
	Phase string   `json:"phase"`
	What  string   `json:"what"`
	Have  int      `json:"have"`
	Need  int      `json:"need"`
	Lacks []string `json:"lacks"` // members whose word is missing
}

// age is in seconds since t, -1 where there was none.
func age(now, t time.Time) float64 {
	if t.IsZero() {
		return -1
	}
	return max(0, now.Sub(t).Seconds())
}
