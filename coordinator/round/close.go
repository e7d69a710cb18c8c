package round

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// apply adds a Close (SA 2.3, Close and Acks). Its leader chooses M and nothing else: a Close waits until no Accept
// can follow, and names exactly the list that this log holds.
func (c closeCommand) apply(m *Machine, index uint64) []Outcome {
	return []Outcome{m.addClose(c.close, index)}
}

func (m *Machine) addClose(c *statement.Close, index uint64) Outcome {
	r := m.rounds[c.Round]
	if r == nil {
		return refuse(UnknownRound, c.Round.String())
	}
	hash := c.Hash()
	if r.closing(hash) != nil {
		return Outcome{Code: Duplicate}
	}
	switch {
	case r.phase == Proposed:
		return refuse(RoundNotOpen, "the round is proposed")
	case r.phase != Open && r.phase != Closed:
		return refuse(TooLate, fmt.Sprintf("the round is %s", r.phase))
	case !r.frozen(m.timeMs):
		return refuse(TooEarly, fmt.Sprintf("%d of %d contributions, close deadline %d, log time %d", len(r.accepts), r.rc.NMax, r.rc.CloseMs, m.timeMs))
	case c.Active&^r.listed != 0 || c.Active.Size() < m.ch.ActiveMin():
		return refuse(BadActive, fmt.Sprintf("active %v, listed are %v, at least %d", c.Active, r.listed, m.ch.ActiveMin()))
	case c.Candidates != r.candidates():
		return refuse(BadCandidates, fmt.Sprintf("the log has another list, of %d candidates", len(r.accepts)))
	}
	r.closes = append(r.closes, &closing{close: c, hash: hash, index: index, atMs: m.timeMs})
	if r.phase == Open {
		r.counts.candidates = c.Candidates
		r.enter(Closed, m.timeMs)
	}
	return Outcome{Code: OK}
}

func (r *round) candidates() label.Hash { return statement.HashCandidates(r.id, r.contributors()) }

func (r *round) closing(hash label.Hash) *closing {
	for _, c := range r.closes {
		if c.hash == hash {
			return c
		}
	}
	return nil
}

// apply adds a member's verdicts. The first Close to be complete with a legal set decides.
func (c ackCommand) apply(m *Machine, index uint64) []Outcome {
	return []Outcome{m.addAck(c.said, c.ack, index)}
}

func (m *Machine) addAck(s said, a *statement.Ack, index uint64) Outcome {
	r := m.rounds[s.round]
	if r == nil {
		return refuse(UnknownRound, s.round.String())
	}
	cl := r.closing(a.Close)
	if cl == nil {
		return refuse(UnknownClose, a.Close.String())
	}
	if !cl.close.Active.Has(s.member) {
		return refuse(NotActive, fmt.Sprintf("member %d", s.member))
	}
	if old := cl.acks[s.member]; old != nil {
		return repeated(r, label.StmtAck, s, old.signed)
	}
	if r.decided || r.phase != Closed {
		return refuse(TooLate, fmt.Sprintf("the round is %s", r.phase))
	}
	if len(a.Verdicts) != len(r.accepts) {
		return refuse(Malformed, fmt.Sprintf("%d verdicts, %d candidates", len(a.Verdicts), len(r.accepts)))
	}
	if err := r.verify(label.StmtAck, s); err != nil {
		return refuse(BadSignature, err.Error())
	}
	cl.acks[s.member] = &ack{signed: s.signed, verdicts: a.Verdicts, index: index}
	if set, ok := m.evaluate(r, cl); ok {
		m.decideSet(r, set)
	}
	return Outcome{Code: OK}
}

// evaluate fills in a Close's complete, legal and blamed, and returns its set when it is complete and legal.
func (m *Machine) evaluate(r *round, cl *closing) (set []int, ok bool) {
	verdicts := make(map[int][]statement.Verdict, len(cl.acks))
	for _, j := range cl.close.Active.Members() {
		if cl.acks[j] == nil {
			return nil, false
		}
		verdicts[j] = cl.acks[j].verdicts
	}
	cl.complete = true
	d := DecideSet(m.ch, r.rc.NMin, r.candidateList(), cl.close.Active, verdicts)
	cl.legal, cl.blamed = d.Err == nil, d.Blamed
	return d.Set, cl.legal
}

// Decision is what the set rule says of one complete Close.
type Decision struct {
	Set    []int          // indices of candidates in S, ascending by device id
	Blamed statement.Mask // members whose word alone costs more than 20 % of the candidates
	Err    error          // why S is not legal; nil if it is
}

// DecideSet is the set rule of SA 2.3: S is the candidates that every member of M holds and could open. It is legal if
// M is large enough, the cohort floor holds without the f_E largest authorities, and no member's word alone costs more
// than 20 % of the candidates, the last waived where M cannot be smaller.
func DecideSet(ch *charter.Charter, nMin uint32, candidates []Candidate, active statement.Mask, verdicts map[int][]statement.Verdict) Decision {
	var d Decision
	members := active.Members()
	if len(members) < ch.ActiveMin() || len(members) > ch.N {
		d.Err = fmt.Errorf("M has %d members, at least %d", len(members), ch.ActiveMin())
		return d
	}
	for _, j := range members {
		if len(verdicts[j]) != len(candidates) {
			d.Err = fmt.Errorf("member %d has %d verdicts, candidates are %d", j, len(verdicts[j]), len(candidates))
			return d
		}
	}
	alone := map[int]int{}
	var by [statement.MembersMax]int
	for i, c := range candidates {
		refused, who := 0, 0
		for _, j := range members {
			if verdicts[j][i] != statement.OK {
				refused, who = refused+1, j
			}
		}
		switch refused {
		case 0:
			d.Set = append(d.Set, i)
			by[c.Authority]++
		case 1:
			alone[who]++
		}
	}
	for _, j := range members {
		if alone[j]*5 > len(candidates) {
			d.Blamed |= 1 << j
		}
	}
	slices.SortFunc(d.Set, func(a, b int) int {
		return bytes.Compare(candidates[a].Device[:], candidates[b].Device[:])
	})
	for k := 1; k < len(d.Set); k++ {
		if candidates[d.Set[k-1]].Device == candidates[d.Set[k]].Device {
			d.Err = fmt.Errorf("device %s stands twice", candidates[d.Set[k]].Device)
		}
	}
	if floor := CohortFloor(by[:], ch.AuthoritiesFaulty); floor < int(nMin) {
		d.Err = fmt.Errorf("floor is %d, the set of %d has %d without the %d largest authorities", nMin, len(d.Set), floor, ch.AuthoritiesFaulty)
	} else if d.Blamed != 0 && len(members) > ch.ActiveMin() {
		d.Err = fmt.Errorf("the word of members %v alone costs more than 20%% of %d candidates", d.Blamed, len(candidates))
	}
	return d
}

// decideSet decides S for ever.
func (m *Machine) decideSet(r *round, set []int) {
	r.set = set
	r.counts.contributors = uint32(len(set))
	members := make([]statement.Contributor, len(set))
	for i, k := range set {
		members[i] = statement.Contributor{Device: r.accepts[k].Device, Header: r.accepts[k].Header}
	}
	m.decide(r, statement.HashSet(r.id, members), "")
}

// decideDead decides DEAD for ever.
func (m *Machine) decideDead(r *round, reason string) { m.decide(r, statement.Dead(), reason) }

func (m *Machine) decide(r *round, value label.Hash, reason string) {
	r.decided, r.decision, r.reason = true, value, reason
	r.enter(Acked, m.timeMs)
	m.tally(r)
}

// apply counts a member's wish to abort: f+1 of them decide DEAD while nothing is decided.
func (c abortCommand) apply(m *Machine, _ uint64) []Outcome {
	return []Outcome{m.addAbort(c.said)}
}

func (m *Machine) addAbort(s said) Outcome {
	r := m.rounds[s.round]
	switch {
	case r == nil:
		return refuse(UnknownRound, s.round.String())
	case r.aborts[s.member] != nil:
		return Outcome{Code: Duplicate}
	case r.decided || r.phase.Terminal():
		return refuse(TooLate, fmt.Sprintf("the round is %s", r.phase))
	}
	if err := m.ch.Members[s.member].Identity.Verify(label.StmtAbort, s.signed.Body, s.signed.Signature); err != nil {
		return refuse(BadSignature, err.Error())
	}
	signed := s.signed
	r.aborts[s.member] = &signed
	n := 0
	for _, a := range r.aborts {
		if a != nil {
			n++
		}
	}
	if n >= m.ch.Believe() {
		m.decideDead(r, fmt.Sprintf("aborted by %d members", n))
	}
	return Outcome{Code: OK}
}

// verify checks a statement by the vote key that the round lists for its signer.
func (r *round) verify(stmt string, s said) error {
	return statement.VerifyVoteKey(r.rc, stmt, statement.MemberStatement{Member: s.member, Statement: s.signed})
}

// repeated answers a second statement where one is enough: the same again, or proof that its signer says two things.
func repeated(r *round, stmt string, s said, old statement.Signed) Outcome {
	if bytes.Equal(old.Body, s.signed.Body) {
		return Outcome{Code: Duplicate}
	}
	if err := r.verify(stmt, s); err != nil {
		return refuse(BadSignature, err.Error())
	}
	return refuse(Conflict, fmt.Sprintf("member %d said something else before", s.member))
}
