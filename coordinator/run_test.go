package coordinator

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/aggregation/encode"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/intake"
	"github.com/ruche-federation/ruche/coordinator/replica"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/pin"
)

// running is a member's process, in a goroutine.
type running struct {
	home *Home
	m    *Member
	stop context.CancelFunc
	done chan error
}

func (p *running) end(t testing.TB) {
	t.Helper()
	p.stop()
	must(t, <-p.done)
}

// run starts a member as its program does.
func run(t testing.TB, h *Home, logs *locked) *running { return runTuned(t, h, logs, nil) }

func runTuned(t testing.TB, h *Home, logs *locked, tune func(*replica.Options)) *running {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	p := &running{home: h, stop: stop, done: make(chan error, 1)}
	ready := make(chan *Member, 1)
	go func() {
		p.done <- Run(ctx, RunOptions{Dir: h.Dir, Timing: replica.Loopback, tune: tune, Ready: func(m *Member) { ready <- m },
			Logger: slog.New(slog.NewTextHandler(logs, nil)).With("member", h.Card.Name)})
	}()
	select {
	case p.m = <-ready:
	case err := <-p.done:
		t.Fatalf("%s does not start: %v", h.Card.Name, err)
	case <-time.After(patience):
		t.Fatalf("%s does not start", h.Card.Name)
	}
	return p
}

// deviceClient connects to a member's device port, whose key it pins.
func deviceClient(t testing.TB, h *Home) coordpb.DeviceClient {
	t.Helper()
	u, err := url.Parse(h.Card.DeviceURL)
	must(t, err)
	conn, err := grpc.NewClient("passthrough:///"+u.Host, grpc.WithTransportCredentials(credentials.NewTLS(pin.Client(ed25519.PublicKey(h.Card.TLSKey), "h2"))))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return coordpb.NewDeviceClient(conn)
}

// patience bounds what a test waits for: it is long enough for a slow machine that has other work to do.
const patience = 5 * time.Minute

// eventually waits for what other goroutines bring about.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not happen that %s", what)
		}
	}
}

// TestConsortium is four members over real TLS and Raft and three devices: a round is published while one member is
// down, what was opened is the plain sum, and the member that was down has the result when it is back.
func TestConsortium(t *testing.T) {
	var text strings.Builder
	logs := &locked{w: &text}
	homes := newHomes(t, 4, 1, time.Hour)
	members := make([]*running, 4)
	for i, h := range homes {
		members[i] = run(t, h, logs)
	}
	ended := make([]bool, 4)
	defer func() {
		for i, p := range members {
			if !ended[i] {
				p.end(t)
			}
		}
		if t.Failed() {
			logs.mu.Lock()
			t.Log(text.String())
			logs.mu.Unlock()
		}
	}()
	ch := members[0].m.ch
	hash := ch.Hash()
	var clients []coordpb.DeviceClient
	for _, h := range homes {
		clients = append(clients, deviceClient(t, h))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()

	var devices []*testDevice
	for i := range 3 {
		d := newTestDevice(t)
		token, err := NewToken(homes[i].Dir, rand.Reader)
		must(t, err)
		secret, err := ParseToken(token)
		must(t, err)
		eventually(t, "a device is enrolled", func() bool {
			answer, err := clients[i].Enroll(ctx, &coordpb.EnrollRequest{Token: secret, DevicePublic: d.key.Public(), CharterHash: hash[:]})
			if err == nil {
				d.cert = round.FromSigned(answer.GetDeviceCert())
			}
			return err == nil
		})
		devices = append(devices, d)
	}
	var rc *statement.RoundConfig
	eventually(t, "a round is open", func() bool {
		id := devices[0].id()
		answer, err := clients[3].CheckIn(ctx, &coordpb.CheckInRequest{CharterHash: hash[:], DeviceId: id[:], TaskId: testTask})
		if err != nil || answer.GetRound() == nil {
			return false
		}
		var sigs []statement.MemberSignature
		for _, s := range answer.GetRound().GetSignatures() {
			sigs = append(sigs, statement.MemberSignature{Member: int(s.GetMember()), Signature: s.GetSignature()})
		}
		rc, err = statement.VerifyRoundCert(ch, answer.GetRound().GetBody(), sigs)
		must(t, err)
		return rc.Listed().Size() >= 3
	})
	// One member ends, and the others go on: the leader, or the one that was too late to be listed.
	gone := 0
	for i, p := range members {
		if p.m.log.Leading() {
			gone = i
		}
	}
	for i := range members {
		if !rc.Listed().Has(i) {
			gone = i
		}
	}
	members[gone].end(t)
	ended[gone] = true
	wantStatus(t, homes[gone], "stopped")

	var plain [][]uint32
	for i, d := range devices {
		d.contribute(t, ch, rc)
		plain = append(plain, d.x)
		eventually(t, fmt.Sprintf("device %d is acked", i), func() bool {
			for j, c := range clients {
				if j == gone {
					continue
				}
				answer, err := upload(ctx, c, d)
				if err != nil {
					continue
				}
				var receipts []statement.MemberStatement
				for _, r := range answer.GetReceipts() {
					receipts = append(receipts, round.FromMemberStatement(r))
				}
				if _, err := statement.VerifyAckCert(ch, rc, d.header.Hash(), receipts); err != nil {
					t.Error(err)
				}
				return true
			}
			return false
		})
	}
	id := rc.ID()
	var record *coordpb.RoundRecord
	other := (gone + 1) % 4
	eventually(t, "the round is published", func() bool {
		got, err := clients[other].GetRound(ctx, &coordpb.GetRoundRequest{RoundId: id[:]})
		record = got
		return err == nil && got.GetPhase() == round.Published.String()
	})
	result, err := statement.ParseResult(record.GetResult().GetBody())
	must(t, err)
	if want := committee.HashVector(label.TagUnmasked, encode.SumPlain(plain...)); result.X != want {
		t.Error("the opened sum is not the plain one")
	}
	// Back again, it learns of the result and comes to serve the state, though it computed nothing.
	members[gone], ended[gone] = run(t, homes[gone], logs), false
	eventually(t, "the member that was down serves the state", func() bool {
		stream, err := clients[gone].GetAdapter(ctx, &coordpb.GetAdapterRequest{ModelHash: result.Model[:]})
		if err != nil {
			return false
		}
		b, err := coordpb.ReceiveChunks(1<<20, stream.Recv)
		return err == nil && label.Sum(label.TagModel, b) == result.Model
	})
	wantStatus(t, homes[gone], "running")
	list, err := clients[gone].ListMembers(ctx, &coordpb.ListMembersRequest{})
	must(t, err)
	if len(list.GetMembers()) != 4 {
		t.Errorf("%d members", len(list.GetMembers()))
	}
	// Two of the four, started again, have no leader: raft applies nothing of their logs, and they do not say that there
	// are no rounds. A third, and they know.
	for i, p := range members {
		p.end(t)
		ended[i] = true
	}
	for i := range 2 {
		members[i], ended[i] = run(t, homes[i], logs), false
		_, err := clients[i].ListRounds(ctx, &coordpb.ListRoundsRequest{}, grpc.WaitForReady(true))
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), intake.CodeNotRead) {
			t.Errorf("member %d without its log: %v", i, err)
		}
		if s := members[i].m.statusFile(); s.ReadsTo == 0 || s.ReadsTo <= s.Applied || s.Leader != "" {
			t.Errorf("member %d without its log: %+v", i, s)
		}
	}
	members[2], ended[2] = run(t, homes[2], logs), false
	eventually(t, "two that are three again list the round", func() bool {
		list, err := clients[0].ListRounds(ctx, &coordpb.ListRoundsRequest{})
		if err == nil && (len(list.GetRounds()) == 0 || list.GetRounds()[0].GetPhase() != round.Published.String()) {
			t.Errorf("a list that is not whole: %v", list)
		}
		return err == nil
	})
	for _, d := range devices {
		logs.mu.Lock()
		if strings.Contains(text.String(), d.id().String()) {
			t.Error("a device is named in a log line")
		}
		logs.mu.Unlock()
	}
}

func wantStatus(t testing.TB, h *Home, state string) {
	t.Helper()
	var s Status
	raw, err := os.ReadFile(filepath.Join(h.Dir, "status.json"))
	must(t, err)
	must(t, json.Unmarshal(raw, &s))
	if s.State != state || s.Name != h.Card.Name || s.PID != os.Getpid() {
		t.Errorf("%+v, want %s", s, state)
	}
}

func upload(ctx context.Context, c coordpb.DeviceClient, d *testDevice) (*coordpb.UploadResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	stream, err := c.Upload(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range d.messages() {
		if stream.Send(m) != nil {
			break
		}
	}
	return stream.CloseAndRecv()
}

// TestRunRefuses: a process that cannot run says why and leaves nothing behind it.
func TestRunRefuses(t *testing.T) {
	h := newHomes(t, 1, 0, time.Hour)[0]
	logger := slog.New(slog.DiscardHandler)
	before := runtime.NumGoroutine()
	u, err := url.Parse(h.Card.DeviceURL)
	must(t, err)
	taken, err := net.Listen("tcp", u.Host)
	must(t, err)
	for range 2 { // the first one has given everything back
		if err := Run(t.Context(), RunOptions{Dir: h.Dir, Logger: logger, Timing: replica.Loopback}); err == nil || !strings.Contains(err.Error(), "device port") {
			t.Fatalf("got %v", err)
		}
	}
	taken.Close()
	if err := Run(t.Context(), RunOptions{Dir: t.TempDir(), Logger: logger}); err == nil || !strings.Contains(err.Error(), "init") {
		t.Errorf("got %v", err)
	}
	eventually(t, "every goroutine ends", func() bool { return runtime.NumGoroutine() <= before+2 })
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, RunOptions{Dir: h.Dir, Logger: logger, Timing: replica.Loopback, Ready: func(*Member) { close(ready) }})
	}()
	<-ready
	if err := Run(t.Context(), RunOptions{Dir: h.Dir, Logger: logger}); err == nil || !strings.Contains(err.Error(), "lock") {
		t.Errorf("two processes in one folder: %v", err)
	}
	cancel()
	must(t, <-done)
	wantStatus(t, h, "stopped")
}

// TestAdmission: every method of both services is counted, and one member's calls by themselves.
func TestAdmission(t *testing.T) {
	for _, c := range []struct {
		service *grpc.ServiceDesc
		bounds  map[string]int
	}{{&coordpb.Device_ServiceDesc, deviceCalls}, {&coordpb.Mesh_ServiceDesc, meshCalls}} {
		var methods []string
		for _, m := range c.service.Methods {
			methods = append(methods, m.MethodName)
		}
		for _, s := range c.service.Streams {
			methods = append(methods, s.StreamName)
		}
		for _, m := range methods {
			if c.bounds[m] < 1 {
				t.Errorf("%s of %s has no bound", m, c.service.ServiceName)
			}
		}
		if len(methods) != len(c.bounds) {
			t.Errorf("%s: %d methods, %d bounds", c.service.ServiceName, len(methods), len(c.bounds))
		}
	}
	a := newAdmission(map[string]int{"Get": 2})
	var leave []func()
	for range 2 {
		l, err := a.enter(t.Context(), "/x/Get")
		must(t, err)
		leave = append(leave, l)
	}
	_, err := a.enter(t.Context(), "/x/Get")
	if s := status.Convert(err); s.Code() != codes.ResourceExhausted || len(s.Details()) != 1 {
		t.Errorf("one too many: %v", err)
	}
	leave[0]()
	if _, err := a.enter(t.Context(), "/x/Get"); err != nil {
		t.Error(err)
	}
	leave[1]()
	if len(a.flying) != 1 {
		t.Errorf("%v", a.flying)
	}
	if _, err := a.enter(t.Context(), "/x/Unknown"); err == nil {
		t.Error("an unknown method is admitted")
	}
}

// TestGuards: a call has a deadline, and one that panics ends by itself.
func TestGuards(t *testing.T) {
	r := newRig(t)
	guard := r.m.guardUnary(newAdmission(map[string]int{"Get": 1}))
	info := &grpc.UnaryServerInfo{FullMethod: "/x/Get"}
	_, err := guard(context.Background(), nil, info, func(ctx context.Context, _ any) (any, error) {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("no deadline")
		}
		panic("a secret of the request")
	})
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	if _, err := guard(context.Background(), nil, info, func(context.Context, any) (any, error) { return 1, nil }); err != nil {
		t.Error("the place of a call that panicked is still taken:", err)
	}
}

// TestLimitConnections: what comes above the bound is closed, and a place is free again when its connection closes.
func TestLimitConnections(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	l := limitConnections(inner, 2)
	accepted := make(chan net.Conn, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", inner.Addr().String())
		must(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	dial()
	dial()
	first, second := <-accepted, <-accepted
	over := dial()
	over.SetReadDeadline(time.Now().Add(patience))
	if _, err := over.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one too many: %v", err)
	}
	first.Close()
	first.Close() // twice is one place
	dial()
	(<-accepted).Close()
	second.Close()
	must(t, l.Close())
	if _, open := <-accepted; open {
		t.Error("accepted after Close")
	}
}

// TestPacedSend: a receiver that takes nothing is given up.
func TestPacedSend(t *testing.T) {
	broken := errors.New("cut")
	if err := pacedSend(func(int) error { return broken })(1); !errors.Is(err, broken) {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { must(t, pacedSend(func(int) error { return nil })(1)) })
	}
	wg.Wait()
}

// TestAStartRemovesWhatBrokeOff: a start removes the temporary files of writes that an earlier death broke off, wherever the
// member writes; where another program may be writing it removes none.
func TestAStartRemovesWhatBrokeOff(t *testing.T) {
	h := newHomes(t, 1, 0, time.Hour)[0]
	end := func() { run(t, h, &locked{w: new(bytes.Buffer)}).end(t) }
	end() // so that the folders are there
	must(t, os.MkdirAll(filepath.Join(h.Dir, "tokens"), 0o700))
	must(t, os.MkdirAll(filepath.Join(h.Dir, "configs"), 0o700))
	must(t, os.MkdirAll(filepath.Join(h.Dir, "derived"), 0o700))
	must(t, os.MkdirAll(filepath.Join(h.Dir, "blobs", "heads", "0f"), 0o700))
	const name = ".x.tmp-1"
	for _, dir := range []string{"", "receipts", "configs", "derived", "raft", "raft/log", "blobs/heads/0f", "tokens", "keys"} {
		must(t, os.WriteFile(filepath.Join(h.Dir, dir, name), []byte("half"), 0o600))
	}
	end()
	var left []string
	must(t, filepath.WalkDir(h.Dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == name {
			left = append(left, filepath.Base(filepath.Dir(path)))
		}
		return err
	}))
	if !slices.Equal(left, []string{"keys", "tokens"}) {
		t.Errorf("left in %v", left)
	}
}
