package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/ruche-federation/ruche/coordinator"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// Seat is one member's place: its folder, and the process in it while there is one.
type Seat struct {
	Index int
	Dir   string
	Held  bool        // gets no entries: a member that lags. The caller's goroutine only, as is Pace
	Pace  uint64      // entries that it applies in one turn; 0: as the seed has it
	Cut   atomic.Bool // reaches no other member
	Fresh atomic.Bool // has heard of no other member yet, as one that has just started

	f       *Federation
	rand    *drawer
	process atomic.Pointer[process]
	liar    atomic.Pointer[Liar]

	// Guarded by the federation's mu.
	snapshot *snapshot    // the last one taken, as raft keeps it beside the log
	promised *promises    // what its vote files said when they were last read
	view     *history     // the log that it reads
	guard    []label.Hash // the entries that it has applied durably: the guard file beside its log
}

// Liar is who speaks for the member; nil: it is honest.
func (s *Seat) Liar() *Liar { return s.liar.Load() }

// reads is the log that the member reads.
func (s *Seat) reads() *history {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	return s.view
}

// snapshot is a member's state at an index.
type snapshot struct {
	index uint64
	data  []byte
}

// process is one run of a member: it dies as a whole.
type process struct {
	seat    *Seat
	member  *coordinator.Member
	ctx     context.Context
	cancel  context.CancelFunc
	dead    atomic.Bool
	applied uint64 // guarded by the federation's mu
	checked uint64 // the applied index at which its state was last compared; guarded likewise
	mesh    *port
	device  *port
}

// port is one service over in-memory connections.
type port struct {
	server *grpc.Server
	conn   *grpc.ClientConn
}

// start opens the member's folder as its program does. With a snapshot the log is replayed from there, else from its
// beginning.
func (s *Seat) start(from *snapshot) error {
	home, err := coordinator.OpenHome(s.Dir, s.rand)
	if err != nil {
		return err
	}
	p := &process{seat: s}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.member, err = coordinator.New(coordinator.Config{Home: home, Charter: s.f.Charter, Index: s.Index, Now: s.f.Now, Rand: s.rand,
		Logger: s.f.logger.With("member", s.Index)})
	if err != nil {
		return err
	}
	if from != nil {
		if err := p.member.Restore(from.data); err != nil {
			return errors.Join(err, p.member.Close())
		}
		p.applied = from.index
	}
	p.member.Attach(&memberLog{p}, &memberPeers{p})
	if p.mesh, err = s.f.open(func(r grpc.ServiceRegistrar) { coordpb.RegisterMeshServer(r, p.member.MeshServer()) }, p); err != nil {
		return err
	}
	if p.device, err = s.f.open(func(r grpc.ServiceRegistrar) { coordpb.RegisterDeviceServer(r, p.member.DeviceServer()) }, p); err != nil {
		return err
	}
	s.process.Store(p)
	return nil
}

// running reports whether the member runs. One that died at a crash point does not, though nobody has cleared it away.
func (s *Seat) running() bool { return s.live() != nil }

func (s *Seat) live() *process {
	if p := s.process.Load(); p != nil && !p.dead.Load() {
		return p
	}
	return nil
}

// Crash ends the member's process: what it did not write is lost. It may be repeated.
func (s *Seat) Crash() {
	p := s.process.Swap(nil)
	if p == nil {
		return
	}
	p.dead.Store(true)
	p.cancel()
	for _, port := range []*port{p.mesh, p.device} {
		port.conn.Close()
		port.server.Stop()
	}
	if err := p.member.Close(); err != nil {
		s.f.fail("member %d: closing: %v", s.Index, err)
	}
}

// Restart runs the member again from its folder, replaying the log from the beginning, or from its last snapshot.
func (s *Seat) Restart(fromSnapshot bool) error {
	s.Crash()
	var from *snapshot
	if fromSnapshot {
		s.f.mu.Lock()
		from = s.snapshot
		s.f.mu.Unlock()
	}
	return s.start(from)
}

// LoseEpochs removes the epoch keys and votes of a member that is down: a disk that was lost or restored from a backup.
func (s *Seat) LoseEpochs() error {
	if s.running() {
		return fmt.Errorf("member %d runs", s.Index)
	}
	return removeAll(filepath.Join(s.Dir, "epochs"))
}

// Member is the running member, nil while it is down.
func (s *Seat) Member() *coordinator.Member {
	if p := s.live(); p != nil {
		return p.member
	}
	return nil
}

// memberPeers are the other members as one process reaches them.
type memberPeers struct{ p *process }

// Mesh implements intake.Peers.
func (m *memberPeers) Mesh(member int) (coordpb.MeshClient, error) {
	if m.p.dead.Load() {
		return nil, errDied
	}
	f := m.p.seat.f
	if m.p.seat.Cut.Load() {
		return nil, status.Error(codes.Unavailable, "cut off")
	}
	if member < 0 || member >= len(f.Seats) || member == m.p.seat.Index {
		return nil, fmt.Errorf("member %d is no peer", member)
	}
	other := f.Seats[member].live()
	if other == nil {
		return nil, fmt.Errorf("member %d does not answer", member)
	}
	client := coordpb.NewMeshClient(other.mesh.conn)
	if liar := m.p.seat.Liar(); liar != nil {
		return &lyingClient{client, liar, member}, nil
	}
	return client, nil
}

// Alive implements coordinator.Peers.
func (m *memberPeers) Alive() statement.Mask {
	if m.p.seat.Fresh.Load() {
		return 1 << m.p.seat.Index
	}
	return m.p.seat.f.Up() | 1<<m.p.seat.Index
}

// Apart implements coordinator.Peers: whose clock is wrong is told by what it stamps and signs.
func (m *memberPeers) Apart(int, time.Duration) statement.Mask { return 0 }

var _ coordinator.Peers = (*memberPeers)(nil)

// open serves one of p's services.
func (f *Federation) open(register func(grpc.ServiceRegistrar), p *process) (*port, error) {
	listener := bufconn.Listen(pipeBytes)
	server := grpc.NewServer(grpc.UnaryInterceptor(p.unary), grpc.StreamInterceptor(p.stream))
	register(server)
	go func() { _ = server.Serve(listener) }() // ends with Stop
	conn, err := grpc.NewClient("passthrough:///member", insecureDial(listener)...)
	if err != nil {
		server.Stop()
		return nil, err
	}
	return &port{server, conn}, nil
}
