package replica

import (
	"fmt"
	"time"
)

// Profile names the timings for a kind of network.
type Profile string

// The profiles. The zero value is WAN: organisations are rarely neighbours.
const (
	WAN      Profile = "wan"
	LAN      Profile = "lan"
	Loopback Profile = "loopback" // all members on one machine that has other work to do: demos and tests
)

// timing is what raft waits for. A leader that hears no majority for lease steps down; a follower that hears no
// leader for heartbeat to twice heartbeat stands for election.
type timing struct {
	heartbeat, election, lease time.Duration
	commit                     time.Duration // the leader tells followers of a commit at the latest after this
	io                         time.Duration // one request to a peer
}

func (p Profile) timing() (timing, error) {
	switch p {
	case WAN, "":
		return timing{3 * time.Second, 3 * time.Second, 1500 * time.Millisecond, 50 * time.Millisecond, 10 * time.Second}, nil
	case LAN:
		return timing{time.Second, time.Second, 500 * time.Millisecond, 50 * time.Millisecond, 10 * time.Second}, nil
	case Loopback:
		// A process that waits for its turn on a busy machine is not dead: the lease is as long as raft allows.
		return timing{500 * time.Millisecond, 500 * time.Millisecond, 500 * time.Millisecond, 10 * time.Millisecond, 5 * time.Second}, nil
	}
	return timing{}, fmt.Errorf("timing profile %q is none of wan, lan, loopback", string(p))
}
