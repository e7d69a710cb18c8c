package mesh

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/crypto/pin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type person struct {
	cert tls.Certificate
	key  ed25519.PublicKey
}

func people(t *testing.T, n int) []person {
	t.Helper()
	out := make([]person, n)
	for i := range out {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := Certificate(private, fmt.Sprintf("member-%d", i), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		out[i] = person{cert, public}
	}
	return out
}

// port opens member 0's mesh port, for members 1 to n-1.
func port(t *testing.T, of []person) *Listener {
	t.Helper()
	var peers []PeerKey
	for i, p := range of[1:] {
		peers = append(peers, PeerKey{i + 1, p.key})
	}
	l, err := Listen(t.Context(), "127.0.0.1:0", of[0].cert, peers, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestProtocolsReachTheirBranch(t *testing.T) {
	m := people(t, 3)
	l := port(t, m)
	for _, tt := range []struct {
		protocol string
		from     net.Listener
	}{{ProtocolRaft, l.Raft()}, {ProtocolRPC, l.RPC()}} {
		for _, caller := range []int{1, 2} {
			out, err := Dial(t.Context(), l.Addr().String(), m[caller].cert, m[0].key, tt.protocol)
			if err != nil {
				t.Fatal(err)
			}
			in, err := tt.from.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if got := in.(*Conn).Member(); got != caller {
				t.Fatalf("member %d called, the port says %d", caller, got)
			}
			go out.Write([]byte("ruche"))
			p := make([]byte, 5)
			if _, err := io.ReadFull(in, p); err != nil || string(p) != "ruche" {
				t.Fatalf("%q, %v", p, err)
			}
			in.Close()
			out.Close()
		}
	}
}

func TestStrangersAndWrongMembersAreRefused(t *testing.T) {
	m := people(t, 3)
	stranger := people(t, 1)[0]
	l := port(t, m[:2]) // members 0 and 1
	var wrong *pin.PeerError

	// The one who answers is not the one who was dialled.
	if _, err := Dial(t.Context(), l.Addr().String(), m[1].cert, m[2].key, ProtocolRaft); !errors.As(err, &wrong) {
		t.Fatalf("dialled member 2, reached member 0: %v", err)
	}
	// A stranger's handshake looks finished to it; the first read tells.
	conn, err := Dial(t.Context(), l.Addr().String(), stranger.cert, m[0].key, ProtocolRaft)
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
		conn.Close()
	}
	if err == nil {
		t.Fatal("a stranger came in")
	}
	if _, err := Dial(t.Context(), l.Addr().String(), m[1].cert, m[0].key, "http/1.1"); err == nil {
		t.Fatal("an unknown protocol came in")
	}
}

func TestSilentCallersHoldNoHandshakeForLongAndNeverAll(t *testing.T) {
	m := people(t, 2)
	l := port(t, m)
	var silent []net.Conn
	for range handshakesMax {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, c)
	}
	waitFor(t, func() bool { return len(l.slots) == handshakesMax })
	over, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := over.Read(make([]byte, 1)); err == nil {
		t.Fatal("one handshake above the limit was served")
	}
	over.Close()
	for _, c := range silent {
		c.Close()
	}
	waitFor(t, func() bool { return len(l.slots) == 0 })
	c, err := Dial(t.Context(), l.Addr().String(), m[1].cert, m[0].key, ProtocolRPC)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestOneConnectionTooManyClosesTheOldest(t *testing.T) {
	m := people(t, 3)
	l := port(t, m)
	dial := func(member int) net.Conn {
		c, err := Dial(t.Context(), l.Addr().String(), m[member].cert, m[0].key, ProtocolRaft)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		in, err := l.Raft().Accept()
		if err != nil {
			t.Fatal(err)
		}
		go io.Copy(io.Discard, in)
		return c
	}
	other := dial(2)
	var mine []net.Conn
	for range connectionsMax + 1 {
		mine = append(mine, dial(1))
	}
	if _, err := mine[0].Read(make([]byte, 1)); err == nil {
		t.Fatal("the oldest connection lives on")
	}
	for _, c := range []net.Conn{mine[1], other} {
		if _, err := c.Write([]byte{1}); err != nil {
			t.Fatalf("a younger connection, or another member's, was closed: %v", err)
		}
	}
}

func TestCloseEndsWhatIsOpen(t *testing.T) {
	m := people(t, 2)
	l := port(t, m)
	held, err := Dial(t.Context(), l.Addr().String(), m[1].cert, m[0].key, ProtocolRaft)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	in, err := l.Raft().Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	waiting, err := Dial(t.Context(), l.Addr().String(), m[1].cert, m[0].key, ProtocolRPC) // nobody accepts this one
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{held, waiting} {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Fatal("a connection outlived its port")
		}
	}
	if _, err := l.Raft().Accept(); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("accept after close: %v", err)
	}
}

type who struct {
	coordpb.UnimplementedMeshServer
}

func (who) Status(ctx context.Context, _ *coordpb.ListMembersRequest) (*coordpb.MemberStatus, error) {
	member, ok := PeerMember(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no member")
	}
	return &coordpb.MemberStatus{Index: uint32(member)}, nil
}

func TestHandlersKnowWhichMemberCalls(t *testing.T) {
	m := people(t, 4)
	l := port(t, m)
	server := grpc.NewServer(grpc.Creds(ServerCredentials()))
	coordpb.RegisterMeshServer(server, who{})
	done := make(chan error, 1)
	go func() { done <- server.Serve(l.RPC()) }()
	defer func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for caller := 1; caller < len(m); caller++ {
		conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(ClientCredentials(m[caller].cert, m[0].key)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := coordpb.NewMeshClient(conn).Status(t.Context(), &coordpb.ListMembersRequest{}, grpc.WaitForReady(true))
		if err != nil || int(got.Index) != caller {
			t.Fatalf("member %d called, the handler saw %v, %v", caller, got, err)
		}
		conn.Close()
	}
	if _, ok := PeerMember(t.Context()); ok {
		t.Fatal("a context without a caller has a member")
	}
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}
