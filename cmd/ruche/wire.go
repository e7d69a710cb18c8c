package main

import (
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
)

// The wire's envelopes as statements. Bodies pass through untouched; an index that no charter has verifies nowhere.

func signatures(in []*coordpb.MemberSignature) []statement.MemberSignature {
	out := make([]statement.MemberSignature, len(in))
	for i, s := range in {
		out[i] = statement.MemberSignature{Member: int(min(s.GetMember(), statement.MembersMax)), Signature: s.GetSignature()}
	}
	return out
}

func statements(in []*coordpb.MemberStatement) []statement.MemberStatement {
	out := make([]statement.MemberStatement, len(in))
	for i, s := range in {
		out[i] = round.FromMemberStatement(s)
	}
	return out
}
