package replica

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// TestHeartbeats: a heartbeat is answered by raft's main goroutine, and for it only while that one is busy and this store
// follows in the heartbeat's term. Whatever raft sets as its own shortcut is never called: it would move the term beside
// the main goroutine.
func TestHeartbeats(t *testing.T) {
	const patience = 50 * time.Millisecond
	for _, c := range []struct {
		name    string
		busy    time.Duration // how long the main goroutine reads nothing
		follows bool
		after   time.Duration // when the leader has its answer
		last    uint64        // and by it whose: 7 says the main goroutine, 6 who stands in
	}{
		{"at once", 0, true, 0, 7},
		{"a slow disk", 10 * time.Second, true, patience, 6},
		{"a slow disk, and another term or no follower", 10 * time.Second, false, 10 * time.Second, 7},
		{"nearly too slow", patience - time.Millisecond, true, patience - time.Millisecond, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := newTestTransport(patience)
				defer tr.Close()
				tr.SetHeartbeatHandler(func(raft.RPC) { t.Error("raft's shortcut is called") })
				follows := func(term uint64) (uint64, bool) { return 6, c.follows && term == 3 }
				tr.follows.Store(&follows)
				var main sync.WaitGroup
				main.Go(func() {
					time.Sleep(c.busy)
					select {
					case rpc := <-tr.Consumer():
						rpc.Respond(&raft.AppendEntriesResponse{Term: 3, LastLog: 7, Success: true}, nil)
					case <-tr.closed:
					}
				})
				r, err := beat(tr, 3)
				if took := time.Since(r.asked); err != nil || took != c.after || r.LastLog != c.last || !r.Success || r.Term != 3 {
					t.Errorf("after %s: %+v, %v", took, r.AppendEntriesResponse, err)
				}
				tr.Close()
				main.Wait()
			})
		})
	}
}

// TestHeartbeatsEndWithTheTransport: nobody waits for a replica that has ended, and before raft runs nobody stands in.
func TestHeartbeatsEndWithTheTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTestTransport(time.Second)
		ended := make(chan error)
		go func() {
			_, err := beat(tr, 3)
			ended <- err
		}()
		time.Sleep(time.Minute)
		select {
		case err := <-ended:
			t.Errorf("answered: %v", err)
		default:
		}
		tr.Close()
		if err := <-ended; !errors.Is(err, raft.ErrTransportShutdown) {
			t.Error(err)
		}
	})
}

type heard struct {
	raft.AppendEntriesResponse
	asked time.Time
}

// beat is a heartbeat as the transport hands it on.
func beat(tr *transport, term uint64) (heard, error) {
	answers := make(chan raft.RPCResponse, 1)
	h := heard{asked: time.Now()}
	go tr.heartbeat(raft.RPC{Command: &raft.AppendEntriesRequest{Term: term}, RespChan: answers})
	a := <-answers
	if r, ok := a.Response.(*raft.AppendEntriesResponse); ok && r != nil {
		h.AppendEntriesResponse = *r
	}
	return h, a.Error
}

func newTestTransport(patience time.Duration) *transport {
	return newTransport(&raft.NetworkTransportConfig{Logger: &quiet{to: slog.New(slog.DiscardHandler)}, Stream: silentStream{make(chan struct{})}, MaxPool: 1, Timeout: time.Second}, &gate{}, patience)
}

// silentStream is a network on which nobody calls.
type silentStream struct{ closed chan struct{} }

func (s silentStream) Accept() (net.Conn, error) {
	<-s.closed
	return nil, net.ErrClosed
}

func (s silentStream) Close() error {
	close(s.closed)
	return nil
}

func (s silentStream) Addr() net.Addr { return memberAddr("silent") }

func (s silentStream) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	return nil, net.ErrClosed
}
