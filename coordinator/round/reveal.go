package round

import (
	"fmt"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// apply records a member's sums over the certified set (SA 2.3, Reveal).
func (c revealCommand) apply(m *Machine, _ uint64) []Outcome {
	return []Outcome{m.addReveal(c.said, c.reveal)}
}

func (m *Machine) addReveal(s said, v *statement.Reveal) Outcome {
	r := m.rounds[s.round]
	switch {
	case r == nil:
		return refuse(UnknownRound, s.round.String())
	case !r.listed.Has(s.member):
		return refuse(NotListed, fmt.Sprintf("member %d", s.member))
	case r.reveals[s.member] != nil:
		return repeated(r, label.StmtReveal, s, r.reveals[s.member].signed)
	case r.phase < Sealed:
		return refuse(NotCertified, fmt.Sprintf("the round is %s", r.phase))
	case r.phase == Dead:
		return refuse(TooLate, "the round is dead")
	case v.Set != r.decision:
		return refuse(OtherSet, v.Set.String())
	case !r.coversSubsets(m, s.member, v):
		return refuse(BadSubsets, fmt.Sprintf("the sums are not those of member %d's subsets", s.member))
	}
	if err := r.verify(label.StmtReveal, s); err != nil {
		return refuse(BadSignature, err.Error())
	}
	r.reveals[s.member] = &reveal{signed: s.signed, parsed: v}
	if r.phase == Sealed {
		if _, ok := m.believed(r); ok {
			r.enter(Revealed, m.timeMs)
		}
	}
	return Outcome{Code: OK}
}

func (r *round) coversSubsets(m *Machine, member int, v *statement.Reveal) bool {
	want := committee.SubsetsOf(m.ch.N, m.ch.F, member)
	if len(want) != len(v.TSums) {
		return false
	}
	for i := range want {
		if v.TSums[i].Subset != want[i] {
			return false
		}
	}
	return true
}

// Sums are the hashes that enough members signed: f+1, or every holder of a subset that has fewer (SA 2.3, Unmask).
type Sums struct {
	SumY  label.Hash
	TSums []statement.TSum // every subset, in increasing mask order
}

// believed returns the sums once each of them is believed. At most f members lie, so no two values of one sum are.
func (m *Machine) believed(r *round) (Sums, bool) {
	var out Sums
	pick := func(need int, hash func(v *statement.Reveal) (label.Hash, bool)) (label.Hash, bool) {
		count := map[label.Hash]int{}
		for _, v := range r.reveals {
			if v == nil {
				continue
			}
			if h, ok := hash(v.parsed); ok {
				if count[h]++; count[h] >= need {
					return h, true
				}
			}
		}
		return label.Hash{}, false
	}
	var ok bool
	if out.SumY, ok = pick(m.ch.Believe(), func(v *statement.Reveal) (label.Hash, bool) { return v.SumY, true }); !ok {
		return Sums{}, false
	}
	for _, t := range committee.Subsets(m.ch.N, m.ch.F) {
		h, ok := pick(m.ch.BelieveSubset(), func(v *statement.Reveal) (label.Hash, bool) {
			for _, s := range v.TSums {
				if s.Subset == t {
					return s.Hash, true
				}
			}
			return label.Hash{}, false
		})
		if !ok {
			return Sums{}, false
		}
		out.TSums = append(out.TSums, statement.TSum{Subset: t, Hash: h})
	}
	return out, true
}

// apply counts a member's Result; f+1 equal ones publish the round. A member that no round lists may compute it too.
func (c resultCommand) apply(m *Machine, _ uint64) []Outcome {
	return []Outcome{m.addResult(c.said, c.result)}
}

func (m *Machine) addResult(s said, v *statement.Result) Outcome {
	r := m.rounds[s.round]
	switch {
	case r == nil:
		return refuse(UnknownRound, s.round.String())
	case r.results[s.member] != nil:
		if string(r.results[s.member].signed.Body) == string(s.signed.Body) {
			return Outcome{Code: Duplicate}
		}
	case r.phase < Sealed:
		return refuse(NotCertified, fmt.Sprintf("the round is %s", r.phase))
	case r.phase == Dead:
		return refuse(TooLate, "the round is dead")
	case v.Set != r.decision:
		return refuse(OtherSet, v.Set.String())
	}
	if err := m.ch.Members[s.member].Identity.Verify(label.StmtResult, s.signed.Body, s.signed.Signature); err != nil {
		return refuse(BadSignature, err.Error())
	}
	if r.results[s.member] != nil {
		return refuse(Conflict, fmt.Sprintf("member %d said something else before", s.member))
	}
	r.results[s.member] = &result{signed: s.signed, parsed: v}
	if r.phase != Published {
		m.publish(r, r.results[s.member])
	}
	return Outcome{Code: OK}
}

// publish ends r if f+1 members signed the same as last.
func (m *Machine) publish(r *round, last *result) {
	if r.resultSigners(last).Size() < m.ch.Believe() {
		return
	}
	r.opened = last
	r.enter(Published, m.timeMs)
	m.line(r.rc.Task).latest = r
}

// resultSigners is who signed the same Result as v.
func (r *round) resultSigners(v *result) (signers statement.Mask) {
	for i, o := range r.results {
		if o != nil && string(o.signed.Body) == string(v.signed.Body) {
			signers |= 1 << i
		}
	}
	return signers
}
