package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

// marks gives the outcome of each check by name.
func marks(a *audit) map[string]string {
	out := map[string]string{}
	for _, f := range a.findings {
		out[f.Check] = f.Result
	}
	return out
}

func TestAnHonestRoundVerifies(t *testing.T) {
	h := newHive(t, nil)
	one := h.publish(1, nil)
	two := h.publish(2, one)
	for _, p := range []*published{one, two} {
		a := verifyRound(h.ch, p.id, p.rec, h.sources(one, two))
		for _, f := range a.findings {
			if f.Result != markOK {
				t.Errorf("round %d, %s: %s: %s", p.rc.Seq, f.Check, f.Result, f.Detail)
			}
		}
		if len(a.findings) != 10 {
			t.Errorf("round %d: %d checks, want 10", p.rc.Seq, len(a.findings))
		}
	}
}

// TestEveryLieIsFound spoils one thing at a time and wants the check that is meant to find it to fail.
func TestEveryLieIsFound(t *testing.T) {
	h := newHive(t, nil)
	for _, c := range []struct {
		name  string
		check string
		spoil func(t *testing.T, p *published)
	}{
		{"two signatures on the config", "round_certificate", func(_ *testing.T, p *published) { p.rec.Config.Signatures = p.rec.Config.Signatures[:2] }},
		{"one member signs the config three times", "round_certificate", func(_ *testing.T, p *published) {
			s := p.rec.Config.Signatures
			s[1], s[2] = s[0], s[0]
		}},
		{"a signature by another member", "round_certificate", func(_ *testing.T, p *published) { p.rec.Config.Signatures[0].Member = 2 }},
		{"a member that is not in the charter", "round_certificate", func(_ *testing.T, p *published) { p.rec.Config.Signatures[0].Member = 1 << 31 }},
		{"another config", "round_certificate", func(_ *testing.T, p *published) {
			rc := *p.rc
			rc.NMin = 1
			p.rec.Config = h.cert(label.StmtRoundConfig, rc.Bytes(), 0, 1, 3)
		}},
		{"a floor below the charter's, signed by a quorum", "round_certificate", func(_ *testing.T, p *published) {
			rc := *p.rc
			rc.NMin = 1
			p.rec.Config = h.cert(label.StmtRoundConfig, rc.Bytes(), 0, 1, 3)
			p.id = rc.ID()
		}},
		{"the record names another seq", "round_certificate", func(_ *testing.T, p *published) { p.rec.Seq++ }},
		{"a start out of nowhere", "start", func(_ *testing.T, p *published) {
			*p = *h.publishFrom(1, statement.Start{Model: label.Sum(label.TagModel, []byte("poison")), Part: "B"})
		}},
		{"a device that no authority enrolled", "contributions", func(_ *testing.T, p *published) { p.rec.DeviceCerts = p.rec.DeviceCerts[1:] }},
		{"a device signature that is none", "contributions", func(t *testing.T, p *published) {
			alterAccept(t, p, 1, func(a *statement.Accept) { a.Signature[3] ^= 1 })
		}},
		{"an accept under another authority", "contributions", func(t *testing.T, p *published) {
			alterAccept(t, p, 1, func(a *statement.Accept) { a.Authority = 3 })
		}},
		{"a contribution of another size", "contributions", func(t *testing.T, p *published) {
			alterAccept(t, p, 1, func(a *statement.Accept) { a.Size++ })
		}},
		{"a contribution that one member held", "contributions", func(t *testing.T, p *published) {
			alterAccept(t, p, 1, func(a *statement.Accept) { a.Holders = 1 })
		}},
		{"a device twice", "contributions", func(_ *testing.T, p *published) { p.rec.Accepts[1] = p.rec.Accepts[0] }},
		{"an accept of another round", "contributions", func(t *testing.T, p *published) {
			alterAccept(t, p, 1, func(a *statement.Accept) { a.Round[0] ^= 1 })
		}},
		{"an accept left out", "candidates", func(_ *testing.T, p *published) { p.rec.Accepts = p.rec.Accepts[:4] }},
		{"two accepts in another order", "candidates", func(_ *testing.T, p *published) {
			p.rec.Accepts[0], p.rec.Accepts[1] = p.rec.Accepts[1], p.rec.Accepts[0]
		}},
		{"another list of candidates", "candidates", func(_ *testing.T, p *published) { p.rec.ClosedAcceptsHash[5] ^= 1 }},
		{"a close with too few members", "candidates", func(_ *testing.T, p *published) {
			c := &statement.Close{Round: p.id, Active: 0b0011, Candidates: label.Hash(p.rec.ClosedAcceptsHash)}
			p.rec.Closes = append(p.rec.Closes, c.Bytes())
		}},
		{"an ack signed by another member", "acks", func(_ *testing.T, p *published) { p.rec.Acks[0].Member = 1 }},
		{"a verdict turned", "acks", func(t *testing.T, p *published) {
			a, err := statement.ParseAck(p.rec.Acks[2].GetStatement().GetBody())
			must(t, err)
			a.Verdicts[4] = statement.OK
			p.rec.Acks[2].Statement.Body = a.Bytes()
		}},
		{"an ack of a member outside M", "acks", func(_ *testing.T, p *published) {
			p.rec.Acks = append(p.rec.Acks, h.said(label.StmtAck, p.rec.Acks[0].GetStatement().GetBody(), 3))
		}},
		{"an ack missing", "set", func(_ *testing.T, p *published) { p.rec.Acks = p.rec.Acks[:2] }},
		{"a set without one who belongs to it", "set", func(_ *testing.T, p *published) { p.reset(h, 0, 1, 2) }},
		{"a set with one who does not belong to it", "set", func(_ *testing.T, p *published) { p.reset(h, 0, 1, 2, 3, 4) }},
		{"other contributors than the set's", "set", func(_ *testing.T, p *published) { p.rec.Contributors = p.rec.Contributors[:3] }},
		{"two votes", "decision_certificate", func(_ *testing.T, p *published) { p.rec.Votes = p.rec.Votes[:2] }},
		{"one member votes three times", "decision_certificate", func(_ *testing.T, p *published) {
			p.rec.Votes[1], p.rec.Votes[2] = p.rec.Votes[0], p.rec.Votes[0]
		}},
		{"a vote with a broken signature", "decision_certificate", func(_ *testing.T, p *published) { p.rec.Votes[1].Statement.Signature[0] ^= 1 }},
		{"votes of another round", "decision_certificate", func(_ *testing.T, p *published) {
			p.rec.Votes = h.votesFor(label.Sum(label.TagRoundConfig, []byte("other")), p.set, 0, 1, 2)
		}},
		{"a certificate for the set and one for its death", "decision_certificate", func(_ *testing.T, p *published) {
			p.rec.Votes = append(p.rec.Votes, h.votesFor(p.id, statement.Dead(), 0, 1, 3)...)
		}},
		{"one member saw another sum of uploads", "reveals", func(_ *testing.T, p *published) {
			p.rec.Reveals[1] = h.reveal(p, 1, func(r *statement.Reveal) { r.SumY[0] ^= 1 })
		}},
		{"one member computed another mask sum", "reveals", func(_ *testing.T, p *published) {
			p.rec.Reveals[1] = h.reveal(p, 1, func(r *statement.Reveal) { r.TSums[0].Hash[0] ^= 1 })
		}},
		{"one member reveals for another set", "reveals", func(_ *testing.T, p *published) {
			p.rec.Reveals[1] = h.reveal(p, 1, func(r *statement.Reveal) { r.Set[0] ^= 1 })
		}},
		{"one member reveals a subset less", "reveals", func(_ *testing.T, p *published) {
			p.rec.Reveals[1] = h.reveal(p, 1, func(r *statement.Reveal) { r.TSums = r.TSums[1:] })
		}},
		{"one reveal", "reveals", func(_ *testing.T, p *published) { p.rec.Reveals = p.rec.Reveals[:1] }},
		{"no reveals", "reveals", func(_ *testing.T, p *published) { p.rec.Reveals = nil }},
		{"a reveal with a broken signature", "reveals", func(_ *testing.T, p *published) { p.rec.Reveals[1].Statement.Signature[0] ^= 1 }},
		{"one signature on the result", "result_certificate", func(_ *testing.T, p *published) { p.rec.Result = h.result(p, 0) }},
		{"a broken signature on the result", "result_certificate", func(_ *testing.T, p *published) { p.rec.Result.Signatures[1].Signature[9] ^= 1 }},
		{"a result for another set", "result_certificate", func(_ *testing.T, p *published) {
			q := *p
			q.set[0] ^= 1
			p.rec.Result = h.result(&q, 0, 1)
		}},
		{"published without a result", "result_certificate", func(_ *testing.T, p *published) { p.rec.Result = nil }},
		{"a result and not published", "result_certificate", func(_ *testing.T, p *published) { p.rec.Phase = round.Revealed.String() }},
		{"other adapter bytes", "state", func(_ *testing.T, p *published) { p.state[len(p.state)-1] ^= 1 }},
		{"a byte more", "state", func(_ *testing.T, p *published) { p.state = append(p.state, 0) }},
		{"a state in another layout", "state", func(_ *testing.T, p *published) {
			p.model.LayoutHash[0] ^= 1
			p.state, p.rec.Result = p.model.Canonical(), h.result(p, 0, 1)
		}},
		{"the state of another round", "state", func(_ *testing.T, p *published) {
			p.model.Seq = 9
			p.state, p.rec.Result = p.model.Canonical(), h.result(p, 0, 1)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := h.publish(1, nil)
			c.spoil(t, p)
			a := verifyRound(h.ch, p.id, p.rec, h.sources(p))
			if got := marks(a)[c.check]; got != markFailed {
				t.Errorf("check %s: %q, want it to fail; all: %v", c.check, got, a.findings)
			}
			for _, f := range a.findings {
				if f.Check == c.check {
					break
				}
				if f.Result == markFailed {
					t.Errorf("check %s failed before: %s", f.Check, f.Detail)
				}
			}
		})
	}
}

func alterAccept(t *testing.T, p *published, i int, alter func(*statement.Accept)) {
	t.Helper()
	a, err := statement.ParseAccept(p.rec.Accepts[i])
	must(t, err)
	alter(a)
	p.rec.Accepts[i] = a.Bytes()
}

// reset replaces the decided set by another, voted for, revealed and published by all members that did before: only the
// acks contradict it.
func (p *published) reset(h *hive, devices ...int) {
	var s []statement.Contributor
	for _, i := range devices {
		id := identity.DeviceID(p.devices[i].Public())
		s = append(s, statement.Contributor{Device: id, Header: label.Sum(label.TagHeader, id[:])})
	}
	p.decide(s)
	p.rec.Votes, p.rec.Reveals = h.votesFor(p.id, p.set, 0, 1, 2), nil
	for j := range 3 {
		p.rec.Reveals = append(p.rec.Reveals, h.reveal(p, j))
	}
	p.rec.Result = h.result(p, 0, 1)
}

// TestASecondSetIsFoundByTheAcksAlone: q members that agree on a lie are found by the set rule, and nothing else is.
func TestASecondSetIsFoundByTheAcksAlone(t *testing.T) {
	h := newHive(t, nil)
	p := h.publish(1, nil)
	p.reset(h, 0, 1, 2)
	a := verifyRound(h.ch, p.id, p.rec, h.sources(p))
	if a.failed() != 1 || marks(a)["set"] != markFailed {
		t.Errorf("findings: %v", a.findings)
	}
}

func TestRoundsUnderwayAndEndedOtherwise(t *testing.T) {
	h := newHive(t, nil)
	undecided := func(p *published) {
		p.rec.Decision, p.rec.Contributors, p.rec.Votes, p.rec.Reveals, p.rec.Result = nil, nil, nil, nil, nil
	}
	dead := statement.Dead()
	for _, c := range []struct {
		name string
		make func(p *published)
		ok   []string // the checks that pass; no check may fail
	}{
		{"proposed, two signatures", func(p *published) {
			undecided(p)
			p.rec.Phase, p.rec.Config.Signatures = "proposed", p.rec.Config.Signatures[:2]
			p.rec.Accepts, p.rec.Closes, p.rec.Acks, p.rec.ClosedAcceptsHash, p.rec.DeviceCerts = nil, nil, nil, nil, nil
		}, []string{"start"}},
		{"open", func(p *published) {
			undecided(p)
			p.rec.Phase, p.rec.Closes, p.rec.Acks, p.rec.ClosedAcceptsHash = "open", nil, nil, nil
		}, []string{"round_certificate", "start", "contributions"}},
		{"closed, one ack missing", func(p *published) {
			undecided(p)
			p.rec.Phase, p.rec.Acks = "closed", p.rec.Acks[:2]
		}, []string{"round_certificate", "start", "contributions", "candidates", "acks"}},
		{"acked, one vote", func(p *published) {
			p.rec.Phase, p.rec.Votes, p.rec.Reveals, p.rec.Result = "acked", p.rec.Votes[:1], nil, nil
		}, []string{"round_certificate", "start", "contributions", "candidates", "acks", "set"}},
		{"sealed, one reveal", func(p *published) {
			p.rec.Phase, p.rec.Reveals, p.rec.Result = "sealed", p.rec.Reveals[:1], nil
		}, []string{"round_certificate", "start", "contributions", "candidates", "acks", "set", "decision_certificate"}},
		{"revealed", func(p *published) { p.rec.Phase, p.rec.Result = "revealed", nil },
			[]string{"round_certificate", "start", "contributions", "candidates", "acks", "set", "decision_certificate", "reveals"}},
		{"dead by votes", func(p *published) {
			undecided(p)
			p.rec.Phase, p.rec.Death, p.rec.Acks, p.rec.Decision = "dead", "certified", p.rec.Acks[:1], dead[:]
			p.rec.Votes = h.votesFor(p.id, dead, 0, 2, 3)
		}, []string{"round_certificate", "start", "contributions", "candidates", "acks", "decision_certificate"}},
		{"dead by expiry of all, after a decision for a set", func(p *published) {
			p.rec.Phase, p.rec.Death, p.rec.Votes, p.rec.Reveals, p.rec.Result = "dead", "certified", p.rec.Votes[:2], nil, nil
			p.rec.Expired = h.expired(p.id, 0, 1, 2, 3)
		}, []string{"round_certificate", "start", "contributions", "candidates", "acks", "set", "decision_certificate"}},
		{"dead by expiry of all, after votes enough for a set that nobody revealed", func(p *published) {
			p.rec.Phase, p.rec.Death, p.rec.Reveals, p.rec.Result = "dead", "certified", nil, nil
			p.rec.Expired = h.expired(p.id, 0, 1, 2, 3)
		}, []string{"round_certificate", "start", "contributions", "candidates", "acks", "set", "decision_certificate"}},
		{"expired without a certificate", func(p *published) {
			p.rec.Phase, p.rec.Death, p.rec.Votes, p.rec.Reveals, p.rec.Result = "dead", "expired", p.rec.Votes[:2], nil, nil
			p.rec.Expired = h.expired(p.id, 0, 1)
		}, []string{"round_certificate", "start", "contributions", "candidates", "acks", "set"}},
		{"old, its end alone kept", func(p *published) {
			p.rec.Accepts, p.rec.DeviceCerts, p.rec.Closes, p.rec.Acks, p.rec.Contributors = nil, nil, nil, nil, nil
		}, []string{"round_certificate", "start", "decision_certificate", "reveals", "result_certificate", "state"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := h.publish(1, nil)
			c.make(p)
			a := verifyRound(h.ch, p.id, p.rec, h.sources(p))
			for _, f := range a.findings {
				want := markAbsent
				if slices.Contains(c.ok, f.Check) {
					want = markOK
				}
				if f.Result != want {
					t.Errorf("%s: %s (%s), want %s", f.Check, f.Result, f.Detail, want)
				}
			}
		})
	}
}

// TestErasuresAreOfTheListedKeys: who says that its keys are gone signs it itself, for the epoch that the round lists.
func TestErasuresAreOfTheListedKeys(t *testing.T) {
	h := newHive(t, nil)
	erasure := func(signer, member int, epoch uint64) *coordpb.MemberStatement {
		x := &statement.Erasure{Charter: h.ch.Hash(), Member: member, Epoch: epoch, AtMs: epoch0}
		return round.ToMemberStatement(statement.MemberStatement{Member: member, Statement: statement.SignMember(h.identities[signer], label.StmtErasure, x.Bytes())})
	}
	for _, c := range []struct {
		name string
		said *coordpb.MemberStatement
		want string
	}{
		{"its own", erasure(2, 2, 1), markOK},
		{"another epoch", erasure(2, 2, 2), markFailed},
		{"another's signature", erasure(1, 2, 1), markFailed},
	} {
		p := h.publish(1, nil)
		p.rec.Erasures = []*coordpb.MemberStatement{erasure(0, 0, 1), c.said}
		if a := verifyRound(h.ch, p.id, p.rec, h.sources(p)); marks(a)["erasures"] != c.want {
			t.Errorf("%s: %v", c.name, a.findings)
		}
	}
	p := h.publish(1, nil)
	p.rec.Erasures = []*coordpb.MemberStatement{erasure(2, 2, 1)}
	r, err := reportRound(h.ch, p.id, p.rec, "org-0")
	must(t, err)
	if r.Listed[2].Erased == "" || r.Listed[0].Erased != "" {
		t.Errorf("%+v", r.Listed)
	}
}

func TestADeadRoundNeedsItsCertificate(t *testing.T) {
	h := newHive(t, nil)
	p := h.publish(1, nil)
	dead := statement.Dead()
	p.rec.Phase, p.rec.Death, p.rec.Decision, p.rec.Reveals, p.rec.Result = "dead", "certified", dead[:], nil, nil
	p.rec.Votes = h.votesFor(p.id, dead, 0, 2)
	if a := verifyRound(h.ch, p.id, p.rec, h.sources(p)); marks(a)["decision_certificate"] != markFailed {
		t.Errorf("two votes pass for a death: %v", a.findings)
	}
}

func TestTheStartRestsOnASignedResult(t *testing.T) {
	h := newHive(t, nil)
	for name, spoil := range map[string]func(one *published){
		"one signature":    func(one *published) { one.rec.Result = h.result(one, 1) },
		"another result":   func(one *published) { one.rec.Result.Body = append(one.rec.Result.Body, 0) },
		"of another round": func(one *published) { one.rec.Config.Body = h.publish(5, nil).rec.Config.Body },
	} {
		one := h.publish(1, nil)
		two := h.publish(2, one)
		spoil(one)
		if a := verifyRound(h.ch, two.id, two.rec, h.sources(one, two)); marks(a)["start"] != markFailed {
			t.Errorf("%s: %v", name, a.findings[1])
		}
	}
	one := h.publish(1, nil)
	two := h.publish(2, one)
	a := verifyRound(h.ch, two.id, two.rec, h.sources(two))
	if a.failed() != 0 || marks(a)["start"] != markAbsent {
		t.Errorf("a start that is not kept any more: %v", a.findings[1])
	}
}

// TestVerifyNeverPanics feeds records with holes everywhere.
func TestVerifyNeverPanics(t *testing.T) {
	h := newHive(t, nil)
	empty := &coordpb.MemberStatement{}
	for i, spoil := range []func(r *coordpb.RoundRecord){
		func(r *coordpb.RoundRecord) { r.Reset() },
		func(r *coordpb.RoundRecord) { r.Config = nil },
		func(r *coordpb.RoundRecord) { r.Config.Signatures = []*coordpb.MemberSignature{nil} },
		func(r *coordpb.RoundRecord) { r.Accepts = [][]byte{nil} },
		func(r *coordpb.RoundRecord) { r.DeviceCerts = [][]byte{{1, 2, 3}} },
		func(r *coordpb.RoundRecord) { r.Closes = [][]byte{{}} },
		func(r *coordpb.RoundRecord) { r.Closes = append(r.Closes, r.Closes[0]) },
		func(r *coordpb.RoundRecord) { r.Acks = append(r.Acks, nil, empty) },
		func(r *coordpb.RoundRecord) { r.Votes = append(r.Votes, nil, empty) },
		func(r *coordpb.RoundRecord) { r.Expired = append(r.Expired, nil, empty) },
		func(r *coordpb.RoundRecord) { r.Reveals = append(r.Reveals, nil, empty) },
		func(r *coordpb.RoundRecord) { r.Result = &coordpb.Certificate{} },
		func(r *coordpb.RoundRecord) { r.Decision = []byte("short") },
		func(r *coordpb.RoundRecord) { r.ClosedAcceptsHash = []byte("short") },
		func(r *coordpb.RoundRecord) { r.Contributors = [][]byte{nil} },
	} {
		p := h.publish(1, nil)
		spoil(p.rec)
		a := verifyRound(h.ch, p.id, p.rec, h.sources(p))
		if a.failed() == 0 && i != 6 && i != 9 { // a close twice changes nothing, nor do words on expiry beside a certified set
			t.Errorf("case %d: nothing failed", i)
		}
		if _, err := reportRound(h.ch, p.id, p.rec, "org-0"); err != nil && strings.Contains(err.Error(), "panic") {
			t.Error(err)
		}
	}
}
