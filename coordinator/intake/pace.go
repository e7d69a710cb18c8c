package intake

import (
	"context"
	"sync"
	"time"
)

// tempo is how slowly a stream may come.
type tempo struct {
	wait   time.Duration // for the next message
	window time.Duration // in every window at least so many bytes
	least  int
	total  time.Duration // for the whole stream
}

// paced reads a stream in a goroutine of its own, so that a sender that stalls can be given up: gRPC's Recv has no
// deadline but the call's. The goroutine ends when next fails, which it does when the call ends, or at the message after
// stop. After an error nothing more is to be read.
func paced[T any](ctx context.Context, t tempo, next func() (T, error), size func(T) int) (read func() (T, error), stop func()) {
	type message struct {
		value T
		err   error
	}
	messages, done := make(chan message), make(chan struct{})
	go func() {
		for {
			v, err := next()
			select {
			case messages <- message{v, err}:
			case <-done:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	wait, window, total := time.NewTimer(t.wait), time.NewTicker(t.window), time.NewTimer(t.total)
	got := 0
	read = func() (T, error) {
		var none T
		wait.Reset(t.wait)
		take := func(m message) (T, error) {
			if m.err == nil {
				got += size(m.value)
			}
			return m.value, m.err
		}
		for {
			select {
			case m := <-messages:
				return take(m)
			case <-window.C:
				enough := got >= t.least
				got = 0
				if enough {
					continue
				}
				select {
				case m := <-messages: // it was this side that was slow
					return take(m)
				default:
					return none, refuse(CodeSlow, "fewer than %d bytes within %s", t.least, t.window)
				}
			case <-wait.C:
				return none, refuse(CodeSlow, "nothing for %s", t.wait)
			case <-total.C:
				return none, refuse(CodeSlow, "not complete within %s", t.total)
			case <-ctx.Done():
				return none, ctx.Err()
			}
		}
	}
	return read, sync.OnceFunc(func() {
		close(done)
		wait.Stop()
		window.Stop()
		total.Stop()
	})
}
