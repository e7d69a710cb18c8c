package node

import (
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/crypto/pin"
)

// protocol is what devices and members agree on before they speak (ALPN).
const protocol = "h2"

// Members are connections to the members' device ports, each pinned to the key in the charter, dialled when first
// needed and kept. Close ends them.
type Members struct {
	ch *charter.Charter

	mu    sync.Mutex // guards what follows
	conns []*grpc.ClientConn
	done  bool
}

// NewMembers returns the members of a charter; nobody is dialled yet.
func NewMembers(ch *charter.Charter) *Members {
	return &Members{ch: ch, conns: make([]*grpc.ClientConn, ch.N)}
}

// Device gives the client of one member.
func (m *Members) Device(member int) (coordpb.DeviceClient, error) {
	if member < 0 || member >= m.ch.N {
		return nil, fmt.Errorf("the charter has no member %d", member)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done {
		return nil, fmt.Errorf("member %d: the connections are closed", member)
	}
	if m.conns[member] == nil {
		card := &m.ch.Members[member]
		conn, err := dial(card.DeviceURL, pin.Client(ed25519.PublicKey(card.TLSKey), protocol))
		if err != nil {
			return nil, fmt.Errorf("member %d (%s): %w", member, card.Name, err)
		}
		m.conns[member] = conn
	}
	return coordpb.NewDeviceClient(m.conns[member]), nil
}

// Close ends every connection.
func (m *Members) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done = true
	for _, c := range m.conns {
		if c != nil {
			c.Close()
		}
	}
}

// dial makes a connection that connects with its first call. The address may be https://host:port or host:port; no proxy
// of the environment is used, and nothing of what a resolver or a server suggests.
func dial(address string, config *tls.Config) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+strings.TrimPrefix(address, "https://"),
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithIdleTimeout(idleAfter),
		grpc.WithUserAgent("ruche-node"),
		grpc.WithReadBufferSize(16<<10), grpc.WithWriteBufferSize(16<<10), grpc.WithSharedWriteBuffer(true),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageBytesMax), grpc.MaxCallSendMsgSize(messageBytesMax)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingWait, PermitWithoutStream: false}),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 10 * time.Second,
			Backoff: backoff.Config{BaseDelay: redialFirst, Multiplier: 1.6, Jitter: 0.2, MaxDelay: redialMax}}))
}
