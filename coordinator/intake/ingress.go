package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/aggregation/committee"
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
	// Ready fails where this member has no keys for a round, or has them no more: it can neither open nor receipt.
	Ready(round label.Hash) error
	// OpenOwnBox checks this member's box of a contribution; a *committee.InvalidError says the device is at fault.
	OpenOwnBox(c *Contribution, t Terms) error
	// Receipt signs a receipt after the Accept is applied and its index is in the guard; it waits for both.
	Receipt(ctx context.Context, round, header label.Hash) (*coordpb.MemberStatement, error)
	// CheckReceipt verifies a member's receipt of a contribution and gives the log index that it names.
	CheckReceipt(round, header label.Hash, member int, r *coordpb.MemberStatement) (index uint64, err error)
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
	uploads chan struct{}                       // a token per upload in flight
	copies  [statement.MembersMax]chan struct{} // a token per copy under way to a member
	accepts *batcher

	ctx  context.Context // of copies that outlive the device's call; ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup // copies under way

	mu        sync.Mutex // guards what follows, and wg.Go against Close
	uploading map[flight]bool
	receiving map[part]map[*context.CancelFunc]bool
}

// flight is one device's upload to one round.
type flight struct{ round, device label.Hash }

// part is what comes in under one name, from whatever device: the name is y's own hash, and a liar can send another's.
type part struct{ round, y label.Hash }

// New returns an Ingress. Close ends its batcher and the copies under way.
func New(cfg Config) *Ingress {
	in := &Ingress{cfg: cfg, uploads: make(chan struct{}, uploadsMax), accepts: newBatcher(cfg.Log), uploading: map[flight]bool{}, receiving: map[part]map[*context.CancelFunc]bool{}}
	in.ctx, in.stop = context.WithCancel(context.Background())
	for i := range in.copies {
		in.copies[i] = make(chan struct{}, copiesMax)
	}
	return in
}

// Close ends copies under way and waits for the batches in flight. Uploads have ended before.
func (in *Ingress) Close() {
	in.mu.Lock()
	in.stop()
	in.mu.Unlock()
	in.wg.Wait()
	in.accepts.close()
}

// Messages reads the messages of a stream, head first.
type Messages func() (*coordpb.UploadRequest, error)

// open reads the head, and gives what reads the chunks that follow.
func open(next Messages) (*coordpb.UploadOpen, func() (*coordpb.Chunk, error), error) {
	first, err := next()
	if errors.Is(err, io.EOF) || err == nil && first.GetOpen() == nil {
		return nil, nil, refuse(CodeBadHeader, "an upload begins with its head")
	}
	if err != nil {
		return nil, nil, err
	}
	return first.GetOpen(), func() (*coordpb.Chunk, error) {
		m, err := next()
		if err != nil {
			return nil, err
		}
		if m.GetChunk() == nil {
			return nil, refuse(CodeCorrupt, "a message after the head is no chunk")
		}
		return m.GetChunk(), nil
	}, nil
}

func messageSize(m *coordpb.UploadRequest) int {
	if c := m.GetChunk(); c != nil {
		return len(c.GetData())
	}
	return proto.Size(m)
}

// Upload takes one contribution and returns when n-f receipts are together: the device's ack. Everything in it may be
// repeated with the same bytes, at this member or another. A sender that stalls is given up.
func (in *Ingress) Upload(ctx context.Context, next Messages) (*coordpb.UploadResponse, error) {
	calm, cancel := context.WithCancel(ctx) // of what the device sends
	defer cancel()
	read, stop := paced(calm, deviceTempo, next, messageSize)
	defer stop()
	head, chunks, err := open(read)
	if err != nil {
		return nil, err
	}
	select {
	case in.uploads <- struct{}{}:
		defer func() { <-in.uploads }()
	default:
		return nil, refuse(CodeBusy, "%d uploads in flight, the limit of this member", uploadsMax)
	}
	c, terms, err := Check(in.cfg.State, head)
	if err != nil {
		return nil, err
	}
	if terms.Round.BoxIndex(in.cfg.Me) < 0 {
		return nil, refuse(CodeNotListed, "this member is not listed in round %s; use another", c.Header.Round)
	}
	if err := in.cfg.Keys.Ready(c.Header.Round); err != nil {
		return nil, refuse(CodeNotListed, "this member has no keys for round %s; use another", c.Header.Round)
	}
	land, err := in.depart(c)
	if err != nil {
		return nil, err
	}
	defer land()
	if err := patient(ctx, func() error { return in.receive(calm, cancel, c, chunks) }); err != nil {
		return nil, err
	}
	if err := in.openOwnBox(c, terms); err != nil {
		return nil, err
	}
	holders, err := in.spread(ctx, c, terms)
	if err != nil {
		return nil, err
	}
	outcome := codeDuplicate
	if !c.Accepted {
		accept := &statement.Accept{Round: c.Header.Round, Header: c.Hash, Device: c.Header.Device, Authority: c.Authority,
			Size: c.Size(), Holders: holders, Signature: c.Signature}
		o, err := in.accepts.propose(ctx, accept.Bytes())
		if err != nil {
			return nil, err
		}
		if o.GetCode() != codeOK && o.GetCode() != codeDuplicate {
			return nil, &Refusal{Code: o.GetCode(), Detail: o.GetDetail()}
		}
		if o.GetCode() == codeOK {
			outcome = "accepted"
		}
	}
	receipts, err := in.Receipts(ctx, c.Header.Round, c.Hash, terms)
	if err != nil {
		return nil, err
	}
	return &coordpb.UploadResponse{Outcome: outcome, Receipts: receipts}, nil
}

// depart admits one upload at a time of each device to each round: a device has one contribution, and one line.
func (in *Ingress) depart(c *Contribution) (land func(), err error) {
	f := flight{c.Header.Round, c.Header.Device}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.uploading[f] {
		return nil, refuse(CodeBusy, "an upload of this device to the round is in flight here")
	}
	in.uploading[f] = true
	return func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		delete(in.uploading, f)
	}, nil
}

// receive is Shelf.Receive of a stream that preempt may end.
func (in *Ingress) receive(ctx context.Context, cancel context.CancelFunc, c *Contribution, chunks func() (*coordpb.Chunk, error)) error {
	p, me := part{c.Header.Round, c.Header.Y}, &cancel
	in.mu.Lock()
	if in.receiving[p] == nil {
		in.receiving[p] = map[*context.CancelFunc]bool{}
	}
	in.receiving[p][me] = true
	in.mu.Unlock()
	defer func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		if delete(in.receiving[p], me); len(in.receiving[p]) == 0 {
			delete(in.receiving, p)
		}
	}()
	return in.cfg.Shelf.Receive(ctx, c, chunks)
}

// preempt ends the streams on which the same bytes are coming in, or what is to pass for them.
func (in *Ingress) preempt(p part) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for cancel := range in.receiving[p] {
		(*cancel)()
	}
}

// openOwnBox tells the device's fault, which no repetition mends, from this member's own trouble.
func (in *Ingress) openOwnBox(c *Contribution, t Terms) error {
	err := in.cfg.Keys.OpenOwnBox(c, t)
	var invalid *committee.InvalidError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &invalid):
		return refuse(CodeInvalidBox, "%v", invalid)
	}
	return fmt.Errorf("opening the own box: %w", err)
}

// stored is one member's answer to a copy.
type stored struct {
	member int
	err    error
}

// spread copies a contribution to every other listed member and returns as soon as n-f members, this one included,
// hold it; the rest go on in the background, and whoever is missed pulls before it acks a Close. Fewer do, down to f+1,
// where nobody objects to the contribution and no more can be reached.
func (in *Ingress) spread(ctx context.Context, c *Contribution, t Terms) (statement.Mask, error) {
	holders := statement.Mask(1) << in.cfg.Me
	answers := make(chan stored, len(t.Round.Listed))
	asked := 0
	for _, l := range t.Round.Listed {
		if l.Member == in.cfg.Me {
			continue
		}
		asked++
		if !in.begin(l.Member, func() { answers <- stored{l.Member, in.copyTo(c, l.Member)} }) {
			answers <- stored{l.Member, refuse(CodeBusy, "%d copies to member %d are under way", copiesMax, l.Member)}
		}
	}
	var objects statement.Mask
	for asked > 0 && holders.Size() < in.cfg.Receipts {
		select {
		case a := <-answers:
			asked--
			var r *Refusal
			switch {
			case a.err == nil:
				holders |= 1 << a.member
			case errors.As(a.err, &r) && r.Code == CodeInvalidBox:
				objects |= 1 << a.member
			default: // it lags behind, is full, busy or away
				in.cfg.Logger.Debug("a copy was not stored", "member", a.member, "error", a.err)
			}
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	switch {
	case holders.Size() >= in.cfg.Receipts, holders.Size() >= in.cfg.StoredMin && objects == 0:
		return holders, nil
	case objects != 0:
		return 0, refuse(CodeInvalidBox, "members %v say that their box of it does not open", objects)
	}
	return 0, refuse(CodeUnavailable, "%d members hold the copy, %d are needed", holders.Size(), in.cfg.StoredMin)
}

// begin runs a copy to a member beside the call that wants it, unless too many are under way there.
func (in *Ingress) begin(member int, run func()) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ctx.Err() != nil || member < 0 || member >= len(in.copies) {
		return false
	}
	select {
	case in.copies[member] <- struct{}{}:
	default:
		return false
	}
	in.wg.Go(func() {
		defer func() { <-in.copies[member] }()
		run()
	})
	return true
}

// copyTo streams one contribution to one member. It outlives the device's call: it is made for the consortium's sake.
func (in *Ingress) copyTo(c *Contribution, member int) error {
	ctx, cancel := context.WithTimeout(in.ctx, storeTimeout)
	defer cancel()
	peer, err := in.cfg.Peers.Mesh(member)
	if err != nil {
		return err
	}
	stream, err := peer.Store(ctx)
	if err != nil {
		return err
	}
	err = stream.Send(&coordpb.UploadRequest{Message: &coordpb.UploadRequest_Open{Open: c.Open(0)}})
	if err == nil {
		err = in.cfg.Shelf.Send(c, 0, func(ch *coordpb.Chunk) error {
			return stream.Send(&coordpb.UploadRequest{Message: &coordpb.UploadRequest_Chunk{Chunk: ch}})
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
		return refuse(answer.GetCode(), "member %d did not store it", member) // its own words are nobody else's affair
	}
	return nil
}

// Store is the other end of copyTo: a peer's contribution, checked like a device's.
func (in *Ingress) Store(ctx context.Context, next Messages) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	read, stop := paced(ctx, peerTempo, next, messageSize)
	defer stop()
	head, chunks, err := open(read)
	if err != nil {
		return err
	}
	if h, err := statement.ParseHeader(head.GetHeader().GetBody()); err == nil {
		in.cfg.State.Await(ctx, h.Round, h.Device)
	}
	c, terms, err := Check(in.cfg.State, head)
	if err != nil {
		return err
	}
	listed := terms.Round.BoxIndex(in.cfg.Me) >= 0 // if not, a copy for the others' sake
	if listed {
		if err := in.cfg.Keys.Ready(c.Header.Round); err != nil {
			return refuse(CodeNotListed, "no keys for round %s here", c.Header.Round)
		}
	}
	if err := in.receive(ctx, cancel, c, chunks); err != nil || !listed {
		return err
	}
	return in.openOwnBox(c, terms)
}

// Receipts gathers n-f receipts of an accepted contribution from its holders, this member among them. Each is verified:
// one bad receipt would cost the device the whole ack, and members that name different log indices vouch for different
// records.
func (in *Ingress) Receipts(ctx context.Context, round, header label.Hash, t Terms) ([]*coordpb.MemberStatement, error) {
	ctx, cancel := context.WithTimeout(ctx, receiptTimeout)
	defer cancel()
	type answer struct {
		member int
		r      *coordpb.MemberStatement
		err    error
	}
	answers := make(chan answer, len(t.Round.Listed))
	for _, l := range t.Round.Listed {
		go func(member int) {
			a := answer{member: member}
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
	byIndex := map[uint64][]*coordpb.MemberStatement{}
	most := 0
	for range t.Round.Listed {
		a := <-answers
		var index uint64
		if a.err == nil {
			index, a.err = in.cfg.Keys.CheckReceipt(round, header, a.member, a.r)
		}
		if a.err != nil {
			in.cfg.Logger.Debug("no receipt", "member", a.member, "error", a.err)
			continue
		}
		byIndex[index] = append(byIndex[index], a.r)
		if most = max(most, len(byIndex[index])); most == in.cfg.Receipts {
			return byIndex[index], nil
		}
	}
	return nil, refuse(CodeUnavailable, "%d of %d receipts", most, in.cfg.Receipts)
}

// Pull fetches a contribution that this member lacks from one that holds it. The log waits for what it accepted: where
// the same bytes are coming in from a slower sender, that one is cut off and the part gone on with.
func (in *Ingress) Pull(ctx context.Context, member int, round, header label.Hash) error {
	return patient(ctx, func() error { return in.pull(ctx, member, round, header) })
}

// patient tries again for a while where the same bytes are being received on another stream: most often they are
// complete in a moment.
func patient(ctx context.Context, receive func() error) error {
	for try := 0; ; try++ {
		err := receive()
		var r *Refusal
		if !errors.As(err, &r) || r.Code != CodeBusy || try == busyTries {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(busyPause):
		}
	}
}

func (in *Ingress) pull(ctx context.Context, member int, round, header label.Hash) error {
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
	read, stop := paced(ctx, peerTempo, stream.Recv, messageSize)
	defer stop()
	head, chunks, err := open(read)
	if err != nil {
		return err
	}
	c, _, err := Check(in.cfg.State, head)
	if err != nil {
		return err
	}
	if c.Hash != header || c.Header.Round != round {
		return refuse(CodeCorrupt, "member %d sent another contribution than was asked for", member)
	}
	err = in.cfg.Shelf.Receive(ctx, c, chunks)
	var r *Refusal
	if errors.As(err, &r) && r.Code == CodeBusy {
		in.preempt(part{c.Header.Round, c.Header.Y})
	}
	return err
}
