package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/coordinator"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

// Liar is a member that says what a test wants. Its program runs on, so that it knows what a member knows; what that
// proposes and sends passes through the liar, who has the member's keys and may say anything else besides. Nothing that
// a liar says is judged; everything that the others say because of it is.
type Liar struct {
	seat *Seat
	home *coordinator.Home

	mu   sync.Mutex // guards what follows; a leaf
	now  Manner
	keys map[string]*identity.Key // vote keys of its epochs, by their public halves; never erased
}

// Manner is how a liar treats what its program says.
type Manner struct {
	// Word is what is proposed instead of a command of its program's: nothing, one or more. nil: what the program says.
	// It is called while the log is held, and may only sign.
	Word func(cmd *coordpb.Command) []*coordpb.Command
	// Sends is what a member gets instead of a message of a copy that its program sends; nil breaks the copy off.
	Sends func(to int, m *coordpb.UploadRequest) *coordpb.UploadRequest
	// Answers is what leaves instead of an answer of its program's services.
	Answers func(method string, m any) (any, error)
}

// Behave changes its manner, from the next thing on that its program says.
func (l *Liar) Behave(change func(m *Manner)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.now)
}

func (l *Liar) manner() Manner {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

var errSilent = errors.New("the liar says nothing")

// Corrupt makes a member a liar. What it holds by then, keys among it, is the test's to use.
func (f *Federation) Corrupt(member int) (*Liar, error) {
	s := f.Seats[member]
	home, err := coordinator.OpenHome(s.Dir, s.rand)
	if err != nil {
		return nil, err
	}
	l := &Liar{seat: s, home: home, keys: map[string]*identity.Key{}}
	f.mu.Lock()
	defer f.mu.Unlock()
	s.liar.Store(l)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l, l.learn()
}

// liars is the set of them.
func (f *Federation) liars() (m statement.Mask) {
	for i, s := range f.Seats {
		if s.Liar() != nil {
			m |= 1 << i
		}
	}
	return m
}

// learn reads the vote keys of its epochs off its disk, before its program erases them. The caller holds the liar's mu.
func (l *Liar) learn() error {
	files, err := filepath.Glob(filepath.Join(l.seat.Dir, "epochs", "*", "keys"))
	if err != nil {
		return err
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		k, err := voteKeyIn(b)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		l.keys[string(k.Public())] = k
	}
	return nil
}

// voteKeyIn takes the vote key out of an epoch's key file: the last seed before the checksum.
func voteKeyIn(b []byte) (*identity.Key, error) {
	end := len(b) - label.Size
	if end < identity.KeySize {
		return nil, fmt.Errorf("a key file has %d bytes", len(b))
	}
	return identity.ParseKey(b[end-identity.KeySize : end])
}

// Index is the liar's place in the charter.
func (l *Liar) Index() int { return l.seat.Index }

// propose is its program's Propose. The caller holds the federation's mu.
func (l *Liar) propose(cmd *coordpb.Command) (outcomes []*coordpb.Outcome, err error) {
	words := []*coordpb.Command{cmd}
	if word := l.manner().Word; word != nil {
		words = word(cmd)
	}
	err = errSilent
	for _, w := range words {
		data, merr := proto.Marshal(w)
		if merr != nil {
			return nil, merr
		}
		if outcomes, err = l.seat.f.append(l.seat.view, data); err != nil {
			return nil, err
		}
	}
	return outcomes, err
}

// Say puts a command into a log; a liar that leads picks which. It returns the code of the first outcome.
func (l *Liar) Say(h *history, cmd *coordpb.Command) (round.Code, error) {
	data, err := proto.Marshal(cmd)
	if err != nil {
		return "", err
	}
	f := l.seat.f
	f.mu.Lock()
	defer f.mu.Unlock()
	outcomes, err := f.append(h, data)
	if err != nil {
		return "", err
	}
	return round.Code(outcomes[0].GetCode()), nil
}

// sign signs with the vote key that a round lists for it; with its newest where that one is unknown.
func (l *Liar) sign(rc *statement.RoundConfig, stmt string, body []byte) statement.Signed {
	l.mu.Lock()
	defer l.mu.Unlock()
	var key *identity.Key
	k, listed := rc.Package(l.seat.Index)
	if listed {
		if key = l.keys[string(k.VoteKey)]; key == nil {
			_ = l.learn() // an epoch that it published since
			key = l.keys[string(k.VoteKey)]
		}
	}
	if key == nil {
		return statement.Signed{Body: body, Signature: make([]byte, identity.KeySignatureSize)}
	}
	return statement.SignKey(key, stmt, body)
}

// Keys is a key package of its next epoch whose life begins at any time. Nobody has the keys.
func (l *Liar) Keys(from time.Time) *coordpb.Command {
	f := l.seat.f
	k := &statement.KeyPackage{Charter: f.Charter.Hash(), Member: l.seat.Index, Epoch: 1, SealKey: make([]byte, statement.SealPublicSize),
		VoteKey: l.home.Authority.Public(), NotBeforeMs: from.UnixMilli(), NotAfterMs: from.Add(f.Charter.Timing.EpochLife.D()).UnixMilli()}
	f.mu.Lock()
	if _, old, ok := l.seat.view.observer.KeyPackage(l.seat.Index); ok {
		k.Epoch = old.Epoch + 1
	}
	f.mu.Unlock()
	return round.KeyPackageCommand(statement.SignMember(l.home.Identity, label.StmtKeyPackage, k.Bytes()))
}

// Config is its signature over a proposed round.
func (l *Liar) Config(v round.View) *coordpb.Command {
	return round.RoundSignatureCommand(v.ID, l.seat.Index, l.home.Identity.Sign(label.StmtRoundConfig, v.Body))
}

// Ack is its verdict on every candidate of a Close.
func (l *Liar) Ack(rc *statement.RoundConfig, c *statement.Close, candidates int, verdict func(i int) statement.Verdict) *coordpb.Command {
	a := &statement.Ack{Round: c.Round, Close: c.Hash()}
	for i := range candidates {
		a.Verdicts = append(a.Verdicts, verdict(i))
	}
	return round.AckCommand(c.Round, l.seat.Index, l.sign(rc, label.StmtAck, a.Bytes()))
}

// Vote is its vote for any value.
func (l *Liar) Vote(rc *statement.RoundConfig, value label.Hash) *coordpb.Command {
	id := rc.ID()
	return round.VoteCommand(id, l.seat.Index, l.sign(rc, label.StmtVote, (&statement.Vote{Round: id, Value: value}).Bytes()))
}

// Expired is its word that it never revealed a round.
func (l *Liar) Expired(rc *statement.RoundConfig) *coordpb.Command {
	id := rc.ID()
	return round.ExpiredCommand(id, l.seat.Index, l.sign(rc, label.StmtExpired, (&statement.Expired{Round: id}).Bytes()))
}

// Reveal is a reveal of any sums.
func (l *Liar) Reveal(rc *statement.RoundConfig, r *statement.Reveal) *coordpb.Command {
	return round.RevealCommand(r.Round, l.seat.Index, l.sign(rc, label.StmtReveal, r.Bytes()))
}

// Result is a result of any sum.
func (l *Liar) Result(r *statement.Result) *coordpb.Command {
	return round.ResultCommand(r.Round, l.seat.Index, statement.SignMember(l.home.Identity, label.StmtResult, r.Bytes()))
}

// Receipt is its receipt of anything.
func (l *Liar) Receipt(rc *statement.RoundConfig, header label.Hash, index uint64) *coordpb.MemberStatement {
	body := (&statement.Receipt{Round: rc.ID(), Header: header, Index: index}).Bytes()
	return round.ToMemberStatement(statement.MemberStatement{Member: l.seat.Index, Statement: l.sign(rc, label.StmtReceipt, body)})
}

// lyingClient is another member as a liar's program reaches it.
type lyingClient struct {
	coordpb.MeshClient
	liar *Liar
	to   int
}

// Store implements coordpb.MeshClient.
func (c *lyingClient) Store(ctx context.Context, opts ...grpc.CallOption) (grpc.ClientStreamingClient[coordpb.UploadRequest, coordpb.StoreResponse], error) {
	s, err := c.MeshClient.Store(ctx, opts...)
	sends := c.liar.manner().Sends
	if err != nil || sends == nil {
		return s, err
	}
	return &lyingStore{s, sends, c.to}, nil
}

type lyingStore struct {
	grpc.ClientStreamingClient[coordpb.UploadRequest, coordpb.StoreResponse]
	sends func(to int, m *coordpb.UploadRequest) *coordpb.UploadRequest
	to    int
}

// Send passes on what the liar makes of a message.
func (s *lyingStore) Send(m *coordpb.UploadRequest) error {
	if m = s.sends(s.to, proto.CloneOf(m)); m == nil {
		return errSilent
	}
	return s.ClientStreamingClient.Send(m)
}
