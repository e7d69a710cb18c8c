package round

import (
	"maps"

	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// Candidate is one accepted contribution.
type Candidate struct {
	Device    label.Hash
	Header    label.Hash
	Authority int
	Size      uint64
	Holders   statement.Mask // members that had it when it was proposed; more may have it now
	Signature []byte         // the device's, over H(RC) ‖ H(header)
	Index     uint64         // log index of its Accept, which receipts name
}

// View is what a service may show of a round, and stays as it is when the round goes on. The RoundConfig and the bytes
// in it are shared with the machine, which never changes them; nor may its readers.
type View struct {
	ID         label.Hash
	Config     *statement.RoundConfig
	Body       []byte // the config's exact bytes
	Signatures []statement.MemberSignature
	Index      uint64 // of the proposal

	Phase  Phase
	Death  Death
	Times  []PhaseTime // in the order in which the phases began
	Newest bool        // no later round of its task and cell

	Accepted     int
	Contributors int    // |S|, once decided for a set
	Bytes        uint64 // declared by the Accepts
	Candidates   label.Hash
	Closes       []CloseView
	Refused      map[Code]uint32

	Decided  bool
	Decision label.Hash // H(S) or DEAD
	Reason   string     // why DEAD
	Foreign  bool       // alarm: a certificate for another value than this log decided
	Split    bool       // alarm: members revealed different hashes of one sum, or signed different Results

	Votes   []statement.MemberStatement
	Expired []statement.MemberStatement
	Reveals []statement.MemberStatement

	Result           *statement.Result // nil before Published
	ResultBody       []byte
	ResultSignatures []statement.MemberSignature
}

// PhaseTime is the log time at which a phase began.
type PhaseTime struct {
	Phase  Phase
	UnixMs int64
}

// CloseView is one Close and how it stands.
type CloseView struct {
	Hash     label.Hash
	Active   statement.Mask
	Acked    statement.Mask
	AtMs     int64
	Index    uint64
	Complete bool
	Legal    bool
	Blamed   statement.Mask
}

// Round returns a kept round.
func (m *Machine) Round(id label.Hash) (View, bool) {
	r := m.rounds[id]
	if r == nil {
		return View{}, false
	}
	return m.view(r), true
}

// Rounds lists every kept round, by task in the charter's order, oldest first.
func (m *Machine) Rounds() []View {
	var out []View
	for _, l := range m.lines {
		for _, r := range l.kept {
			out = append(out, m.view(r))
		}
	}
	return out
}

// Latest returns the newest published round of a task.
func (m *Machine) Latest(task string) (View, bool) {
	l := m.line(task)
	if l == nil || l.latest == nil {
		return View{}, false
	}
	return m.view(l.latest), true
}

// Newest returns the newest round of a task, in whatever phase.
func (m *Machine) Newest(task string) (View, bool) {
	l := m.line(task)
	if l == nil || l.newest == nil {
		return View{}, false
	}
	return m.view(l.newest), true
}

func (m *Machine) view(r *round) View {
	v := View{ID: r.id, Config: r.rc, Body: r.body, Index: r.index, Phase: r.phase, Death: r.death,
		Newest: m.line(r.rc.Task).newest == r, Accepted: int(r.counts.accepted), Contributors: int(r.counts.contributors),
		Bytes: r.counts.bytes, Candidates: r.counts.candidates, Refused: maps.Clone(r.refused), Decided: r.decided,
		Decision: r.decision, Reason: r.reason, Foreign: r.foreign, Split: r.split()}
	for p := Proposed; p <= Dead; p++ {
		if r.reached(p) {
			v.Times = append(v.Times, PhaseTime{p, r.times[p]})
		}
	}
	for i, s := range r.signatures {
		if s != nil {
			v.Signatures = append(v.Signatures, statement.MemberSignature{Member: i, Signature: s})
		}
	}
	for _, c := range r.closes {
		cv := CloseView{Hash: c.hash, Active: c.close.Active, AtMs: c.atMs, Index: c.index, Complete: c.complete, Legal: c.legal, Blamed: c.blamed}
		for j, a := range c.acks {
			if a != nil {
				cv.Acked |= 1 << j
			}
		}
		v.Closes = append(v.Closes, cv)
	}
	for i := range r.votes {
		v.Votes = appendStatement(v.Votes, i, r.votes[i] != nil, func() statement.Signed { return r.votes[i].signed })
		v.Expired = appendStatement(v.Expired, i, r.expired[i] != nil, func() statement.Signed { return *r.expired[i] })
		v.Reveals = appendStatement(v.Reveals, i, r.reveals[i] != nil, func() statement.Signed { return r.reveals[i].signed })
	}
	if r.opened != nil {
		result := *r.opened.parsed
		v.Result, v.ResultBody = &result, r.opened.signed.Body
		signers := r.resultSigners(r.opened)
		for _, i := range signers.Members() {
			v.ResultSignatures = append(v.ResultSignatures, statement.MemberSignature{Member: i, Signature: r.results[i].signed.Signature})
		}
	}
	return v
}

func appendStatement(out []statement.MemberStatement, member int, ok bool, get func() statement.Signed) []statement.MemberStatement {
	if !ok {
		return out
	}
	return append(out, statement.MemberStatement{Member: member, Statement: get()})
}

// split reports whether members contradict each other on what they computed.
func (r *round) split() bool {
	var sum *statement.Reveal
	subsets := map[statement.Mask]label.Hash{}
	for _, v := range r.reveals {
		if v == nil {
			continue
		}
		if sum == nil {
			sum = v.parsed
		} else if sum.SumY != v.parsed.SumY {
			return true
		}
		for _, t := range v.parsed.TSums {
			if h, ok := subsets[t.Subset]; ok && h != t.Hash {
				return true
			}
			subsets[t.Subset] = t.Hash
		}
	}
	var first *result
	for _, v := range r.results {
		if v == nil {
			continue
		}
		if first == nil {
			first = v
		} else if string(first.signed.Body) != string(v.signed.Body) {
			return true
		}
	}
	return false
}

// Candidates lists a round's accepted contributions in log order; nil for a round too old to keep them.
func (m *Machine) Candidates(id label.Hash) []Candidate {
	if r := m.rounds[id]; r != nil {
		return r.candidateList()
	}
	return nil
}

func (r *round) candidateList() []Candidate {
	out := make([]Candidate, len(r.accepts))
	for i := range r.accepts {
		out[i] = r.candidate(i)
	}
	return out
}

func (r *round) candidate(i int) Candidate {
	a := &r.accepts[i]
	return Candidate{Device: a.Device, Header: a.Header, Authority: a.Authority, Size: a.Size, Holders: a.Holders, Signature: a.Signature, Index: a.index}
}

// Candidate returns a device's accepted contribution in a round: what it may have a receipt for.
func (m *Machine) Candidate(id, header label.Hash) (Candidate, bool) {
	if r := m.rounds[id]; r != nil {
		for i := range r.accepts {
			if r.accepts[i].Header == header {
				return r.candidate(i), true
			}
		}
	}
	return Candidate{}, false
}

// Set lists the decided set, ascending by device id; nil unless the round is decided for one.
func (m *Machine) Set(id label.Hash) []Candidate {
	r := m.rounds[id]
	if r == nil || r.set == nil {
		return nil
	}
	out := make([]Candidate, len(r.set))
	for i, k := range r.set {
		out[i] = r.candidate(k)
	}
	return out
}

// Close returns a Close of a round, as a member that owes its Ack needs it.
func (m *Machine) Close(id, hash label.Hash) (*statement.Close, bool) {
	r := m.rounds[id]
	if r == nil {
		return nil, false
	}
	c := r.closing(hash)
	if c == nil {
		return nil, false
	}
	out := *c.close
	return &out, true
}

// Sums returns the sums of a round that enough members signed; false while one is missing.
func (m *Machine) Sums(id label.Hash) (Sums, bool) {
	r := m.rounds[id]
	if r == nil {
		return Sums{}, false
	}
	return m.believed(r)
}

// Revealed lists the members that signed hash for the sum of y, or for the sum of subset's masks: whom to fetch it from.
func (m *Machine) Revealed(id, hash label.Hash) (holders statement.Mask) {
	r := m.rounds[id]
	if r == nil {
		return 0
	}
	for j, v := range r.reveals {
		if v == nil {
			continue
		}
		if v.parsed.SumY == hash {
			holders |= 1 << j
		}
		for _, t := range v.parsed.TSums {
			if t.Hash == hash {
				holders |= 1 << j
			}
		}
	}
	return holders
}

// KeyPackage returns a member's newest key package.
func (m *Machine) KeyPackage(member int) (statement.Signed, *statement.KeyPackage, bool) {
	if member < 0 || member >= len(m.packages) || m.packages[member] == nil {
		return statement.Signed{}, nil, false
	}
	k := *m.packages[member].parsed
	return m.packages[member].signed, &k, true
}

// Device returns the certificate of a device.
func (m *Machine) Device(id label.Hash) (statement.Signed, *statement.DeviceCert, bool) {
	d := m.devices[id]
	if d == nil {
		return statement.Signed{}, nil, false
	}
	c := *d.cert
	return d.signed, &c, true
}

// TokenDevice returns the device that an authority's token enrolled.
func (m *Machine) TokenDevice(authority int, token label.Hash) (label.Hash, bool) {
	if authority < 0 || authority >= len(m.tokens) {
		return label.Hash{}, false
	}
	id, ok := m.tokens[authority][token]
	return id, ok
}

// Acceptable says what Apply would answer to an Accept of a device now, before the device sends its vector. It looks at
// everything but the Accept's signature, size and holders.
func (m *Machine) Acceptable(id, deviceID, header label.Hash) Outcome {
	r := m.rounds[id]
	if r == nil {
		return refuse(UnknownRound, id.String())
	}
	if i, ok := r.byDevice[deviceID]; ok && r.accepts[i].Header == header {
		return Outcome{Code: Duplicate, Index: r.accepts[i].index}
	}
	d := m.devices[deviceID]
	if d == nil {
		return refuse(UnknownDevice, deviceID.String())
	}
	return m.acceptable(r, d, &statement.Accept{Round: id, Header: header, Device: deviceID, Authority: d.cert.Authority,
		Size: r.rc.ContributionSize(m.ch), Holders: r.listed})
}
