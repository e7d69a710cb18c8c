package coordinator

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/replica"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const testTask = "mean"

// newHomes holds the key ceremony of n members over a small task, published once; addresses are free ports of this machine.
func newHomes(t testing.TB, n, f int, every time.Duration) []*Home {
	t.Helper()
	return newHomesOver(t, n, f, every, "once")
}

func newHomesOver(t testing.TB, n, f int, every time.Duration, window string) []*Home {
	t.Helper()
	task := charter.NewTask(testTask, charter.KindVector)
	var err error
	task.Layout, err = layout.Vector("mean", 200, nil)
	must(t, err)
	task.Window = window
	task.InitSeed = label.Sum(label.TagTask, []byte("test"))
	task.Encoding = charter.Encoding{CReal: 4, C: 2253}
	task.Cohort = charter.Cohort{NMin: 3, NMax: 3}
	d := func(d time.Duration) charter.Duration { return charter.Duration(d) }
	task.Timings = charter.Timings{Every: d(every), CloseAfter: d(10 * time.Minute), AckTimeout: d(5 * time.Second), AckAfter: d(10 * time.Minute), RevealAfter: d(time.Hour)}
	return ceremony(t, n, charter.Options{Consortium: "Test", Demo: true, F: f, MinContributors: 3, Tasks: []charter.Task{task},
		Timing: charter.Timing{EpochLife: d(24 * time.Hour), Slack: d(time.Minute), Tick: d(100 * time.Millisecond)}})
}

// ceremony makes n members and has them sign one charter.
func ceremony(t testing.TB, n int, o charter.Options) []*Home {
	t.Helper()
	var homes []*Home
	var cards []charter.Card
	for i := range n {
		h, err := InitHome(filepath.Join(t.TempDir(), fmt.Sprintf("org-%d", i)), HomeOptions{Name: fmt.Sprintf("org-%d", i),
			DeviceURL: "https://" + freeAddr(t), MeshAddr: freeAddr(t)}, rand.Reader)
		must(t, err)
		homes, cards = append(homes, h), append(cards, h.Card)
	}
	body, err := charter.Draft(cards, o)
	must(t, err)
	var signatures []charter.Signature
	for _, h := range homes {
		s, err := charter.Sign(body, h.Identity)
		must(t, err)
		signatures = append(signatures, s)
	}
	file, err := charter.Assemble(body, signatures)
	must(t, err)
	for _, h := range homes {
		must(t, os.WriteFile(filepath.Join(h.Dir, charterFile), file, 0o600))
	}
	return homes
}

// given are the ports that freeAddr has drawn: by an address each, so that no two members get one.
var given sync.Map

// freeAddr draws a port below those that systems give to outgoing connections: while a member is down nobody takes its
// port by chance.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 200 {
		addr := fmt.Sprintf("127.0.0.1:%d", 12_000+mrand.IntN(20_000))
		if _, taken := given.LoadOrStore(addr, true); taken {
			continue
		}
		if l, err := net.Listen("tcp", addr); err == nil {
			must(t, l.Close())
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// rig is a consortium of one member with a log in memory, whose time the test moves.
type rig struct {
	t    testing.TB
	home *Home
	ch   *charter.Charter
	m    *Member
	log  *memoryLog
	logs *bytes.Buffer // what the member logs
	now  time.Time
}

func newRig(t testing.TB) *rig {
	t.Helper()
	return newRigOver(t, "once")
}

func newRigOver(t testing.TB, window string) *rig {
	t.Helper()
	r := &rig{t: t, home: newHomesOver(t, 1, 0, time.Minute, window)[0], logs: new(bytes.Buffer), now: time.UnixMilli(1_800_000_000_000), log: &memoryLog{}}
	var err error
	r.ch, _, err = r.home.Charter()
	must(t, err)
	r.start(0)
	t.Cleanup(func() { must(t, r.m.Close()) })
	return r
}

// start opens the member's folder and replays that much of the log.
func (r *rig) start(entries int) {
	r.t.Helper()
	m, err := New(Config{Home: r.home, Charter: r.ch, Index: 0, Now: func() time.Time { return r.now }, Rand: rand.Reader,
		Logger: slog.New(slog.NewTextHandler(&locked{w: r.logs}, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	must(r.t, err)
	r.m, r.log.m = m, m
	r.log.rewind()
	m.Attach(r.log, nobody{})
	r.replay(entries)
}

// restart ends the member and starts it again from its folder, with that much of the log applied.
func (r *rig) restart(entries int) {
	r.t.Helper()
	must(r.t, r.m.Close())
	r.start(entries)
}

func (r *rig) replay(to int) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	for ; r.log.applied < to; r.log.applied++ {
		r.m.Apply(uint64(r.log.applied+1), r.log.entries[r.log.applied])
	}
}

// work lets the member work until the newest round is in a phase.
func (r *rig) until(p round.Phase) round.View {
	r.t.Helper()
	for range 100 {
		if v, ok := r.newest(); ok && v.Phase == p {
			return v
		}
		r.now = r.now.Add(1100 * time.Millisecond)
		r.m.Work(r.t.Context())
	}
	v, _ := r.newest()
	r.t.Fatalf("the round is %s, not %s\n%s", v.Phase, p, r.logs)
	return v
}

func (r *rig) newest() (round.View, bool) {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	return r.m.machine.Newest(testTask)
}

// tick stamps a time into the log.
func (r *rig) tick(at time.Time) {
	r.t.Helper()
	r.now = at
	_, err := r.log.Propose(r.t.Context(), round.TickCommand(at.UnixMilli()))
	must(r.t, err)
}

// contribute enrols three devices and uploads for each.
func (r *rig) contribute(v round.View) (out []*testDevice) {
	r.t.Helper()
	for range 3 {
		d := newTestDevice(r.t)
		token, err := NewToken(r.home.Dir, rand.Reader)
		must(r.t, err)
		secret, err := ParseToken(token)
		must(r.t, err)
		d.cert, err = r.m.enrol(r.t.Context(), secret, d.key.Public())
		must(r.t, err)
		d.contribute(r.t, r.ch, v.Config)
		answer, err := r.m.ingress.Upload(r.t.Context(), d.upload())
		must(r.t, err)
		if len(answer.GetReceipts()) != 1 {
			r.t.Fatalf("%d receipts", len(answer.GetReceipts()))
		}
		out = append(out, d)
	}
	return out
}

// memoryLog is a log of one member.
type memoryLog struct {
	m       *Member
	mu      sync.Mutex // guards what follows
	entries [][]byte
	applied int
	guarded uint64
	waiting bool // for a vote
	fails   error
	handed  []int            // to whom leadership was
	word    *coordpb.Outcome // what a proposal is answered instead of being applied
}

func (l *memoryLog) Propose(ctx context.Context, cmd *coordpb.Command) ([]*coordpb.Outcome, error) {
	data, err := l.m.MarshalCommand(cmd)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fails != nil {
		return nil, l.fails
	}
	if l.word != nil {
		return []*coordpb.Outcome{l.word}, nil
	}
	if l.applied < len(l.entries) {
		return nil, errors.New("the log is being replayed")
	}
	l.entries = append(l.entries, data)
	l.applied++
	return Outcomes(l.m.Apply(uint64(l.applied), data))
}

func (l *memoryLog) Leading() bool { return true }

func (l *memoryLog) HandOver(_ context.Context, member int) error {
	l.handed = append(l.handed, member)
	return nil
}

func (l *memoryLog) EnsureApplied(index uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if index > uint64(l.applied) {
		return replica.ErrNotApplied
	}
	l.guarded = max(l.guarded, index)
	return nil
}

func (l *memoryLog) Status() LogStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return LogStatus{Applied: uint64(l.applied), Committed: uint64(len(l.entries)), Store: l.m.cfg.Home.Card.StoreID, Waiting: l.waiting, Guarded: l.guarded}
}

// What a test sees and breaks of a log.

func (l *memoryLog) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries)
}

// refuse lets proposals fail, until it is told nil.
func (l *memoryLog) refuse(err error) { l.change(func() { l.fails = err }) }

// answer lets proposals be answered without being applied, until it is told nil.
func (l *memoryLog) answer(o *coordpb.Outcome) { l.change(func() { l.word = o }) }

func (l *memoryLog) await(vote bool) { l.change(func() { l.waiting = vote }) }

// forget loses what was guarded.
func (l *memoryLog) forget() { l.change(func() { l.guarded = 0 }) }

// rewind is a restart: nothing is applied yet.
func (l *memoryLog) rewind() { l.change(func() { l.applied = 0 }) }

func (l *memoryLog) change(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	do()
}

// nobody is a consortium of one's peers.
type nobody struct{}

func (nobody) Mesh(member int) (coordpb.MeshClient, error) { return nil, errors.New("no peers") }
func (nobody) Alive() statement.Mask                       { return 1 }
func (nobody) Apart(int, time.Duration) statement.Mask     { return 0 }

type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// testDevice is a device as the protocol sees it.
type testDevice struct {
	key    *identity.Key
	cert   statement.Signed
	header *statement.Header
	boxes  [][]byte
	x      []uint32
	y      []byte
}

func newTestDevice(t testing.TB) *testDevice {
	t.Helper()
	key, err := identity.NewKey(rand.Reader)
	must(t, err)
	return &testDevice{key: key}
}

func (d *testDevice) id() label.Hash { return identity.DeviceID(d.key.Public()) }

func (d *testDevice) contribute(t testing.TB, ch *charter.Charter, rc *statement.RoundConfig) {
	t.Helper()
	h := &statement.Header{Round: rc.ID(), Device: d.id(), Cert: statement.HashDeviceCert(d.cert.Body), Kind: statement.KindDevice, Len: rc.Len}
	if _, err := rand.Read(h.Nonce[:]); err != nil {
		t.Fatal(err)
	}
	d.x = make([]uint32, rc.Len)
	for i := range d.x {
		d.x[i] = uint32(i%7) + uint32(h.Nonce[0]%5)
	}
	sealed, err := committee.Contribute(rc.Committee(ch), d.id(), h.Nonce, d.x, func(commitments []label.Hash, y label.Hash) []byte {
		h.Commitments, h.Y = commitments, y
		return h.AAD()
	}, rand.Reader)
	must(t, err)
	h.Boxes = statement.HashBoxes(sealed.Boxes)
	d.header, d.boxes, d.y = h, sealed.Boxes, sealed.Y
}

func (d *testDevice) open() *coordpb.UploadOpen {
	body := d.header.Bytes()
	return &coordpb.UploadOpen{RoundId: d.header.Round[:], Boxes: d.boxes,
		Header: &coordpb.Signed{Body: body, Signature: statement.SignContribution(d.key, d.header.Round, d.header.Hash())}}
}

func (d *testDevice) messages() []*coordpb.UploadRequest {
	list := []*coordpb.UploadRequest{{Message: &coordpb.UploadRequest_Open{Open: d.open()}}}
	_ = coordpb.SendChunks(bytes.NewReader(d.y), 0, func(c *coordpb.Chunk) error {
		list = append(list, &coordpb.UploadRequest{Message: &coordpb.UploadRequest_Chunk{Chunk: proto.CloneOf(c)}})
		return nil
	})
	return list
}

func (d *testDevice) upload() func() (*coordpb.UploadRequest, error) {
	list := d.messages()
	return func() (*coordpb.UploadRequest, error) {
		if len(list) == 0 {
			return nil, io.EOF
		}
		m := list[0]
		list = list[1:]
		return m, nil
	}
}
