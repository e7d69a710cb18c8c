package intake

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
)

// countingLog counts and delays what is proposed.
type countingLog struct {
	mu      sync.Mutex
	batches []int
	hold    chan struct{}
	err     error
}

func (l *countingLog) Propose(_ context.Context, cmd *coordpb.Command) ([]*coordpb.Outcome, error) {
	items := cmd.GetAccepts().GetItems()
	l.mu.Lock()
	l.batches = append(l.batches, len(items))
	l.mu.Unlock()
	if l.hold != nil {
		<-l.hold
	}
	if l.err != nil {
		return nil, l.err
	}
	var out []*coordpb.Outcome
	for _, b := range items {
		out = append(out, &coordpb.Outcome{Code: codeOK, Detail: string(b)})
	}
	return out, nil
}

// TestBatches: full batches go at once, the rest after a short while; everybody gets the answer to its own item.
func TestBatches(t *testing.T) {
	for _, c := range []struct {
		items int
		want  []int
		after time.Duration
	}{{1, []int{1}, acceptDelay}, {acceptBatchMax, []int{acceptBatchMax}, 0}, {2*acceptBatchMax + 3, []int{acceptBatchMax, acceptBatchMax, 3}, acceptDelay}} {
		synctest.Test(t, func(t *testing.T) {
			log := &countingLog{}
			b := newBatcher(log)
			start := time.Now()
			var wg sync.WaitGroup
			for i := range c.items {
				wg.Go(func() {
					o, err := b.propose(t.Context(), []byte(fmt.Sprint(i)))
					if err != nil || o.GetDetail() != fmt.Sprint(i) {
						t.Errorf("item %d: %v, %v", i, o, err)
					}
				})
			}
			wg.Wait()
			if took := time.Since(start); took != c.after {
				t.Errorf("%d items took %s, want %s", c.items, took, c.after)
			}
			if fmt.Sprint(log.batches) != fmt.Sprint(c.want) {
				t.Errorf("%d items went as %v", c.items, log.batches)
			}
			b.close()
			_, err := b.propose(t.Context(), nil)
			wantCode(t, err, CodeUnavailable)
		})
	}
}

// TestBatchFails: an error goes to all; who does not wait any more does not spoil it for the others.
func TestBatchFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &countingLog{err: errors.New("no leader"), hold: make(chan struct{})}
		b := newBatcher(log)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				c := t.Context()
				want := log.err
				if i == 0 {
					c, want = ctx, context.Canceled
				}
				if _, err := b.propose(c, []byte("x")); !errors.Is(err, want) {
					t.Errorf("item %d: %v", i, err)
				}
			})
		}
		time.Sleep(2 * acceptDelay)
		cancel()
		synctest.Wait()
		close(log.hold)
		wg.Wait()
		b.close()
	})
}

// shortLog answers too little.
type shortLog struct{}

func (shortLog) Propose(context.Context, *coordpb.Command) ([]*coordpb.Outcome, error) {
	return nil, nil
}

func TestShortAnswer(t *testing.T) {
	b := newBatcher(shortLog{})
	defer b.close()
	_, err := b.propose(t.Context(), []byte("x"))
	wantCode(t, err, CodeUnavailable)
}
