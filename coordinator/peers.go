package coordinator

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/mesh"
	"github.com/ruche-federation/ruche/coordinator/statement"
)

// meshPeers are the other members over real connections. A member is alive if it answered a short while ago.
type meshPeers struct {
	me    int
	conns []*grpc.ClientConn      // nil for me
	heard []atomic.Pointer[heard] // nil for one that has not answered yet
	now   func() time.Time
}

// heard is a peer's last answer. How old it is does not depend on this machine's clock being set meanwhile.
type heard struct {
	at   time.Time
	line *coordpb.MemberStatus
}

const (
	pingEvery    = 500 * time.Millisecond
	pingTimeout  = 2 * time.Second
	aliveFor     = 3 * time.Second
	meshMessage  = 1 << 20 // the largest message: a command of 512 KiB and its envelope
	meshWindow   = 1 << 20
	reconnectMax = 2 * time.Second
)

// dialPeers prepares connections to every other member; they are made when they are used.
func dialPeers(ch *charter.Charter, me int, cert tls.Certificate, now func() time.Time) (*meshPeers, error) {
	p := &meshPeers{me: me, conns: make([]*grpc.ClientConn, ch.N), heard: make([]atomic.Pointer[heard], ch.N), now: now}
	for i, c := range ch.Members {
		if i == me {
			continue
		}
		conn, err := grpc.NewClient("passthrough:///"+c.MeshAddr,
			grpc.WithTransportCredentials(mesh.ClientCredentials(cert, ed25519.PublicKey(c.TLSKey))),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax}, MinConnectTimeout: pingTimeout}),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 5 * time.Second}),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(meshMessage), grpc.MaxCallSendMsgSize(meshMessage)),
			grpc.WithInitialWindowSize(meshWindow), grpc.WithInitialConnWindowSize(4*meshWindow))
		if err != nil {
			p.close()
			return nil, fmt.Errorf("member %s: %w", c.Name, err)
		}
		p.conns[i] = conn
	}
	return p, nil
}

// Mesh implements intake.Peers.
func (p *meshPeers) Mesh(member int) (coordpb.MeshClient, error) {
	if member < 0 || member >= len(p.conns) || p.conns[member] == nil {
		return nil, fmt.Errorf("member %d is no peer", member)
	}
	return coordpb.NewMeshClient(p.conns[member]), nil
}

// Alive implements Peers.
func (p *meshPeers) Alive() statement.Mask {
	m := statement.Mask(1) << p.me
	now := p.now()
	for i := range p.heard {
		if h := p.heard[i].Load(); h != nil && now.Sub(h.at) < aliveFor {
			m |= 1 << i
		}
	}
	return m
}

// Apart implements Peers. What a member does not say of its clock contradicts nobody.
func (p *meshPeers) Apart(member int, limit time.Duration) statement.Mask {
	var m statement.Mask
	now := p.now()
	clock := func(i int) (time.Time, bool) {
		if i == p.me {
			return now.Round(0), true
		}
		h := p.heard[i].Load()
		if h == nil || h.line.GetClockMs() == 0 {
			return time.Time{}, false
		}
		return time.UnixMilli(h.line.GetClockMs()).Add(now.Sub(h.at)), true
	}
	own, ok := clock(member)
	for _, i := range p.Alive().Members() {
		if there, says := clock(i); ok && says && own.Sub(there).Abs() > limit {
			m |= 1 << i
		}
	}
	return m
}

// line is what a peer last said of itself, nil for nothing yet.
func (p *meshPeers) line(member int) *coordpb.MemberStatus {
	if h := p.heard[member].Load(); h != nil {
		return h.line
	}
	return nil
}

// watch asks every peer for its status until the context ends.
func (p *meshPeers) watch(ctx context.Context) {
	for i := range p.conns {
		if p.conns[i] == nil {
			continue
		}
		go func() {
			client := coordpb.NewMeshClient(p.conns[i])
			for ctx.Err() == nil {
				call, cancel := context.WithTimeout(ctx, pingTimeout)
				if line, err := client.Status(call, &coordpb.ListMembersRequest{}); err == nil {
					p.heard[i].Store(&heard{p.now(), line})
				}
				cancel()
				select {
				case <-ctx.Done():
				case <-time.After(pingEvery):
				}
			}
		}()
	}
}

func (p *meshPeers) close() {
	for _, c := range p.conns {
		if c != nil {
			c.Close()
		}
	}
}

// grudges remembers which members failed this one of late, so that they are asked last: a peer that answers slowly, or
// not what was asked for, delays nobody twice.
type grudges struct {
	now   func() time.Time
	mu    sync.Mutex // guards since
	since [statement.MembersMax]time.Time
}

// hold notes a failure.
func (g *grudges) hold(member int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if member >= 0 && member < len(g.since) {
		g.since[member] = g.now()
	}
}

// order gives the members in the order given, those with a recent failure last.
func (g *grudges) order(members []int) []int {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := slices.Clone(members)
	failed := func(member int) int {
		if s := g.since[member]; !s.IsZero() && g.now().Sub(s) < grudge {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(out, func(a, b int) int { return failed(a) - failed(b) })
	return out
}
