package round

import (
	"errors"
	"fmt"

	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// Restore replaces the state by a snapshot's. Every signature in it is verified again, every certificate counted
// again and every decided set derived again from its Acks; on an error the state is as before.
func (m *Machine) Restore(snapshot []byte) error {
	d := &reader{b: snapshot}
	if string(d.take(len(snapshotMagic))) != snapshotMagic {
		return errors.New("snapshot: not a state of rounds")
	}
	if v := d.u8(); v != snapshotVersion {
		return fmt.Errorf("snapshot: version %d, this program reads %d", v, snapshotVersion)
	}
	out := New(m.ch)
	out.applied = d.u64()
	if err := out.decodeState(d); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	*m = *out
	return nil
}

func (m *Machine) decodeState(d *reader) error {
	if h := d.hash(); d.err == nil && h != m.ch.Hash() {
		return fmt.Errorf("of charter %v, this member runs by %v", h, m.ch.Hash())
	}
	m.timeMs = d.time()
	for j := range m.packages {
		if !d.flag() {
			continue
		}
		s := d.signed()
		k, err := statement.VerifyKeyPackage(m.ch, s)
		if err != nil {
			return d.or(err)
		}
		if k.Member != j {
			return fmt.Errorf("key package of member %d in place %d", k.Member, j)
		}
		m.packages[j] = &keyPackage{s, k}
	}
	if horizon := m.HorizonMs(); m.timeMs > horizon {
		return d.or(fmt.Errorf("log time %d, the keys of f+1 members reach %d", m.timeMs, horizon))
	}
	if err := m.decodeEpochs(d); err != nil {
		return d.or(err)
	}
	if err := m.decodeDevices(d); err != nil {
		return d.or(err)
	}
	for _, l := range m.lines {
		if err := m.decodeLine(d, l); err != nil {
			return d.or(fmt.Errorf("task %s: %w", l.task.ID, err))
		}
	}
	return d.end()
}

func (m *Machine) decodeDevices(d *reader) error {
	var last label.Hash
	for i := range d.count(DevicesMax*len(m.tokens), 1) {
		s := d.signed()
		c, err := statement.VerifyDeviceCert(m.ch, s)
		if err != nil {
			return err
		}
		if i > 0 && compareHashes(last, c.Device) >= 0 {
			return errors.New("devices are out of order")
		}
		last = c.Device
		m.devices[c.Device] = &device{signed: s, cert: c, used: d.u32()}
	}
	for a := range m.tokens {
		m.tokens[a] = d.hashMap(DevicesMax)
		for _, id := range m.tokens[a] {
			if m.devices[id] == nil {
				return errors.New("a token enrolled a device without certificate")
			}
		}
	}
	for id, v := range m.devices {
		if m.tokens[v.cert.Authority][v.cert.Token] != id {
			return errors.New("a device's token is not in the list of used tokens")
		}
	}
	return nil
}

func (m *Machine) decodeLine(d *reader, l *line) error {
	l.seq, l.usedStart = d.u64(), d.hash()
	l.used = d.hashMap(DevicesMax * len(m.tokens))
	n := d.count(RoundsKept+1, 1)
	for range n {
		r, err := m.decodeRound(d)
		if err != nil {
			return err
		}
		if r.rc.Task != l.task.ID || m.rounds[r.id] != nil || (l.newest != nil && (r.rc.Seq <= l.newest.rc.Seq || !l.newest.phase.Terminal())) {
			return fmt.Errorf("round %v is in a wrong place", r.id)
		}
		if r.phase == Proposed { // as in the log: whoever is to sign it rests on that
			if err := l.checkStart(r.rc.Start); err != nil {
				return fmt.Errorf("round %v: %w", r.id, err)
			}
		}
		l.kept = append(l.kept, r)
		l.newest = r
		m.rounds[r.id] = r
		if d.flag() {
			if r.phase != Published {
				return fmt.Errorf("round %v is named the newest result and is %s", r.id, r.phase)
			}
			l.latest = r
		} else if r.phase == Published && l.latest != nil {
			return fmt.Errorf("round %v is published after the newest result", r.id)
		}
	}
	if l.newest != nil && l.newest.rc.Seq != l.seq || l.newest == nil && l.seq != 0 {
		return fmt.Errorf("seq %d is not the newest round's", l.seq)
	}
	if l.newest != nil && l.usedStart != l.newest.start || l.newest == nil && (len(l.used) > 0 || !l.usedStart.IsZero()) {
		return errors.New("the list of used starts is not of the newest round's start")
	}
	if d.err != nil {
		return d.err
	}
	return l.checkKept()
}

// checkKept checks what a line says of its rounds: no result is passed over, and no device of an expired round is free
// to upload from the same start.
func (l *line) checkKept() error {
	if err := l.checkSeqs(); err != nil {
		return err
	}
	for _, r := range l.kept {
		if r.phase == Published && l.latest == nil {
			return fmt.Errorf("round %v is published and the task has no result", r.id)
		}
		if r.death != Expired || r.slim || r.start != l.usedStart {
			continue
		}
		for i := range r.accepts {
			if l.used[r.accepts[i].Device] != r.id {
				return fmt.Errorf("a device of expired round %v is free to upload from its start again", r.id)
			}
		}
	}
	return nil
}

// checkSeqs refuses seqs that no log can have come to: they rise by one, and rounds are proposed a least time apart. A seq
// that stands at least Every for each step after one that q members signed, or after the first, is not far from the true
// one; a member that signed a greater one would sign none of the task's rounds any more.
func (l *line) checkSeqs() error {
	if len(l.kept) == 0 {
		return nil
	}
	if a := l.anchor(); a.rc.Seq != 1 && !a.reached(Open) {
		return errors.New("no round is the first and none is certified")
	}
	for i, r := range l.kept[1:] {
		before := l.kept[i].rc
		if apart := r.rc.ProposedMs - before.ProposedMs; apart < 0 || r.rc.Seq-before.Seq > uint64(apart/l.everyMs()) {
			return fmt.Errorf("round %d was proposed %d ms after round %d: there was no time for those between", r.rc.Seq, apart, before.Seq)
		}
	}
	return nil
}

func (m *Machine) decodeRound(d *reader) (*round, error) {
	body := d.bytes(statement.ConfigBytesMax)
	rc, err := statement.ParseRoundConfig(body)
	if err != nil {
		return nil, d.or(err)
	}
	if err := rc.Check(m.ch); err != nil {
		return nil, err
	}
	r := newRound(statement.RoundID(body), body, rc, d.u64())
	r.phase, r.death = Phase(d.u8()), Death(d.u8())
	for p := Proposed; p <= Dead; p++ {
		if r.began[p], r.times[p] = d.flag(), d.time(); r.times[p] > m.timeMs {
			return nil, d.or(fmt.Errorf("round %v was %s after the log time", r.id, p))
		}
	}
	for j := range r.signatures {
		if sig := d.bytes(statement.SignatureMax); len(sig) > 0 {
			r.signatures[j] = sig
		}
	}
	r.decided, r.decision, r.reason, r.foreign = d.flag(), d.hash(), string(d.bytes(DetailBytesMax)), d.flag()
	r.counts = counts{accepted: d.u32(), contributors: d.u32(), bytes: d.u64(), candidates: d.hash()}
	if err := m.decodeStatements(d, r); err != nil {
		return nil, d.or(fmt.Errorf("round %v: %w", r.id, err))
	}
	for range d.count(codesMax, 1) {
		code := Code(d.bytes(DetailBytesMax))
		r.refused[code] = d.u32()
	}
	r.slim = d.flag()
	if err := m.decodeAccepts(d, r); err != nil {
		return nil, d.or(fmt.Errorf("round %v: %w", r.id, err))
	}
	if err := m.decodeCloses(d, r); err != nil {
		return nil, d.or(fmt.Errorf("round %v: %w", r.id, err))
	}
	if d.err != nil {
		return nil, d.err
	}
	if err := m.checkRound(r); err != nil {
		return nil, fmt.Errorf("round %v: %w", r.id, err)
	}
	return r, nil
}

// decodeStatements reads and verifies what members said of r.
func (m *Machine) decodeStatements(d *reader, r *round) error {
	for j := range statement.MembersMax {
		member := func() said { return said{r.id, j, d.signed()} }
		if d.flag() {
			s := member()
			if a, err := statement.ParseAbort(s.signed.Body); err != nil || a.Round != r.id {
				return errors.New("abort is malformed")
			}
			if err := m.verifyIdentity(label.StmtAbort, s); err != nil {
				return err
			}
			r.aborts[j] = &s.signed
		}
		if d.flag() {
			s := member()
			v, err := statement.ParseVote(s.signed.Body)
			if err := wellSaid(r, label.StmtVote, s, err, func() label.Hash { return v.Round }); err != nil {
				return err
			}
			r.votes[j] = &vote{s.signed, v.Value}
		}
		if d.flag() {
			s := member()
			v, err := statement.ParseExpired(s.signed.Body)
			if err := wellSaid(r, label.StmtExpired, s, err, func() label.Hash { return v.Round }); err != nil {
				return err
			}
			r.expired[j] = &s.signed
		}
		if d.flag() {
			s := member()
			v, err := statement.ParseReveal(s.signed.Body)
			if err := wellSaid(r, label.StmtReveal, s, err, func() label.Hash { return v.Round }); err != nil {
				return err
			}
			if v.Set != r.decision || !r.coversSubsets(m, j, v) {
				return fmt.Errorf("member %d revealed for another set or other subsets", j)
			}
			r.reveals[j] = &reveal{s.signed, v}
		}
		if d.flag() {
			s := member()
			v, err := statement.ParseResult(s.signed.Body)
			if err != nil || v.Round != r.id || v.Set != r.decision {
				return errors.New("result is malformed or of another set")
			}
			if err := m.verifyIdentity(label.StmtResult, s); err != nil {
				return err
			}
			r.results[j] = &result{s.signed, v}
		}
	}
	if d.flag() {
		body := d.bytes(statement.BodyBytesMax)
		for _, v := range r.results {
			if v != nil && r.opened == nil && string(v.signed.Body) == string(body) {
				r.opened = v
			}
		}
		if r.opened == nil {
			return errors.New("the published result is none that a member signed")
		}
	}
	return d.err
}

func wellSaid(r *round, stmt string, s said, err error, round func() label.Hash) error {
	if err != nil {
		return err
	}
	if round() != r.id {
		return fmt.Errorf("%s of member %d is of another round", stmt, s.member)
	}
	return r.verify(stmt, s)
}

func (m *Machine) verifyIdentity(stmt string, s said) error {
	if s.member >= m.ch.N {
		return fmt.Errorf("member %d is not in the charter", s.member)
	}
	return m.ch.Members[s.member].Identity.Verify(stmt, s.signed.Body, s.signed.Signature)
}

func (m *Machine) decodeAccepts(d *reader, r *round) error {
	for i := range d.count(int(r.rc.NMax), 1) {
		a, err := statement.ParseAccept(d.bytes(statement.BodyBytesMax))
		if err != nil {
			return err
		}
		_, twice := r.byDevice[a.Device]
		known := m.devices[a.Device]
		if a.Round != r.id || twice || known == nil {
			return fmt.Errorf("accept %d is of another round, a second one or of no certified device", i)
		}
		if err := statement.VerifyContribution(known.cert.Public, a.Round, a.Header, a.Signature); err != nil {
			return err
		}
		if a.Authority != known.cert.Authority && !r.phase.Terminal() { // the cohort floor is counted by it
			return fmt.Errorf("accept %d counts for authority %d, its device is certified by %d", i, a.Authority, known.cert.Authority)
		}
		if a.Size != r.rc.ContributionSize(m.ch) || (a.Holders&r.listed).Size() < m.ch.Believe() {
			return fmt.Errorf("accept %d is not one that the log takes", i)
		}
		r.byDevice[a.Device] = i
		r.accepts = append(r.accepts, accept{*a, d.u64()})
	}
	return d.err
}

func (m *Machine) decodeCloses(d *reader, r *round) error {
	for range d.count(1<<statement.MembersMax, 1) {
		c, err := statement.ParseClose(d.bytes(statement.BodyBytesMax))
		if err != nil {
			return err
		}
		cl := &closing{close: c, hash: c.Hash(), index: d.u64(), atMs: d.time()}
		if c.Round != r.id || c.Candidates != r.candidates() || c.Active&^r.listed != 0 || c.Active.Size() < m.ch.ActiveMin() || r.closing(cl.hash) != nil || cl.atMs > m.timeMs {
			return errors.New("close is not one that the log takes")
		}
		for j := range cl.acks {
			if !d.flag() {
				continue
			}
			s := said{r.id, j, d.signed()}
			a, err := statement.ParseAck(s.signed.Body)
			if err := wellSaid(r, label.StmtAck, s, err, func() label.Hash { return a.Round }); err != nil {
				return err
			}
			if a.Close != cl.hash || !c.Active.Has(j) || len(a.Verdicts) != len(r.accepts) {
				return fmt.Errorf("ack of member %d is not of its close", j)
			}
			cl.acks[j] = &ack{signed: s.signed, verdicts: a.Verdicts, index: d.u64()}
		}
		r.closes = append(r.closes, cl)
		if set, ok := m.evaluate(r, cl); ok {
			if r.set != nil {
				return errors.New("two closes are complete and legal")
			}
			r.set = set
		}
	}
	return d.err
}

// checkRound counts again every certificate that r's phase claims.
func (m *Machine) checkRound(r *round) error {
	if r.phase < Proposed || r.phase > Dead || r.death > Expired || (r.phase == Dead) != (r.death != NotDead) || !r.began[r.phase] {
		return errors.New("phase is none")
	}
	for _, j := range r.signers().Members() {
		if !r.listed.Has(j) {
			return fmt.Errorf("member %d signed and is not listed", j)
		}
		if err := m.ch.Members[j].Identity.Verify(label.StmtRoundConfig, r.body, r.signatures[j]); err != nil {
			return err
		}
	}
	certified := r.signers().Size() >= m.ch.Q
	if r.began[Open] != certified {
		return errors.New("round certificate and phase disagree")
	}
	if r.decided != (r.phase >= Acked) {
		return errors.New("decision and phase disagree")
	}
	forSet := r.decided && r.decision != statement.Dead()
	if !r.slim {
		if err := r.checkCounts(forSet); err != nil {
			return err
		}
	} else if len(r.accepts)+len(r.closes) > 0 || !r.phase.Terminal() {
		return errors.New("a shortened round has contributions or is live")
	}
	if !r.decided && r.phase != Proposed && !certified {
		return errors.New("round is open without certificate")
	}
	sealed := forSet && r.votesFor(r.decision).Size() >= m.ch.Q
	_, believed := m.believed(r)
	switch {
	case r.phase >= Sealed && r.phase <= Published && !sealed:
		return errors.New("round is sealed without certificate")
	case r.phase == Revealed && !believed:
		return errors.New("round is revealed without its sums")
	case (r.phase == Published) != (r.opened != nil):
		return errors.New("result and phase disagree")
	case r.phase == Published && r.resultSigners(r.opened).Size() < m.ch.Believe():
		return errors.New("round is published without certificate")
	case r.death == Certified && r.votesFor(statement.Dead()).Size() < m.ch.Q && !r.allExpired():
		return errors.New("round is certified dead without certificate")
	}
	return nil
}

// checkCounts derives again what the Accepts and Acks say.
func (r *round) checkCounts(forSet bool) error {
	var size uint64
	for i := range r.accepts {
		size += r.accepts[i].Size
	}
	if int(r.counts.accepted) != len(r.accepts) || r.counts.bytes != size {
		return errors.New("counts are not those of the accepts")
	}
	if len(r.closes) > 0 && r.counts.candidates != r.candidates() {
		return errors.New("candidates are not those of the closes")
	}
	if forSet != (r.set != nil) {
		return errors.New("the decision is not the one that the acks make")
	}
	if forSet {
		members := make([]statement.Contributor, len(r.set))
		for i, k := range r.set {
			members[i] = statement.Contributor{Device: r.accepts[k].Device, Header: r.accepts[k].Header}
		}
		if statement.HashSet(r.id, members) != r.decision || int(r.counts.contributors) != len(r.set) {
			return errors.New("the decided set is not the one that the acks make")
		}
	}
	return nil
}
