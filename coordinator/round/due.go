package round

import (
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// Duty is what a member may owe a round.
type Duty byte

// Duties. Each is a signed statement; each is idempotent and is asked for until the log holds it or needs it no more.
const (
	SignRound   Duty = 1 + iota // identity signature over the proposed config
	SignAck                     // verdicts on the candidates of Effect.Close
	SignVote                    // a vote for Effect.Value
	SignReveal                  // the sums over the certified set Effect.Value
	SignResult                  // the opened sum and the model, from the believed sums
	SignExpired                 // that it never revealed and never will
)

var dutyNames = [...]string{"none", "sign_round", "sign_ack", "sign_vote", "sign_reveal", "sign_result", "sign_expired"}

// String is the duty's stable name.
func (d Duty) String() string {
	if int(d) < len(dutyNames) {
		return dutyNames[d]
	}
	return dutyNames[0]
}

// Effect is one thing that a member owes according to the applied log. Before it acts it checks its own disk: its key,
// its vote file, its own derivation of the start. What the log says is never the source of its own votes.
type Effect struct {
	Duty  Duty
	Round label.Hash
	Close label.Hash // for SignAck: H(Close)
	Value label.Hash // for SignVote: H(S) or DEAD; for SignReveal and SignResult: H(S)
}

// Due lists what member me owes, oldest round first. It is level-triggered: it depends on the state alone, and an
// Effect stays until the state shows it done or needless.
func (m *Machine) Due(me int) []Effect {
	if me < 0 || me >= m.ch.N {
		return nil
	}
	var out []Effect
	for _, l := range m.lines {
		for _, r := range l.kept {
			out = append(out, m.due(r, me)...)
		}
	}
	return out
}

func (m *Machine) due(r *round, me int) (out []Effect) {
	add := func(d Duty, closing, value label.Hash) {
		out = append(out, Effect{Duty: d, Round: r.id, Close: closing, Value: value})
	}
	var none label.Hash
	listed := r.listed.Has(me)
	switch r.phase {
	case Proposed:
		if listed && r.signatures[me] == nil {
			add(SignRound, none, none)
		}
	case Closed:
		for _, c := range r.closes {
			if !c.complete && c.close.Active.Has(me) && c.acks[me] == nil {
				add(SignAck, c.hash, none)
			}
		}
	case Acked:
		if listed && r.votes[me] == nil {
			add(SignVote, none, r.decision)
		}
	case Sealed, Revealed:
		if listed && r.reveals[me] == nil {
			add(SignReveal, none, r.decision)
		}
		if r.phase == Revealed && r.results[me] == nil {
			add(SignResult, none, r.decision)
		}
	case Dead:
		if r.death != Expired || !listed {
			break
		}
		// Either of them can still make the death a certain one and give the devices their participation back.
		if r.decision == statement.Dead() && r.votes[me] == nil {
			add(SignVote, none, r.decision)
		}
		if r.expired[me] == nil && r.reveals[me] == nil {
			add(SignExpired, none, none)
		}
	}
	return out
}
