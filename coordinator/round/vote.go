package round

import (
	"fmt"

	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// apply counts a vote, one per member. q equal votes for this log's decision are the certificate (SA 2.3, Vote).
func (c voteCommand) apply(m *Machine, _ uint64) []Outcome {
	return []Outcome{m.addVote(c.said, c.vote)}
}

func (m *Machine) addVote(s said, v *statement.Vote) Outcome {
	r := m.rounds[s.round]
	switch {
	case r == nil:
		return refuse(UnknownRound, s.round.String())
	case !r.listed.Has(s.member):
		return refuse(NotListed, fmt.Sprintf("member %d", s.member))
	case r.votes[s.member] != nil:
		return repeated(r, label.StmtVote, s, r.votes[s.member].signed)
	case r.phase == Published || r.death == Certified:
		return refuse(TooLate, fmt.Sprintf("the round is %s", r.phase))
	}
	if err := r.verify(label.StmtVote, s); err != nil {
		return refuse(BadSignature, err.Error())
	}
	r.votes[s.member] = &vote{signed: s.signed, value: v.Value}
	m.tally(r)
	return Outcome{Code: OK}
}

// tally looks for q equal votes.
func (m *Machine) tally(r *round) {
	for _, v := range r.votes {
		if v == nil || r.votesFor(v.value).Size() < m.ch.Q {
			continue
		}
		switch {
		case v.value == statement.Dead():
			m.certifyDeath(r)
		case !r.decided || v.value != r.decision:
			r.foreign = true // another log than ours decided: an alarm, and nothing this machine could act on
		case r.phase == Acked:
			r.enter(Sealed, m.timeMs)
		}
		return
	}
}

// apply counts a member's word that it never revealed. That of every listed member is a death certificate too.
func (c expiredCommand) apply(m *Machine, _ uint64) []Outcome {
	return []Outcome{m.addExpired(c.said)}
}

func (m *Machine) addExpired(s said) Outcome {
	r := m.rounds[s.round]
	switch {
	case r == nil:
		return refuse(UnknownRound, s.round.String())
	case !r.listed.Has(s.member):
		return refuse(NotListed, fmt.Sprintf("member %d", s.member))
	case r.expired[s.member] != nil:
		return Outcome{Code: Duplicate}
	case r.death == Certified || r.phase == Published:
		return refuse(TooLate, fmt.Sprintf("the round is %s", r.phase))
	case r.death != Expired:
		return refuse(TooEarly, fmt.Sprintf("the reveal deadline is %d, the log time %d", r.rc.RevealMs, m.timeMs))
	case r.reveals[s.member] != nil:
		return refuse(Conflict, fmt.Sprintf("member %d revealed", s.member))
	}
	if err := r.verify(label.StmtExpired, s); err != nil {
		return refuse(BadSignature, err.Error())
	}
	signed := s.signed
	r.expired[s.member] = &signed
	if r.allExpired() {
		m.certifyDeath(r)
	}
	return Outcome{Code: OK}
}

func (r *round) allExpired() bool {
	for _, j := range r.listed.Members() {
		if r.expired[j] == nil {
			return false
		}
	}
	return true
}

// expire ends a round whose reveal deadline passed: what its devices uploaded may have been opened by liars, so they
// do not upload again from its start.
func (m *Machine) expire(l *line, r *round) {
	r.death = Expired
	r.enter(Dead, m.timeMs)
	for i := range r.accepts {
		l.used[r.accepts[i].Device] = r.id
	}
}

// certifyDeath ends a round of which nothing was or will be opened: its devices get their participation back (SA 2.4,
// Retry).
func (m *Machine) certifyDeath(r *round) {
	if r.death == Certified || r.phase == Published {
		return
	}
	if !r.decided {
		r.decided, r.decision, r.reason = true, statement.Dead(), "voted dead before this log decided"
	}
	l := m.line(r.rc.Task)
	back := func(id label.Hash) {
		if d := m.devices[id]; d != nil && d.used > 0 {
			d.used--
		}
	}
	for i := range r.accepts {
		back(r.accepts[i].Device)
	}
	for id, in := range l.used {
		if in == r.id {
			if r.slim {
				back(id)
			}
			delete(l.used, id)
		}
	}
	r.death = Certified
	r.enter(Dead, m.timeMs)
}
