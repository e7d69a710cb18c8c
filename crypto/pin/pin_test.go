package pin

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

func wrap(t *testing.T, key ed25519.PrivateKey, name string, now time.Time) tls.Certificate {
	t.Helper()
	cert, err := Certificate(key, name, now)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// talk shakes hands over a loopback connection, passes one byte each way and gives both sides' errors.
func talk(t *testing.T, client, server *tls.Config) (clientErr, serverErr error, state tls.ConnectionState) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(2 * time.Minute)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	done := make(chan error, 1)
	s := tls.Server(b, server)
	go func() {
		defer b.Close()
		if err := s.HandshakeContext(context.Background()); err != nil {
			done <- err
			return
		}
		var p [1]byte
		if _, err := io.ReadFull(s, p[:]); err != nil {
			done <- err
			return
		}
		_, err := s.Write(p[:])
		done <- err
	}()
	c := tls.Client(a, client)
	clientErr = func() error {
		defer a.Close()
		if err := c.HandshakeContext(context.Background()); err != nil {
			return err
		}
		if _, err := c.Write([]byte{7}); err != nil {
			return err
		}
		var p [1]byte
		_, err := io.ReadFull(c, p[:])
		return err
	}()
	serverErr = <-done
	return clientErr, serverErr, s.ConnectionState()
}

func TestAPeerIsItsKeyAndNothingElse(t *testing.T) {
	now := time.Now()
	alice, bob, eve := newKey(t), newKey(t), newKey(t)
	long := wrap(t, bob, "bob", now)
	expired := wrap(t, bob, "someone.else.example", now.AddDate(-300, 0, 0))
	both := []ed25519.PublicKey{public(alice), public(bob)}
	const p1, p2 = "one/1", "two/1"
	for _, tt := range []struct {
		name           string
		client, server *tls.Config
		clientOK       bool
		serverOK       bool
	}{
		{"one-sided, the pinned key", Client(public(bob), p1), Server(long, p1), true, true},
		{"dates and names decide nothing", Client(public(bob), p1), Server(expired, p1), true, true},
		{"another key under the right name", Client(public(bob), p1), Server(wrap(t, eve, "bob", now), p1), false, false},
		{"a pin of no length", Client(nil, p1), Server(long, p1), false, false},
		{"no common protocol", Client(public(bob), p1), Server(long, p2), false, false},
		{"client offers no protocol", Client(public(bob)), Server(long, p1), false, false},
		{"server knows no protocols", Client(public(bob), p1), Server(long), false, false},
		{"mutual", MutualClient(wrap(t, alice, "a", now), public(bob), p1), MutualServer(long, both, p2, p1), true, true},
		{"mutual, stranger calls", MutualClient(wrap(t, eve, "a", now), public(bob), p1), MutualServer(long, both, p1), false, false},
		{"mutual, caller shows nothing", Client(public(bob), p1), MutualServer(long, both, p1), false, false},
		{"mutual, a member answers where another is expected", MutualClient(wrap(t, alice, "a", now), public(alice), p1), MutualServer(long, both, p1), false, false},
		{"mutual, nobody is a peer", MutualClient(wrap(t, alice, "a", now), public(bob), p1), MutualServer(long, nil, p1), false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clientErr, serverErr, _ := talk(t, tt.client, tt.server)
			if (clientErr == nil) != tt.clientOK || (serverErr == nil) != tt.serverOK {
				t.Fatalf("client: %v, server: %v", clientErr, serverErr)
			}
		})
	}
}

func TestTheServerLearnsWhoCalls(t *testing.T) {
	now := time.Now()
	alice, bob := newKey(t), newKey(t)
	_, _, state := talk(t, MutualClient(wrap(t, alice, "a", now), public(bob), "p"), MutualServer(wrap(t, bob, "b", now), []ed25519.PublicKey{public(alice)}, "p"))
	got, err := Peer(state)
	if err != nil || !bytes.Equal(got, public(alice)) {
		t.Fatalf("peer %x, %v", got, err)
	}
	if state.Version != tls.VersionTLS13 {
		t.Fatalf("TLS version %x", state.Version)
	}
	var refused *PeerError
	if _, err := Peer(tls.ConnectionState{}); !errors.As(err, &refused) {
		t.Fatalf("no certificate: %v", err)
	}
}

func TestKeysOfAnotherKindAreRefused(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	clientErr, _, _ := talk(t, Client(public(newKey(t)), "p"), Server(cert, "p"))
	var refused *PeerError
	if !errors.As(clientErr, &refused) || !strings.Contains(refused.Reason, "Ed25519") {
		t.Fatalf("client: %v", clientErr)
	}
	alice := newKey(t)
	two := wrap(t, alice, "a", time.Now())
	two.Certificate = append(two.Certificate, der)
	clientErr, _, _ = talk(t, Client(public(alice), "p"), Server(two, "p"))
	if !errors.As(clientErr, &refused) || !strings.Contains(refused.Reason, "2 certificates") {
		t.Fatalf("client: %v", clientErr)
	}
}

func TestTLS12IsRefused(t *testing.T) {
	bob := newKey(t)
	old := Client(public(bob), "p")
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if clientErr, serverErr, _ := talk(t, old, Server(wrap(t, bob, "b", time.Now()), "p")); clientErr == nil || serverErr == nil {
		t.Fatal("TLS 1.2 went through")
	}
}

func TestCertificateIsAFunctionOfItsArguments(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	now := time.Date(2026, 11, 1, 12, 0, 0, 5, time.UTC)
	a, b := wrap(t, key, "org", now), wrap(t, key, "org", now)
	if !bytes.Equal(a.Certificate[0], b.Certificate[0]) {
		t.Fatal("two certificates from one key and one time")
	}
	if _, err := Certificate(nil, "org", now); err == nil {
		t.Fatal("no key, no error")
	}
}
