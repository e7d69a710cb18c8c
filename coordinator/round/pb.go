package round

import (
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// FromSigned copies a Signed out of its envelope. It never fails: what is missing stays empty and verifies nowhere.
func FromSigned(p *coordpb.Signed) statement.Signed {
	return statement.Signed{Body: append([]byte(nil), p.GetBody()...), Signature: append([]byte(nil), p.GetSignature()...)}
}

// ToSigned puts s into its envelope.
func ToSigned(s statement.Signed) *coordpb.Signed {
	return &coordpb.Signed{Body: s.Body, Signature: s.Signature}
}

// FromMemberStatement copies a member's statement out of its envelope.
func FromMemberStatement(p *coordpb.MemberStatement) statement.MemberStatement {
	return statement.MemberStatement{Member: memberIndex(p.GetMember()), Statement: FromSigned(p.GetStatement())}
}

// ToMemberStatement puts s into its envelope.
func ToMemberStatement(s statement.MemberStatement) *coordpb.MemberStatement {
	return &coordpb.MemberStatement{Member: uint32(s.Member), Statement: ToSigned(s.Statement)}
}

// memberIndex maps what no charter holds to one index that no charter holds, on 32-bit machines too.
func memberIndex(v uint32) int {
	if v >= statement.MembersMax {
		return statement.MembersMax
	}
	return int(v)
}

func toStatements(in []statement.MemberStatement) []*coordpb.MemberStatement {
	out := make([]*coordpb.MemberStatement, len(in))
	for i := range in {
		out[i] = ToMemberStatement(in[i])
	}
	return out
}

func toSignatures(in []statement.MemberSignature) []*coordpb.MemberSignature {
	out := make([]*coordpb.MemberSignature, len(in))
	for i := range in {
		out[i] = &coordpb.MemberSignature{Member: uint32(in[i].Member), Signature: in[i].Signature}
	}
	return out
}

// ToWait puts w into its envelope.
func ToWait(w Wait) *coordpb.Wait {
	out := &coordpb.Wait{What: w.What, Have: uint32(w.Have), Need: uint32(w.Need)}
	for _, j := range w.Lacks.Members() {
		out.Lacks = append(out.Lacks, uint32(j))
	}
	return out
}

func roundStatement(round label.Hash, member int, s statement.Signed) *coordpb.RoundStatement {
	return &coordpb.RoundStatement{RoundId: round[:], Member: uint32(member), Statement: ToSigned(s)}
}

// The commands of the log, as a proposer builds them.

// KeyPackageCommand publishes a member's epoch keys.
func KeyPackageCommand(s statement.Signed) *coordpb.Command {
	return &coordpb.Command{Command: &coordpb.Command_KeyPackage{KeyPackage: ToSigned(s)}}
}

// DeviceCertCommand enrols a device.
func DeviceCertCommand(s statement.Signed) *coordpb.Command {
	return &coordpb.Command{Command: &coordpb.Command_DeviceCert{DeviceCert: ToSigned(s)}}
}

// ErasureCommand says that a member erased an epoch's keys.
func ErasureCommand(s statement.Signed) *coordpb.Command {
	return &coordpb.Command{Command: &coordpb.Command_Erasure{Erasure: ToSigned(s)}}
}

// ProposeCommand proposes a round.
func ProposeCommand(rc *statement.RoundConfig) *coordpb.Command {
	return &coordpb.Command{Command: &coordpb.Command_Propose{Propose: rc.Bytes()}}
}

// RoundSignatureCommand is a member's identity signature over a proposed config, whose body is in the log already.
func RoundSignatureCommand(round label.Hash, member int, signature []byte) *coordpb.Command {
	return &coordpb.Command{Command: &coordpb.Command_RoundSignature{
		RoundSignature: roundStatement(round, member, statement.Signed{Signature: signature})}}
}

// AcceptsCommand carries at most AcceptItemsMax Accepts.
func AcceptsCommand(items ...*statement.Accept) *coordpb.Command {
	b := new(coordpb.AcceptBatch)
	for _, a := range items {
		b.Items = append(b.Items, a.Bytes())
	}
	return &coordpb.Command{Command: &coordpb.Command_Accepts{Accepts: b}}
}

// CloseCommand asks M for its Acks.
func CloseCommand(c *statement.Close) *coordpb.Command {
	return &coordpb.Command{Command: &coordpb.Command_Close{Close: c.Bytes()}}
}

// AckCommand carries a member's verdicts.
func AckCommand(round label.Hash, member int, s statement.Signed) *coordpb.Command {
	return &coordpb.Command{Command: &coordpb.Command_Ack{Ack: roundStatement(round, member, s)}}
}

// VoteCommand carries a member's vote.
func VoteCommand(round label.Hash, member int, s statement.Signed) *coordpb.Command {
	return &coordpb.Command{Command: &coordpb.Command_Vote{Vote: roundStatement(round, member, s)}}
}

// ExpiredCommand carries a member's word that it never reveals.
func ExpiredCommand(round label.Hash, member int, s statement.Signed) *coordpb.Command {
	return &coordpb.Command{Command: &coordpb.Command_Expired{Expired: roundStatement(round, member, s)}}
}

// RevealCommand carries the hashes of a member's sums.
func RevealCommand(round label.Hash, member int, s statement.Signed) *coordpb.Command {
	return &coordpb.Command{Command: &coordpb.Command_Reveal{Reveal: roundStatement(round, member, s)}}
}

// ResultCommand carries a member's Result.
func ResultCommand(round label.Hash, member int, s statement.Signed) *coordpb.Command {
	return &coordpb.Command{Command: &coordpb.Command_Result{Result: roundStatement(round, member, s)}}
}

// AbortCommand carries a member's wish to abort.
func AbortCommand(round label.Hash, member int, s statement.Signed) *coordpb.Command {
	return &coordpb.Command{Command: &coordpb.Command_Abort{Abort: roundStatement(round, member, s)}}
}

// TickCommand stamps the leader's time into the log.
func TickCommand(unixMs int64) *coordpb.Command {
	return &coordpb.Command{Command: &coordpb.Command_TickUnixMs{TickUnixMs: unixMs}}
}
