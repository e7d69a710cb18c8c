package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// Peers are the other members as this one reaches them.
type Peers interface {
	// Mesh gives the connection to a member; an error names it. Calls may block until their context ends.
	Mesh(member int) (coordpb.MeshClient, error)
}

// Keys opens this member's boxes and signs its receipts, with the epoch that the round lists.
type Keys interface {
	// OpenOwnBox checks this member's box of a contribution; a *committee.InvalidError says the device is at fault.
	OpenOwnBox(c *Contribution, t Terms) error
	// Receipt signs a receipt after the Accept is applied and its index is in the guard; it waits for both.
	Receipt(ctx context.Context, round, header label.Hash) (*coordpb.MemberStatement, error)
}

// Log takes commands to the leader, wherever it is, and returns when they are applied there.
type Log interface {
	Propose(ctx context.Context, cmd *coordpb.Command) ([]*coordpb.Outcome, error)
}

// Config is what an Ingress works with.
type Config struct {
	Me        int
	Receipts  int // n-f: a device's ack
	StoredMin int // f+1: copies before the Accept is proposed
	Shelf     *Shelf
	State     State
	Peers     Peers
	Keys      Keys
	Log       Log
	Logger    *slog.Logger
}

// Ingress takes uploads from devices. It is safe for concurrent use.
type Ingress struct {
	cfg     Config
	uploads chan struct{}
	accepts *batcher
}

// New returns an Ingress. Close ends its batcher.
func New(cfg Config) *Ingress {
	return &Ingress{cfg: cfg, uploads: make(chan struct{}, uploadsMax), accepts: newBatcher(cfg.Log)}
}

// Close waits for the batch in flight.
func (in *Ingress) Close() { in.accepts.close() }

// stored is one member's answer to a copy.
type stored struct {
	member int
	err    error
}

// Upload takes one contribution and returns when n-f receipts are together: the device's ack. Everything in it may be
// repeated with the same bytes, at this member or another.
func (in *Ingress) Upload(ctx context.Context, open *coordpb.UploadOpen, next func() (*coordpb.Chunk, error)) (*coordpb.UploadResponse, error) {
	select {
	case in.uploads <- struct{}{}:
		defer func() { <-in.uploads }()
	default:
		return nil, refuse(CodeBusy, "%d uploads in flight, the limit of this member", uploadsMax)
	}
	c, terms, err := Check(in.cfg.State, open)
	if err != nil {
		return nil, err
	}
	_, accepted := in.cfg.State.Accepted(c.Header.Round, c.Hash)
	if !terms.Open && !accepted {
		return nil, refuse(CodeRoundClosed, "round %s takes no more contributions", c.Header.Round)
	}
	if terms.Round.BoxIndex(in.cfg.Me) < 0 {
		return nil, refuse(CodeNotListed, "this member is not listed in round %s; use another", c.Header.Round)
	}
	if err := in.cfg.Shelf.Receive(ctx, c, next); err != nil {
		return nil, err
	}
	if err := in.cfg.Keys.OpenOwnBox(c, terms); err != nil {
		return nil, refuse(CodeInvalidBox, "%v", err)
	}
	holders, err := in.spread(ctx, c, terms)
	if err != nil {
		return nil, err
	}
	outcome := "duplicate"
	if !accepted {
		accept := &statement.Accept{Round: c.Header.Round, Header: c.Hash, Device: c.Header.Device, Authority: c.Authority,
			Size: c.Size(), Holders: holders, Signature: c.Signature}
		o, err := in.accepts.propose(ctx, accept.Bytes())
		if err != nil {
			return nil, err
		}
		if o.Code != "ok" && o.Code != "duplicate" {
			return nil, &Refusal{Code: o.Code, Detail: o.Detail}
		}
		if o.Code == "ok" {
			outcome = "accepted"
		}
	}
	receipts, err := in.Receipts(ctx, c.Header.Round, c.Hash, terms)
	if err != nil {
		return nil, err
	}
	return &coordpb.UploadResponse{Outcome: outcome, Receipts: receipts}, nil
}

// spread copies a contribution to every other listed member and returns as soon as n-f members, this one included,
// hold it; the rest go on in the background, and whoever is missed pulls before it acks a Close.
func (in *Ingress) spread(ctx context.Context, c *Contribution, t Terms) (statement.Mask, error) {
	holders := statement.Mask(1) << in.cfg.Me
	answers := make(chan stored, len(t.Round.Listed))
	asked := 0
	for _, l := range t.Round.Listed {
		if l.Member == in.cfg.Me {
			continue
		}
		asked++
		go func(member int) {
			// The copy outlives the device's call: it was begun for the consortium's sake.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
			defer cancel()
			answers <- stored{member, in.copyTo(ctx, c, member)}
		}(l.Member)
	}
	var invalid error
	for asked > 0 && holders.Size() < in.cfg.Receipts {
		select {
		case a := <-answers:
			asked--
			var r *Refusal
			switch {
			case a.err == nil:
				holders |= 1 << a.member
			case errors.As(a.err, &r) && r.Code != CodeFull && r.Code != CodeBusy:
				invalid = fmt.Errorf("member %d: %w", a.member, a.err)
			default:
				in.cfg.Logger.Debug("a copy was not stored", "member", a.member, "error", a.err)
			}
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	if holders.Size() >= in.cfg.Receipts || holders.Size() >= in.cfg.StoredMin && invalid == nil {
		return holders, nil
	}
	if invalid != nil {
		return 0, refuse(CodeInvalidBox, "%v", invalid)
	}
	return 0, refuse(CodeUnavailable, "%d members hold the copy, %d are needed", holders.Size(), in.cfg.Receipts)
}

// copyTo streams one contribution to one member.
func (in *Ingress) copyTo(ctx context.Context, c *Contribution, member int) error {
	peer, err := in.cfg.Peers.Mesh(member)
	if err != nil {
		return err
	}
	stream, err := peer.Store(ctx)
	if err != nil {
		return err
	}
	send := func(m *coordpb.UploadRequest) error { return stream.Send(m) }
	err = send(&coordpb.UploadRequest{Message: &coordpb.UploadRequest_Open{Open: c.Open(0)}})
	if err == nil {
		err = in.cfg.Shelf.Send(c, 0, func(ch *coordpb.Chunk) error {
			return send(&coordpb.UploadRequest{Message: &coordpb.UploadRequest_Chunk{Chunk: ch}})
		})
	}
	if err != nil && !errors.Is(err, io.EOF) { // io.EOF: the peer has answered already
		return err
	}
	answer, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	if answer.GetOutcome() != "stored" {
		return refuse(answer.GetCode(), "%s", answer.GetOutcome())
	}
	return nil
}

// Store is the other end of copyTo: a peer's contribution, checked like a device's.
func (in *Ingress) Store(ctx context.Context, open *coordpb.UploadOpen, next func() (*coordpb.Chunk, error)) error {
	c, terms, err := Check(in.cfg.State, open)
	if err != nil {
		return err
	}
	if err := in.cfg.Shelf.Receive(ctx, c, next); err != nil {
		return err
	}
	if terms.Round.BoxIndex(in.cfg.Me) < 0 {
		return nil // a copy for the others' sake
	}
	if err := in.cfg.Keys.OpenOwnBox(c, terms); err != nil {
		return refuse(CodeInvalidBox, "%v", err)
	}
	return nil
}

// Receipts gathers n-f receipts of an accepted contribution from its holders, this member among them.
func (in *Ingress) Receipts(ctx context.Context, round, header label.Hash, t Terms) ([]*coordpb.MemberStatement, error) {
	ctx, cancel := context.WithTimeout(ctx, receiptTimeout)
	defer cancel()
	type answer struct {
		r   *coordpb.MemberStatement
		err error
	}
	answers := make(chan answer, len(t.Round.Listed))
	for _, l := range t.Round.Listed {
		go func(member int) {
			var a answer
			if member == in.cfg.Me {
				a.r, a.err = in.cfg.Keys.Receipt(ctx, round, header)
			} else if peer, err := in.cfg.Peers.Mesh(member); err != nil {
				a.err = err
			} else {
				a.r, a.err = peer.Receipt(ctx, &coordpb.GetReceiptsRequest{RoundId: round[:], HeaderHash: header[:]})
			}
			answers <- a
		}(l.Member)
	}
	var out []*coordpb.MemberStatement
	var last error
	for range t.Round.Listed {
		a := <-answers
		if a.err != nil {
			last = a.err
			continue
		}
		if out = append(out, a.r); len(out) == in.cfg.Receipts {
			return out, nil
		}
	}
	return nil, refuse(CodeUnavailable, "%d of %d receipts: %v", len(out), in.cfg.Receipts, lastWord(last))
}

func lastWord(err error) string {
	if s, ok := status.FromError(err); ok && s.Code() != codes.OK {
		return s.Message()
	}
	return fmt.Sprint(err)
}

// Pull fetches a contribution that this member lacks from one that holds it.
func (in *Ingress) Pull(ctx context.Context, member int, round, header label.Hash) error {
	peer, err := in.cfg.Peers.Mesh(member)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	stream, err := peer.FetchContribution(ctx, &coordpb.GetReceiptsRequest{RoundId: round[:], HeaderHash: header[:]})
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	c, _, err := Check(in.cfg.State, first.GetOpen())
	if err != nil {
		return err
	}
	if c.Hash != header {
		return refuse(CodeCorrupt, "member %d sent another contribution than was asked for", member)
	}
	return in.cfg.Shelf.Receive(ctx, c, func() (*coordpb.Chunk, error) {
		m, err := stream.Recv()
		return m.GetChunk(), err
	})
}
