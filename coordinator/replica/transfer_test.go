package replica

import (
	"context"
	"testing"
	"time"
)

// BenchmarkLeadershipTransfer is a planned stop as devices feel it: from the moment that the leader hands over to the next
// command that is committed, wherever it is.
func BenchmarkLeadershipTransfer(b *testing.B) {
	c := newCluster(b, 4, nil)
	c.leader()
	for b.Loop() {
		b.StopTimer()
		_, old := c.leader()
		b.StartTimer()
		if err := old.Transfer(b.Context()); err != nil {
			b.Fatal(err)
		}
		for committed := false; !committed; {
			for _, m := range c.alive() {
				if !m.IsLeader() {
					continue
				}
				ctx, cancel := context.WithTimeout(b.Context(), time.Second)
				_, _, err := m.Propose(ctx, []byte("on"))
				cancel()
				if committed = err == nil; committed {
					break
				}
			}
			if !committed {
				time.Sleep(time.Millisecond)
			}
		}
	}
}
