package participant

import (
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
)

// The wire's envelopes as statements. Bodies pass through untouched.

func signatures(in []*coordpb.MemberSignature) []statement.MemberSignature {
	out := make([]statement.MemberSignature, len(in))
	for i, s := range in {
		out[i] = statement.MemberSignature{Member: int(s.GetMember()), Signature: s.GetSignature()}
	}
	return out
}

func statements(in []*coordpb.MemberStatement) []statement.MemberStatement {
	out := make([]statement.MemberStatement, len(in))
	for i, s := range in {
		out[i] = statement.MemberStatement{Member: int(s.GetMember()), Statement: statement.Signed{Body: s.GetStatement().GetBody(), Signature: s.GetStatement().GetSignature()}}
	}
	return out
}
