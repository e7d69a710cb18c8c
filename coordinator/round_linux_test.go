package coordinator

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/aggregation/encode"
	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/pin"
)

// What BenchmarkRound measures: a cohort of this size, vectors of this many values, so many devices at a time.
const (
	benchDevices = 100
	benchValues  = 1 << 20
	benchFlight  = 16
	benchMember  = "RUCHE_BENCH_MEMBER" // in the environment of a member's process: "secure" or "plain", a colon, its folder
)

// TestBenchmarkMember is the process of a member of BenchmarkRound: it runs until its input ends. Otherwise it is empty.
func TestBenchmarkMember(t *testing.T) {
	kind, dir, ok := strings.Cut(os.Getenv(benchMember), ":")
	if !ok {
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	o := RunOptions{Dir: dir, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	if kind == "plain" {
		must(t, runPlain(ctx, o))
		return
	}
	must(t, Run(ctx, o))
}

// BenchmarkRound takes a cohort's vectors through whole rounds: encode, mask, seal and sign at the devices, upload over
// TLS, copies to all members, receipts, close, acks, votes, reveal, unmask, result; members are processes of their own.
// Beside it, in turns, the same vectors go the same way in the clear (plainMember). The times are the best of the
// rounds, ratio is theirs; member-ms is one member's CPU time per device, the mean of the four, and
// opening-ms the part of it after the last upload: what is left without TLS, hash of arrival and disk. With
// RUCHE_BENCH_PROFILES naming a folder, the first member of each kind leaves its CPU profile there.
//
//	go test -run '^$' -bench BenchmarkRound -benchtime 5x ./coordinator
func BenchmarkRound(b *testing.B) {
	secure, plain := newBenchRounds(b, "secure"), newBenchRounds(b, "plain")
	vectors := make([][]float32, 8)
	for i := range vectors {
		r := mathrand.New(mathrand.NewPCG(uint64(i), 1))
		vectors[i] = make([]float32, benchValues)
		for j := range vectors[i] {
			vectors[i][j] = float32(r.NormFloat64() / 256)
		}
	}
	var s, p []roundCost
	for b.Loop() {
		s = append(s, secure.round(b, vectors))
		p = append(p, plain.round(b, vectors))
	}
	secure.end(b)
	plain.end(b)
	best := func(list []roundCost, of func(roundCost) float64) float64 {
		var all []float64
		for _, c := range list {
			all = append(all, of(c))
		}
		return slices.Min(all)
	}
	report := func(name string, of func(roundCost) float64) {
		b.ReportMetric(best(s, of), "secure-"+name)
		b.ReportMetric(best(p, of), "plain-"+name)
	}
	wall := func(c roundCost) float64 { return c.wall.Seconds() }
	report("s", wall)
	report("member-ms-cpu/dev", func(c roundCost) float64 { return c.members.cpu().Seconds() * 1000 / 4 / benchDevices })
	report("member-ms-user/dev", func(c roundCost) float64 { return c.members.user.Seconds() * 1000 / 4 / benchDevices })
	report("opening-ms-cpu/dev", func(c roundCost) float64 { return c.opening.cpu().Seconds() * 1000 / 4 / benchDevices })
	report("device-ms-cpu/dev", func(c roundCost) float64 { return c.devices.cpu().Seconds() * 1000 / benchDevices })
	report("disk-B/dev", func(c roundCost) float64 { return float64(c.members.written) / 4 / benchDevices })
	report("upload-B/dev", func(c roundCost) float64 { return float64(c.sent) / benchDevices })
	b.ReportMetric(best(s, wall)/best(p, wall), "ratio")
	total := func(c roundCost) float64 { return (c.members.cpu() + c.devices.cpu()).Seconds() }
	b.ReportMetric(best(s, total)/best(p, total), "cpu-ratio")
}

// roundCost is what one round cost.
type roundCost struct {
	wall    time.Duration // from the ready vectors to the published result at every member
	members usage         // of all four
	opening usage         // of all four, from the last device's ack on: acks, votes, sums, result
	devices usage         // of all
	sent    int64         // by all devices, TLS and its handshakes included
}

// benchRounds is a consortium of four processes and its devices.
type benchRounds struct {
	kind    string
	homes   []*Home
	ch      *charter.Charter
	task    *charter.Task
	members []*exec.Cmd
	inputs  []io.Closer
	clients []coordpb.DeviceClient
	devices []*testDevice
	done    label.Hash // the round before
}

func newBenchRounds(b *testing.B, kind string) *benchRounds {
	b.Helper()
	task := charter.NewTask(testTask, charter.KindVector)
	var err error
	task.Layout, err = layout.Vector("mean", benchValues, layout.StandardTail())
	must(b, err)
	task.Window = "1s"
	task.InitSeed = label.Sum(label.TagTask, []byte("test"))
	task.Encoding = charter.Encoding{CReal: 4, C: 2253}
	task.Cohort = charter.Cohort{NMin: benchDevices / 2, NMax: benchDevices}
	d := func(d time.Duration) charter.Duration { return charter.Duration(d) }
	task.Timings = charter.Timings{Every: d(time.Second), CloseAfter: d(time.Hour), AckTimeout: d(time.Minute), AckAfter: d(time.Hour), RevealAfter: d(time.Hour)}
	c := &benchRounds{kind: kind, homes: ceremony(b, 4, charter.Options{Consortium: "Test", F: 1, AuthoritiesFaulty: 1, MinContributors: benchDevices / 2, Tasks: []charter.Task{task},
		Timing: charter.Timing{EpochLife: d(24 * time.Hour), Slack: d(time.Minute), Tick: d(time.Second), Profile: charter.ProfileLAN}})}
	c.ch, _, err = c.homes[0].Charter()
	must(b, err)
	c.task, _ = c.ch.Task(testTask)
	program, err := os.Executable()
	must(b, err)
	for i, h := range c.homes {
		args := []string{"-test.run=^TestBenchmarkMember$", "-test.timeout=1h"}
		if into := os.Getenv("RUCHE_BENCH_PROFILES"); into != "" && i == 0 {
			args = append(args, "-test.cpuprofile="+filepath.Join(into, kind+".prof"))
		}
		cmd := exec.Command(program, args...)
		cmd.Env = append(os.Environ(), benchMember+"="+kind+":"+h.Dir)
		cmd.Stderr, err = os.Create(filepath.Join(h.Dir, "stderr"))
		must(b, err)
		in, err := cmd.StdinPipe()
		must(b, err)
		must(b, cmd.Start())
		b.Cleanup(func() { // after a failure; end has waited for it otherwise
			cmd.Process.Kill()
			if said, err := os.ReadFile(cmd.Stderr.(*os.File).Name()); b.Failed() && err == nil {
				b.Logf("member %d: %s", i, said)
			}
		})
		c.members, c.inputs = append(c.members, cmd), append(c.inputs, in)
		c.clients = append(c.clients, deviceClient(b, h))
	}
	hash := c.ch.Hash()
	for i := range benchDevices {
		d := newTestDevice(b)
		token, err := NewToken(c.homes[i%4].Dir, rand.Reader)
		must(b, err)
		secret, err := ParseToken(token)
		must(b, err)
		eventually(b, "a device is enrolled", func() bool {
			answer, err := c.clients[i%4].Enroll(b.Context(), &coordpb.EnrollRequest{Token: secret, DevicePublic: d.key.Public(), CharterHash: hash[:]})
			if err == nil {
				d.cert = round.FromSigned(answer.GetDeviceCert())
			}
			return err == nil
		})
		c.devices = append(c.devices, d)
	}
	return c
}

// end stops the members and waits for them.
func (c *benchRounds) end(b *testing.B) {
	for _, in := range c.inputs {
		in.Close()
	}
	for _, m := range c.members {
		must(b, m.Wait())
	}
}

// next waits for an open round that lists all.
func (c *benchRounds) next(b *testing.B) (rc *statement.RoundConfig) {
	hash := c.ch.Hash()
	id := c.devices[0].id()
	eventually(b, "a round is open", func() bool {
		answer, err := c.clients[0].CheckIn(b.Context(), &coordpb.CheckInRequest{CharterHash: hash[:], DeviceId: id[:], TaskId: testTask})
		if err != nil || answer.GetRound() == nil {
			return false
		}
		rc, err = statement.ParseRoundConfig(answer.GetRound().GetBody())
		must(b, err)
		if rc.Listed().Size() < 4 {
			b.Fatalf("round %d lists %v", rc.Seq, rc.Listed())
		}
		return rc.ID() != c.done
	})
	c.done = rc.ID()
	return rc
}

// round takes one round through and checks its result against the plain sum.
func (c *benchRounds) round(b *testing.B, vectors [][]float32) (cost roundCost) {
	rc := c.next(b)
	xs := make([][]uint32, len(c.devices))
	var sent atomic.Int64
	devices, members := c.meter(b)
	began := time.Now()
	var flying sync.WaitGroup
	slots := make(chan struct{}, benchFlight)
	for i, d := range c.devices {
		slots <- struct{}{}
		flying.Go(func() {
			defer func() { <-slots }()
			x, err := c.contribute(b.Context(), d, rc, vectors[i%len(vectors)], i%4, &sent)
			if err != nil {
				b.Error(err)
			}
			xs[i] = x
		})
	}
	flying.Wait()
	if b.Failed() {
		b.FailNow()
	}
	_, uploaded := c.meter(b)
	for i, client := range c.clients {
		for end := time.Now().Add(time.Minute); !c.published(b, client); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				b.Fatalf("member %d publishes nothing", i)
			}
		}
	}
	cost.wall = time.Since(began)
	id := rc.ID()
	record, err := c.clients[0].GetRound(b.Context(), &coordpb.GetRoundRequest{RoundId: id[:]})
	must(b, err)
	result, err := statement.ParseResult(record.GetResult().GetBody())
	must(b, err)
	for i, client := range c.clients { // each has its part of the work behind it
		eventually(b, fmt.Sprintf("member %d has the result", i), func() bool {
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			stream, err := client.GetAdapter(ctx, &coordpb.GetAdapterRequest{ModelHash: result.Model[:], Offset: uint64(layout.CanonicalSizeMax(0))})
			if err == nil {
				_, err = stream.Recv()
			}
			return err == nil
		})
	}
	devicesAfter, membersAfter := c.meter(b)
	cost.devices, cost.members, cost.opening = devicesAfter.minus(devices), membersAfter.minus(members), membersAfter.minus(uploaded)
	cost.sent = sent.Load()
	if c.kind == "plain" {
		cost.sent -= int64(benchDevices * plainPadding(c.ch, rc))
	}
	if want := committee.HashVector(label.TagUnmasked, encode.SumPlain(xs...)); result.X != want {
		b.Fatal("the opened sum is not the plain one")
	}
	return cost
}

// published reports whether a member's newest ended round is this one.
func (c *benchRounds) published(b *testing.B, client coordpb.DeviceClient) bool {
	list, err := client.ListRounds(b.Context(), &coordpb.ListRoundsRequest{TaskId: testTask})
	if err != nil {
		return false
	}
	for _, r := range list.GetRounds() {
		if bytes.Equal(r.GetRoundId(), c.done[:]) {
			return r.GetPhase() == round.Published.String()
		}
	}
	return false
}

// contribute is a device's part, from its ready vector to the ack.
func (c *benchRounds) contribute(ctx context.Context, d *testDevice, rc *statement.RoundConfig, v []float32, member int, sent *atomic.Int64) ([]uint32, error) {
	x, _, err := rc.Params(c.task).Encode(v, []float64{7, 2.5, 2}, rand.Reader)
	if err != nil {
		return nil, err
	}
	h := &statement.Header{Round: rc.ID(), Device: d.id(), Cert: statement.HashDeviceCert(d.cert.Body), Kind: statement.KindDevice, Len: rc.Len}
	if _, err := rand.Read(h.Nonce[:]); err != nil {
		return nil, err
	}
	var y []byte
	var boxes [][]byte
	if c.kind == "plain" {
		y = committee.VectorBytes(x)
		h.Commitments, h.Y = make([]label.Hash, committee.Count(c.ch.N, c.ch.F)), label.Sum(label.TagContribution, y)
		for range rc.KeyPackages {
			boxes = append(boxes, make([]byte, committee.BoxSize(c.ch.N, c.ch.F)))
		}
	} else {
		sealed, err := committee.Contribute(rc.Committee(c.ch), d.id(), h.Nonce, x, func(commitments []label.Hash, y label.Hash) []byte {
			h.Commitments, h.Y = commitments, y
			return h.AAD()
		}, rand.Reader)
		if err != nil {
			return nil, err
		}
		y, boxes = sealed.Y, sealed.Boxes
	}
	h.Boxes = statement.HashBoxes(boxes)
	open := &coordpb.UploadOpen{RoundId: h.Round[:], Boxes: boxes,
		Header: &coordpb.Signed{Body: h.Bytes(), Signature: statement.SignContribution(d.key, h.Round, h.Hash())}}
	card := c.homes[member].Card
	u, err := url.Parse(card.DeviceURL)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+u.Host, grpc.WithTransportCredentials(credentials.NewTLS(pin.Client(ed25519.PublicKey(card.TLSKey), "h2"))),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			inner, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			return countedConn{inner, sent}, err
		}))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stream, err := coordpb.NewDeviceClient(conn).Upload(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(&coordpb.UploadRequest{Message: &coordpb.UploadRequest_Open{Open: open}}); err == nil {
		_ = coordpb.SendChunks(bytes.NewReader(y), 0, func(ch *coordpb.Chunk) error { // CloseAndRecv gives the answer
			return stream.Send(&coordpb.UploadRequest{Message: &coordpb.UploadRequest_Chunk{Chunk: ch}})
		})
	}
	answer, err := stream.CloseAndRecv()
	if err != nil {
		return nil, err
	}
	var receipts []statement.MemberStatement
	for _, r := range answer.GetReceipts() {
		receipts = append(receipts, round.FromMemberStatement(r))
	}
	_, err = statement.VerifyAckCert(c.ch, rc, h.Hash(), receipts)
	return x, err
}

// plainPadding is what a plain contribution carries only because the intake asks for it: boxes and commitments of zeros.
func plainPadding(ch *charter.Charter, rc *statement.RoundConfig) int {
	return len(rc.KeyPackages)*committee.BoxSize(ch.N, ch.F) + committee.Count(ch.N, ch.F)*label.Size
}

type countedConn struct {
	net.Conn
	sent *atomic.Int64
}

// Write is net.Conn's.
func (c countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent.Add(int64(n))
	return n, err
}

// usage is what processes have used up to now, as the kernel counts it.
type usage struct {
	user, system time.Duration
	written      int64 // bytes to disk
}

func (u usage) cpu() time.Duration { return u.user + u.system }

func (u usage) minus(v usage) usage {
	return usage{u.user - v.user, u.system - v.system, u.written - v.written}
}

// meter reads what this process, which is the devices, and the members have used.
func (c *benchRounds) meter(b *testing.B) (devices, members usage) {
	devices = used(b, os.Getpid())
	for _, m := range c.members {
		u := used(b, m.Process.Pid)
		members = usage{members.user + u.user, members.system + u.system, members.written + u.written}
	}
	return devices, members
}

func used(b *testing.B, pid int) (u usage) {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(b, err)
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from field 3 on
	ticks := func(f string) time.Duration {                                   // of a hundredth of a second
		n, err := strconv.ParseInt(f, 10, 64)
		must(b, err)
		return time.Duration(n) * 10 * time.Millisecond
	}
	u.user, u.system = ticks(fields[11]), ticks(fields[12])
	io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	must(b, err)
	for line := range strings.Lines(string(io)) {
		if v, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			u.written, err = strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			must(b, err)
		}
	}
	return u
}
