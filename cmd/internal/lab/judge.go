package lab

import (
	"bytes"
	"os"
	"path/filepath"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/intake"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/node/participant"
)

// What is judged at the moment it is said. The numbers are those of SA 8.

// spoken is everything that honest members said of a round, whatever log they read and whether or not it reached one.
type spoken struct {
	votes   map[int]label.Hash
	reveals map[int]*statement.Reveal
	expired map[int]bool
	results map[int][]byte
	served  statement.Mask // whose vectors left
}

// receiptSeen is a receipt that left a member.
type receiptSeen struct {
	member int
	round  label.Hash
	header label.Hash
	y      label.Hash
}

type uploadKey struct{ device, round label.Hash }

// Served is one vector that left a member.
type Served struct {
	Member int
	Round  label.Hash
	Hash   label.Hash
}

// Served lists every vector that ever left a member.
func (f *Federation) Served() []Served {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Served(nil), f.served...)
}

// of is what was said of a round. The caller holds mu.
func (f *Federation) of(id label.Hash) *spoken {
	s := f.spoken[id]
	if s == nil {
		s = &spoken{votes: map[int]label.Hash{}, reveals: map[int]*statement.Reveal{}, expired: map[int]bool{}, results: map[int][]byte{}}
		f.spoken[id] = s
	}
	return s
}

// judgeProposal looks at a command as a member proposes it. The caller holds mu.
func (f *Federation) judgeProposal(p *process, cmd *coordpb.Command, data []byte) {
	if f.secrets.within(data) { // 14
		f.fail("member %d proposes a command (%s) that holds a secret", p.seat.Index, commandName(cmd))
	}
	if k := cmd.GetKeyPackage(); k != nil {
		f.judgeKeyPackage(p, k)
		return
	}
	if c := cmd.GetRoundSignature(); c != nil {
		f.judgeRoundSignature(p, c)
		return
	}
	s := saidIn(cmd)
	if s == nil {
		return
	}
	r := p.seat.view.trace.rounds[s.round]
	if r == nil || s.member != p.seat.Index || !s.verified(f.Charter, r.rc) {
		f.fail("member %d proposes a %s that is not its own, not signed or of no round", p.seat.Index, s.kind)
		return
	}
	promised, err := p.seat.promises()
	if err != nil {
		f.fail("member %d: its vote files: %v", p.seat.Index, err)
		return
	}
	said := f.of(s.round)
	f.judgeDurable(p, r, s, promised)
	switch {
	case s.vote != nil: // 1
		if v, ok := said.votes[s.member]; ok && v != s.vote.Value {
			f.fail("invariant 1: member %d votes twice in round %s", s.member, s.round)
		}
		if v, ok := said.reveals[s.member]; ok && v.Set != s.vote.Value {
			f.fail("invariant 1: member %d votes for another value than it revealed", s.member)
		}
		if s.vote.Value != statement.Dead() && (r.decided == nil || s.vote.Value != r.setHash()) {
			f.fail("invariant 5: member %d votes for a set that the Acks of its log do not give", s.member)
		}
		if v, ok := promised.voted(s.round); !ok || v != s.vote.Value {
			f.fail("invariant 1: member %d signed a vote that is not in its vote file", s.member)
		}
		said.votes[s.member] = s.vote.Value
	case s.reveal != nil: // 1, 2, 3, 4
		if v, ok := said.votes[s.member]; ok && v != s.reveal.Set {
			f.fail("invariant 1: member %d reveals another value than it voted for", s.member)
		}
		if v, ok := promised.revealed(s.round); !ok || v != s.reveal.Set {
			f.fail("invariant 1: member %d signed a reveal that is not in its vote file", s.member)
		}
		if promised.expired(s.round) || said.expired[s.member] {
			f.fail("invariant 3: member %d reveals a round that expired there", s.member)
		}
		if v, ok := r.certified(f.Charter, p.applied); !ok || v != s.reveal.Set || v == statement.Dead() {
			f.fail("invariant 3: member %d reveals set %s without its certificate", s.member, s.reveal.Set)
		}
		f.judgeReveals(said, s)
		said.reveals[s.member] = s.reveal
	case s.expired: // 2
		if _, ok := promised.revealed(s.round); ok {
			f.fail("invariant 2: member %d says expired after its reveal record", s.member)
		}
		if !promised.expired(s.round) {
			f.fail("invariant 1: member %d signed an expiry that is not in its vote file", s.member)
		}
		said.expired[s.member] = true
	case s.result != nil: // 4, 10
		for j, b := range said.results {
			if !bytes.Equal(b, s.signed.Body) {
				f.fail("invariant 4: members %d and %d sign different results of round %s", j, s.member, s.round)
			}
		}
		said.results[s.member] = s.signed.Body
		f.judgeResult(p, r, s)
	}
	f.judgeVotes(s.round, said) // 2
}

// judgeEntry looks at an entry as it is committed. The caller holds mu.
func (f *Federation) judgeEntry(h *history, data []byte, outcomes []round.Outcome) {
	index := h.last()
	r := h.trace.add(f.Charter, index, data, outcomes)
	if ms := h.observer.TimeMs(); ms != h.trace.timeMs || ms > f.Now().Add(f.Charter.Timing.EpochLife.D()).UnixMilli() {
		f.fail("entry %d: the log's time is %d, its ticks say %d; no honest member's keys reach further than a life from %d", index, ms, h.trace.timeMs, f.now.Load())
	}
	if r == nil {
		return
	}
	v, ok := h.observer.Round(r.id)
	if !ok {
		return
	}
	if (v.Split || v.Foreign) && f.liars() == 0 {
		f.fail("round %s: honest members contradict each other (split %v, foreign %v)", r.id, v.Split, v.Foreign)
	}
	if v.Decided && v.Decision != statement.Dead() { // 5
		if r.decided == nil || v.Decision != r.setHash() {
			f.fail("invariant 5: round %s is decided for another set than its Acks give", r.id)
		}
	} else if r.decided != nil && v.Death != round.Expired && v.Decision != statement.Dead() {
		f.fail("invariant 5: the Acks of round %s give a legal set, and nothing is decided", r.id)
	}
	if (v.Phase == round.Published) != r.published(f.Charter) {
		f.fail("round %s is %s, but f+1 results are there: %v", r.id, v.Phase, r.published(f.Charter))
	}
	if (v.Death == round.Certified) != r.deadCert(f.Charter, index) {
		f.fail("round %s is %s %s, but a death certificate is there: %v", r.id, v.Phase, v.Death, r.deadCert(f.Charter, index))
	}
}

// judgeSum looks at a vector as its first byte leaves an honest member (3).
func (f *Federation) judgeSum(p *process, req *coordpb.FetchSumRequest) {
	id, err := label.HashFromBytes(req.GetRoundId())
	if err != nil {
		f.fail("member %d serves a vector of no round", p.seat.Index)
		return
	}
	hash, _ := label.HashFromBytes(req.GetHash())
	f.mu.Lock()
	defer f.mu.Unlock()
	f.served = append(f.served, Served{p.seat.Index, id, hash})
	r := p.seat.view.trace.rounds[id]
	if r == nil {
		f.fail("member %d serves a vector of an unknown round", p.seat.Index)
		return
	}
	f.judgeServing(p, id)
	value, ok := r.certified(f.Charter, p.applied)
	if !ok || value == statement.Dead() || r.decided == nil || value != r.setHash() {
		f.fail("invariant 3: member %d serves a vector of round %s without a certificate of its set", p.seat.Index, id)
	}
	if r.deadCert(f.Charter, p.applied) {
		f.fail("invariant 3: member %d serves a vector of round %s, which is certified dead", p.seat.Index, id)
	}
	named := false
	for _, v := range r.reveals {
		if v.member == p.seat.Index && v.index <= p.applied && v.reveal.Set == value {
			named = v.reveal.SumY == hash
			for _, t := range v.reveal.TSums {
				named = named || t.Hash == hash
			}
		}
	}
	if !named {
		f.fail("invariant 3: member %d serves a vector that its reveal of the certified set does not name", p.seat.Index)
	}
	if promised, err := p.seat.promises(); err != nil || promised.expired(id) {
		f.fail("invariant 3: member %d serves a vector of round %s, which expired there (%v)", p.seat.Index, id, err)
	} else if v, ok := promised.revealed(id); !ok || v != value {
		f.fail("invariant 3: member %d serves a vector without a reveal record of its set", p.seat.Index)
	}
}

// judgeReceipt looks at receipts as they leave a member (8): the copy is on the signer's disk, the Accept applied there.
func (f *Federation) judgeReceipt(list ...*coordpb.MemberStatement) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range list {
		s := round.FromMemberStatement(m)
		body, err := statement.ParseReceipt(s.Statement.Body)
		if err != nil || s.Member >= len(f.Seats) {
			f.fail("a receipt that is none left a member: %v", err)
			continue
		}
		seat := f.Seats[s.Member]
		if seat.Liar() != nil {
			continue
		}
		r := seat.view.trace.rounds[body.Round]
		if r == nil {
			f.fail("member %d receipts a contribution to an unknown round", s.Member)
			continue
		}
		if _, err := statement.VerifyReceipt(r.rc, body.Header, s); err != nil {
			f.fail("member %d: %v", s.Member, err)
			continue
		}
		accepted := false
		for _, a := range r.accepts {
			accepted = accepted || a.Header == body.Header && a.index == body.Index
		}
		if !accepted {
			f.fail("invariant 8: member %d receipts a contribution that the log did not accept at index %d", s.Member, body.Index)
		}
		if p := seat.process.Load(); p != nil && (p.applied < body.Index || seat.ensured() < body.Index) {
			f.fail("invariant 8: member %d receipts index %d, it has applied %d, %d durably", s.Member, body.Index, p.applied, seat.ensured())
		}
		y, ok := f.holds(seat, body.Round, body.Header)
		v, known := seat.view.observer.Round(body.Round)
		if known && v.Phase.Terminal() {
			continue // the round has ended while the receipt was on its way
		}
		if !ok {
			f.fail("invariant 8: member %d receipts a contribution that is not on its disk", s.Member)
		}
		f.receipts = append(f.receipts, receiptSeen{s.Member, body.Round, body.Header, y})
	}
}

// holds reports whether a contribution lies on a member's disk, head and y.
func (f *Federation) holds(s *Seat, id, header label.Hash) (y label.Hash, ok bool) {
	head, err := os.ReadFile(filepath.Join(s.Dir, "blobs", "heads", id.String(), header.String()))
	if err != nil {
		return y, false
	}
	c, err := intake.ParseHead(header, head)
	if err != nil {
		return y, false
	}
	return c.Header.Y, s.hasY(id, c.Header.Y)
}

// judgeUpload looks at a contribution as its first byte arrives from a device (6).
func (f *Federation) judgeUpload(open *coordpb.UploadOpen) {
	h, err := statement.ParseHeader(open.GetHeader().GetBody())
	if err != nil {
		return // whoever sent this is no participant
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d, err := f.device(h.Device)
	if err != nil || d.Lies.Load() || d.Cert == nil {
		return
	}
	if statement.VerifyContribution(d.Cert.Public, h.Round, h.Hash(), open.GetHeader().GetSignature()) != nil {
		return // somebody else sent it in its name
	}
	hash := statement.HashHeader(open.GetHeader().GetBody())
	key := uploadKey{h.Device, h.Round}
	if old, ok := f.uploads[key]; ok {
		if old != hash {
			f.fail("invariant 6: %s sends two contributions to round %s", d.Name, h.Round)
		}
		return
	}
	f.uploads[key] = hash
	if x, err := f.encodedIn(d, h.Round); err == nil {
		f.secrets.add(x[:64]) // 14: as it was before it was masked
	}
	entries, err := participant.ReadLedger(filepath.Join(d.Dir, "ledger"))
	if err != nil {
		f.fail("%s: %v", d.Name, err)
	}
	written := false
	for _, e := range entries {
		written = written || e.Kind == participant.KindContribution && e.Round == h.Round && e.Header == hash
	}
	if !written {
		f.fail("invariant 6: %s sends what is not in its ledger", d.Name)
	}
	r := f.shownRound(h.Round)
	if r == nil {
		f.fail("%s sends to a round that no log knows", d.Name)
		return
	}
	for k := range f.uploads {
		other := f.shownRound(k.round)
		if k.device == h.Device && k.round != h.Round && other != nil && other.start == r.start && !f.shownDead(k.round) {
			f.fail("invariant 6: %s sends twice from one start, and round %d has no death certificate", d.Name, other.rc.Seq)
		}
	}
}

// heardFrom reports whether a byte of any contribution has arrived from a device.
func (f *Federation) heardFrom(device label.Hash) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k := range f.uploads {
		if k.device == device {
			return true
		}
	}
	return false
}

func (f *Federation) encodedIn(d *Device, id label.Hash) ([]byte, error) {
	return os.ReadFile(filepath.Join(d.Dir, "encoded", id.String()))
}
