package participant

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
)

// RefusalError says why a device does not take part in a round that a member showed it.
type RefusalError struct {
	Seq    uint64 // 0: what was shown is not certified, so nothing in it is worth naming
	Reason string
}

func (e *RefusalError) Error() string {
	if e.Seq == 0 {
		return "refusing what was shown as a round: " + e.Reason
	}
	return fmt.Sprintf("refusing round %d: %s", e.Seq, e.Reason)
}

// check is step 1 of SA 2.3 "Device": everything that must hold before a device spends a minute on a round.
func (p *Participant) check(cert *coordpb.Certificate) (*statement.RoundConfig, error) {
	rc, err := statement.VerifyRoundCert(p.cfg.Charter, cert.GetBody(), signatures(cert.GetSignatures()))
	if err != nil {
		return nil, &RefusalError{0, err.Error()}
	}
	round, now := rc.ID(), p.cfg.Now().UnixMilli()
	refuse := func(format string, args ...any) (*statement.RoundConfig, error) {
		return nil, &RefusalError{rc.Seq, fmt.Sprintf(format, args...)}
	}
	at := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
	switch {
	case rc.Task != p.task.ID:
		return refuse("it is of task %q, this device takes part in %q", rc.Task, p.task.ID)
	case rc.Base != p.cfg.Base:
		return refuse("it is for the base model %s, this device has %s", rc.Base, p.cfg.Base)
	case rc.NMin < p.cfg.Floor:
		return refuse("its cohort floor is %d, the owner's minimum is %d", rc.NMin, p.cfg.Floor)
	case now < rc.ProposedMs-clockToleranceMs:
		return refuse("it was proposed at %s, but this device's clock says %s: set the clock", at(rc.ProposedMs), at(now))
	case now > rc.CloseMs+clockToleranceMs:
		return refuse("it closed at %s, and this device's clock says %s: the round is over or the clock is wrong", at(rc.CloseMs), at(now))
	case now > p.cert.ExpiresMs:
		return refuse("this device's certificate ended at %s", at(p.cert.ExpiresMs))
	}
	if p.task.Kind == charter.KindLoRA {
		if rc.Seq <= p.current.Seq {
			return refuse("its seq is not above the last one published (%d)", p.current.Seq)
		}
		if rc.Start.Model != p.current.Model {
			return refuse("it starts from %s, the last verified state is %s", rc.Start.Model, p.current.Model)
		}
		var results []label.Hash
		if !p.current.Result.IsZero() {
			results = []label.Hash{p.current.Result}
		}
		if len(rc.Start.Results) != len(results) || len(results) == 1 && rc.Start.Results[0] != results[0] {
			return refuse("its start does not rest on the last verified result")
		}
	} else if want := p.task.Init().Hash(); rc.Start.Model != want {
		return refuse("it starts from %s, the public start of the task is %s", rc.Start.Model, want)
	}
	if u := p.ledger.blocks(rc.Start.Hash(rc.Task, rc.Cell), round); u != nil {
		return refuse("this device already uploaded from the same start, in round %d (%s)", u.entry.Seq, u.entry.Round)
	}
	for _, u := range p.ledger.uploads() {
		if u.entry.Task == rc.Task && u.entry.Round != round && u.entry.Seq >= rc.Seq {
			return refuse("its seq is not above %d, which this device has seen", u.entry.Seq)
		}
	}
	return rc, nil
}

// join checks an open round and contributes to it, unless this device did already.
func (p *Participant) join(ctx context.Context, cert *coordpb.Certificate) error {
	round := statement.RoundID(cert.GetBody())
	if p.refused[round] {
		return nil
	}
	for _, u := range p.ledger.uploads() {
		if u.entry.Round == round {
			return nil
		}
	}
	rc, err := p.check(cert)
	if err != nil {
		// Only a certified round is refused for good: otherwise one member could spoil a good round by showing it first
		// with a broken signature.
		var refusal *RefusalError
		if errors.As(err, &refusal) && refusal.Seq > 0 {
			p.refused[round] = true
		}
		return err
	}
	began := p.cfg.Now()
	update, err := p.cfg.Learner.Update(ctx, p.task, rc.Seq, p.current.model)
	if errors.Is(err, ErrNothing) {
		p.refused[round] = true
		p.cfg.Logger.Info("sitting this round out", "seq", rc.Seq, "reason", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("round %d: %w", rc.Seq, err)
	}
	p.cfg.Logger.Info("update is ready", "seq", rc.Seq, "train_ms", p.cfg.Now().Sub(began).Milliseconds())
	s, err := p.prepare(rc, cert, update)
	if err != nil {
		p.refused[round] = true // the same update would be made again, and refused again
		return fmt.Errorf("round %d: %w", rc.Seq, err)
	}
	if err := p.stage(s); err != nil {
		return err
	}
	if err := p.debit(s); err != nil {
		return err
	}
	return p.send(ctx, s)
}

// prepare encodes, masks, seals and signs: steps 2 to 6 of SA 2.3 "Device". Seeds and the encoded vector are gone when
// it returns.
func (p *Participant) prepare(rc *statement.RoundConfig, cert *coordpb.Certificate, u Update) (*staged, error) {
	params := rc.Params(p.task)
	x, report, err := params.Encode(u.Body, u.Tail, p.cfg.Rand)
	if err != nil {
		return nil, err
	}
	defer clear(x)
	p.cfg.Logger.Debug("encoded", "seq", rc.Seq, "report", report)
	round := rc.ID()
	if p.cfg.KeepEncoded {
		if err := p.keepEncoded(round, x); err != nil {
			return nil, err
		}
	}
	h := &statement.Header{Round: round, Device: p.device, Cert: statement.HashDeviceCert(p.cfg.Cert.Body), Kind: statement.KindDevice, Len: rc.Len}
	if _, err := io.ReadFull(p.cfg.Rand, h.Nonce[:]); err != nil {
		return nil, fmt.Errorf("drawing the upload nonce: %w", err)
	}
	sealed, err := committee.Contribute(rc.Committee(p.cfg.Charter), p.device, h.Nonce, x, func(commitments []label.Hash, y label.Hash) []byte {
		h.Commitments, h.Y = commitments, y
		return h.AAD()
	}, p.cfg.Rand)
	if err != nil {
		return nil, err
	}
	h.Boxes = statement.HashBoxes(sealed.Boxes)
	body := h.Bytes()
	hash := statement.HashHeader(body)
	return &staged{
		cert: cert, config: rc, header: h, hash: hash, y: sealed.Y,
		open: &coordpb.UploadOpen{RoundId: round[:], Boxes: sealed.Boxes,
			Header: &coordpb.Signed{Body: body, Signature: statement.SignContribution(p.cfg.Key, round, hash)}},
	}, nil
}

// keepEncoded writes the encoded vector for the demo's comparison of sums.
func (p *Participant) keepEncoded(round label.Hash, x []uint32) error {
	dir := filepath.Join(p.cfg.Dir, "encoded")
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, round.String()), committee.VectorBytes(x), 0o600)
}

// debit writes what is about to leave into the ledger, before the first byte of it does.
func (p *Participant) debit(s *staged) error {
	for _, u := range p.ledger.uploads() {
		if u.entry.Round == s.header.Round {
			return nil // a restart between debit and ack
		}
	}
	size := len(s.y) + len(s.open.GetHeader().GetBody()) + len(s.open.GetHeader().GetSignature())
	var to []string
	for _, b := range s.open.GetBoxes() {
		size += len(b)
	}
	for _, m := range s.config.Listed().Members() {
		to = append(to, p.cfg.Charter.Members[m].Name)
	}
	rc := s.config
	return p.ledger.Append(Entry{Time: p.cfg.Now().UTC(), Kind: KindContribution, Task: rc.Task, Round: s.header.Round, Seq: rc.Seq,
		Start: rc.Start.Hash(rc.Task, rc.Cell), Header: s.hash, Bytes: size, To: to,
		What: fmt.Sprintf("one masked update: %d numbers and %d private metrics, readable only as part of a sum over at least %d devices", rc.Values, rc.Tail, rc.NMin)})
}

// resume sends what an earlier run of the process staged and did not see acked, and removes what will not be sent again.
func (p *Participant) resume(ctx context.Context) error {
	rounds, err := p.stagedRounds()
	if err != nil {
		return err
	}
	for _, round := range rounds {
		if err := p.resumeRound(ctx, round); err != nil {
			return err
		}
	}
	return nil
}

func (p *Participant) resumeRound(ctx context.Context, round label.Hash) error {
	u := p.ledger.upload(round)
	if u != nil && u.end != "" {
		return p.unstage(round) // the process ended, or the removal failed, after the ledger's entry
	}
	var s *staged
	rc := p.waiting[round]
	if rc == nil {
		var err error
		if s, err = p.readStaged(round); s == nil {
			return err
		}
		rc = s.config
	}
	now := p.cfg.Now().UnixMilli()
	switch {
	case now > rc.NotAfterMs+stagedKeptMs:
		// No member takes it or can open it any more, and to a device that was away for long none tells how the round ended.
		// The ledger keeps its entry: the start stays blocked unless a death is proven.
		p.cfg.Logger.Info("removing a staged contribution: its round is long over, and its end not known", "seq", rc.Seq)
		return p.unstage(round)
	case p.cfg.Observe, u == nil && rc.Task != p.task.ID: // a contributor's affair, or another task's
		return nil
	case u != nil && (u.acked || p.gaveUp[round] || now > rc.CloseMs+clockToleranceMs): // it waits for its end
		return nil
	}
	if s == nil {
		var err error
		if s, err = p.readStaged(round); s == nil {
			return err
		}
	}
	if kept, err := p.confirm(s); err != nil || !kept {
		return err
	}
	return p.send(ctx, s)
}

// confirm debits what was staged and not yet debited when the process ended. Nothing of it has left, so everything that
// join checks is checked again, and what does not pass is dropped: the ledger tells of what leaves only.
func (p *Participant) confirm(s *staged) (bool, error) {
	for _, u := range p.ledger.uploads() {
		switch {
		case u.entry.Round == s.header.Round && u.entry.Header == s.hash:
			return true, nil
		case u.entry.Round == s.header.Round:
			p.cfg.Logger.Error("a staged contribution is not the one in the ledger: it is removed and not sent", "path", p.stagedPath(s.header.Round))
			return false, p.unstage(s.header.Round)
		}
	}
	if _, err := p.check(s.cert); err != nil {
		p.cfg.Logger.Info("dropping a staged contribution that never left", "seq", s.config.Seq, "reason", err)
		return false, p.unstage(s.header.Round)
	}
	return true, p.debit(s)
}

// send uploads the staged bytes to one member after another until n-f receipts are here, f+1 members say that the round
// takes no more (one alone may lie), or the close deadline is well past. Repetition is harmless: the bytes, and so their
// name, are the same each time, at whichever member. A member that sheds load is left alone for as long as it asked.
func (p *Participant) send(ctx context.Context, s *staged) error {
	order := s.config.Listed().Members()
	first := int(s.hash[0]) % len(order) // spreads devices over members
	var refusing statement.Mask
	rests := map[int]time.Time{}
	for try := 0; ; try++ {
		member := order[(first+try)%len(order)]
		var err error
		if rest := rests[member].Sub(p.cfg.Now()); rest > 0 {
			err = fmt.Errorf("member %d asked to be left alone for %s more", member, rest.Round(time.Millisecond))
		} else {
			err = p.sendTo(ctx, s, member)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if asked := askedToWait(err); asked > 0 {
			rests[member] = p.cfg.Now().Add(asked)
		}
		switch status.Code(err) {
		case codes.Aborted, codes.InvalidArgument, codes.PermissionDenied:
			// Refused for good. What was sent stays debited: the round may have taken it through another member.
			if refusing |= 1 << member; refusing.Size() < p.cfg.Charter.Believe() {
				break
			}
			p.gaveUp[s.header.Round] = true
			return fmt.Errorf("round %d: member %d: %w", s.config.Seq, member, err)
		}
		if p.cfg.Now().UnixMilli() > s.config.CloseMs+clockToleranceMs {
			p.gaveUp[s.header.Round] = true
			return fmt.Errorf("round %d: no ack before its close deadline; the last word of member %d: %w", s.config.Seq, member, err)
		}
		p.cfg.Logger.Debug("upload failed; next member", "member", member, "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(jitter(retryFirst, retryMax, try/len(order))):
		}
	}
}

// sendTo is one try at one member, resumed where an earlier one broke off.
func (p *Participant) sendTo(ctx context.Context, s *staged, member int) error {
	c, err := p.cfg.Members.Device(member)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, uploadTimeout)
	defer cancel()
	var offset uint64
	if q, err := c.QueryUpload(ctx, &coordpb.QueryUploadRequest{RoundId: s.header.Round[:], HeaderHash: s.hash[:]}); err == nil {
		offset = min(q.GetOffset(), uint64(len(s.y)))
	}
	stream, err := c.Upload(ctx)
	if err != nil {
		return err
	}
	open := &coordpb.UploadOpen{RoundId: s.open.GetRoundId(), Header: s.open.GetHeader(), Boxes: s.open.GetBoxes(), Offset: offset}
	if err := stream.Send(&coordpb.UploadRequest{Message: &coordpb.UploadRequest_Open{Open: open}}); err == nil {
		// A send error only says that the member has answered already: CloseAndRecv gives the answer.
		_ = coordpb.SendChunks(bytes.NewReader(s.y[offset:]), offset, func(ch *coordpb.Chunk) error {
			return stream.Send(&coordpb.UploadRequest{Message: &coordpb.UploadRequest_Chunk{Chunk: ch}})
		})
	}
	answer, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	return p.ack(s, answer)
}

// ack verifies the receipts and enters them into the ledger.
func (p *Participant) ack(s *staged, answer *coordpb.UploadResponse) error {
	for _, u := range p.ledger.uploads() {
		if u.entry.Round == s.header.Round && u.acked {
			return nil // written by a try that failed afterwards
		}
	}
	receipts := statements(answer.GetReceipts())
	if _, err := statement.VerifyAckCert(p.cfg.Charter, s.config, s.hash, receipts); err != nil {
		return err
	}
	e := Entry{Time: p.cfg.Now().UTC(), Kind: KindAck, Task: s.config.Task, Round: s.header.Round, Seq: s.config.Seq,
		Start: s.config.Start.Hash(s.config.Task, s.config.Cell), Header: s.hash}
	for _, r := range receipts {
		e.To = append(e.To, p.cfg.Charter.Members[r.Member].Name)
		e.Receipts = append(e.Receipts, r.Statement.Bytes())
	}
	if err := p.ledger.Append(e); err != nil {
		return err
	}
	p.cfg.Logger.Info("contribution is acknowledged", "seq", s.config.Seq, "receipts", len(receipts), "members", strings.Join(e.To, " "))
	return nil
}
