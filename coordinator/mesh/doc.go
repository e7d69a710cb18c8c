// Package mesh gives a Listener: the one port at which the members of a consortium reach each other, and the
// TLS on both sides of it.
//
// Every connection is mutual TLS 1.3 between two keys that stand in the charter (crypto/pin): names, dates and
// addresses decide nothing. The agreed protocol (ALPN) says who gets the connection:
//
//	h2            gRPC, through RPC() and ServerCredentials; PeerMember tells a handler who calls
//	ruche-raft/1  Raft's own framing, through Raft()
//
// Whoever dials names the member that must answer: another member's key is refused like a stranger's.
//
// # Bounds
//
// A handshake has ten seconds; only so many may be under way, and what comes above that is closed unread. Each
// member holds a bounded number of connections per protocol; one more closes its oldest, so that what a
// crashed peer left half open never locks it out. TCP keepalive finds dead peers within half a minute. There is no idle
// limit on purpose: a candidate's pooled connections have been idle since the last election and must still work at the next.
//
// # Limitations
//
// A member is trusted not to flood: there is no limit on bytes per second, and Raft's transport decodes what members
// send without a cap on its size.
package mesh
