package coordinator

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/mesh"
	"github.com/ruche-federation/ruche/coordinator/replica"
	"github.com/ruche-federation/ruche/storage/raftlog"
)

// RunOptions are what `ruche-coordinator run` is told. Zero values are safe defaults.
type RunOptions struct {
	Dir          string          // the member's folder
	ListenDevice string          // address to bind for devices; the device URL's host and port if empty
	ListenMesh   string          // address to bind for members; the card's mesh address if empty
	Timing       replica.Profile // raft's clocks, where they are not the charter's: demo charters only
	Logger       *slog.Logger
	Ready        func(*Member) // called when both ports listen

	tune func(*replica.Options) // how soon a test's log is compacted
}

const (
	statusEvery  = time.Second
	drainWait    = 5 * time.Second
	transferWait = 5 * time.Second
	lockFile     = "lock"
	lockTries    = 20
	lockWait     = 50 * time.Millisecond
	deviceWindow = 1 << 20
)

// Run is the member process: it owns the folder, listens on both ports and works until the context ends. It then stops
// taking work, hands leadership over and closes its stores. The last thing that it writes is status.json, which says why
// it ended.
func Run(ctx context.Context, o RunOptions) (err error) {
	home, err := OpenHome(o.Dir, rand.Reader)
	if err != nil {
		return err
	}
	lock, err := lockDir(ctx, o.Dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	report := &reporter{dir: o.Dir, logger: o.Logger}
	report.write(Status{Name: home.Card.Name, State: StateStarting, LeaderSeconds: -1, AppliedAge: -1, Written: time.Now().UTC(), PID: os.Getpid()})
	err = runMember(ctx, o, home, report)
	if err != nil {
		c := CauseOf(err, report.members)
		o.Logger.Error("the member has stopped by itself", "reason", c.Word, "error", err, "means", c.Means, "do", c.Do)
	}
	report.end(time.Now(), err)
	return err
}

// runMember is Run in a folder that is this process's.
func runMember(ctx context.Context, o RunOptions, home *Home, report *reporter) (err error) {
	if err := removeTemps(o.Dir); err != nil {
		return err
	}
	if err := replica.RemoveUnfinished(filepath.Join(o.Dir, raftDir)); err != nil {
		return err
	}
	ch, me, err := home.Charter()
	if err != nil {
		return err
	}
	if ch.Demo {
		o.Logger.Warn("DEMO, NOT PRIVATE: this charter allows cohorts that hide nobody")
	}
	report.members = ch.N
	began := report.last
	began.Index, began.Consortium, began.Demo, began.Charter = me, ch.Consortium, ch.Demo, ch.Hash().String()
	report.write(began)
	switch {
	case o.Timing == "":
		o.Timing = replica.Profile(ch.Timing.Profile)
	case !ch.Demo:
		return fmt.Errorf("timing %s: a member runs by its charter's profile, unless that is a demo", o.Timing)
	}
	m, err := New(Config{Home: home, Charter: ch, Index: me, Now: time.Now, Rand: rand.Reader, Logger: o.Logger})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			m.alarms.raise(AlarmStopped, fmt.Errorf("%s: %w", CauseOf(err, 0).Word, err))
		}
		err = errors.Join(err, m.Close())
	}()
	cert, err := mesh.Certificate(home.TLS, home.Card.Name, time.Now())
	if err != nil {
		return err
	}
	peers, err := dialPeers(ch, me, cert, time.Now)
	if err != nil {
		return err
	}
	defer peers.close()
	listener, err := mesh.Listen(ctx, orElse(o.ListenMesh, home.Card.MeshAddr), cert, peerKeys(ch, me), o.Logger)
	if err != nil {
		return err
	}
	defer listener.Close()
	log, closeLog, err := openLog(o, home, ch, me, m, peers, cert, listener.Raft())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeLog()) }()
	m.Attach(log, peers)

	deviceAddr := o.ListenDevice
	if deviceAddr == "" {
		u, err := url.Parse(home.Card.DeviceURL)
		if err != nil {
			return err
		}
		deviceAddr = u.Host
	}
	devicePort, err := (&net.ListenConfig{}).Listen(ctx, "tcp", deviceAddr)
	if err != nil {
		return fmt.Errorf("device port: %w", err)
	}
	meshServer := newMeshServer(m)
	deviceServer := newDeviceServer(m, cert)
	work, stopWork := context.WithCancel(context.Background())
	defer stopWork()
	peers.watch(work)
	errs := make(chan error, 2)
	go func() { errs <- meshServer.Serve(listener.RPC()) }()
	go func() { errs <- deviceServer.Serve(limitConnections(devicePort, deviceConns)) }()
	var working sync.WaitGroup
	working.Go(func() { m.Run(work) })
	working.Go(func() { log.keepSeats(work) })
	report.say(m, StateRunning)
	working.Go(func() { report.keep(work, m) })
	broken := make(chan error, 1)
	working.Go(func() { m.watchStores(work, broken) })
	o.Logger.Info("member is up", "name", home.Card.Name, "device_port", devicePort.Addr().String(), "mesh_port", listener.Addr().String(), "n", ch.N, "f", ch.F)
	if o.Ready != nil {
		o.Ready(m)
	}
	select {
	case <-ctx.Done():
	case err = <-errs:
		err = fmt.Errorf("a port stopped serving: %w", err)
	case <-log.raft.Failed():
		err = log.raft.Err()
	case err = <-broken:
	}
	o.Logger.Info("stopping")
	report.say(m, StateStopping)
	// Drain, then hand over, then stop: what was begun here ends under the leader it began with, and the others get a new
	// one without waiting for a timeout (coordinator design, 1.3).
	drain(deviceServer, drainWait)
	if log.raft.IsLeader() {
		transfer, cancel := context.WithTimeout(context.Background(), transferWait)
		if terr := log.raft.Transfer(transfer); terr != nil {
			o.Logger.Warn("leadership was not handed over", "error", terr)
		}
		cancel()
	}
	stopWork()
	working.Wait()
	meshServer.Stop()
	return err
}

// drain lets calls in flight end, for so long.
func drain(s *grpc.Server, wait time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	stopped := make(chan struct{})
	go func() { s.GracefulStop(); close(stopped) }()
	select {
	case <-stopped:
	case <-ctx.Done():
		s.Stop()
	}
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func peerKeys(ch *charter.Charter, me int) []mesh.PeerKey {
	var out []mesh.PeerKey
	for i, c := range ch.Members {
		if i != me {
			out = append(out, mesh.PeerKey{Member: i, Key: ed25519.PublicKey(c.TLSKey)})
		}
	}
	return out
}

var errLogFull = errors.New("the disk has no room for the log: nothing is acknowledged and nothing signed here until there is some")

// openLog opens the log's disk and starts raft among the charter's members. Its close function ends both.
func openLog(o RunOptions, home *Home, ch *charter.Charter, me int, m *Member, peers *meshPeers, cert tls.Certificate, accept net.Listener) (_ *raftLog, _ func() error, err error) {
	log := &raftLog{m: m, peers: peers}
	var first []string
	for _, c := range ch.Members {
		first = append(first, c.Name+"/"+c.StoreID)
	}
	dir := filepath.Join(home.Dir, raftDir)
	store, err := raftlog.Open(filepath.Join(dir, "log"), home.Storage, raftlog.Options{Logger: o.Logger})
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, store.Close())
		}
	}()
	holds, err := replica.Holds(store, dir)
	if err != nil {
		return nil, nil, err
	}
	id, found, err := openStore(home, holds, ch.N, rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if found == nil && !holds {
		o.Logger.Warn("this member's log is empty: it waits under a new store id until the leader takes it in", "store", id)
	}
	log.self = home.Card.Name + "/" + id
	opts := replica.Options{
		Self: log.self, Members: first, Found: found, Dir: dir, Log: store, Listener: accept, Profile: o.Timing, Logger: o.Logger,
		OnFull: func() { m.alarms.raise(AlarmDisk, errLogFull) },
		Dial: func(ctx context.Context, id string) (net.Conn, error) {
			i := log.index(id)
			if i < 0 {
				return nil, fmt.Errorf("no member of the charter is %q", id)
			}
			c := ch.Members[i]
			return mesh.Dial(ctx, c.MeshAddr, cert, ed25519.PublicKey(c.TLSKey), mesh.ProtocolRaft)
		},
	}
	if o.tune != nil {
		o.tune(&opts)
	}
	log.raft, err = replica.New(m, opts)
	if err != nil {
		return nil, nil, err
	}
	return log, func() error { return errors.Join(log.raft.Close(), store.Close()) }, nil
}

// newMeshServer is the gRPC server behind the mesh port. Its connections are authenticated members'.
func newMeshServer(m *Member) *grpc.Server {
	calls := newAdmission(meshCalls)
	s := grpc.NewServer(grpc.Creds(mesh.ServerCredentials()),
		grpc.MaxRecvMsgSize(meshMessage), grpc.InitialWindowSize(meshWindow), grpc.InitialConnWindowSize(4*meshWindow),
		grpc.MaxConcurrentStreams(meshStreams), grpc.MaxHeaderListSize(16<<10),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(m.guardUnary(calls)), grpc.StreamInterceptor(m.guardStream(calls)))
	coordpb.RegisterMeshServer(s, m.MeshServer())
	return s
}

// newDeviceServer is the gRPC server behind the device port (coordinator design, section 5).
func newDeviceServer(m *Member, cert tls.Certificate) *grpc.Server {
	calls := newAdmission(deviceCalls)
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(mesh.DeviceTLS(cert))),
		grpc.MaxRecvMsgSize(1<<20), grpc.InitialWindowSize(deviceWindow), grpc.InitialConnWindowSize(4*deviceWindow),
		grpc.MaxConcurrentStreams(16), grpc.MaxHeaderListSize(16<<10), grpc.SharedWriteBuffer(true),
		grpc.ReadBufferSize(16<<10), grpc.WriteBufferSize(16<<10), grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 15 * time.Second}),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: time.Minute, MaxConnectionAge: 10 * time.Minute, MaxConnectionAgeGrace: 15 * time.Minute}),
		grpc.UnaryInterceptor(m.guardUnary(calls)), grpc.StreamInterceptor(m.guardStream(calls)))
	coordpb.RegisterDeviceServer(s, m.DeviceServer())
	return s
}
