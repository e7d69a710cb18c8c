package statement

import (
	"errors"
	"fmt"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/crypto/label"
)

// VerifyRoundCert checks a RoundCert: body is the RoundConfig that the charter prescribes, its key packages are signed
// by their members, and q listed members signed body with their identity keys. Invalid or repeated signatures are
// errors, not merely uncounted.
func VerifyRoundCert(ch *charter.Charter, body []byte, sigs []MemberSignature) (*RoundConfig, error) {
	rc, err := ParseRoundConfig(body)
	if err != nil {
		return nil, err
	}
	if err := rc.Check(ch); err != nil {
		return nil, err
	}
	listed := rc.Listed()
	signers, err := verifyIdentities(ch, label.StmtRoundConfig, body, sigs)
	if err != nil {
		return nil, fmt.Errorf("round certificate: %w", err)
	}
	if signers&^listed != 0 {
		return nil, fmt.Errorf("round certificate: signers %v are not all listed (%v)", signers, listed)
	}
	if signers.Size() < ch.Q {
		return nil, fmt.Errorf("round certificate has %d signatures, needs %d", signers.Size(), ch.Q)
	}
	return rc, nil
}

// VerifySetCert checks that q listed members voted for value, which is not DEAD.
func VerifySetCert(ch *charter.Charter, rc *RoundConfig, value label.Hash, votes []MemberStatement) error {
	if value == Dead() {
		return errors.New("set certificate: the value is DEAD")
	}
	return verifyVotes(ch, rc, value, votes, "set certificate")
}

// VerifyDeadCert checks a DeadCert: q votes for DEAD, or Expired of every member that rc lists.
func VerifyDeadCert(ch *charter.Charter, rc *RoundConfig, votes, expired []MemberStatement) error {
	err := verifyVotes(ch, rc, Dead(), votes, "death certificate")
	if err == nil {
		return nil
	}
	if len(expired) == 0 {
		return err
	}
	round := rc.ID()
	var signers Mask
	for _, s := range expired {
		x, err := ParseExpired(s.Statement.Body)
		if err != nil {
			return fmt.Errorf("death certificate: %w", err)
		}
		if x.Round != round {
			return errors.New("death certificate: an expired statement is of another round")
		}
		if err := VerifyVoteKey(rc, label.StmtExpired, s); err != nil {
			return fmt.Errorf("death certificate: %w", err)
		}
		signers |= 1 << s.Member
	}
	if listed := rc.Listed(); signers != listed {
		return fmt.Errorf("death certificate: %v signed expired, the round lists %v", signers, listed)
	}
	return nil
}

func verifyVotes(ch *charter.Charter, rc *RoundConfig, value label.Hash, votes []MemberStatement, what string) error {
	round := rc.ID()
	var voters Mask
	for _, s := range votes {
		v, err := ParseVote(s.Statement.Body)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if v.Round != round {
			return fmt.Errorf("%s: a vote is of another round", what)
		}
		if v.Value != value {
			continue // a record may hold votes of both values
		}
		if err := VerifyVoteKey(rc, label.StmtVote, s); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		voters |= 1 << s.Member
	}
	if voters.Size() < ch.Q {
		return fmt.Errorf("%s has %d votes, needs %d", what, voters.Size(), ch.Q)
	}
	return nil
}

// VerifyResultCert checks that f+1 members signed body, a Result, with their identity keys.
func VerifyResultCert(ch *charter.Charter, body []byte, sigs []MemberSignature) (*Result, error) {
	r, err := ParseResult(body)
	if err != nil {
		return nil, err
	}
	signers, err := verifyIdentities(ch, label.StmtResult, body, sigs)
	if err != nil {
		return nil, fmt.Errorf("result certificate: %w", err)
	}
	if signers.Size() < ch.Believe() {
		return nil, fmt.Errorf("result certificate has %d signatures, needs %d", signers.Size(), ch.Believe())
	}
	return r, nil
}

// VerifyAckCert checks a device's ack: n-f receipts of distinct listed members for one contribution. All must name the
// same log index: members that applied different logs do not vouch for one record.
func VerifyAckCert(ch *charter.Charter, rc *RoundConfig, header label.Hash, receipts []MemberStatement) (index uint64, err error) {
	var signers Mask
	for i, s := range receipts {
		r, err := VerifyReceipt(rc, header, s)
		if err != nil {
			return 0, fmt.Errorf("ack: %w", err)
		}
		if i == 0 {
			index = r.Index
		} else if r.Index != index {
			return 0, fmt.Errorf("ack: receipts name log indices %d and %d", index, r.Index)
		}
		if signers.Has(s.Member) {
			return 0, fmt.Errorf("ack: member %d gave two receipts", s.Member)
		}
		signers |= 1 << s.Member
	}
	if signers.Size() < ch.AckReceipts() {
		return 0, fmt.Errorf("ack has %d receipts, needs %d", signers.Size(), ch.AckReceipts())
	}
	return index, nil
}

// VerifyReceipt checks one receipt of a contribution.
func VerifyReceipt(rc *RoundConfig, header label.Hash, s MemberStatement) (*Receipt, error) {
	r, err := ParseReceipt(s.Statement.Body)
	if err != nil {
		return nil, err
	}
	if r.Round != rc.ID() || r.Header != header {
		return nil, errors.New("receipt is of another contribution")
	}
	return r, VerifyVoteKey(rc, label.StmtReceipt, s)
}

// VerifyVoteKey checks that a listed member signed s with the vote key that rc lists.
func VerifyVoteKey(rc *RoundConfig, stmt string, s MemberStatement) error {
	k, ok := rc.Package(s.Member)
	if !ok {
		return fmt.Errorf("member %d is not listed", s.Member)
	}
	if err := k.VoteKey.Verify(stmt, s.Statement.Body, s.Statement.Signature); err != nil {
		return fmt.Errorf("member %d: %w", s.Member, err)
	}
	return nil
}

// verifyIdentities checks composite signatures over one body by distinct members.
func verifyIdentities(ch *charter.Charter, stmt string, body []byte, sigs []MemberSignature) (signers Mask, err error) {
	for _, s := range sigs {
		if s.Member < 0 || s.Member >= ch.N {
			return 0, fmt.Errorf("member %d is not in the charter", s.Member)
		}
		if signers.Has(s.Member) {
			return 0, fmt.Errorf("member %d signed twice", s.Member)
		}
		if err := ch.Members[s.Member].Identity.Verify(stmt, body, s.Signature); err != nil {
			return 0, fmt.Errorf("member %d: %w", s.Member, err)
		}
		signers |= 1 << s.Member
	}
	return signers, nil
}
