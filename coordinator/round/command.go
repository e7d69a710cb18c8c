package round

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

// command is a statically valid entry of the log.
type command interface {
	apply(m *Machine, index uint64) []Outcome
}

// codeError carries the code of a static refusal.
type codeError struct {
	code Code
	err  error
}

func (e *codeError) Error() string { return e.err.Error() }
func (e *codeError) Unwrap() error { return e.err }

func malformed(err error) error { return &codeError{Malformed, err} }

func refuseErr(err error) Outcome {
	var c *codeError
	if errors.As(err, &c) {
		return refuse(c.code, c.Error())
	}
	var s *identity.SignatureError
	if errors.As(err, &s) {
		return refuse(BadSignature, err.Error())
	}
	return refuse(Malformed, err.Error())
}

// ParseCommand reads a marshalled Command, within the bounds of a log entry.
func ParseCommand(data []byte) (*coordpb.Command, error) {
	if len(data) > CommandBytesMax {
		return nil, malformed(fmt.Errorf("command has %d bytes, limit %d", len(data), CommandBytesMax))
	}
	cmd := new(coordpb.Command)
	if err := proto.Unmarshal(data, cmd); err != nil {
		return nil, malformed(fmt.Errorf("command: %w", err))
	}
	return cmd, nil
}

// Static checks what needs no state: bounds, encodings, and the signatures of keys that the charter names. A proposer
// calls it before an entry goes into the log; Apply calls it again. For a batch of Accepts every item must be valid.
func Static(ch *charter.Charter, cmd *coordpb.Command) error {
	c, err := parse(ch, cmd)
	if err != nil {
		return err
	}
	if b, ok := c.(acceptBatch); ok {
		for i, item := range b {
			if item.err != nil {
				return fmt.Errorf("accept %d of %d: %w", i, len(b), item.err)
			}
		}
	}
	return nil
}

// The statically valid commands.
type (
	keyPackageCommand struct{ keyPackage }
	deviceCertCommand struct {
		signed statement.Signed
		cert   *statement.DeviceCert
	}
	proposeCommand struct {
		body []byte
		rc   *statement.RoundConfig
	}
	roundSignatureCommand struct {
		round     label.Hash
		member    int
		signature []byte
	}
	acceptItem struct {
		accept *statement.Accept
		err    error
	}
	acceptBatch  []acceptItem
	closeCommand struct{ close *statement.Close }
	ackCommand   struct {
		said
		ack *statement.Ack
	}
	voteCommand struct {
		said
		vote *statement.Vote
	}
	expiredCommand struct{ said }
	revealCommand  struct {
		said
		reveal *statement.Reveal
	}
	resultCommand struct {
		said
		result *statement.Result
	}
	abortCommand   struct{ said }
	erasureCommand struct {
		signed  statement.Signed
		erasure *statement.Erasure
	}
	tickCommand int64
)

// said is one member's signed statement about one round.
type said struct {
	round  label.Hash
	member int
	signed statement.Signed
}

// parse turns an entry into a statically valid command.
func parse(ch *charter.Charter, cmd *coordpb.Command) (command, error) {
	if cmd == nil {
		return nil, malformed(errors.New("command is empty"))
	}
	if len(cmd.ProtoReflect().GetUnknown()) > 0 {
		return nil, &codeError{UnknownCommand, errors.New("command has fields of a later version")}
	}
	switch c := cmd.GetCommand().(type) {
	case nil:
		return nil, malformed(errors.New("command is empty"))
	case *coordpb.Command_KeyPackage:
		s := FromSigned(c.KeyPackage)
		k, err := statement.VerifyKeyPackage(ch, s)
		if err != nil {
			return nil, err
		}
		return keyPackageCommand{keyPackage{s, k}}, nil
	case *coordpb.Command_DeviceCert:
		s := FromSigned(c.DeviceCert)
		cert, err := statement.VerifyDeviceCert(ch, s)
		if err != nil {
			return nil, err
		}
		return deviceCertCommand{s, cert}, nil
	case *coordpb.Command_Erasure:
		s := FromSigned(c.Erasure)
		e, err := statement.VerifyErasure(ch, s)
		if err != nil {
			return nil, err
		}
		return erasureCommand{s, e}, nil
	case *coordpb.Command_Propose:
		rc, err := statement.ParseRoundConfig(c.Propose)
		if err != nil {
			return nil, malformed(err)
		}
		if err := rc.Check(ch); err != nil {
			return nil, &codeError{BadConfig, err}
		}
		return proposeCommand{append([]byte(nil), c.Propose...), rc}, nil
	case *coordpb.Command_Accepts:
		return parseAccepts(c.Accepts)
	case *coordpb.Command_Close:
		cl, err := statement.ParseClose(c.Close)
		if err != nil {
			return nil, malformed(err)
		}
		return closeCommand{cl}, nil
	case *coordpb.Command_TickUnixMs:
		if c.TickUnixMs <= 0 || c.TickUnixMs > statement.TimeMax {
			return nil, malformed(fmt.Errorf("tick is %d, it must lie in (0, %d]", c.TickUnixMs, int64(statement.TimeMax)))
		}
		return tickCommand(c.TickUnixMs), nil
	}
	return parseStatement(ch, cmd)
}

func parseAccepts(b *coordpb.AcceptBatch) (command, error) {
	items := b.GetItems()
	if len(items) == 0 || len(items) > AcceptItemsMax {
		return nil, malformed(fmt.Errorf("batch has %d accepts, it must have 1 to %d", len(items), AcceptItemsMax))
	}
	out := make(acceptBatch, len(items))
	for i, item := range items {
		a, err := statement.ParseAccept(item)
		if err != nil {
			err = malformed(err)
		}
		out[i] = acceptItem{a, err}
	}
	return out, nil
}

// parseStatement reads the commands that carry a RoundStatement. The body must be of the round that the envelope names.
func parseStatement(ch *charter.Charter, cmd *coordpb.Command) (command, error) {
	switch c := cmd.GetCommand().(type) {
	case *coordpb.Command_RoundSignature:
		s, err := parseSaid(ch, c.RoundSignature)
		if err != nil {
			return nil, err
		}
		if len(s.signed.Signature) != identity.MemberSignatureSize {
			return nil, malformed(fmt.Errorf("round signature has %d bytes, want %d", len(s.signed.Signature), identity.MemberSignatureSize))
		}
		if b := s.signed.Body; len(b) > 0 && statement.RoundID(b) != s.round {
			return nil, malformed(errors.New("round signature is over another config"))
		}
		return roundSignatureCommand{s.round, s.member, s.signed.Signature}, nil
	case *coordpb.Command_Ack:
		s, body, err := about(ch, c.Ack, statement.ParseAck, func(a *statement.Ack) label.Hash { return a.Round })
		return ackCommand{s, body}, err
	case *coordpb.Command_Vote:
		s, body, err := about(ch, c.Vote, statement.ParseVote, func(v *statement.Vote) label.Hash { return v.Round })
		return voteCommand{s, body}, err
	case *coordpb.Command_Expired:
		s, _, err := about(ch, c.Expired, statement.ParseExpired, func(x *statement.Expired) label.Hash { return x.Round })
		return expiredCommand{s}, err
	case *coordpb.Command_Reveal:
		s, body, err := about(ch, c.Reveal, statement.ParseReveal, func(r *statement.Reveal) label.Hash { return r.Round })
		return revealCommand{s, body}, err
	case *coordpb.Command_Result:
		s, body, err := about(ch, c.Result, statement.ParseResult, func(r *statement.Result) label.Hash { return r.Round })
		return resultCommand{s, body}, err
	case *coordpb.Command_Abort:
		s, _, err := about(ch, c.Abort, statement.ParseAbort, func(a *statement.Abort) label.Hash { return a.Round })
		return abortCommand{s}, err
	}
	return nil, &codeError{UnknownCommand, errors.New("command is of a later version")}
}

// about reads one member's statement and checks that body and envelope name the same round.
func about[T any](ch *charter.Charter, p *coordpb.RoundStatement, parse func([]byte) (*T, error), round func(*T) label.Hash) (said, *T, error) {
	s, err := parseSaid(ch, p)
	if err != nil {
		return said{}, nil, err
	}
	body, err := parse(s.signed.Body)
	if err != nil {
		return said{}, nil, malformed(err)
	}
	if round(body) != s.round {
		return said{}, nil, malformed(errors.New("statement is of another round than its envelope"))
	}
	return s, body, nil
}

func parseSaid(ch *charter.Charter, p *coordpb.RoundStatement) (said, error) {
	id := p.GetRoundId()
	if len(id) != label.Size {
		return said{}, malformed(fmt.Errorf("round id has %d bytes, want %d", len(id), label.Size))
	}
	if p.GetMember() >= uint32(ch.N) {
		return said{}, &codeError{NotMember, fmt.Errorf("member %d is not in the charter", p.GetMember())}
	}
	s := FromSigned(p.GetStatement())
	if len(s.Signature) > statement.SignatureMax {
		return said{}, malformed(fmt.Errorf("signature has %d bytes, limit %d", len(s.Signature), statement.SignatureMax))
	}
	return said{label.Hash(id), int(p.GetMember()), s}, nil
}
