package coordinator

import (
	"fmt"
	"time"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/intake"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
)

// standing is how fresh this member's knowledge is: a member without a leader shows what it knew last, and says so. A
// leader steps down within its lease once it hears no majority, and a silent leader is believed for leaderFor, so what
// this says is never more than a few seconds too kind.
func (m *Member) standing() *coordpb.Standing {
	l := m.log.Status()
	now := m.cfg.Now()
	out := &coordpb.Standing{Applied: l.Applied, AgeMs: -1, ReadsTo: m.unread(l)}
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

// unread is how far a member that started again has to apply its log before it knows what it knew, 0 once it has. Raft
// applies nothing but a snapshot before a leader says what is committed, so a member without one knows of no round that
// came since. Before a leader was heard any entry of the log may be one that was shown before the restart; afterwards the
// guard tells.
func (m *Member) unread(l LogStatus) uint64 {
	if m.read.Load() {
		return 0
	}
	to := l.Guarded
	if l.Contact.IsZero() && !m.log.Leading() {
		to = max(to, l.Last)
	}
	if l.Applied < to {
		return to
	}
	m.read.Store(!l.Waiting)
	return 0
}

// knows refuses a question about rounds where the answer would only say that this member has not read its log again since
// it started, or has none yet: "no rounds" would not be true.
func (m *Member) knows() error {
	l := m.log.Status()
	if to := m.unread(l); to > 0 {
		return refusalStatus(&intake.Refusal{Code: intake.CodeNotRead, Detail: fmt.Sprintf("this member started again and has applied entry %d of %d: it goes on when it hears a leader; ask another", l.Applied, to)})
	}
	if l.Waiting && !m.read.Load() {
		return refusalStatus(&intake.Refusal{Code: intake.CodeNotRead, Detail: fmt.Sprintf("this member's log is new and it has applied %d entries: the others have to take it in; ask another", l.Applied)})
	}
	return nil
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
