package mesh

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/ruche-federation/ruche/crypto/pin"
)

// Listener owns the mesh port: it shakes hands, learns which member calls, and passes the connection on by
// protocol. It is safe for concurrent use.
type Listener struct {
	inner  net.Listener
	config *tls.Config
	peers  []PeerKey
	logger *slog.Logger
	raft   *branch
	rpc    *branch
	slots  chan struct{} // one token per connection that is not handed over yet

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// Listen opens the mesh port. The caller closes the Listener; closing one of its two branches ends that branch only.
func Listen(ctx context.Context, address string, cert tls.Certificate, peers []PeerKey, logger *slog.Logger) (*Listener, error) {
	inner, err := (&net.ListenConfig{KeepAliveConfig: keepalive()}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("mesh port: %w", err)
	}
	return Serve(inner, cert, peers, logger), nil
}

// Serve is Listen on a listener that exists, which it takes over.
func Serve(inner net.Listener, cert tls.Certificate, peers []PeerKey, logger *slog.Logger) *Listener {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	l := &Listener{inner: inner, config: ServerTLS(cert, peers), peers: peers, logger: logger,
		raft: newBranch(inner.Addr()), rpc: newBranch(inner.Addr()), slots: make(chan struct{}, handshakesMax)}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.wg.Add(1)
	go l.accept()
	return l
}

// Addr is where the port is open.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// Raft gives the connections for Raft.
func (l *Listener) Raft() net.Listener { return l.raft }

// RPC gives the connections for gRPC; its server needs ServerCredentials.
func (l *Listener) RPC() net.Listener { return l.rpc }

// Close closes the port and every connection that came through it.
func (l *Listener) Close() error {
	l.stop()
	err := l.inner.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	l.raft.Close()
	l.rpc.Close()
	l.wg.Wait()
	return err
}

func (l *Listener) accept() {
	defer l.wg.Done()
	pause := acceptPauseMin
	for {
		raw, err := l.inner.Accept()
		switch {
		case l.ctx.Err() != nil:
			if err == nil {
				raw.Close()
			}
			return
		case errors.Is(err, net.ErrClosed):
			l.logger.Error("mesh port closed under the member", "error", err)
			return
		case err != nil:
			l.logger.Warn("mesh port cannot accept", "error", err, "pause", pause)
			select {
			case <-time.After(pause):
			case <-l.ctx.Done():
			}
			pause = min(2*pause, acceptPauseMax)
			continue
		}
		pause = acceptPauseMin
		select {
		case l.slots <- struct{}{}:
			l.wg.Add(1)
			go l.admit(raw)
		default:
			raw.Close() // handshakesMax strangers are already waiting
		}
	}
}

// admit shakes hands with one caller and hands it over, all within handshakeMax.
func (l *Listener) admit(raw net.Conn) {
	defer l.wg.Done()
	defer func() { <-l.slots }()
	ctx, cancel := context.WithTimeout(l.ctx, handshakeMax)
	defer cancel()
	conn := tls.Server(raw, l.config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		if !errors.Is(err, io.EOF) && l.ctx.Err() == nil { // a connection closed at once is somebody's probe
			l.logger.Info("mesh port refused a caller", "address", raw.RemoteAddr().String(), "error", err)
		}
		return
	}
	state := conn.ConnectionState()
	member, ok := l.memberOf(state)
	if !ok { // cannot be: VerifyConnection compared with the same list
		raw.Close()
		return
	}
	b := l.rpc
	if state.NegotiatedProtocol == ProtocolRaft {
		b = l.raft
	}
	b.hand(ctx, &Conn{Conn: conn, member: member, branch: b})
}

func (l *Listener) memberOf(state tls.ConnectionState) (int, bool) {
	key, err := pin.Peer(state)
	if err != nil {
		return 0, false
	}
	for _, p := range l.peers {
		if ed25519.PublicKey(p.Key).Equal(key) {
			return p.Member, true
		}
	}
	return 0, false
}

// Conn is a connection from a member.
type Conn struct {
	*tls.Conn
	member int
	branch *branch
}

// Member is the index of the member at the other end.
func (c *Conn) Member() int { return c.member }

// Close ends the connection.
func (c *Conn) Close() error {
	c.branch.forget(c)
	return c.Conn.Close()
}

// cut ends the connection without a word to the peer, which may not be reading.
func (c *Conn) cut() { c.NetConn().Close() }

// branch is one protocol's listener.
type branch struct {
	addr net.Addr
	next chan *Conn
	done chan struct{}

	mu     sync.Mutex // guards what follows
	closed bool
	open   map[int][]*Conn // by member, oldest first
}

func newBranch(addr net.Addr) *branch {
	return &branch{addr: addr, next: make(chan *Conn), done: make(chan struct{}), open: map[int][]*Conn{}}
}

// hand passes a connection to whoever accepts, and closes it where nobody does.
func (b *branch) hand(ctx context.Context, c *Conn) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		c.cut()
		return
	}
	if old := b.open[c.member]; len(old) == connectionsMax {
		old[0].cut() // its reader sees the end and closes it properly
		b.open[c.member] = old[1:]
	}
	b.open[c.member] = append(b.open[c.member], c)
	b.mu.Unlock()
	select {
	case b.next <- c:
		return
	case <-b.done:
	case <-ctx.Done():
	}
	b.forget(c)
	c.cut()
}

func (b *branch) forget(c *Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	of := b.open[c.member]
	for i, o := range of {
		if o == c {
			b.open[c.member] = append(of[:i:i], of[i+1:]...)
			return
		}
	}
}

// Accept is net.Listener's.
func (b *branch) Accept() (net.Conn, error) {
	select {
	case <-b.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-b.next:
		return c, nil
	case <-b.done:
		return nil, net.ErrClosed
	}
}

// Addr is net.Listener's.
func (b *branch) Addr() net.Addr { return b.addr }

// Close refuses new connections of this protocol and closes the open ones.
func (b *branch) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	close(b.done)
	for _, of := range b.open {
		for _, c := range of {
			c.cut()
		}
	}
	b.open = map[int][]*Conn{}
	return nil
}
