package intake

import (
	"context"
	"sync"
	"time"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
)

// batcher gathers Accepts into one log entry: at most acceptBatchMax, at most acceptDelay after the first.
type batcher struct {
	log    Log
	wg     sync.WaitGroup
	mu     sync.Mutex // guards what follows
	open   *batch     // takes items until it is full or its timer fires
	closed bool
}

type batch struct {
	items    [][]byte
	done     chan struct{} // closed when outcomes and err are set
	outcomes []*coordpb.Outcome
	err      error
	once     sync.Once
}

// proposeTimeout outlives one failover of the log; the Accept is idempotent, so the device may ask again.
const proposeTimeout = 20 * time.Second

func newBatcher(log Log) *batcher { return &batcher{log: log} }

// close takes no more items and waits for the batches in flight.
func (b *batcher) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.wg.Wait()
}

// propose adds an item to the open batch and waits for its outcome.
func (b *batcher) propose(ctx context.Context, item []byte) (*coordpb.Outcome, error) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil, refuse(CodeUnavailable, "this member is stopping")
	}
	if b.open == nil {
		t := &batch{done: make(chan struct{})}
		b.open = t
		b.wg.Add(1)
		time.AfterFunc(acceptDelay, func() { b.flush(t) })
	}
	t := b.open
	at := len(t.items)
	t.items = append(t.items, item)
	if len(t.items) == acceptBatchMax {
		b.open = nil
		go b.flush(t)
	}
	b.mu.Unlock()
	select {
	case <-t.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if t.err != nil {
		return nil, t.err
	}
	if at >= len(t.outcomes) {
		return nil, refuse(CodeUnavailable, "the log answered %d of %d accepts", len(t.outcomes), len(t.items))
	}
	return t.outcomes[at], nil
}

// flush proposes a batch once; the timer and a full batch may both ask for it.
func (b *batcher) flush(t *batch) {
	t.once.Do(func() {
		b.mu.Lock()
		if b.open == t {
			b.open = nil
		}
		items := t.items
		b.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), proposeTimeout)
		defer cancel()
		t.outcomes, t.err = b.log.Propose(ctx, &coordpb.Command{Command: &coordpb.Command_Accepts{Accepts: &coordpb.AcceptBatch{Items: items}}})
		close(t.done)
		b.wg.Done()
	})
}
