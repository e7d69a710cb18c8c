package mesh

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// ClientCredentials make a gRPC client talk to the mesh port of the holder of expected, and of nobody else.
func ClientCredentials(cert tls.Certificate, expected ed25519.PublicKey) credentials.TransportCredentials {
	return credentials.NewTLS(ClientTLS(cert, expected, ProtocolRPC))
}

// ServerCredentials are for the gRPC server on Listener.RPC: the handshake is over, they only say who calls.
func ServerCredentials() credentials.TransportCredentials { return accepted{} }

// PeerMember is the member that called the RPC whose context this is. It is false on any other port.
func PeerMember(ctx context.Context) (int, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return 0, false
	}
	info, ok := p.AuthInfo.(memberInfo)
	return info.member, ok
}

type memberInfo struct {
	credentials.CommonAuthInfo
	member int
}

// AuthType is credentials.AuthInfo's.
func (memberInfo) AuthType() string { return "mesh" }

type accepted struct{}

func (accepted) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, ok := c.(*Conn)
	if !ok {
		return nil, nil, fmt.Errorf("mesh credentials serve mesh connections, this is a %T", c)
	}
	return conn, memberInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, conn.member}, nil
}

func (accepted) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("mesh server credentials cannot dial: use ClientCredentials")
}

func (accepted) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (a accepted) Clone() credentials.TransportCredentials { return a }

func (accepted) OverrideServerName(string) error { return nil }
