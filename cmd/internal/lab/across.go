package lab

import (
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// What has to hold over everything that honest members ever said, whatever logs they were shown. A liar is counted as
// having said everything that its keys could sign: whether it did makes no difference to what it can show. Callers hold mu.

// certifiable reports whether q votes for a value could be shown.
func (f *Federation) certifiable(said *spoken, value label.Hash) bool {
	votes := f.liars()
	for member, v := range said.votes {
		if v == value {
			votes |= 1 << member
		}
	}
	return votes.Size() >= f.Charter.Q
}

// judgeVotes: no two values of one round could have q votes each (2).
func (f *Federation) judgeVotes(id label.Hash, said *spoken) {
	values := map[label.Hash]bool{}
	for _, v := range said.votes {
		if f.certifiable(said, v) {
			values[v] = true
		}
	}
	if len(values) > 1 {
		f.fail("invariant 2: round %s has two certificates", id)
	}
	if values[statement.Dead()] && said.served != 0 {
		f.fail("invariant 3: round %s can be certified dead, and vectors of it have left members %v", id, said.served)
	}
}

// judgeReveals: honest members open one set of a round, and find the same sums over it (4, 10).
func (f *Federation) judgeReveals(before *spoken, s *said) {
	if !f.certifiable(before, s.reveal.Set) {
		f.fail("invariant 3: member %d reveals set %s, which has no certificate in any log", s.member, s.reveal.Set)
	}
	for j, v := range before.reveals {
		if v.Set != s.reveal.Set {
			f.fail("invariant 4: members %d and %d open two sets of round %s", j, s.member, s.round)
		}
		if v.SumY != s.reveal.SumY {
			f.fail("invariant 4: members %d and %d find two sums of what was uploaded to round %s", j, s.member, s.round)
		}
		for _, a := range v.TSums {
			for _, b := range s.reveal.TSums {
				if a.Subset == b.Subset && a.Hash != b.Hash {
					f.fail("invariant 4: members %d and %d find two sums of the masks of %v in round %s", j, s.member, a.Subset, s.round)
				}
			}
		}
	}
}

// judgeServing: a vector leaves under a certificate that nothing can contradict (3).
func (f *Federation) judgeServing(p *process, id label.Hash) {
	said := f.of(id)
	said.served |= 1 << p.seat.Index
	own, revealed := said.reveals[p.seat.Index]
	if !revealed || !f.certifiable(said, own.Set) {
		f.fail("invariant 3: member %d serves a vector of round %s and has revealed no set that q members voted for", p.seat.Index, id)
	}
	if f.certifiable(said, statement.Dead()) {
		f.fail("invariant 3: member %d serves a vector of round %s, which can be certified dead", p.seat.Index, id)
	}
	if said.expired[p.seat.Index] {
		f.fail("invariant 3: member %d serves a vector of round %s and has said that it never would", p.seat.Index, id)
	}
}

// shownRound is a round as some log has it, nil if none does.
func (f *Federation) shownRound(id label.Hash) *roundTrace {
	for _, h := range f.views {
		if r := h.trace.rounds[id]; r != nil {
			return r
		}
	}
	return nil
}

// shownCertificate reports whether some log holds the certificate of a set.
func (f *Federation) shownCertificate(id label.Hash) bool {
	for _, h := range f.views {
		if r := h.trace.rounds[id]; r != nil {
			if v, ok := r.certified(f.Charter, h.last()); ok && v != statement.Dead() {
				return true
			}
		}
	}
	return false
}

// shownDead reports whether some log holds a round's death certificate: whoever is shown it believes it.
func (f *Federation) shownDead(id label.Hash) bool {
	for _, h := range f.views {
		if r := h.trace.rounds[id]; r != nil && r.deadCert(f.Charter, h.last()) {
			return true
		}
	}
	return false
}
