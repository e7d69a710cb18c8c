package replica

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// transport is raft's, but for a gate, and for heartbeats. raft answers those on the goroutine of their connection, beside its main one,
// although only that one may move the term: in v1.8.0 a heartbeat that meets an election can write an older term over the
// newer one. Power cuts on a busy machine found it; the guard refused, and raft panicked.
//
// Here a heartbeat is the main goroutine's like every other request. Where that one is busy for longer than patience, with
// a slow disk most often, the leader is told what a look at the term shows: this store follows it. Otherwise it would
// step down for a disk that is merely slow, which is what raft's shortcut was made against.
type transport struct {
	*raft.NetworkTransport
	requests chan raft.RPC
	patience time.Duration
	follows  atomic.Pointer[func(term uint64) (last uint64, ok bool)] // whether this store follows in a term, and its last entry
	closing  sync.Once
	closed   chan struct{}
	gate     *gate
	logger   hclog.Logger
}

func newTransport(config *raft.NetworkTransportConfig, g *gate, patience time.Duration) *transport {
	t := &transport{NetworkTransport: raft.NewNetworkTransportWithConfig(config), requests: make(chan raft.RPC), patience: patience, closed: make(chan struct{}), gate: g, logger: config.Logger}
	t.NetworkTransport.SetHeartbeatHandler(t.heartbeat)
	go t.forward()
	return t
}

// forward passes on every request but heartbeats, which come in beside it, and what the gate refuses. Of a refused snapshot
// raft's transport takes what follows for the next request, and hangs up.
func (t *transport) forward() {
	for {
		select {
		case rpc := <-t.NetworkTransport.Consumer():
			if t.refused(rpc) {
				continue
			}
			select {
			case t.requests <- rpc:
			case <-t.closed:
				return
			}
		case <-t.closed:
			return
		}
	}
}

// Consumer is raft.Transport's: what the main goroutine reads.
func (t *transport) Consumer() <-chan raft.RPC { return t.requests }

// SetHeartbeatHandler is raft.Transport's. The handler is for the main goroutine only, and is never called.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

// Close is raft.WithClose's.
func (t *transport) Close() error {
	t.closing.Do(func() { close(t.closed) })
	return t.NetworkTransport.Close()
}

// heartbeat answers one heartbeat: with what the main goroutine says, or for it.
func (t *transport) heartbeat(rpc raft.RPC) {
	if t.refused(rpc) {
		return
	}
	answer := make(chan raft.RPCResponse, 1)
	passed := raft.RPC{Command: rpc.Command, Reader: rpc.Reader, RespChan: answer}
	requests, impatient := t.requests, time.NewTimer(t.patience)
	defer impatient.Stop()
	for {
		select {
		case requests <- passed:
			requests = nil
		case r := <-answer:
			rpc.Respond(r.Response, r.Error)
			return
		case <-impatient.C:
			if requests == nil {
				continue // it is being answered
			}
			if r, ok := t.standIn(rpc.Command); ok {
				rpc.Respond(r, nil)
				return
			}
		case <-t.closed:
			rpc.Respond(nil, raft.ErrTransportShutdown)
			return
		}
	}
}

// standIn answers for a busy main goroutine. It changes nothing: the request that keeps it busy says who leads.
func (t *transport) standIn(command any) (*raft.AppendEntriesResponse, bool) {
	beat, ok := command.(*raft.AppendEntriesRequest)
	follows := t.follows.Load()
	if !ok || follows == nil {
		return nil, false
	}
	last, ok := (*follows)(beat.Term)
	if !ok {
		return nil, false
	}
	return &raft.AppendEntriesResponse{RPCHeader: raft.RPCHeader{ProtocolVersion: beat.ProtocolVersion}, Term: beat.Term, LastLog: last, Success: true}, true
}
