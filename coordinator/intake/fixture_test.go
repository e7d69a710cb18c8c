package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/seal"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) || r.Code != code {
		t.Fatalf("got %v, want a refusal %s", err, code)
	}
}

// world is one round of a consortium, with a log that takes Accepts by the rules that matter here.
type world struct {
	t       testing.TB
	random  *rand.ChaCha8
	round   committee.Round
	members []*seat

	mu       sync.Mutex // guards what follows
	devices  map[label.Hash]*statement.DeviceCert
	accepted map[label.Hash]uint64     // by header
	slot     map[label.Hash]label.Hash // header by device
	index    uint64
	changed  chan struct{}
	logFails error  // what Propose answers
	verdict  string // what the log says of everything that it does not hold, if anything
	over     bool   // the round has ended
	entries  []*coordpb.AcceptBatch
}

// seat is one member, with what a test breaks of it.
type seat struct {
	*world
	me      int
	shelf   *Shelf
	ingress *Ingress
	seal    *seal.PrivateKey
	vote    *identity.Key

	mu       sync.Mutex // guards what follows
	down     bool
	keyless  bool
	blind    bool                                                             // opens no box, for a reason of its own
	answer   func(open *coordpb.UploadOpen) *coordpb.StoreResponse            // to a copy, instead of storing it
	receipt  func(*coordpb.MemberStatement) (*coordpb.MemberStatement, error) // what becomes of its receipts
	stalls   chan struct{}                                                    // its contributions never come while it is open
	sends    func(*coordpb.UploadRequest) *coordpb.UploadRequest              // what becomes of contributions that it sends
	receipts int
}

func newWorld(t testing.TB, n, f, lanes int) *world {
	t.Helper()
	w := &world{t: t, random: rand.NewChaCha8([32]byte{byte(n), byte(f)}), devices: map[label.Hash]*statement.DeviceCert{},
		accepted: map[label.Hash]uint64{}, slot: map[label.Hash]label.Hash{}, changed: make(chan struct{})}
	w.round = committee.Round{ID: label.Sum(label.TagRoundConfig, []byte("test")), N: n, F: f, Len: lanes}
	for i := range n {
		k, err := seal.GenerateKey(w.random)
		must(t, err)
		v, err := identity.NewKey(w.random)
		must(t, err)
		w.round.Listed = append(w.round.Listed, committee.Recipient{Member: i, Epoch: 1, SealKey: k.Public()})
		shelf, err := OpenShelf(filepath.Join(t.TempDir(), "blobs"), 0)
		must(t, err)
		s := &seat{world: w, me: i, shelf: shelf, seal: k, vote: v}
		s.ingress = New(Config{Me: i, Receipts: max(n-f, f+1), StoredMin: f + 1, Shelf: shelf, State: w, Peers: s, Keys: s, Log: w, Logger: slog.New(slog.DiscardHandler)})
		w.members = append(w.members, s)
		t.Cleanup(func() {
			s.ingress.Close()
			must(t, shelf.Close())
		})
	}
	return w
}

// ---- State and Log ----

func (w *world) Await(context.Context, label.Hash, label.Hash) {}

func (w *world) Terms(id label.Hash) (Terms, bool) {
	return Terms{w.round}, id == w.round.ID && !w.over
}

func (w *world) DeviceCert(d label.Hash) (*statement.DeviceCert, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c, ok := w.devices[d]
	return c, ok
}

func (w *world) Acceptable(id, device, header label.Hash) (string, string) {
	if id != w.round.ID {
		return CodeUnknownRound, "the log's reason"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acceptable(device, header), "the log's reason"
}

func (w *world) acceptable(device, header label.Hash) string {
	switch has, ok := w.slot[device]; {
	case ok && has == header:
		return codeDuplicate
	case ok:
		return "second_header"
	case w.verdict != "":
		return w.verdict
	}
	return codeOK
}

func (w *world) Propose(_ context.Context, cmd *coordpb.Command) ([]*coordpb.Outcome, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.logFails != nil {
		return nil, w.logFails
	}
	w.index++
	w.entries = append(w.entries, cmd.GetAccepts())
	var out []*coordpb.Outcome
	for _, item := range cmd.GetAccepts().GetItems() {
		a, err := statement.ParseAccept(item)
		if err != nil {
			out = append(out, &coordpb.Outcome{Code: "malformed"})
			continue
		}
		code := w.acceptable(a.Device, a.Header)
		if code == codeOK {
			w.slot[a.Device], w.accepted[a.Header] = a.Header, w.index
			close(w.changed)
			w.changed = make(chan struct{})
		}
		out = append(out, &coordpb.Outcome{Code: code, Detail: "the log's reason"})
	}
	return out, nil
}

// ---- Keys ----

func (s *seat) Ready(label.Hash) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keyless {
		return errors.New("no keys")
	}
	return nil
}

func (s *seat) OpenOwnBox(c *Contribution, t Terms) error {
	s.mu.Lock()
	blind := s.blind
	s.mu.Unlock()
	if blind {
		return errors.New("/var/lib/ruche/epochs/1: the key was erased meanwhile")
	}
	shares, err := committee.OpenBox(t.Round, s.me, 1, s.seal, c.Header.Device, c.Header.Nonce, c.Header.Commitments, c.Boxes[t.Round.BoxIndex(s.me)], c.Header.AAD())
	shares.Erase()
	return err
}

func (s *seat) Receipt(ctx context.Context, round, header label.Hash) (*coordpb.MemberStatement, error) {
	for {
		s.world.mu.Lock()
		index, ok := s.accepted[header]
		changed := s.changed
		s.world.mu.Unlock()
		if ok {
			for !s.shelf.Has(round, header) { // a member pulls what it lacks
				select {
				case <-time.After(10 * time.Millisecond):
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.receipts++
			body := (&statement.Receipt{Round: round, Header: header, Index: index}).Bytes()
			out := &coordpb.MemberStatement{Member: uint32(s.me), Statement: &coordpb.Signed{Body: body, Signature: s.vote.Sign(label.StmtReceipt, body)}}
			if s.receipt != nil {
				return s.receipt(out)
			}
			return out, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *seat) CheckReceipt(round, header label.Hash, member int, p *coordpb.MemberStatement) (uint64, error) {
	if int(p.GetMember()) != member {
		return 0, errors.New("of another member")
	}
	r, err := statement.ParseReceipt(p.GetStatement().GetBody())
	if err != nil {
		return 0, err
	}
	if r.Round != round || r.Header != header {
		return 0, errors.New("of another contribution")
	}
	return r.Index, s.members[member].vote.Public().Verify(label.StmtReceipt, p.GetStatement().GetBody(), p.GetStatement().GetSignature())
}

// ---- Peers ----

func (s *seat) Mesh(member int) (coordpb.MeshClient, error) {
	other := s.members[member]
	other.mu.Lock()
	defer other.mu.Unlock()
	if other.down || member == s.me {
		return nil, fmt.Errorf("member %d does not answer", member)
	}
	return &link{to: other}, nil
}

// link is a member as another one reaches it.
type link struct {
	coordpb.MeshClient
	to *seat
}

func (l *link) Receipt(ctx context.Context, r *coordpb.GetReceiptsRequest, _ ...grpc.CallOption) (*coordpb.MemberStatement, error) {
	return l.to.Receipt(ctx, label.Hash(r.GetRoundId()), label.Hash(r.GetHeaderHash()))
}

// storing is the client's end of Store.
type storing struct {
	grpc.ClientStream
	messages chan *coordpb.UploadRequest
	done     chan struct{}
	answer   *coordpb.StoreResponse
	err      error
}

func (l *link) Store(ctx context.Context, _ ...grpc.CallOption) (grpc.ClientStreamingClient[coordpb.UploadRequest, coordpb.StoreResponse], error) {
	s := &storing{messages: make(chan *coordpb.UploadRequest), done: make(chan struct{})}
	recv := func() (*coordpb.UploadRequest, error) {
		select {
		case m, ok := <-s.messages:
			if !ok {
				return nil, io.EOF
			}
			return proto.Clone(m).(*coordpb.UploadRequest), nil
		case <-s.done:
			return nil, context.Canceled
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	go func() {
		defer close(s.done)
		l.to.mu.Lock()
		answer := l.to.answer
		l.to.mu.Unlock()
		if answer != nil {
			m, err := recv()
			if err != nil {
				s.err = err
				return
			}
			s.answer = answer(m.GetOpen())
			return
		}
		var r *Refusal
		switch err := l.to.ingress.Store(ctx, recv); {
		case err == nil:
			s.answer = &coordpb.StoreResponse{Outcome: "stored"}
		case errors.As(err, &r):
			s.answer = &coordpb.StoreResponse{Outcome: "refused", Code: r.Code}
		default:
			s.err = err
		}
	}()
	return s, nil
}

func (s *storing) Send(m *coordpb.UploadRequest) error {
	select {
	case s.messages <- proto.CloneOf(m): // as a connection does
		return nil
	case <-s.done:
		return io.EOF
	}
}

func (s *storing) CloseAndRecv() (*coordpb.StoreResponse, error) {
	close(s.messages)
	<-s.done
	return s.answer, s.err
}

// fetching is the client's end of FetchContribution.
type fetching struct {
	grpc.ServerStreamingClient[coordpb.UploadRequest]
	messages []*coordpb.UploadRequest
	stalls   chan struct{}
	ctx      context.Context
}

func (l *link) FetchContribution(ctx context.Context, r *coordpb.GetReceiptsRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[coordpb.UploadRequest], error) {
	c, err := l.to.shelf.Load(label.Hash(r.GetRoundId()), label.Hash(r.GetHeaderHash()))
	if err != nil {
		return nil, err
	}
	l.to.mu.Lock()
	sends, stalls := l.to.sends, l.to.stalls
	l.to.mu.Unlock()
	f := &fetching{stalls: stalls, ctx: ctx}
	add := func(m *coordpb.UploadRequest) {
		if sends != nil {
			m = sends(m)
		}
		f.messages = append(f.messages, m)
	}
	add(&coordpb.UploadRequest{Message: &coordpb.UploadRequest_Open{Open: c.Open(0)}})
	return f, l.to.shelf.Send(c, 0, func(ch *coordpb.Chunk) error {
		add(&coordpb.UploadRequest{Message: &coordpb.UploadRequest_Chunk{Chunk: proto.CloneOf(ch)}})
		return nil
	})
}

func (f *fetching) Recv() (*coordpb.UploadRequest, error) {
	if f.stalls != nil {
		select {
		case <-f.stalls:
		case <-f.ctx.Done():
			return nil, f.ctx.Err()
		}
	}
	if len(f.messages) == 0 {
		return nil, io.EOF
	}
	m := f.messages[0]
	f.messages = f.messages[1:]
	return m, nil
}

// ---- devices ----

// device is an enrolled device and its contribution.
type device struct {
	key    *identity.Key
	id     label.Hash
	cert   *statement.DeviceCert
	header *statement.Header
	y      []byte
	boxes  [][]byte
}

// device enrols a device and has it contribute.
func (w *world) device() *device {
	w.t.Helper()
	key, err := identity.NewKey(w.random)
	must(w.t, err)
	d := &device{key: key, id: identity.DeviceID(key.Public())}
	w.enrol(d)
	w.contribute(d)
	return d
}

// enrol gives the device a certificate, each time another one.
func (w *world) enrol(d *device) {
	w.mu.Lock()
	defer w.mu.Unlock()
	token := make([]byte, 20)
	w.random.Read(token)
	d.cert = &statement.DeviceCert{Device: d.id, Public: d.key.Public(), Authority: 1, Quota: 9, ExpiresMs: 1, Token: statement.HashToken(token)}
	w.devices[d.id] = d.cert
}

// contribute makes a fresh contribution.
func (w *world) contribute(d *device) {
	w.t.Helper()
	h := &statement.Header{Round: w.round.ID, Device: d.id, Cert: d.cert.Hash(), Kind: statement.KindDevice, Len: uint32(w.round.Len)}
	w.random.Read(h.Nonce[:])
	x := make([]uint32, w.round.Len)
	for i := range x {
		x[i] = uint32(i)
	}
	sealed, err := committee.Contribute(w.round, d.id, h.Nonce, x, func(commitments []label.Hash, y label.Hash) []byte {
		h.Commitments, h.Y = commitments, y
		return h.AAD()
	}, w.random)
	must(w.t, err)
	h.Boxes = statement.HashBoxes(sealed.Boxes)
	d.header, d.boxes, d.y = h, sealed.Boxes, sealed.Y
}

// open is the head, signed as it is now.
func (d *device) open() *coordpb.UploadOpen {
	body := d.header.Bytes()
	return &coordpb.UploadOpen{RoundId: d.header.Round[:], Boxes: d.boxes,
		Header: &coordpb.Signed{Body: body, Signature: statement.SignContribution(d.key, d.header.Round, statement.HashHeader(body))}}
}

func (d *device) hash() label.Hash { return d.header.Hash() }

// chunks cuts y from an offset on.
func (d *device) chunks(from int) (out []*coordpb.Chunk) {
	_ = coordpb.SendChunks(&reader{d.y[from:]}, uint64(from), func(c *coordpb.Chunk) error { out = append(out, proto.CloneOf(c)); return nil })
	return out
}

type reader struct{ b []byte }

func (r *reader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}

// upload is the whole stream.
func (d *device) upload() Messages { return messages(d.open(), d.chunks(0)) }

func messages(open *coordpb.UploadOpen, chunks []*coordpb.Chunk) Messages {
	list := []*coordpb.UploadRequest{{Message: &coordpb.UploadRequest_Open{Open: open}}}
	for _, c := range chunks {
		list = append(list, &coordpb.UploadRequest{Message: &coordpb.UploadRequest_Chunk{Chunk: c}})
	}
	return replay(list)
}

func replay(list []*coordpb.UploadRequest) Messages {
	var mu sync.Mutex
	return func() (*coordpb.UploadRequest, error) {
		mu.Lock()
		defer mu.Unlock()
		if len(list) == 0 {
			return nil, io.EOF
		}
		m := list[0]
		list = list[1:]
		return m, nil
	}
}
