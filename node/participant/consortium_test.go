package participant

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/seal"
)

// A consortium of four members, one of which may lie, with real keys and a memory instead of a log. Tests say what its
// members show.

var baseHash = label.Sum(label.TagTask, []byte("base"))

const (
	taskCommons = "commons" // kind lora
	taskMean    = "mean"    // kind vector
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// upload is what one member received in one call.
type received struct {
	member int
	open   *coordpb.UploadOpen
	y      []byte // from open.Offset on
}

type consortium struct {
	t           testing.TB
	ch          *charter.Charter
	identities  []*identity.Member
	authorities []*identity.Key
	votes       []*identity.Key
	seals       []*seal.PrivateKey
	random      *rand.ChaCha8
	clients     []coordpb.DeviceClient

	mu       sync.Mutex // guards what follows
	now      time.Time
	open     *coordpb.Certificate
	earlier  []*coordpb.RoundRecord
	latest   *coordpb.RoundRecord
	adapters map[label.Hash][]byte
	received []received
	asked    [][]byte // rounds of the last check-in
	checkIns []int    // members in the order they were asked

	// onUpload decides about an upload; nil gives receipts of n-f members.
	onUpload func(received) (*coordpb.UploadResponse, error)
	// onCheckIn changes what one member answers.
	onCheckIn func(member int, r *coordpb.CheckInResponse) error
	// onAdapter changes the bytes of one member.
	onAdapter func(member int, b []byte) []byte
	offset    uint64
}

func newConsortium(t testing.TB, alter func(*charter.Options)) *consortium {
	t.Helper()
	return newConsortiumSeeded(t, 1, alter)
}

func newConsortiumSeeded(t testing.TB, seed byte, alter func(*charter.Options)) *consortium {
	t.Helper()
	c := &consortium{t: t, random: rand.NewChaCha8([32]byte{seed}), now: time.UnixMilli(1_800_000_000_000), adapters: map[label.Hash][]byte{}}
	var cards []charter.Card
	key := func() *identity.Key {
		k, err := identity.NewKey(c.random)
		must(t, err)
		return k
	}
	for i := range 4 {
		id, err := identity.NewMember(c.random)
		must(t, err)
		s, err := seal.GenerateKey(c.random)
		must(t, err)
		c.identities, c.seals = append(c.identities, id), append(c.seals, s)
		c.authorities, c.votes = append(c.authorities, key()), append(c.votes, key())
		cards = append(cards, charter.Card{Name: fmt.Sprintf("org-%d", i), StoreID: fmt.Sprintf("00000000-0000-4000-8000-%012d", i),
			Identity: id.Public(), Authority: c.authorities[i].Public(), TLSKey: key().Public(),
			DeviceURL: fmt.Sprintf("https://org-%d.example:7420", i), MeshAddr: fmt.Sprintf("org-%d.example:7421", i)})
	}
	o := charter.Options{Consortium: "Essaim", Demo: true, F: 1, MinContributors: 3, Tasks: []charter.Task{commonsTask(t), meanTask(t)},
		Timing: charter.Timing{EpochLife: minutes(24 * 60), Slack: minutes(5), Tick: charter.Duration(time.Second)}}
	if alter != nil {
		alter(&o)
	}
	body, err := charter.Draft(cards, o)
	must(t, err)
	c.ch, err = charter.Parse(body)
	must(t, err)
	c.serve()
	return c
}

func minutes(m int) charter.Duration { return charter.Duration(time.Duration(m) * time.Minute) }

func commonTask(id, kind string, l layout.Layout) charter.Task {
	task := charter.NewTask(id, kind)
	task.Layout, task.InitSeed = l, label.Sum(label.TagTask, []byte("seed"))
	task.Encoding = charter.Encoding{CReal: 4, C: 2253}
	task.Cohort = charter.Cohort{NMin: 3, NMax: 100}
	task.Timings = charter.Timings{CloseAfter: minutes(10), AckTimeout: minutes(1), AckAfter: minutes(5), RevealAfter: minutes(60)}
	return task
}

func commonsTask(t testing.TB) charter.Task {
	l, err := layout.LoRA([]layout.Module{{Name: "m", In: 8, Out: 16}}, 2, 2, layout.StandardTail())
	must(t, err)
	task := commonTask(taskCommons, charter.KindLoRA, l)
	task.Base = baseHash.String()
	task.Recipe = charter.Recipe{Rank: 2, Alpha: 2, Steps: 1, Batch: 1, Window: 8, LR: 0.1, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8}
	return task
}

func meanTask(t testing.TB) charter.Task {
	l, err := layout.Vector("mean", 10, []layout.Metric{{Name: layout.MetricExamples, Max: 64}})
	must(t, err)
	task := commonTask(taskMean, charter.KindVector, l)
	task.Window = "once"
	return task
}

func (c *consortium) keyPackages() (out []statement.Signed) {
	now := c.clock()
	for j := range c.ch.N {
		k := &statement.KeyPackage{Charter: c.ch.Hash(), Member: j, Epoch: 1, SealKey: c.seals[j].Public(), VoteKey: c.votes[j].Public(),
			NotBeforeMs: now.UnixMilli(), NotAfterMs: now.Add(24 * time.Hour).UnixMilli()}
		out = append(out, statement.SignMember(c.identities[j], label.StmtKeyPackage, k.Bytes()))
	}
	return out
}

// config makes the RoundConfig of a round that begins now.
func (c *consortium) config(task string, seq uint64, alter func(*statement.Start)) *statement.RoundConfig {
	c.t.Helper()
	t, ok := c.ch.Task(task)
	if !ok {
		c.t.Fatalf("no task %s", task)
	}
	c.mu.Lock()
	now, latest := c.now, c.latest
	c.mu.Unlock()
	start := statement.Start{Model: t.Init().Hash(), Part: t.Layout.Factor}
	if t.Kind == charter.KindVector {
		start.Part = t.WindowPart(now)
	} else if latest != nil {
		r, err := statement.ParseResult(latest.GetResult().GetBody())
		must(c.t, err)
		start.Model, start.Results = r.Model, []label.Hash{statement.HashResult(latest.GetResult().GetBody())}
	}
	if alter != nil {
		alter(&start)
	}
	rc, err := statement.NewRoundConfig(c.ch, task, seq, start, now.UnixMilli(), c.keyPackages())
	must(c.t, err)
	return rc
}

func (c *consortium) signed(stmt string, body []byte, members ...int) *coordpb.Certificate {
	cert := &coordpb.Certificate{Body: body}
	for _, j := range members {
		cert.Signatures = append(cert.Signatures, &coordpb.MemberSignature{Member: uint32(j), Signature: c.identities[j].Sign(stmt, body)})
	}
	return cert
}

func (c *consortium) roundCert(rc *statement.RoundConfig) *coordpb.Certificate {
	return c.signed(label.StmtRoundConfig, rc.Bytes(), 0, 1, 3)
}

// show opens a round to devices.
func (c *consortium) show(rc *statement.RoundConfig) *statement.RoundConfig {
	cert := c.roundCert(rc)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = cert
	return rc
}

// said is one body signed by the vote keys of members.
func (c *consortium) said(stmt string, body []byte, members ...int) (out []*coordpb.MemberStatement) {
	for _, j := range members {
		s := statement.SignKey(c.votes[j], stmt, body)
		out = append(out, &coordpb.MemberStatement{Member: uint32(j), Statement: &coordpb.Signed{Body: s.Body, Signature: s.Signature}})
	}
	return out
}

// receipts are those of members for a contribution.
func (c *consortium) receipts(open *coordpb.UploadOpen, members ...int) *coordpb.UploadResponse {
	r := &statement.Receipt{Round: label.Hash(open.GetRoundId()), Header: statement.HashHeader(open.GetHeader().GetBody()), Index: 7}
	return &coordpb.UploadResponse{Outcome: "accepted", Receipts: c.said(label.StmtReceipt, r.Bytes(), members...)}
}

// publish makes the record of a published round whose result is a model with these values.
func (c *consortium) publish(rc *statement.RoundConfig, values []float32, signers ...int) (*coordpb.RoundRecord, layout.Model) {
	t, _ := c.ch.Task(rc.Task)
	m := layout.Model{TaskID: rc.Task, LayoutHash: t.Layout.Hash(), Seq: rc.Seq, Values: values}
	r := &statement.Result{Round: rc.ID(), Set: label.Sum(label.TagSet), X: label.Sum(label.TagSum), Model: m.Hash()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.adapters[m.Hash()] = m.Canonical()
	return &coordpb.RoundRecord{Config: c.roundCert(rc), Phase: "published", Result: c.signed(label.StmtResult, r.Bytes(), signers...)}, m
}

// uploads are those of one round that arrived whole, at any member.
func (c *consortium) uploads(rc *statement.RoundConfig) (out []received) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := rc.ID()
	for _, r := range c.received {
		if bytes.Equal(r.open.GetRoundId(), id[:]) {
			out = append(out, r)
		}
	}
	return out
}

// unmask opens one upload with every member's key: what only a set of N_min may be subject to.
func (c *consortium) unmask(rc *statement.RoundConfig, r received) []uint32 {
	c.t.Helper()
	h, err := statement.ParseHeader(r.open.GetHeader().GetBody())
	must(c.t, err)
	round := rc.Committee(c.ch)
	sums := committee.TSums{}
	for i, l := range round.Listed {
		shares, err := committee.OpenBox(round, l.Member, l.Epoch, c.seals[l.Member], h.Device, h.Nonce, h.Commitments, r.open.GetBoxes()[i], h.AAD())
		must(c.t, err)
		one := committee.TSums{}
		must(c.t, shares.AddTo(one))
		for mask, v := range one {
			sums[mask] = v
		}
	}
	y, err := committee.ParseVector(r.y, int(rc.Len))
	must(c.t, err)
	x, err := committee.Unmask(round, y, sums)
	must(c.t, err)
	return x
}

// What tests see and change of it; members' handlers may still be at work on what a device broke off.

func (c *consortium) alter(do func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do()
}

func (c *consortium) decide(f func(received) (*coordpb.UploadResponse, error)) {
	c.alter(func() { c.onUpload = f })
}

func (c *consortium) bend(f func(member int, r *coordpb.CheckInResponse) error) {
	c.alter(func() { c.onCheckIn = f })
}

func (c *consortium) swap(f func(member int, b []byte) []byte) {
	c.alter(func() { c.onAdapter = f })
}

// wait lets time pass.
func (c *consortium) wait(d time.Duration) { c.alter(func() { c.now = c.now.Add(d) }) }

func (c *consortium) clock() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// shown is the open round.
func (c *consortium) shown() *coordpb.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// order lists the members in the order they were asked.
func (c *consortium) order() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.checkIns)
}

// lastAsked are the rounds of the last check-in.
func (c *consortium) lastAsked() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

// count is how many uploads have come.
func (c *consortium) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.received)
}

// fakeMember is one member's device port.
type fakeMember struct {
	coordpb.UnimplementedDeviceServer
	c  *consortium
	me int
}

func (m *fakeMember) CheckIn(_ context.Context, r *coordpb.CheckInRequest) (*coordpb.CheckInResponse, error) {
	c := m.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checkIns = append(c.checkIns, m.me)
	if h := c.ch.Hash(); !bytes.Equal(r.GetCharterHash(), h[:]) {
		return nil, status.Error(codes.FailedPrecondition, "another charter")
	}
	c.asked = r.GetRounds()
	out := &coordpb.CheckInResponse{Round: c.open, Latest: c.latest, Retry: &coordpb.RetryWindow{DelayMaxMs: 1}}
	for _, record := range c.earlier {
		id := statement.RoundID(record.GetConfig().GetBody())
		for _, asked := range r.GetRounds() {
			if bytes.Equal(asked, id[:]) {
				out.Earlier = append(out.Earlier, record)
			}
		}
	}
	if c.onCheckIn != nil {
		if err := c.onCheckIn(m.me, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (m *fakeMember) QueryUpload(context.Context, *coordpb.QueryUploadRequest) (*coordpb.QueryUploadResponse, error) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	return &coordpb.QueryUploadResponse{Offset: m.c.offset}, nil
}

func (m *fakeMember) Upload(stream grpc.ClientStreamingServer[coordpb.UploadRequest, coordpb.UploadResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	r := received{member: m.me, open: first.GetOpen()}
	at := r.open.GetOffset()
	for {
		next, err := stream.Recv()
		if err != nil {
			break // the end, or a device that went away
		}
		if err := next.GetChunk().Verify(); err != nil || next.GetChunk().GetOffset() != at {
			return status.Errorf(codes.DataLoss, "chunk at %d, want %d: %v", next.GetChunk().GetOffset(), at, err)
		}
		at += uint64(len(next.GetChunk().GetData()))
		r.y = append(r.y, next.GetChunk().GetData()...)
	}
	m.c.mu.Lock()
	decide := m.c.onUpload
	m.c.received = append(m.c.received, r)
	m.c.mu.Unlock()
	answer := m.c.receipts(r.open, 0, 1, 2)
	if decide != nil {
		if answer, err = decide(r); err != nil {
			return err
		}
	}
	return stream.SendAndClose(answer)
}

func (m *fakeMember) GetAdapter(r *coordpb.GetAdapterRequest, stream grpc.ServerStreamingServer[coordpb.Chunk]) error {
	m.c.mu.Lock()
	b, ok := m.c.adapters[label.Hash(r.GetModelHash())]
	if m.c.onAdapter != nil {
		b = m.c.onAdapter(m.me, bytes.Clone(b))
	}
	m.c.mu.Unlock()
	if !ok {
		return status.Error(codes.NotFound, "no such state")
	}
	return coordpb.SendChunks(bytes.NewReader(b), 0, stream.Send)
}

func (c *consortium) serve() {
	for j := range c.ch.N {
		listener := bufconn.Listen(1 << 20)
		server := grpc.NewServer(grpc.MaxRecvMsgSize(1 << 20))
		coordpb.RegisterDeviceServer(server, &fakeMember{c: c, me: j})
		go server.Serve(listener)
		conn, err := grpc.NewClient("passthrough:///member", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
		must(c.t, err)
		c.clients = append(c.clients, coordpb.NewDeviceClient(conn))
		c.t.Cleanup(func() { conn.Close(); server.Stop() })
	}
}

// Device makes a consortium the Members of its devices.
func (c *consortium) Device(member int) (coordpb.DeviceClient, error) { return c.clients[member], nil }

// learner gives the same update every time and remembers what it was asked.
type learner struct {
	update  Update
	err     error
	updates []layout.Model
	adopted []layout.Model
	failing int // adoptions that fail before one succeeds
}

func (l *learner) Update(_ context.Context, _ *charter.Task, _ uint64, start layout.Model) (Update, error) {
	l.updates = append(l.updates, start)
	return l.update, l.err
}

func (l *learner) Adopt(_ context.Context, _ *charter.Task, m layout.Model) error {
	if l.failing > 0 && m.Seq > 0 {
		l.failing--
		return errors.New("no room for the adapter")
	}
	l.adopted = append(l.adopted, m)
	return nil
}

// device is one device's folder and what it is configured with; open it as often as it crashes.
type device struct {
	t       testing.TB
	c       *consortium
	cfg     Config
	learner *learner
}

func (c *consortium) device(task string) *device {
	c.t.Helper()
	key, err := identity.NewKey(c.random)
	must(c.t, err)
	cert := &statement.DeviceCert{Charter: c.ch.Hash(), Device: identity.DeviceID(key.Public()), Public: key.Public(), Authority: 1, Quota: 100,
		ExpiresMs: c.clock().Add(30 * 24 * time.Hour).UnixMilli(), Token: label.Sum(label.TagToken, []byte("t"))}
	t, _ := c.ch.Task(task)
	l := &learner{update: Update{Body: make([]float32, t.Layout.D()), Tail: make([]float64, t.Layout.TailLen())}}
	for i := range l.update.Body {
		l.update.Body[i] = float32(i%7) / 8
	}
	l.update.Tail[0] = 5
	return &device{t: c.t, c: c, learner: l, cfg: Config{Charter: c.ch, Task: task, Base: t.BaseHash(), Key: key,
		Cert: statement.SignKey(c.authorities[1], label.StmtDeviceCert, cert.Bytes()), Dir: c.t.TempDir(), Learner: l, Members: c,
		Now: c.clock, Rand: c.random, Logger: slog.New(slog.DiscardHandler)}}
}

// start opens the device's participant, as a process that begins does.
func (d *device) start() *Participant {
	d.t.Helper()
	p, err := New(d.t.Context(), d.cfg)
	must(d.t, err)
	d.t.Cleanup(func() { p.Close() })
	return p
}

// step must succeed.
func step(t testing.TB, p *Participant) {
	t.Helper()
	_, err := p.Step(t.Context())
	must(t, err)
}
