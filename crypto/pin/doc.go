// Package pin gives TLS configurations in which a peer is its Ed25519 key, and nothing else.
//
// Both sides hold the other side's public key beforehand (the charter carries the members'), so there is no
// authority, no name and no date to trust: a certificate is a self-signed wrapper that TLS asks for. Its
// name, serial and validity are read by nobody. crypto/tls verifies during the handshake that the peer
// holds the private key of the leaf that it presents; VerifyConnection, which runs after that on both sides
// and on every connection, then compares the leaf's key with the pinned one. InsecureSkipVerify only switches off what
// stands for that comparison in the web's trust model.
//
// TLS 1.3 only, with the library's default key agreement (hybrid X25519 and ML-KEM-768 where both sides have it).
// Session tickets are off: every connection proves the key anew. A connection without an agreed protocol (ALPN) is
// refused where protocols are given, so that bytes meant for one protocol never reach another.
//
// # Limitations
//
// A pinned key is revoked by changing the pin and closing what is open; nothing expires by itself.
package pin
