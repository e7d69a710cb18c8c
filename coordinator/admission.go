package coordinator

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/coordinator/mesh"
)

// What one side of a port may take of this member at once. The device port answers anybody, so every call there is
// counted; on the mesh port each member is counted by itself, so that one cannot use up what the others need.

// deviceCalls bounds the calls in flight by method; uploads have a bound of their own (intake), behind which their
// streams wait for nothing.
var deviceCalls = map[string]int{
	"Enroll":      32,
	"CheckIn":     256,
	"QueryUpload": 64,
	"GetReceipts": 32,
	"GetRound":    8, // a record of a large round has megabytes
	"ListRounds":  8,
	"ListMembers": 8,
	"GetAdapter":  64,
	"Upload":      1024,
}

// meshCalls bounds the calls in flight of one member by method.
var meshCalls = map[string]int{
	"Propose":           512,
	"Receipt":           256,
	"Store":             96,
	"FetchContribution": 96,
	"FetchSum":          16,
	"FetchAdapter":      16,
	"Status":            16,
}

// admission counts calls in flight.
type admission struct {
	bounds map[string]int
	mu     sync.Mutex // guards flying
	flying map[call]int
}

type call struct {
	member int // -1 on the device port
	method string
}

func newAdmission(bounds map[string]int) *admission {
	return &admission{bounds: bounds, flying: map[call]int{}}
}

// enter admits a call, or says that there are too many.
func (a *admission) enter(ctx context.Context, fullMethod string) (leave func(), err error) {
	c := call{-1, fullMethod[strings.LastIndexByte(fullMethod, '/')+1:]}
	if member, ok := mesh.PeerMember(ctx); ok {
		c.member = member
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.flying[c] >= a.bounds[c.method] {
		return nil, tooMany("calls of " + c.method)
	}
	a.flying[c]++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.flying[c]--; a.flying[c] == 0 {
			delete(a.flying, c)
		}
	}, nil
}

// guardUnary admits a call and gives it a deadline; a caller's own may only be nearer. It keeps one bad call from ending
// the member; what panicked is logged without the call's content.
func (m *Member) guardUnary(a *admission) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (_ any, err error) {
		defer m.recovered(info.FullMethod, &err)
		leave, err := a.enter(ctx, info.FullMethod)
		if err != nil {
			return nil, err
		}
		defer leave()
		ctx, cancel := context.WithTimeout(ctx, callWait)
		defer cancel()
		return next(ctx, req)
	}
}

// guardStream does the same for streams, which have deadlines by their progress.
func (m *Member) guardStream(a *admission) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
		defer m.recovered(info.FullMethod, &err)
		leave, err := a.enter(stream.Context(), info.FullMethod)
		if err != nil {
			return err
		}
		defer leave()
		return next(srv, stream)
	}
}

func (m *Member) recovered(method string, err *error) {
	if p := recover(); p != nil {
		m.cfg.Logger.Error("a call panicked", "method", method, "panic", fmt.Sprint(p))
		*err = status.Error(codes.Internal, "internal error")
	}
}

// pacedSend gives up a receiver that takes nothing for a while: gRPC's Send has no deadline but the call's. When the
// handler has returned, the send that is left ends too.
func pacedSend[T any](send func(T) error) func(T) error {
	return func(message T) error {
		sent := make(chan error, 1)
		go func() { sent <- send(message) }()
		slow := time.NewTimer(sendWait)
		defer slow.Stop()
		select {
		case err := <-sent:
			return err
		case <-slow.C:
			return status.Errorf(codes.DeadlineExceeded, "nothing was taken for %s", sendWait)
		}
	}
}

// limited is a listener that holds a bounded number of connections, and closes what comes above unread: file
// descriptors are the mesh's and the disk's too.
type limited struct {
	net.Listener
	slots chan struct{}
}

func limitConnections(l net.Listener, n int) net.Listener {
	return &limited{l, make(chan struct{}, n)}
}

// Accept is net.Listener's.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &limitedConn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
		default:
			c.Close()
		}
	}
}

type limitedConn struct {
	net.Conn
	release func()
}

// Close is net.Conn's.
func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
