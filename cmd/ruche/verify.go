package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// Marks of a finding.
const (
	markOK     = "ok"
	markFailed = "failed"
	markAbsent = "absent" // nothing to check yet, or no longer kept
)

// finding is the outcome of one check. Check is a stable word.
type finding struct {
	Check  string `json:"check"`
	Result string `json:"result"`
	Detail string `json:"detail"`
}

// errAbsent says that something is not there and need not be.
var errAbsent = errors.New("absent")

func absent(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errAbsent, fmt.Sprintf(format, args...))
}

// sources give an audit what lies outside the record. Both may fail with errAbsent.
type sources struct {
	state    func(model label.Hash) ([]byte, error)                            // canonical bytes of a published state
	previous func(task string, model label.Hash) (*coordpb.RoundRecord, error) // the published round whose result is model
}

// audit recomputes a round from a record. It believes the charter and nothing in the record that it has not checked.
type audit struct {
	ch       *charter.Charter
	id       label.Hash
	rec      *coordpb.RoundRecord
	src      sources
	findings []finding

	rc         *statement.RoundConfig
	task       *charter.Task
	slim       bool // the member keeps only the end of this round
	candidates []round.Candidate
	closes     []*statement.Close
	verdicts   map[label.Hash]map[int][]statement.Verdict // by Close and member
	decision   label.Hash
	decided    bool
	result     *statement.Result
}

// verifyRound checks everything that a record of the round id claims (SA 2.3), in the order in which it came about.
func verifyRound(ch *charter.Charter, id label.Hash, rec *coordpb.RoundRecord, src sources) *audit {
	a := &audit{ch: ch, id: id, rec: rec, src: src, verdicts: map[label.Hash]map[int][]statement.Verdict{}}
	if !a.check("round_certificate", a.roundCertificate) && a.rc == nil {
		return a // nothing else has a meaning
	}
	a.slim = len(rec.GetAccepts()) == 0 && len(rec.GetCloses()) == 0 && len(rec.GetClosedAcceptsHash()) > 0
	a.check("start", a.start)
	a.check("contributions", a.contributions)
	a.check("candidates", a.candidatesHash)
	a.check("acks", a.acks)
	a.check("set", a.set)
	a.check("decision_certificate", a.decisionCertificate)
	a.check("reveals", a.reveals)
	a.check("result_certificate", a.resultCertificate)
	a.check("state", a.state)
	if len(rec.GetErasures()) > 0 {
		a.check("erasures", a.erasures)
	}
	return a
}

// check runs one check and records its outcome. It reports whether the check passed.
func (a *audit) check(name string, f func() (string, error)) bool {
	detail, err := f()
	at := finding{Check: name, Result: markOK, Detail: detail}
	if errors.Is(err, errAbsent) {
		at.Result, at.Detail = markAbsent, strings.TrimPrefix(err.Error(), errAbsent.Error()+": ")
	} else if err != nil {
		at.Result, at.Detail = markFailed, err.Error()
	}
	a.findings = append(a.findings, at)
	return at.Result == markOK
}

// failed counts the checks that found something wrong.
func (a *audit) failed() (n int) {
	for _, f := range a.findings {
		if f.Result == markFailed {
			n++
		}
	}
	return n
}

func (a *audit) roundCertificate() (string, error) {
	body := a.rec.GetConfig().GetBody()
	if got := statement.RoundID(body); got != a.id {
		return "", fmt.Errorf("the round config has the id %s", got)
	}
	sigs := signatures(a.rec.GetConfig().GetSignatures())
	rc, err := statement.VerifyRoundCert(a.ch, body, sigs)
	if err != nil && a.rec.GetPhase() == round.Proposed.String() {
		// A proposal short of signatures is no fraud: look at the rest of it.
		if rc, perr := statement.ParseRoundConfig(body); perr == nil && rc.Check(a.ch) == nil {
			a.rc = rc
			a.task, _ = a.ch.Task(rc.Task)
			return "", absent("proposed, %d of %d signatures", len(sigs), a.ch.Q)
		}
	}
	if err != nil {
		return "", err
	}
	a.rc = rc
	a.task, _ = a.ch.Task(rc.Task) // VerifyRoundCert knows it
	if a.rec.GetTaskId() != rc.Task || a.rec.GetSeq() != rc.Seq {
		return "", fmt.Errorf("the record says %s/%d, the round config %s/%d", a.rec.GetTaskId(), a.rec.GetSeq(), rc.Task, rc.Seq)
	}
	return fmt.Sprintf("%s/%d, signed by %d of %d members, needs %d", rc.Task, rc.Seq, len(sigs), a.ch.N, a.ch.Q), nil
}

// start checks what the round trains from: the public init, or an earlier result with f+1 signatures.
func (a *audit) start() (string, error) {
	s := a.rc.Start
	if len(s.Results) == 0 {
		if init := a.task.Init().Hash(); s.Model != init {
			return "", fmt.Errorf("starts from %s without a result; the public init is %s", s.Model, init)
		}
		return "the public init", nil
	}
	prev, err := a.src.previous(a.rc.Task, s.Model)
	if err != nil {
		return "", err
	}
	body := prev.GetResult().GetBody()
	if got := statement.HashResult(body); got != s.Results[0] {
		return "", fmt.Errorf("rests on result %s, the member serves %s", s.Results[0], got)
	}
	r, err := statement.VerifyResultCert(a.ch, body, signatures(prev.GetResult().GetSignatures()))
	if err != nil {
		return "", err
	}
	if r.Model != s.Model {
		return "", fmt.Errorf("starts from %s, the result it rests on gives %s", s.Model, r.Model)
	}
	rc, err := statement.ParseRoundConfig(prev.GetConfig().GetBody())
	if err != nil {
		return "", err
	}
	if rc.ID() != r.Round || rc.Task != a.rc.Task || rc.Seq >= a.rc.Seq {
		return "", fmt.Errorf("rests on a result of round %s/%d", rc.Task, rc.Seq)
	}
	return fmt.Sprintf("result of round %d, signed by %d", rc.Seq, len(prev.GetResult().GetSignatures())), nil
}

// contributions checks every Accept: an enrolled device signed it, once.
func (a *audit) contributions() (string, error) {
	if a.slim {
		return "", absent("this member keeps only the end of this round")
	}
	certs := map[label.Hash]*statement.DeviceCert{}
	for _, b := range a.rec.GetDeviceCerts() {
		var p coordpb.Signed
		if err := proto.Unmarshal(b, &p); err != nil {
			return "", fmt.Errorf("a device certificate: %w", err)
		}
		cert, err := statement.VerifyDeviceCert(a.ch, round.FromSigned(&p))
		if err != nil {
			return "", err
		}
		certs[cert.Device] = cert
	}
	seen := map[label.Hash]bool{}
	for i, b := range a.rec.GetAccepts() {
		x, err := statement.ParseAccept(b)
		if err != nil {
			return "", err
		}
		cert := certs[x.Device]
		switch {
		case x.Round != a.id:
			return "", fmt.Errorf("accept %d is of another round", i)
		case seen[x.Device]:
			return "", fmt.Errorf("device %s is accepted twice", x.Device)
		case cert == nil:
			return "", fmt.Errorf("device %s has no certificate", x.Device)
		case cert.Authority != x.Authority:
			return "", fmt.Errorf("device %s is enrolled by authority %d, its accept says %d", x.Device, cert.Authority, x.Authority)
		case cert.ExpiresMs <= a.rc.ProposedMs:
			return "", fmt.Errorf("the certificate of device %s had ended when the round was proposed", x.Device)
		case x.Size != a.rc.ContributionSize(a.ch):
			return "", fmt.Errorf("device %s sent %d bytes, a contribution has %d", x.Device, x.Size, a.rc.ContributionSize(a.ch))
		case (x.Holders & a.rc.Listed()).Size() < a.ch.Believe():
			return "", fmt.Errorf("the contribution of device %s was held by %v when it was accepted, needs %d members", x.Device, x.Holders, a.ch.Believe())
		}
		if err := statement.VerifyContribution(cert.Public, x.Round, x.Header, x.Signature); err != nil {
			return "", fmt.Errorf("device %s: %w", x.Device, err)
		}
		seen[x.Device] = true
		a.candidates = append(a.candidates, round.Candidate{Device: x.Device, Header: x.Header, Authority: x.Authority, Size: x.Size, Holders: x.Holders, Signature: x.Signature})
	}
	if n := len(a.candidates); n > int(a.rc.NMax) {
		return "", fmt.Errorf("%d contributions are accepted, limit %d", n, a.rc.NMax)
	}
	if len(a.candidates) == 0 {
		return "", absent("none yet")
	}
	return fmt.Sprintf("%d, each signed by an enrolled device", len(a.candidates)), nil
}

// complete reports whether contributions read every Accept; without it nothing can be recomputed from them.
// erasures checks who says that it erased the keys which the round lists.
func (a *audit) erasures() (string, error) {
	var who statement.Mask
	for _, s := range statements(a.rec.GetErasures()) {
		x, err := statement.VerifyErasure(a.ch, s.Statement)
		if err != nil {
			return "", err
		}
		k, ok := a.rc.Package(s.Member)
		if !ok || x.Member != s.Member || x.Epoch != k.Epoch {
			return "", fmt.Errorf("an erasure of member %d, epoch %d, is not of the keys that the round lists for member %d", x.Member, x.Epoch, s.Member)
		}
		who |= 1 << s.Member
	}
	return fmt.Sprintf("%d of %d listed members say that their keys are erased", who.Size(), a.rc.Listed().Size()), nil
}

func (a *audit) complete() bool { return !a.slim && len(a.candidates) == len(a.rec.GetAccepts()) }

var errRest = errors.New("cannot be recomputed: the contributions do not check out")

// candidatesHash compares the list that the members closed with the Accepts.
func (a *audit) candidatesHash() (string, error) {
	switch {
	case a.slim:
		return "", absent("this member keeps only the end of this round")
	case len(a.rec.GetClosedAcceptsHash()) == 0:
		return "", absent("not closed")
	case !a.complete():
		return "", errRest
	}
	list := make([]statement.Contributor, len(a.candidates))
	for i, c := range a.candidates {
		list[i] = statement.Contributor{Device: c.Device, Header: c.Header}
	}
	want := statement.HashCandidates(a.id, list)
	if !bytes.Equal(want[:], a.rec.GetClosedAcceptsHash()) {
		return "", fmt.Errorf("the accepts hash to %s, the members closed %x", want, a.rec.GetClosedAcceptsHash())
	}
	for _, b := range a.rec.GetCloses() {
		c, err := statement.ParseClose(b)
		if err != nil {
			return "", err
		}
		switch {
		case c.Round != a.id:
			return "", errors.New("a close is of another round")
		case c.Candidates != want:
			return "", fmt.Errorf("a close names the candidates %s, the accepts hash to %s", c.Candidates, want)
		case c.Active&^a.rc.Listed() != 0 || c.Active.Size() < a.ch.ActiveMin():
			return "", fmt.Errorf("a close names the members %v, the round lists %v, needs %d", c.Active, a.rc.Listed(), a.ch.ActiveMin())
		}
		a.closes = append(a.closes, c)
		a.verdicts[c.Hash()] = map[int][]statement.Verdict{}
	}
	return fmt.Sprintf("%s, %d %s", want, len(a.closes), plural(len(a.closes), "close", "closes")), nil
}

func (a *audit) acks() (string, error) {
	if a.slim {
		return "", absent("this member keeps only the end of this round")
	}
	if len(a.rec.GetAcks()) == 0 {
		return "", absent("none yet")
	}
	for _, p := range a.rec.GetAcks() {
		s := round.FromMemberStatement(p)
		k, err := statement.ParseAck(s.Statement.Body)
		if err != nil {
			return "", fmt.Errorf("member %d: %w", s.Member, err)
		}
		c := slices.IndexFunc(a.closes, func(c *statement.Close) bool { return c.Hash() == k.Close })
		switch {
		case k.Round != a.id || c < 0:
			return "", fmt.Errorf("the ack of member %d is of another round or close", s.Member)
		case !a.closes[c].Active.Has(s.Member):
			return "", fmt.Errorf("member %d acks a close that does not name it", s.Member)
		case len(k.Verdicts) != len(a.candidates):
			return "", fmt.Errorf("member %d has %d verdicts on %d candidates", s.Member, len(k.Verdicts), len(a.candidates))
		}
		if err := statement.VerifyVoteKey(a.rc, label.StmtAck, s); err != nil {
			return "", err
		}
		a.verdicts[k.Close][s.Member] = k.Verdicts
	}
	return fmt.Sprintf("%d, each signed by its member's vote key", len(a.rec.GetAcks())), nil
}

// set derives S again from the Acks and compares its hash with the decision.
func (a *audit) set() (string, error) {
	if len(a.rec.GetDecision()) == 0 {
		return "", absent("undecided")
	}
	var err error
	if a.decision, err = label.HashFromBytes(a.rec.GetDecision()); err != nil {
		return "", err
	}
	a.decided = true
	switch {
	case a.decision == statement.Dead():
		return "", absent("decided DEAD: no set")
	case a.slim:
		return "", absent("this member keeps only the end of this round")
	case !a.complete():
		return "", errRest
	}
	last := errors.New("no close has the acks of all its members")
	for _, c := range a.closes {
		said := a.verdicts[c.Hash()]
		if len(said) < c.Active.Size() {
			continue
		}
		d := round.DecideSet(a.ch, a.rc.NMin, a.candidates, c.Active, said)
		if d.Err != nil {
			last = d.Err
			continue
		}
		s := make([]statement.Contributor, len(d.Set))
		for i, k := range d.Set {
			s[i] = statement.Contributor{Device: a.candidates[k].Device, Header: a.candidates[k].Header}
		}
		if h := statement.HashSet(a.id, s); h != a.decision {
			last = fmt.Errorf("the acks of %v give the set %s, the members decided %s", c.Active, h, a.decision)
			continue
		}
		if !slices.EqualFunc(s, a.rec.GetContributors(), func(c statement.Contributor, b []byte) bool { return bytes.Equal(c.Device[:], b) }) {
			return "", errors.New("the record lists other contributors than the set holds")
		}
		return fmt.Sprintf("%d of %d candidates, recomputed from the acks of %v: %s", len(s), len(a.candidates), c.Active, a.decision), nil
	}
	return "", last
}

// decisionCertificate checks the q votes for a set or for DEAD, and that there are not both.
func (a *audit) decisionCertificate() (string, error) {
	votes, expired := statements(a.rec.GetVotes()), statements(a.rec.GetExpired())
	dead := statement.VerifyDeadCert(a.ch, a.rc, votes, expired)
	phase := a.rec.GetPhase()
	if !a.decided || a.decision == statement.Dead() {
		switch {
		case dead == nil:
			return "a death certificate: nothing was opened, nothing ever will be", nil
		case a.rec.GetDeath() == round.Certified.String():
			return "", dead
		case a.rec.GetDeath() == round.Expired.String():
			return "", absent("expired without a certificate: never published, its contributions count as opened")
		}
		return "", absent("%d of %d votes", len(votes), a.ch.Q)
	}
	set := statement.VerifySetCert(a.ch, a.rc, a.decision, votes)
	switch {
	case set == nil && dead == nil && statement.VerifyDeadCert(a.ch, a.rc, votes, nil) == nil:
		return "", errors.New("there are votes enough for a set and for the round's death: more members lie than the charter allows for")
	case set == nil && dead == nil:
		return "votes enough for a set, which no listed member revealed or ever will: a death certificate", nil
	case set == nil:
		return fmt.Sprintf("%d votes for the set, needs %d", len(votes), a.ch.Q), nil
	case dead == nil:
		return "a death certificate: nothing was opened, nothing ever will be", nil
	case phase == round.Acked.String():
		return "", absent("%d of %d votes", len(votes), a.ch.Q)
	case a.rec.GetDeath() == round.Expired.String():
		return "", absent("expired without a certificate: never published, its contributions count as opened")
	}
	return "", set
}

// reveals checks that members revealed for the certified set and agree on every sum.
func (a *audit) reveals() (string, error) {
	reveals := a.rec.GetReveals()
	phase := a.rec.GetPhase()
	wanted := phase == round.Revealed.String() || phase == round.Published.String()
	if len(reveals) == 0 && !wanted {
		return "", absent("none yet")
	}
	sumY := map[label.Hash]statement.Mask{}
	sums := map[statement.Mask]map[label.Hash]statement.Mask{} // who says what, by subset
	for _, p := range reveals {
		s := round.FromMemberStatement(p)
		r, err := statement.ParseReveal(s.Statement.Body)
		if err != nil {
			return "", fmt.Errorf("member %d: %w", s.Member, err)
		}
		if r.Round != a.id || !a.decided || r.Set != a.decision {
			return "", fmt.Errorf("member %d revealed for another round or set", s.Member)
		}
		if err := statement.VerifyVoteKey(a.rc, label.StmtReveal, s); err != nil {
			return "", err
		}
		own := committee.SubsetsOf(a.ch.N, a.ch.F, s.Member)
		if !slices.EqualFunc(r.TSums, own, func(t statement.TSum, m committee.Mask) bool { return t.Subset == m }) {
			return "", fmt.Errorf("member %d revealed for other subsets than its own", s.Member)
		}
		sumY[r.SumY] |= 1 << s.Member
		for _, t := range r.TSums {
			if sums[t.Subset] == nil {
				sums[t.Subset] = map[label.Hash]statement.Mask{}
			}
			sums[t.Subset][t.Hash] |= 1 << s.Member
		}
	}
	if len(sumY) > 1 {
		return "", fmt.Errorf("members disagree on the sum of uploads: %s", voices(sumY))
	}
	for _, t := range committee.Subsets(a.ch.N, a.ch.F) {
		if len(sums[t]) > 1 {
			return "", fmt.Errorf("members disagree on the mask sum of %v: %s", t, voices(sums[t]))
		}
	}
	if !wanted {
		return "", absent("%d, and they agree; not enough yet", len(reveals))
	}
	for h, who := range sumY {
		if who.Size() < a.ch.Believe() {
			return "", fmt.Errorf("the sum of uploads %s is signed by %d members, needs %d", h, who.Size(), a.ch.Believe())
		}
	}
	if len(sumY) == 0 {
		return "", errors.New("the round is " + phase + " without reveals")
	}
	for _, t := range committee.Subsets(a.ch.N, a.ch.F) {
		n := 0
		for _, who := range sums[t] {
			n = who.Size()
		}
		if n < a.ch.BelieveSubset() {
			return "", fmt.Errorf("the mask sum of %v is signed by %d members, needs %d", t, n, a.ch.BelieveSubset())
		}
	}
	return fmt.Sprintf("%d members agree on the sum of uploads and on all %d mask sums", len(reveals), len(sums)), nil
}

// voices writes who said what.
func voices(said map[label.Hash]statement.Mask) string {
	var out []string
	for h, who := range said {
		out = append(out, fmt.Sprintf("%v %s", who, h))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func (a *audit) resultCertificate() (string, error) {
	published := a.rec.GetPhase() == round.Published.String()
	if a.rec.GetResult() == nil {
		if published {
			return "", errors.New("the record says published and has no result")
		}
		return "", absent("not published")
	}
	if !published {
		return "", fmt.Errorf("the record has a result and says %s", a.rec.GetPhase())
	}
	r, err := statement.VerifyResultCert(a.ch, a.rec.GetResult().GetBody(), signatures(a.rec.GetResult().GetSignatures()))
	if err != nil {
		return "", err
	}
	if r.Round != a.id || !a.decided || r.Set != a.decision {
		return "", errors.New("the result is of another round or set")
	}
	a.result = r
	return fmt.Sprintf("signed by %d members, needs %d", len(a.rec.GetResult().GetSignatures()), a.ch.Believe()), nil
}

// state fetches the published state and compares its hash, layout and place.
func (a *audit) state() (string, error) {
	if a.result == nil {
		return "", absent("no result that checks out")
	}
	b, err := a.src.state(a.result.Model)
	if err != nil {
		return "", err
	}
	if _, err := parseState(a.task, a.rc.Seq, a.result.Model, b); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d bytes, %d values, hash and layout as signed: %s", len(b), a.task.Layout.D(), a.result.Model), nil
}

// parseState reads the canonical bytes of a published state and checks that they are the ones meant.
func parseState(task *charter.Task, seq uint64, want label.Hash, b []byte) (layout.Model, error) {
	if got := label.Sum(label.TagModel, b); got != want {
		return layout.Model{}, fmt.Errorf("the state's bytes hash to %s, signed is %s", got, want)
	}
	m, err := layout.ParseModel(b, task.Layout.D())
	if err != nil {
		return m, err
	}
	if err := task.Layout.Check(m); err != nil {
		return m, err
	}
	if m.TaskID != task.ID || m.Seq != seq {
		return m, fmt.Errorf("the state is of %s/%d, the round is %s/%d", m.TaskID, m.Seq, task.ID, seq)
	}
	return m, nil
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
