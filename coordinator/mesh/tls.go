package mesh

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/ruche-federation/ruche/crypto/pin"
)

// The protocols of the mesh port.
const (
	ProtocolRPC  = "h2"
	ProtocolRaft = "ruche-raft/1"
)

// PeerKey is another member and the key that it proves in every handshake.
type PeerKey struct {
	Member int // index in the charter
	Key    ed25519.PublicKey
}

// Certificate wraps a member's TLS key for its mesh port, its device port and its calls to others.
func Certificate(key ed25519.PrivateKey, name string, now time.Time) (tls.Certificate, error) {
	return pin.Certificate(key, name, now)
}

// ServerTLS is the mesh port's side: the peers and nobody else, for both protocols.
func ServerTLS(cert tls.Certificate, peers []PeerKey) *tls.Config {
	keys := make([]ed25519.PublicKey, len(peers))
	for i, p := range peers {
		keys[i] = p.Key
	}
	return pin.MutualServer(cert, keys, ProtocolRPC, ProtocolRaft)
}

// ClientTLS is the dialling side: the holder of expected and nobody else, for one protocol.
func ClientTLS(cert tls.Certificate, expected ed25519.PublicKey, protocol string) *tls.Config {
	return pin.MutualClient(cert, expected, protocol)
}

// DeviceTLS is the device port's side: it shows the member's key, which devices pin (pin.Client), and asks for none.
func DeviceTLS(cert tls.Certificate) *tls.Config { return pin.Server(cert, ProtocolRPC) }

// Dial connects to a member's mesh port and returns when the member has proved the expected key.
func Dial(ctx context.Context, address string, cert tls.Certificate, expected ed25519.PublicKey, protocol string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeMax)
	defer cancel()
	raw, err := (&net.Dialer{KeepAliveConfig: keepalive()}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, ClientTLS(cert, expected, protocol))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("handshake with %s: %w", address, err)
	}
	return conn, nil
}

func keepalive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: keepaliveIdle, Interval: keepaliveInterval, Count: keepaliveProbes}
}
