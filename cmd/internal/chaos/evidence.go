package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/cmd/internal/consortium"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/node/participant"
)

// Evidence is what a run left behind: what devices were told, and what members said of each round.
type Evidence struct {
	Charter *charter.Charter
	Devices []Witness
	Rounds  map[label.Hash][]Said // by round id

	// Encoded is what a device kept in clear of its contribution.
	Encoded func(device, round label.Hash, lanes int) ([]uint32, error)
	// Proofs are of earlier checks. Nil: everything is verified anew.
	Proofs *proofs
}

// proofs remember what was verified, by all that went into it: the evidence of a run grows, and is checked after each of
// its faults. Only what was found right is remembered.
type proofs struct{ known sync.Map }

func once[T any](p *proofs, verify func() (T, error), what string, from ...[]byte) (T, error) {
	if p == nil {
		return verify()
	}
	h := sha256.New()
	for _, b := range append([][]byte{[]byte(what)}, from...) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	key := [sha256.Size]byte(h.Sum(nil))
	if v, ok := p.known.Load(key); ok {
		return v.(T), nil
	}
	v, err := verify()
	if err == nil {
		p.known.Store(key, v)
	}
	return v, err
}

func parts(c *coordpb.Certificate) [][]byte {
	out := [][]byte{c.GetBody()}
	for _, s := range c.GetSignatures() {
		out = append(out, binary.BigEndian.AppendUint32(nil, s.GetMember()), s.GetSignature())
	}
	return out
}

// Witness is a device and its ledger.
type Witness struct {
	Name   string
	ID     label.Hash
	Ledger []participant.Entry
}

// sentSince adds what a later reading of the ledger has of contributions, and leaves out what it has of acks.
func (w *Witness) sentSince(later []participant.Entry) {
	for _, x := range later[min(len(w.Ledger), len(later)):] {
		if x.Kind == participant.KindContribution {
			w.Ledger = append(w.Ledger, x)
		}
	}
}

// Said is one member's record of a round, at some time.
type Said struct {
	Member int
	Record *coordpb.RoundRecord
}

// Promise is an acknowledged contribution of a round that has not ended: the members that signed its receipts must hold it.
type Promise struct {
	Device        string
	Round, Header label.Hash
	Signers       []int
}

// Findings are the outcome of Evidence.Check.
type Findings struct {
	Violations []string
	Promises   []Promise

	Acks      int            // acknowledged contributions, receipts verified
	InSet     int            // of these, in a published set
	Dead      int            // of these, in rounds that died
	LeftOut   map[string]int // of these, kept out of a published set by a verdict in the Acks
	Published int            // rounds
	DeadRound int
	OpenRound int
	Sums      int // published sums that equal the plain sum
}

func (f *Findings) wrong(format string, args ...any) {
	f.Violations = append(f.Violations, fmt.Sprintf(format, args...))
}

// Check holds the evidence against what is promised: no acknowledged contribution is lost, no round has two results or two
// sets, and every published sum is the plain sum.
func (e *Evidence) Check() *Findings {
	f := &Findings{LeftOut: map[string]int{}}
	heads := e.sent(f)
	for _, id := range e.sorted() {
		e.checkRound(f, id, heads)
	}
	for _, d := range e.Devices {
		for _, x := range d.Ledger {
			if x.Kind == participant.KindAck {
				e.checkAck(f, d, x)
			}
		}
	}
	return f
}

// complete reports whether somebody spoke of every round that a device was acknowledged in.
func (e *Evidence) complete() bool {
	for _, d := range e.Devices {
		for _, x := range d.Ledger {
			if x.Kind == participant.KindAck && len(e.Rounds[x.Round]) == 0 {
				return false
			}
		}
	}
	return true
}

func (e *Evidence) sorted() []label.Hash {
	ids := make([]label.Hash, 0, len(e.Rounds))
	for id := range e.Rounds {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b label.Hash) int { return bytes.Compare(a[:], b[:]) })
	return ids
}

// sent is the header of each device's contribution to each round, by its ledger: there may be one only.
func (e *Evidence) sent(f *Findings) map[[2]label.Hash]label.Hash {
	out := map[[2]label.Hash]label.Hash{}
	for _, d := range e.Devices {
		for _, x := range d.Ledger {
			at := [2]label.Hash{d.ID, x.Round}
			if old, ok := out[at]; ok && old != x.Header {
				f.wrong("%s speaks of two contributions to round %s", d.Name, x.Round)
			}
			out[at] = x.Header
		}
	}
	return out
}

// full is the record that tells most: members forget the Accepts of old rounds.
func full(said []Said) *coordpb.RoundRecord {
	best := said[0].Record
	for _, s := range said[1:] {
		if terminal(s.Record) && !terminal(best) || terminal(s.Record) == terminal(best) && len(s.Record.GetAccepts()) > len(best.GetAccepts()) {
			best = s.Record
		}
	}
	return best
}

func terminal(r *coordpb.RoundRecord) bool {
	return r.GetPhase() == round.Published.String() || r.GetPhase() == round.Dead.String()
}

// checkRound compares all that members said of a round, and the sum that they opened with the plain one.
func (e *Evidence) checkRound(f *Findings, id label.Hash, heads map[[2]label.Hash]label.Hash) {
	said := e.Rounds[id]
	best := full(said)
	rc, err := statement.ParseRoundConfig(best.GetConfig().GetBody())
	if err != nil || rc.ID() != id {
		f.wrong("round %s: its config is another's: %v", id, err)
		return
	}
	for _, field := range []struct {
		name string
		of   func(*coordpb.RoundRecord) []byte
	}{
		{"results", func(r *coordpb.RoundRecord) []byte { return r.GetResult().GetBody() }},
		{"decisions", func(r *coordpb.RoundRecord) []byte { return r.GetDecision() }},
		{"candidates", func(r *coordpb.RoundRecord) []byte { return r.GetClosedAcceptsHash() }},
		{"sets", func(r *coordpb.RoundRecord) []byte { return bytes.Join(r.GetContributors(), nil) }},
	} {
		var first Said
		for _, s := range said {
			switch b := field.of(s.Record); {
			case len(b) == 0:
			case first.Record == nil:
				first = s
			case !bytes.Equal(b, field.of(first.Record)):
				f.wrong("round %d has two %s: member %d's and member %d's", rc.Seq, field.name, first.Member, s.Member)
			}
		}
	}
	ended := ""
	for _, s := range said {
		r := s.Record
		if r.GetPhase() == round.Published.String() {
			if _, err := once(e.Proofs, func() (*statement.Result, error) {
				return statement.VerifyResultCert(e.Charter, r.GetResult().GetBody(), signatures(r.GetResult().GetSignatures()))
			}, "result", parts(r.GetResult())...); err != nil {
				f.wrong("round %d: member %d: %v", rc.Seq, s.Member, err)
			}
		}
		if terminal(r) && ended != "" && ended != r.GetPhase() {
			f.wrong("round %d is %s for some members and %s for others", rc.Seq, ended, r.GetPhase())
		}
		if terminal(r) {
			ended = r.GetPhase()
		}
	}
	switch best.GetPhase() {
	case round.Published.String():
		f.Published++
		e.checkSum(f, rc, id, best, heads)
	case round.Dead.String():
		f.DeadRound++
	default:
		f.OpenRound++
	}
}

func (e *Evidence) checkSum(f *Findings, rc *statement.RoundConfig, id label.Hash, r *coordpb.RoundRecord, heads map[[2]label.Hash]label.Hash) {
	if len(r.GetContributors()) == 0 {
		f.wrong("round %d was not observed before its members forgot its set", rc.Seq)
		return
	}
	result, err := statement.ParseResult(r.GetResult().GetBody())
	if err != nil {
		f.wrong("round %d: %v", rc.Seq, err)
		return
	}
	for _, b := range r.GetAccepts() {
		a, err := statement.ParseAccept(b)
		if err != nil {
			f.wrong("round %d: %v", rc.Seq, err)
			return
		}
		if heads[[2]label.Hash{a.Device, id}] != a.Header {
			f.wrong("round %d holds a contribution of device %s that the device's ledger does not know", rc.Seq, a.Device)
		}
	}
	plain, err := once(e.Proofs, func() (label.Hash, error) {
		plain, err := consortium.PlainSum(int(rc.Len), r.GetContributors(), func(device label.Hash) ([]uint32, error) {
			return e.Encoded(device, id, int(rc.Len))
		})
		return committee.HashVector(label.TagUnmasked, plain), err
	}, "plain sum", append([][]byte{id[:]}, r.GetContributors()...)...)
	if err != nil {
		f.wrong("round %d: %v", rc.Seq, err)
		return
	}
	// The signed Result names the opened sum by its hash: equal hashes are equal sums, bit for bit.
	if plain != result.X {
		f.wrong("round %d: the published sum is not the plain sum of its %d contributions", rc.Seq, len(r.GetContributors()))
		return
	}
	f.Sums++
}

// checkAck holds one acknowledgement against what became of its round.
func (e *Evidence) checkAck(f *Findings, d Witness, x participant.Entry) {
	said := e.Rounds[x.Round]
	if len(said) == 0 {
		f.wrong("%s has an ack in round %s, which no member knows", d.Name, x.Round)
		return
	}
	best := full(said)
	rc, err := once(e.Proofs, func() (*statement.RoundConfig, error) {
		return statement.VerifyRoundCert(e.Charter, best.GetConfig().GetBody(), signatures(best.GetConfig().GetSignatures()))
	}, "config", parts(best.GetConfig())...)
	if err != nil {
		f.wrong("round %s: %v", x.Round, err)
		return
	}
	var receipts []statement.MemberStatement
	var signers []int
	for i, b := range x.Receipts {
		s, err := statement.ParseSigned(b)
		member := -1
		if i < len(x.To) {
			member = slices.IndexFunc(e.Charter.Members, func(c charter.Card) bool { return c.Name == x.To[i] })
		}
		if err != nil || member < 0 {
			f.wrong("%s, round %d: receipt %d: %v", d.Name, rc.Seq, i, err)
			return
		}
		receipts = append(receipts, statement.MemberStatement{Member: member, Statement: s})
		signers = append(signers, member)
	}
	index, err := once(e.Proofs, func() (uint64, error) {
		return statement.VerifyAckCert(e.Charter, rc, x.Header, receipts)
	}, "ack "+strings.Join(x.To, " "), append([][]byte{x.Round[:], x.Header[:]}, x.Receipts...)...)
	if err != nil {
		f.wrong("%s, round %d: %v", d.Name, rc.Seq, err)
		return
	}
	f.Acks++
	switch {
	case best.GetPhase() == round.Dead.String():
		f.Dead++
	case best.GetPhase() != round.Published.String():
		f.Promises = append(f.Promises, Promise{d.Name, x.Round, x.Header, signers})
	case slices.ContainsFunc(best.GetContributors(), func(id []byte) bool { return bytes.Equal(id, d.ID[:]) }):
		f.InSet++
	default:
		why, err := verdict(rc, best, x.Header)
		if err != nil {
			f.wrong("%s was acknowledged in round %d at log index %d and is not in its set: %v", d.Name, rc.Seq, index, err)
			return
		}
		if why != statement.Missing {
			f.wrong("%s was acknowledged in round %d, and an honest contribution is called %s", d.Name, rc.Seq, why)
		}
		f.LeftOut[why.String()]++
	}
}

// verdict is what a signed Ack says against a contribution.
func verdict(rc *statement.RoundConfig, r *coordpb.RoundRecord, header label.Hash) (statement.Verdict, error) {
	at := -1
	for i, b := range r.GetAccepts() {
		if a, err := statement.ParseAccept(b); err == nil && a.Header == header {
			at = i
		}
	}
	if at < 0 {
		return 0, fmt.Errorf("the log of its %d Accepts lacks it", len(r.GetAccepts()))
	}
	for _, p := range r.GetAcks() {
		s := round.FromMemberStatement(p)
		k, err := statement.ParseAck(s.Statement.Body)
		if err != nil {
			return 0, err
		}
		if err := statement.VerifyVoteKey(rc, label.StmtAck, s); err != nil {
			return 0, err
		}
		if at < len(k.Verdicts) && k.Verdicts[at] != statement.OK {
			return k.Verdicts[at], nil
		}
	}
	return 0, fmt.Errorf("none of %d Acks says why", len(r.GetAcks()))
}

func signatures(in []*coordpb.MemberSignature) []statement.MemberSignature {
	out := make([]statement.MemberSignature, len(in))
	for i, s := range in {
		out[i] = statement.MemberSignature{Member: int(s.GetMember()), Signature: s.GetSignature()}
	}
	return out
}
