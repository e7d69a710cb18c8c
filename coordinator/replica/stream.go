package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// stream carries raft's bytes: it accepts from the mesh, dials by id, and can end everything at once, since raft's
// transport waits for a silent peer until its timeout.
//
// A caller first says which store it means: the length of its id in one byte, then the id. Another store of the same
// member hangs up. Otherwise a store that lost its log would vote and acknowledge in the name of the one before it, whose
// promises it does not know: raft's requests do not say whom they are for, and a store without configuration grants
// every vote it is asked for.
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
	if err := greet(ctx, conn, string(id)); err != nil {
		conn.Close()
		return nil, err
	}
	return s.track(conn, true)
}

func greet(ctx context.Context, conn net.Conn, id string) error {
	if len(id) > idMax {
		return fmt.Errorf("store id has %d bytes, limit %d", len(id), idMax)
	}
	if at, ok := ctx.Deadline(); ok {
		if err := conn.SetWriteDeadline(at); err != nil {
			return err
		}
	}
	if _, err := conn.Write(append([]byte{byte(len(id))}, id...)); err != nil {
		return err
	}
	return conn.SetWriteDeadline(time.Time{})
}

// Accept is net.Listener's.
func (s *stream) Accept() (net.Conn, error) {
	conn, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return s.track(conn, false)
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

func (s *stream) track(conn net.Conn, greeted bool) (net.Conn, error) {
	c := &tracked{Conn: conn, stream: s, greeted: greeted}
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
	stream  *stream
	greeted bool // whom the caller means is known; owned by the one goroutine that reads
}

// Read is net.Conn's. It returns nothing to a store that is not meant.
func (c *tracked) Read(b []byte) (int, error) {
	if !c.greeted {
		var head [1 + idMax]byte
		if _, err := io.ReadFull(c.Conn, head[:1]); err != nil {
			return 0, err
		}
		id := head[1 : 1+min(int(head[0]), idMax)]
		if _, err := io.ReadFull(c.Conn, id); err != nil {
			return 0, err
		}
		if string(id) != c.stream.self {
			return 0, errors.Join(errOtherStore, c.Close())
		}
		c.greeted = true
	}
	return c.Conn.Read(b)
}

var errOtherStore = errors.New("the caller means another store of this member")

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
