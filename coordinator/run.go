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
	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/raftlog"
)

// RunOptions are what `ruche-coordinator run` is told. Zero values are safe defaults.
type RunOptions struct {
	Dir          string          // the member's folder
	ListenDevice string          // address to bind for devices; the device URL's host and port if empty
	ListenMesh   string          // address to bind for members; the card's mesh address if empty
	Timing       replica.Profile // raft's clocks; wan if empty
	Logger       *slog.Logger
	Ready        func(*Member) // called when both ports listen
}

// Status is what the running process writes to status.json, atomically, every second and at its end.
type Status struct {
	Name       string    `json:"name"`
	Index      int       `json:"index"`
	Consortium string    `json:"consortium"`
	Demo       bool      `json:"demo"`
	Charter    string    `json:"charter"`
	State      string    `json:"state"` // running or stopped
	Leader     string    `json:"leader"`
	Leading    bool      `json:"leading"`
	Term       uint64    `json:"term"`
	Applied    uint64    `json:"applied"`
	Committed  uint64    `json:"committed"`
	Alive      []string  `json:"alive"`
	Epoch      uint64    `json:"epoch"`
	OpenRounds uint32    `json:"open_rounds"`
	Written    time.Time `json:"written"`
	PID        int       `json:"pid"`
}

const (
	statusEvery  = time.Second
	drainWait    = 5 * time.Second
	deviceWindow = 1 << 20
)

// Run is the member process: it owns the folder, listens on both ports and works until the context ends. It then hands
// leadership over, stops taking uploads and closes its stores.
func Run(ctx context.Context, o RunOptions) (err error) {
	home, err := OpenHome(o.Dir, rand.Reader)
	if err != nil {
		return err
	}
	lock, err := durable.Lock(filepath.Join(o.Dir, "lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	if _, err := durable.RemoveTemps(o.Dir); err != nil {
		return err
	}
	ch, me, err := home.Charter()
	if err != nil {
		return err
	}
	if ch.Demo {
		o.Logger.Warn("DEMO, NOT PRIVATE: this charter allows cohorts that hide nobody")
	}
	m, err := New(Config{Home: home, Charter: ch, Index: me, Now: time.Now, Rand: rand.Reader, Logger: o.Logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
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
	working.Go(func() { m.writeStatus(work, o.Dir, peers) })
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
	}
	o.Logger.Info("stopping")
	transfer, cancel := context.WithTimeout(context.Background(), drainWait)
	defer cancel()
	if log.raft.IsLeader() {
		if terr := log.raft.Transfer(transfer); terr != nil {
			o.Logger.Warn("leadership was not handed over", "error", terr)
		}
	}
	drain(deviceServer, transfer)
	stopWork()
	working.Wait() // status.json is written once more below, and last
	meshServer.Stop()
	return errors.Join(err, writeStatus(o.Dir, m.statusFile(peers, "stopped")))
}

// drain lets calls in flight end, within ctx.
func drain(s *grpc.Server, ctx context.Context) {
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

// serverID names a member to raft: never an address, and another one when its disk is new.
func serverID(c charter.Card) string { return c.Name + "/" + c.StoreID }

func peerKeys(ch *charter.Charter, me int) []mesh.PeerKey {
	var out []mesh.PeerKey
	for i, c := range ch.Members {
		if i != me {
			out = append(out, mesh.PeerKey{Member: i, Key: ed25519.PublicKey(c.TLSKey)})
		}
	}
	return out
}

// openLog opens the log's disk and starts raft among the charter's members. Its close function ends both.
func openLog(o RunOptions, home *Home, ch *charter.Charter, me int, m *Member, peers *meshPeers, cert tls.Certificate, accept net.Listener) (*raftLog, func() error, error) {
	log := &raftLog{m: m, peers: peers, indexOf: map[string]int{}}
	var ids []string
	for i, c := range ch.Members {
		id := serverID(c)
		ids = append(ids, id)
		log.indexOf[id] = i
	}
	dir := filepath.Join(home.Dir, "raft")
	store, err := raftlog.Open(filepath.Join(dir, "log"), home.Storage, raftlog.Options{Logger: o.Logger})
	if err != nil {
		return nil, nil, err
	}
	log.raft, err = replica.New(m, replica.Options{
		Self: ids[me], Members: ids, Dir: dir, Log: store, Listener: accept, Profile: o.Timing, Logger: o.Logger,
		Dial: func(ctx context.Context, id string) (net.Conn, error) {
			i, ok := log.indexOf[id]
			if !ok {
				return nil, fmt.Errorf("no member of the charter is %q", id)
			}
			c := ch.Members[i]
			return mesh.Dial(ctx, c.MeshAddr, cert, ed25519.PublicKey(c.TLSKey), mesh.ProtocolRaft)
		},
	})
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
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

// writeStatus keeps status.json fresh.
func (m *Member) writeStatus(ctx context.Context, dir string, peers *meshPeers) {
	for {
		if err := writeStatus(dir, m.statusFile(peers, "running")); err != nil {
			m.cfg.Logger.Warn("status.json was not written", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(statusEvery):
		}
	}
}

func (m *Member) statusFile(peers Peers, state string) Status {
	s, l := m.status(), m.log.Status()
	out := Status{Name: s.GetName(), Index: m.me, Consortium: m.ch.Consortium, Demo: m.ch.Demo, Charter: m.ch.Hash().String(), State: state,
		Leading: s.GetLeader(), Term: l.Term, Applied: l.Applied, Committed: l.Committed, Epoch: s.GetEpoch(), OpenRounds: s.GetOpenRounds(),
		Written: m.cfg.Now().UTC(), PID: os.Getpid()}
	if l.Leader >= 0 {
		out.Leader = m.ch.Members[l.Leader].Name
	}
	for _, i := range peers.Alive().Members() {
		out.Alive = append(out.Alive, m.ch.Members[i].Name)
	}
	return out
}
