package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/epoch"
	"github.com/ruche-federation/ruche/coordinator/intake"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// signAck pulls every candidate that this member lacks, opens its box of each, and says what it found (SA 2.3, Close and
// Acks). "missing" is said only after every listed member was asked. One that could not be asked may be back in a moment:
// for half of the ack timeout it is waited for. After the whole of it the leader would go on without this member.
func (m *Member) signAck(ctx context.Context, v round.View, closing label.Hash) (*coordpb.Command, error) {
	e, err := m.listed(v.Config)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	c, ok := m.machine.Close(v.ID, closing)
	candidates := m.machine.Candidates(v.ID)
	applied := m.machine.Applied()
	m.mu.Unlock()
	if !ok {
		return nil, nil // the round went on meanwhile
	}
	var patientMs int64
	if task, known := m.ch.Task(v.Config.Task); known {
		for _, x := range v.Closes {
			if x.Hash == closing {
				patientMs = x.AtMs + task.Timings.AckTimeout.Milliseconds()/2
			}
		}
	}
	ack := &statement.Ack{Round: v.ID, Close: c.Hash()}
	terms := intake.Terms{Round: v.Config.Committee(m.ch)}
	for _, k := range candidates {
		verdict, err := m.judge(ctx, e, terms, v, k, patientMs)
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		ack.Verdicts = append(ack.Verdicts, verdict)
	}
	// The ack rests on the list of candidates: it must not be forgotten.
	if err := m.log.EnsureApplied(applied); err != nil {
		return nil, err
	}
	body := ack.Bytes()
	sig, err := e.Ack(body)
	if err != nil {
		return nil, err
	}
	return round.AckCommand(v.ID, m.me, statement.Signed{Body: body, Signature: sig}), nil
}

// judge is this member's verdict on one candidate. An error is this member's own trouble, of which no device is accused.
func (m *Member) judge(ctx context.Context, e *epoch.Epoch, terms intake.Terms, v round.View, k round.Candidate, patientMs int64) (statement.Verdict, error) {
	c, err := m.sound(ctx, v, k)
	if errors.As(err, new(*ownError)) || errors.As(err, new(*unaskedError)) && m.cfg.Now().UnixMilli() < patientMs {
		return 0, err
	}
	if err != nil {
		m.cfg.Logger.Warn("a candidate is missing", "round", v.ID.String(), "error", err)
		return statement.Missing, nil
	}
	if m.opened.has(v.ID, c.Hash) {
		return statement.OK, nil
	}
	shares, err := m.openBox(e, c, terms)
	var invalid *committee.InvalidError
	switch {
	case err == nil:
		shares.Erase()
		return statement.OK, nil
	case !errors.As(err, &invalid):
		return 0, fmt.Errorf("opening a box: %w", err)
	case invalid.Flaw == committee.FlawCommitment:
		return statement.BadCommitment, nil
	case invalid.Flaw == committee.FlawCommitments:
		return statement.BadHeader, nil
	}
	return statement.BadBox, nil
}

// sound obtains a candidate and reads its y to the end. An ok in an Ack is for a copy that is whole now: once the Acks
// have decided a set it never changes, and a copy that rotted unseen on every disk would hold the round up for ever
// (coordinator design, 4.3, bit rot). A damaged copy is dropped and pulled again.
func (m *Member) sound(ctx context.Context, v round.View, k round.Candidate) (*intake.Contribution, error) {
	return m.checked(ctx, v, k, m.shelf.Verify)
}

// checked obtains a candidate whose y passes a check. One that does not because this member's system refuses is left as it
// is.
func (m *Member) checked(ctx context.Context, v round.View, k round.Candidate, check func(*intake.Contribution) error) (*intake.Contribution, error) {
	c, err := m.obtain(ctx, v, k)
	if err != nil {
		return nil, err
	}
	if err = check(c); err == nil {
		return c, nil
	}
	switch {
	case errors.As(err, new(*intake.DamageError)):
		m.cfg.Logger.Error("a contribution on disk is damaged; pulling it again", "error", err)
		if err := m.shelf.Drop(c); err != nil {
			return nil, &ownError{err}
		}
	case !errors.Is(err, fs.ErrNotExist): // else it was dropped meanwhile
		return nil, &ownError{err}
	}
	return m.obtain(ctx, v, k)
}

// obtain loads a candidate from the shelf, or pulls it: first from the members that the Accept names, then from the rest.
// Those who seem to be away are asked too, last and for a short while: a member that has just started, or was suspended,
// has heard of nobody, and must not call missing what others hold (SA 2.3, Close and Acks: after trying every holder).
func (m *Member) obtain(ctx context.Context, v round.View, k round.Candidate) (*intake.Contribution, error) {
	c, err := m.shelf.Load(v.ID, k.Header)
	if err == nil {
		return c, nil
	}
	switch {
	case errors.As(err, new(*intake.DamageError)):
		m.cfg.Logger.Error("a contribution on disk is damaged; pulling it again", "error", err)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, &ownError{err}
	}
	order := append(k.Holders.Members(), (v.Config.Listed() &^ k.Holders).Members()...)
	last, unasked := errors.New("no member to ask"), false
	order, alive := m.grudges.order(order), m.peers.Alive()
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(away(alive, a), away(alive, b)) })
	for _, member := range order {
		if member == m.me {
			continue
		}
		if last = m.pullFrom(ctx, member, v.ID, k.Header, alive.Has(member)); last == nil {
			if c, err = m.shelf.Load(v.ID, k.Header); err != nil {
				return nil, &ownError{err}
			}
			return c, nil
		}
		var r *intake.Refusal
		if errors.As(last, new(*intake.ShelfError)) || errors.As(last, &r) && (r.Code == intake.CodeFull || r.Code == intake.CodeBusy) {
			return nil, &ownError{last}
		}
		unasked = unasked || unreached(last)
		m.grudges.hold(member)
	}
	err = fmt.Errorf("contribution %s: %w", k.Header, last)
	if unasked {
		err = &unaskedError{err}
	}
	return nil, err
}

// wholeCopy reads a contribution that is about to leave to its end; its head is whole, or it would not have been loaded.
// What rotted is dropped; the Accept's holders have it.
func (m *Member) wholeCopy(c *intake.Contribution) error {
	err := m.shelf.Verify(c)
	if errors.As(err, new(*intake.DamageError)) {
		m.cfg.Logger.Error("a contribution that was asked for is damaged on disk", "error", err)
		err = errors.Join(err, m.shelf.Drop(c))
	}
	return err
}

// unreached reports whether a call never came to its member, as far as one can tell: what it holds is not known.
func unreached(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded)
}

// unaskedError is that a contribution is not here, and that some member which may hold it could not be asked.
type unaskedError struct{ err error }

func (e *unaskedError) Error() string { return e.err.Error() }
func (e *unaskedError) Unwrap() error { return e.err }

// away orders members: those who seem to be away come last.
func away(alive statement.Mask, member int) int {
	if alive.Has(member) {
		return 0
	}
	return 1
}

// pullFrom fetches a contribution from one member, with little patience for one that seems to be away.
func (m *Member) pullFrom(ctx context.Context, member int, id, header label.Hash, alive bool) error {
	if !alive {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, shortWait)
		defer cancel()
	}
	return m.ingress.Pull(ctx, member, id, header)
}

// ownError is this member's own trouble with a contribution: no reason to call it missing.
type ownError struct{ err error }

func (e *ownError) Error() string { return e.err.Error() }
func (e *ownError) Unwrap() error { return e.err }

// openBox opens this member's box of a contribution with the epoch that the round lists.
func (m *Member) openBox(e *epoch.Epoch, c *intake.Contribution, t intake.Terms) (committee.Shares, error) {
	at := t.Round.BoxIndex(m.me)
	if at < 0 || at >= len(c.Boxes) {
		return committee.Shares{}, fmt.Errorf("round %s has no box for member %d", t.Round.ID, m.me)
	}
	return committee.OpenBox(t.Round, m.me, e.Number(), e.SealKey(), c.Header.Device, c.Header.Nonce, c.Header.Commitments, c.Boxes[at], c.Header.AAD())
}

// OpenOwnBox implements intake.Keys.
func (m *Member) OpenOwnBox(c *intake.Contribution, t intake.Terms) error {
	e, err := m.epochFor(t.Round.ID)
	if err != nil {
		return err
	}
	shares, err := m.openBox(e, c, t)
	if err != nil {
		return err
	}
	shares.Erase()
	m.opened.add(t.Round.ID, c.Hash)
	return nil
}

// opened are the contributions whose box this process has opened, by round: the same bytes, by their names, open again
// under the same epoch key. It is safe for concurrent use.
type opened struct {
	mu sync.Mutex
	of map[label.Hash]map[label.Hash]bool
}

func (o *opened) add(round, header label.Hash) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.of == nil {
		o.of = map[label.Hash]map[label.Hash]bool{}
	}
	if o.of[round] == nil {
		o.of[round] = map[label.Hash]bool{}
	}
	o.of[round][header] = true
}

func (o *opened) has(round, header label.Hash) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.of[round][header]
}

// forget drops the rounds that have ended.
func (o *opened) forget(ended func(round label.Hash) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	maps.DeleteFunc(o.of, func(round label.Hash, _ map[label.Hash]bool) bool { return ended(round) })
}

// Ready implements intake.Keys.
func (m *Member) Ready(id label.Hash) error {
	_, err := m.epochFor(id)
	return err
}

// CheckReceipt implements intake.Keys.
func (m *Member) CheckReceipt(id, header label.Hash, member int, p *coordpb.MemberStatement) (uint64, error) {
	m.mu.Lock()
	v, ok := m.machine.Round(id)
	m.mu.Unlock()
	if !ok {
		return 0, fmt.Errorf("round %s is not known here", id)
	}
	s := round.FromMemberStatement(p)
	if s.Member != member {
		return 0, fmt.Errorf("member %d gave a receipt of member %d", member, s.Member)
	}
	r, err := statement.VerifyReceipt(v.Config, header, s)
	if err != nil {
		return 0, err
	}
	return r.Index, nil
}

// epochFor is the epoch under which this member speaks in a round it knows.
func (m *Member) epochFor(id label.Hash) (*epoch.Epoch, error) {
	m.mu.Lock()
	v, ok := m.machine.Round(id)
	m.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("round %s is not known here", id)
	}
	return m.listed(v.Config)
}

// Receipt implements intake.Keys: the copy is on disk, the Accept is applied and that is on disk too, and so is that this
// member says so (SA 2.3, Intake).
func (m *Member) Receipt(ctx context.Context, id, header label.Hash) (*coordpb.MemberStatement, error) {
	index, err := m.waitAccepted(ctx, id, header)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	v, ok := m.machine.Round(id)
	k, _ := m.machine.Candidate(id, header)
	m.mu.Unlock()
	if !ok || v.Phase.Terminal() {
		return nil, fmt.Errorf("round %s has ended: nothing is kept for it any more", id)
	}
	e, err := m.listed(v.Config)
	if err != nil {
		return nil, err
	}
	if _, err := m.checked(ctx, v, k, m.shelf.Sure); err != nil { // what an earlier run left is read before it is vouched for
		return nil, err
	}
	if err := m.log.EnsureApplied(index); err != nil {
		return nil, err
	}
	if err := m.signed.note(id, v.Config, header, index); err != nil {
		return nil, err
	}
	body := (&statement.Receipt{Round: id, Header: header, Index: index}).Bytes()
	sig, err := e.Receipt(body)
	if err != nil {
		return nil, err
	}
	return round.ToMemberStatement(statement.MemberStatement{Member: m.me, Statement: statement.Signed{Body: body, Signature: sig}}), nil
}
