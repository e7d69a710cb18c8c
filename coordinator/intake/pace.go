package intake

import (
	"context"
	"sync"
	"time"
)

// tempo is how slowly a stream may come.
type tempo struct {
	wait   time.Duration // for the next message
	window time.Duration // whenever so much time was waited for the sender, at least so many bytes have come
	least  int
	total  time.Duration // for the whole stream
}

// paceTick is the grain in which the time that is waited is counted: ticks that fall into this side's own work are lost,
// so a slow disk here is not held against the sender.
const paceTick = time.Second

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
	wait, tick, total := time.NewTimer(t.wait), time.NewTicker(paceTick), time.NewTimer(t.total)
	got, waited := 0, time.Duration(0)
	read = func() (T, error) {
		var none T
		wait.Reset(t.wait)
		for {
			select {
			case m := <-messages:
				if m.err == nil {
					got += size(m.value)
				}
				return m.value, m.err
			case <-tick.C:
				if waited += paceTick; waited < t.window {
					continue
				}
				if got < t.least {
					return none, refuse(CodeSlow, "fewer than %d bytes within %s", t.least, t.window)
				}
				got, waited = 0, 0
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
		tick.Stop()
		total.Stop()
	})
}
