package mesh

import "time"

const (
	// handshakeMax gives a peer at the other end of the world its three round trips, and a silent one little of our memory.
	handshakeMax = 10 * time.Second
	// handshakesMax bounds the connections that have not proved a key yet: members are few, so more are strangers.
	handshakesMax = 64
	// connectionsMax is per member and protocol. Raft pools three and replicates on three more, gRPC needs one or two;
	// the rest covers a peer that restarts faster than its old connections die.
	connectionsMax = 16
	// Keepalive: the first probe after keepaliveIdle, then every keepaliveInterval; dead after keepaliveProbes.
	keepaliveIdle     = 15 * time.Second
	keepaliveInterval = 5 * time.Second
	keepaliveProbes   = 3
	// acceptPauseMin and acceptPauseMax bound the pause after a failed accept (out of file descriptors, mostly).
	acceptPauseMin = 5 * time.Millisecond
	acceptPauseMax = time.Second
)
