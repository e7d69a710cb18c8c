package pin

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// PeerError says that the peer proved a key other than the pinned one, or none.
type PeerError struct{ Reason string }

func (e *PeerError) Error() string { return "pinned peer: " + e.Reason }

// Certificate wraps a key for TLS. The name helps who reads a packet dump; the dates lie a day before and a century
// after now, because no peer of ours looks at them and some tools want them to be sane. The same arguments give the
// same bytes.
func Certificate(key ed25519.PrivateKey, name string, now time.Time) (tls.Certificate, error) {
	if len(key) != ed25519.PrivateKeySize {
		return tls.Certificate{}, fmt.Errorf("certificate key has %d bytes, wants %d", len(key), ed25519.PrivateKeySize)
	}
	public := key.Public().(ed25519.PublicKey)
	serial := sha256.Sum256(public)
	serial[0] = serial[0]&0x7f | 0x40 // positive and at its full length, as RFC 5280 4.1.2.2 wants
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial[:16]),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-24 * time.Hour).UTC().Truncate(time.Second),
		NotAfter:     now.AddDate(100, 0, 0).UTC().Truncate(time.Second),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	// Ed25519 signatures take no randomness, and the serial number is given: no source is read.
	der, err := x509.CreateCertificate(nil, template, template, public, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("wrapping the TLS key: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("wrapping the TLS key: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// Client is for the side that shows no key: it talks to the holder of expected or to nobody.
func Client(expected ed25519.PublicKey, protocols ...string) *tls.Config {
	c := base(protocols)
	c.InsecureSkipVerify = true // VerifyConnection decides: see the package comment
	c.VerifyConnection = verify([]ed25519.PublicKey{expected}, protocols)
	return c
}

// Server is for the side that shows a key and asks for none.
func Server(cert tls.Certificate, protocols ...string) *tls.Config {
	c := base(protocols)
	c.Certificates = []tls.Certificate{cert}
	c.VerifyConnection = func(state tls.ConnectionState) error { return agreed(state, protocols) }
	return c
}

// MutualClient is Client for a side that shows its key as well.
func MutualClient(cert tls.Certificate, expected ed25519.PublicKey, protocols ...string) *tls.Config {
	c := Client(expected, protocols...)
	// Whatever authorities the server names, this is the key we have.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	return c
}

// MutualServer is Server for a side that talks to the holders of peers only.
func MutualServer(cert tls.Certificate, peers []ed25519.PublicKey, protocols ...string) *tls.Config {
	c := Server(cert, protocols...)
	c.ClientAuth = tls.RequireAnyClientCert // any wrapper; VerifyConnection decides about the key in it
	c.VerifyConnection = verify(slices.Clone(peers), protocols)
	return c
}

// Peer is the key that the other side of a finished handshake proved to hold.
func Peer(state tls.ConnectionState) (ed25519.PublicKey, error) {
	if n := len(state.PeerCertificates); n != 1 {
		return nil, &PeerError{fmt.Sprintf("presented %d certificates, wants 1", n)}
	}
	key, ok := state.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, &PeerError{"certificate holds no Ed25519 key"}
	}
	return key, nil
}

func base(protocols []string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             slices.Clone(protocols),
		SessionTicketsDisabled: true,
	}
}

func verify(pinned []ed25519.PublicKey, protocols []string) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if err := agreed(state, protocols); err != nil {
			return err
		}
		key, err := Peer(state)
		if err != nil {
			return err
		}
		// Public keys: nothing to hide from a stopwatch. A pin of a wrong length equals no key.
		for _, p := range pinned {
			if bytes.Equal(p, key) {
				return nil
			}
		}
		return &PeerError{fmt.Sprintf("key %x is not pinned here", []byte(key))}
	}
}

// agreed refuses what crypto/tls lets through: a peer that offers no protocol at all.
func agreed(state tls.ConnectionState, protocols []string) error {
	if len(protocols) > 0 && !slices.Contains(protocols, state.NegotiatedProtocol) {
		return errors.New("tls: no protocol agreed")
	}
	return nil
}
