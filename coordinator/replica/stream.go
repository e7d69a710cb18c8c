package replica

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// stream carries raft's bytes: it accepts from the mesh, dials by id, and can end everything at once, since raft's
// transport waits for a silent peer until its timeout.
type stream struct {
	net.Listener
	self string
	dial func(ctx context.Context, id string) (net.Conn, error)

	ctx  context.Context // ends with Close
	stop context.CancelFunc

	mu   sync.Mutex
	open map[*tracked]struct{} // nil after Close
}

func newStream(self string, l net.Listener, dial func(context.Context, string) (net.Conn, error)) *stream {
	s := &stream{Listener: l, self: self, dial: dial, open: map[*tracked]struct{}{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Dial is raft.StreamLayer's. The address is an id: see New.
func (s *stream) Dial(id raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	conn, err := s.dial(ctx, string(id))
	if err != nil {
		return nil, err
	}
	return s.track(conn)
}

// Accept is net.Listener's.
func (s *stream) Accept() (net.Conn, error) {
	conn, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return s.track(conn)
}

// Addr is net.Listener's: who we are, as others dial us.
func (s *stream) Addr() net.Addr { return memberAddr(s.self) }

// Close is net.Listener's: it ends the connections too.
func (s *stream) Close() error {
	s.stop()
	err := s.Listener.Close()
	s.mu.Lock()
	open := s.open
	s.open = nil
	s.mu.Unlock()
	for c := range open {
		c.Conn.Close()
	}
	return err
}

func (s *stream) track(conn net.Conn) (net.Conn, error) {
	c := &tracked{conn, s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		conn.Close()
		return nil, net.ErrClosed
	}
	s.open[c] = struct{}{}
	return c, nil
}

type tracked struct {
	net.Conn
	stream *stream
}

// Close ends the connection.
func (c *tracked) Close() error {
	c.stream.mu.Lock()
	delete(c.stream.open, c)
	c.stream.mu.Unlock()
	return c.Conn.Close()
}

type memberAddr string

// Network is net.Addr's.
func (memberAddr) Network() string { return "member" }

// String is net.Addr's.
func (a memberAddr) String() string { return string(a) }
