package round

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// apply adds a proposed round (SA 2.3, Opening). That the config is what the charter prescribes, parse has checked;
// here it has to fit the log: the round before has ended, the start is where the task stands, the keys are the newest.
func (c proposeCommand) apply(m *Machine, index uint64) []Outcome {
	return []Outcome{m.propose(c.body, c.rc, index)}
}

func (m *Machine) propose(body []byte, rc *statement.RoundConfig, index uint64) Outcome {
	id := statement.RoundID(body)
	if m.rounds[id] != nil {
		return Outcome{Code: Duplicate}
	}
	l := m.line(rc.Task)
	if l == nil {
		return refuse(BadConfig, "the task is not in the charter")
	}
	if l.newest != nil && !l.newest.phase.Terminal() {
		return refuse(RoundLive, fmt.Sprintf("round %d of %s is %s", l.newest.rc.Seq, rc.Task, l.newest.phase))
	}
	if rc.Seq != l.seq+1 {
		return refuse(BadSeq, fmt.Sprintf("seq %d, the next of %s is %d", rc.Seq, rc.Task, l.seq+1))
	}
	if rc.ProposedMs < m.timeMs-m.ch.Timing.Slack.Milliseconds() || rc.CloseMs <= m.timeMs {
		return refuse(TooLate, fmt.Sprintf("proposed at %d, log time %d", rc.ProposedMs, m.timeMs))
	}
	if l.newest != nil && rc.ProposedMs < l.newest.rc.ProposedMs+l.everyMs() {
		return refuse(TooEarly, fmt.Sprintf("rounds of %s are at least %d ms apart", rc.Task, l.everyMs()))
	}
	if err := l.checkStart(rc.Start); err != nil {
		return refuse(BadStart, err.Error())
	}
	for _, s := range rc.KeyPackages {
		k, err := statement.ParseKeyPackage(s.Body)
		if err != nil {
			return refuse(BadConfig, err.Error())
		}
		if newest := m.packages[k.Member]; newest == nil || !bytes.Equal(newest.signed.Body, s.Body) {
			return refuse(StaleKeyPackage, fmt.Sprintf("member %d: epoch %d is not its newest", k.Member, k.Epoch))
		}
	}
	r := newRound(id, body, rc, index)
	r.enter(Proposed, m.timeMs)
	l.seq = rc.Seq
	if r.start != l.usedStart {
		l.usedStart = r.start
		clear(l.used)
	}
	l.newest = r
	l.kept = append(l.kept, r)
	m.rounds[id] = r
	m.prune(l)
	return Outcome{Code: OK}
}

func newRound(id label.Hash, body []byte, rc *statement.RoundConfig, index uint64) *round {
	return &round{id: id, rc: rc, body: body, start: rc.Start.Hash(rc.Task, rc.Cell), listed: rc.Listed(), index: index,
		refused: map[Code]uint32{}, byDevice: map[label.Hash]int{}}
}

// nextStart is where the task stands: for kind lora the newest result, before the first the public init. Kind vector
// trains nothing: it always starts at the init, and only part, the data window, moves.
func (l *line) nextStart(part string) statement.Start {
	s := statement.Start{Model: l.init, Part: part}
	if l.task.Kind == charter.KindLoRA {
		s.Part = l.task.Layout.Factor
		if l.latest != nil {
			s.Model = l.latest.opened.parsed.Model
			s.Results = []label.Hash{statement.HashResult(l.latest.opened.signed.Body)}
		}
	}
	return s
}

// checkStart refuses every start but nextStart's, and a data window that was left or published. So a start that a
// task left never comes back, under whatever name.
func (l *line) checkStart(s statement.Start) error {
	want := l.nextStart(s.Part)
	if s.Model != want.Model || s.Part != want.Part || !slices.Equal(s.Results, want.Results) {
		return fmt.Errorf("start is not where task %s stands", l.task.ID)
	}
	if l.task.Kind != charter.KindVector {
		return nil
	}
	end, err := l.task.ParseWindowPart(s.Part)
	if err != nil {
		return err
	}
	if l.newest != nil {
		if last, err := l.task.ParseWindowPart(l.newest.rc.Start.Part); err == nil && end.Before(last) {
			return fmt.Errorf("window %s lies before the last round's", s.Part)
		}
	}
	if l.latest != nil {
		if last, err := l.task.ParseWindowPart(l.latest.rc.Start.Part); err == nil && !end.After(last) {
			return fmt.Errorf("window %s is published", s.Part)
		}
	}
	return nil
}

// everyMs is the least time from one proposal to the next.
func (l *line) everyMs() int64 { return max(l.task.Timings.Every.Milliseconds(), 1) }

// anchor is the round by which a stranger believes the seq of the newest: the newest certified, before that the first. nil
// before the first.
func (l *line) anchor() *round {
	for i := len(l.kept) - 1; i >= 0; i-- {
		if l.kept[i].reached(Open) {
			return l.kept[i]
		}
	}
	if len(l.kept) == 0 {
		return nil
	}
	return l.kept[0]
}

// Certified is the seq of a task's newest certified round, 0 before the first.
func (m *Machine) Certified(task string) uint64 {
	l := m.line(task)
	if l == nil {
		return 0
	}
	if a := l.anchor(); a != nil && a.reached(Open) {
		return a.rc.Seq
	}
	return 0
}

// prune bounds the memory of one task: old rounds keep only what proves their end, the oldest go. The newest, the newest
// published and the anchor always stay.
func (m *Machine) prune(l *line) {
	for i, r := range l.kept {
		if i < len(l.kept)-1-RoundsFull && !r.slim {
			r.slim, r.accepts, r.byDevice, r.closes, r.set = true, nil, nil, nil, nil
		}
	}
	anchor := l.anchor()
	for i := 0; len(l.kept) > RoundsKept && i < len(l.kept)-1; {
		if l.kept[i] == l.latest || l.kept[i] == anchor {
			i++
			continue
		}
		delete(m.rounds, l.kept[i].id)
		l.kept = slices.Delete(l.kept, i, i+1)
	}
}

// apply adds a member's identity signature; the q-th opens the round.
func (c roundSignatureCommand) apply(m *Machine, _ uint64) []Outcome {
	r := m.rounds[c.round]
	switch {
	case r == nil:
		return []Outcome{refuse(UnknownRound, c.round.String())}
	case !r.listed.Has(c.member):
		return []Outcome{refuse(NotListed, fmt.Sprintf("member %d", c.member))}
	case r.signatures[c.member] != nil:
		return []Outcome{{Code: Duplicate}}
	case r.phase != Proposed && r.phase != Open || r.decided:
		return []Outcome{refuse(TooLate, fmt.Sprintf("the round is %s", r.phase))}
	}
	if err := m.ch.Members[c.member].Identity.Verify(label.StmtRoundConfig, r.body, c.signature); err != nil {
		return []Outcome{refuse(BadSignature, err.Error())}
	}
	r.signatures[c.member] = c.signature
	if r.phase == Proposed && r.signers().Size() >= m.ch.Q {
		r.enter(Open, m.timeMs)
	}
	return []Outcome{{Code: OK}}
}

// CheckConfig is what member me checks of a proposed config besides its own keys, its own derivation of the start and
// its clock: that the charter prescribes it and that it lists me.
func CheckConfig(rc *statement.RoundConfig, ch *charter.Charter, me int) error {
	if !rc.Listed().Has(me) {
		return fmt.Errorf("round config does not list member %d", me)
	}
	return rc.Check(ch)
}

// CheckClock compares a proposal with the member's own clock: nothing else bounds what a lying leader calls now.
func CheckClock(rc *statement.RoundConfig, ch *charter.Charter, nowMs int64) error {
	slack := (ch.Timing.Slack + ch.Timing.Tick).Milliseconds()
	if d := rc.ProposedMs - nowMs; d > slack {
		return fmt.Errorf("round config was proposed %d ms in the future, limit %d", d, slack)
	}
	if nowMs >= rc.CloseMs {
		return fmt.Errorf("the close deadline of the round config passed %d ms ago", nowMs-rc.CloseMs)
	}
	return nil
}
