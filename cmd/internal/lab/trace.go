package lab

import (
	"bytes"
	"slices"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// trace is the log as the checks read it: what was said, by whom, at which index. It is written without the state
// machine, so that the two can be compared; from the machine it takes only which entries were refused.
type trace struct {
	rounds map[label.Hash]*roundTrace
	order  []*roundTrace
	certs  map[label.Hash]*statement.DeviceCert
	timeMs int64
}

// roundTrace is what the log holds of one round.
type roundTrace struct {
	id      label.Hash
	rc      *statement.RoundConfig
	start   label.Hash
	accepts []acceptTrace
	closes  []*closeTrace
	decided *closeTrace // the first Close to be complete with a legal set
	set     []acceptTrace
	votes   []voteTrace
	expired []expiredTrace
	reveals []revealTrace
	results []resultTrace
	aborts  int
}

type acceptTrace struct {
	*statement.Accept
	index     uint64
	authority int // by the device's certificate, whatever the Accept says
}

type closeTrace struct {
	*statement.Close
	index uint64
	acks  map[int]*statement.Ack
}

type voteTrace struct {
	member int
	signed statement.Signed
	value  label.Hash
	index  uint64
}

type expiredTrace struct {
	member int
	signed statement.Signed
	index  uint64
}

type revealTrace struct {
	member int
	reveal *statement.Reveal
	index  uint64
}

type resultTrace struct {
	member int
	body   []byte
}

func newTrace() *trace {
	return &trace{rounds: map[label.Hash]*roundTrace{}, certs: map[label.Hash]*statement.DeviceCert{}}
}

// add reads one entry whose items the log answered with outcomes. It returns the round it is about, nil for none.
func (t *trace) add(ch *charter.Charter, index uint64, data []byte, outcomes []round.Outcome) *roundTrace {
	cmd, err := round.ParseCommand(data)
	if err != nil {
		return nil
	}
	ok := func(i int) bool { return i < len(outcomes) && outcomes[i].Code == round.OK }
	switch c := cmd.GetCommand().(type) {
	case *coordpb.Command_TickUnixMs:
		if ok(0) {
			t.timeMs = c.TickUnixMs
		}
		return nil
	case *coordpb.Command_Accepts:
		var r *roundTrace
		for i, item := range c.Accepts.GetItems() {
			a, err := statement.ParseAccept(item)
			if err == nil && ok(i) && t.rounds[a.Round] != nil && t.certs[a.Device] != nil {
				r = t.rounds[a.Round]
				r.accepts = append(r.accepts, acceptTrace{a, index, t.certs[a.Device].Authority})
			}
		}
		return r
	}
	if !ok(0) {
		return nil
	}
	switch c := cmd.GetCommand().(type) {
	case *coordpb.Command_DeviceCert:
		if cert, err := statement.ParseDeviceCert(c.DeviceCert.GetBody()); err == nil {
			t.certs[cert.Device] = cert
		}
	case *coordpb.Command_Propose:
		rc, err := statement.ParseRoundConfig(c.Propose)
		if err != nil {
			return nil
		}
		r := &roundTrace{id: rc.ID(), rc: rc, start: rc.Start.Hash(rc.Task, rc.Cell)}
		t.rounds[r.id] = r
		t.order = append(t.order, r)
		return r
	case *coordpb.Command_Close:
		cl, err := statement.ParseClose(c.Close)
		if err != nil || t.rounds[cl.Round] == nil {
			return nil
		}
		r := t.rounds[cl.Round]
		r.closes = append(r.closes, &closeTrace{cl, index, map[int]*statement.Ack{}})
		return r
	}
	return t.addSaid(ch, index, cmd)
}

// addSaid reads a member's statement. What the state machine took, these checks take only if its signature holds.
func (t *trace) addSaid(ch *charter.Charter, index uint64, cmd *coordpb.Command) *roundTrace {
	s := saidIn(cmd)
	if s == nil {
		return nil
	}
	r := t.rounds[s.round]
	if r == nil || !s.verified(ch, r.rc) {
		return nil
	}
	switch {
	case s.ack != nil:
		for _, c := range r.closes {
			if c.Hash() == s.ack.Close {
				c.acks[s.member] = s.ack
			}
		}
		r.decide(ch, t.certs)
	case s.vote != nil:
		r.votes = append(r.votes, voteTrace{s.member, s.signed, s.vote.Value, index})
	case s.expired:
		r.expired = append(r.expired, expiredTrace{s.member, s.signed, index})
	case s.reveal != nil:
		r.reveals = append(r.reveals, revealTrace{s.member, s.reveal, index})
	case s.result != nil:
		r.results = append(r.results, resultTrace{s.member, s.signed.Body})
	case s.abort:
		r.aborts++
	}
	return r
}

// said is one member's statement in a command.
type said struct {
	round   label.Hash
	member  int
	kind    string // label.Stmt…
	signed  statement.Signed
	ack     *statement.Ack
	vote    *statement.Vote
	reveal  *statement.Reveal
	result  *statement.Result
	expired bool
	abort   bool
}

// saidIn reads the commands whose bodies are statements of a member about a round; nil for others.
func saidIn(cmd *coordpb.Command) *said {
	var p *coordpb.RoundStatement
	s := &said{}
	var err error
	switch c := cmd.GetCommand().(type) {
	case *coordpb.Command_Ack:
		p, s.kind = c.Ack, label.StmtAck
		s.ack, err = statement.ParseAck(p.GetStatement().GetBody())
	case *coordpb.Command_Vote:
		p, s.kind = c.Vote, label.StmtVote
		s.vote, err = statement.ParseVote(p.GetStatement().GetBody())
	case *coordpb.Command_Reveal:
		p, s.kind = c.Reveal, label.StmtReveal
		s.reveal, err = statement.ParseReveal(p.GetStatement().GetBody())
	case *coordpb.Command_Result:
		p, s.kind = c.Result, label.StmtResult
		s.result, err = statement.ParseResult(p.GetStatement().GetBody())
	case *coordpb.Command_Expired:
		p, s.kind, s.expired = c.Expired, label.StmtExpired, true
		_, err = statement.ParseExpired(p.GetStatement().GetBody())
	case *coordpb.Command_Abort:
		p, s.kind, s.abort = c.Abort, label.StmtAbort, true
		_, err = statement.ParseAbort(p.GetStatement().GetBody())
	}
	if p == nil || err != nil || len(p.GetRoundId()) != label.Size {
		return nil
	}
	s.round, s.member, s.signed = label.Hash(p.GetRoundId()), int(p.GetMember()), round.FromSigned(p.GetStatement())
	return s
}

// verified checks the signature by the key that the protocol names for this kind.
func (s *said) verified(ch *charter.Charter, rc *statement.RoundConfig) bool {
	if s.kind == label.StmtResult || s.kind == label.StmtAbort {
		return s.member < ch.N && ch.Members[s.member].Identity.Verify(s.kind, s.signed.Body, s.signed.Signature) == nil
	}
	return statement.VerifyVoteKey(rc, s.kind, statement.MemberStatement{Member: s.member, Statement: s.signed}) == nil
}

// decide applies the set rule of SA 2.3 as it reads, after each Ack.
func (r *roundTrace) decide(ch *charter.Charter, certs map[label.Hash]*statement.DeviceCert) {
	if r.decided != nil {
		return
	}
	for _, c := range r.closes {
		set, complete := r.setOf(c)
		if complete && legal(ch, r, c, set) {
			r.decided, r.set = c, set
			return
		}
	}
}

// setOf is S by one Close: what every member of M calls ok.
func (r *roundTrace) setOf(c *closeTrace) (set []acceptTrace, complete bool) {
	for _, j := range c.Active.Members() {
		if c.acks[j] == nil || len(c.acks[j].Verdicts) != len(r.accepts) {
			return nil, false
		}
	}
	for i, a := range r.accepts {
		ok := true
		for _, j := range c.Active.Members() {
			ok = ok && c.acks[j].Verdicts[i] == statement.OK
		}
		if ok {
			set = append(set, a)
		}
	}
	return set, true
}

// legal is SA 2.3's rule: |M| ≥ min(n, 2f+1), distinct devices, the floor without the f_E largest authorities, and no
// member whose word alone costs more than a fifth, unless M cannot be smaller.
func legal(ch *charter.Charter, r *roundTrace, c *closeTrace, set []acceptTrace) bool {
	least := min(ch.N, 2*ch.F+1)
	if c.Active.Size() < least {
		return false
	}
	by := make([]int, ch.N)
	seen := map[label.Hash]bool{}
	for _, a := range set {
		by[a.authority]++
		if seen[a.Device] {
			return false
		}
		seen[a.Device] = true
	}
	slices.Sort(by)
	floor := 0
	for _, n := range by[:ch.N-ch.AuthoritiesFaulty] {
		floor += n
	}
	if floor < int(r.rc.NMin) {
		return false
	}
	if c.Active.Size() == least {
		return true
	}
	for _, j := range c.Active.Members() {
		alone := 0
		for i := range r.accepts {
			others := true
			for _, k := range c.Active.Members() {
				others = others && (k == j || c.acks[k].Verdicts[i] == statement.OK)
			}
			if others && c.acks[j].Verdicts[i] != statement.OK {
				alone++
			}
		}
		if 5*alone > len(r.accepts) {
			return false
		}
	}
	return true
}

func (r *roundTrace) setHash() label.Hash {
	var s []statement.Contributor
	for _, a := range r.set {
		s = append(s, statement.Contributor{Device: a.Device, Header: a.Header})
	}
	return statement.HashSet(r.id, s)
}

// certified returns the value that q members have voted for in the entries up to index.
func (r *roundTrace) certified(ch *charter.Charter, index uint64) (label.Hash, bool) {
	by := map[label.Hash]statement.Mask{}
	for _, v := range r.votes {
		if v.index <= index {
			by[v.value] |= 1 << v.member
		}
	}
	for value, m := range by {
		if m.Size() >= ch.Q {
			return value, true
		}
	}
	return label.Hash{}, false
}

// deadCert reports whether the entries up to index hold a DeadCert.
func (r *roundTrace) deadCert(ch *charter.Charter, index uint64) bool {
	var votes, expired []statement.MemberStatement
	for _, v := range r.votes {
		if v.index <= index && v.value == statement.Dead() {
			votes = append(votes, statement.MemberStatement{Member: v.member, Statement: v.signed})
		}
	}
	for _, x := range r.expired {
		if x.index <= index {
			expired = append(expired, statement.MemberStatement{Member: x.member, Statement: x.signed})
		}
	}
	return statement.VerifyDeadCert(ch, r.rc, votes, expired) == nil
}

// published reports whether f+1 members signed one Result.
func (r *roundTrace) published(ch *charter.Charter) bool {
	for _, a := range r.results {
		var m statement.Mask
		for _, b := range r.results {
			if bytes.Equal(a.body, b.body) {
				m |= 1 << b.member
			}
		}
		if m.Size() >= ch.Believe() {
			return true
		}
	}
	return false
}
