package coordinator

import (
	"errors"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/epoch"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// signVote votes for the decision of this member's own log: a set, or DEAD (SA 2.3, Vote). The machine has recomputed the
// set from its own list and checked the Acks; the epoch appends the vote to its file, reads it back, and only then signs.
// A vote once recorded is what is sent, whatever the log says later.
func (m *Member) signVote(v round.View, value label.Hash) (*coordpb.Command, error) {
	e, err := m.listed(v.Config)
	if err != nil {
		return nil, err
	}
	if earlier, voted := e.Voted(v.ID); voted && earlier != value {
		// The log shows this member another decision than it voted for: its leader lies, or the log was exchanged.
		return nil, alarmf("this member has voted for %s in round %s; its log now decides %s", earlier, v.ID, value)
	}
	body := (&statement.Vote{Round: v.ID, Value: value}).Bytes()
	sig, err := e.Vote(v.ID, value, body)
	if err != nil {
		return nil, m.unsaid(e, err)
	}
	return round.VoteCommand(v.ID, m.me, statement.Signed{Body: body, Signature: sig}), nil
}

// signExpired records that the round expired here, after which nothing of it is served any more, and, if this member
// never revealed, says so (SA 2.4). Without a reveal record of any listed member the round is certainly dead.
func (m *Member) signExpired(v round.View) (*coordpb.Command, error) {
	e, err := m.listed(v.Config)
	if err != nil {
		return nil, err
	}
	body := (&statement.Expired{Round: v.ID}).Bytes()
	sig, err := e.Expire(v.ID, body)
	if errors.As(err, new(*epoch.ConflictError)) {
		return nil, nil // recorded; having revealed, this member cannot say that it never did
	}
	if err != nil {
		return nil, m.unsaid(e, err)
	}
	return round.ExpiredCommand(v.ID, m.me, statement.Signed{Body: body, Signature: sig}), nil
}

// unsaid is why an epoch did not sign. After a failed write to its vote file, on a full disk for one, only opening the
// file again tells whether the promise is in it, so that is done before the next try.
func (m *Member) unsaid(e *epoch.Epoch, err error) error {
	if errors.As(err, new(*epoch.ConflictError)) || errors.As(err, new(*epoch.BodyError)) {
		return &alarm{err}
	}
	return errors.Join(err, m.epochs.reopen(e))
}
