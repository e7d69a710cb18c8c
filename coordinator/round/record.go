package round

import (
	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// Detail says how much of a round a record holds.
type Detail byte

const (
	// Ends holds what proves a round's config and its end: enough for a device.
	Ends Detail = iota
	// Everything holds besides every Accept, Close and Ack and the devices' certificates, enough to derive S again, the
	// Aborts, who has erased its keys, and what the round waits for.
	Everything
)

// Record exports what a member knows of a round in a form that others check for themselves.
func (m *Machine) Record(id label.Hash, detail Detail) (*coordpb.RoundRecord, bool) {
	r := m.rounds[id]
	if r == nil {
		return nil, false
	}
	v := m.view(r)
	out := &coordpb.RoundRecord{
		Config: &coordpb.Certificate{Body: v.Body, Signatures: toSignatures(v.Signatures)},
		Phase:  v.Phase.String(), Death: v.Death.String(),
		Votes: toStatements(v.Votes), Expired: toStatements(v.Expired), Reveals: toStatements(v.Reveals),
		Refused: map[string]uint32{}, Reason: v.Reason, Seq: r.rc.Seq, TaskId: r.rc.Task, RoundId: v.ID[:], UploadBytes: v.Bytes,
	}
	if v.Result != nil {
		out.Result = &coordpb.Certificate{Body: v.ResultBody, Signatures: toSignatures(v.ResultSignatures)}
	}
	for code, n := range v.Refused {
		out.Refused[string(code)] = n
	}
	for _, t := range v.Times {
		out.Phases = append(out.Phases, &coordpb.PhaseTime{Phase: t.Phase.String(), UnixMs: t.UnixMs})
	}
	if !v.Candidates.IsZero() {
		out.ClosedAcceptsHash = v.Candidates[:]
	}
	if v.Decided {
		out.Decision = v.Decision[:]
	}
	if detail == Everything {
		m.recordContributions(out, r)
	}
	return out, true
}

func (m *Machine) recordContributions(out *coordpb.RoundRecord, r *round) {
	for j, a := range r.aborts {
		if a != nil {
			out.Aborts = append(out.Aborts, ToMemberStatement(statement.MemberStatement{Member: j, Statement: *a}))
		}
	}
	for _, j := range r.listed.Members() {
		if k, ok := r.rc.Package(j); ok {
			if s, ok := m.Erasure(j, k.Epoch); ok {
				out.Erasures = append(out.Erasures, ToMemberStatement(statement.MemberStatement{Member: j, Statement: s}))
			}
		}
	}
	for _, w := range m.Waits(r.id) {
		out.Waits = append(out.Waits, ToWait(w))
	}
	for i := range r.accepts {
		out.Accepts = append(out.Accepts, r.accepts[i].Bytes())
		if d := m.devices[r.accepts[i].Device]; d != nil {
			if b, err := proto.Marshal(ToSigned(d.signed)); err == nil { // two bytes fields cannot fail
				out.DeviceCerts = append(out.DeviceCerts, b)
			}
		}
	}
	for _, c := range r.closes {
		out.Closes = append(out.Closes, c.close.Bytes())
		for j, a := range c.acks {
			if a != nil {
				out.Acks = append(out.Acks, ToMemberStatement(statement.MemberStatement{Member: j, Statement: a.signed}))
				out.AckIndexes = append(out.AckIndexes, a.index)
			}
		}
	}
	for _, k := range r.set {
		device := r.accepts[k].Device
		out.Contributors = append(out.Contributors, device[:])
	}
}
