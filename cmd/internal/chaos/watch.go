package main

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ruche-federation/ruche/cmd/internal/consortium"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/crypto/label"
)

// recorder keeps what members say of rounds, before they forget the details.
type recorder struct {
	c *consortium.Consortium

	mu     sync.Mutex // guards what follows
	rounds map[label.Hash][]Said
	ended  map[place]bool // recorded in full after its end
	newest uint64
}

type place struct {
	member int
	round  label.Hash
}

func newRecorder(c *consortium.Consortium) *recorder {
	return &recorder{c: c, rounds: map[label.Hash][]Said{}, ended: map[place]bool{}}
}

// run records until the context ends, each member at its own pace: one that hangs holds up nobody.
func (r *recorder) run(ctx context.Context) {
	var wg sync.WaitGroup
	for i := range r.c.Clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				r.ask(ctx, i, false)
				select {
				case <-ctx.Done():
				case <-time.After(recordEvery):
				}
			}
		})
	}
	wg.Wait()
}

// ask records what one member says of rounds that have ended since, and of those that go on if all is true.
func (r *recorder) ask(ctx context.Context, member int, all bool) error {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	list, err := r.c.Clients[member].ListRounds(ctx, &coordpb.ListRoundsRequest{})
	if err != nil {
		return err
	}
	for _, line := range list.GetRounds() {
		id, err := label.HashFromBytes(line.GetRoundId())
		if err != nil {
			return err
		}
		over := line.GetPhase() == round.Published.String() || line.GetPhase() == round.Dead.String()
		r.mu.Lock()
		known := r.ended[place{member, id}]
		r.newest = max(r.newest, line.GetSeq())
		r.mu.Unlock()
		if known || !all && !over {
			continue
		}
		record, err := r.c.Clients[member].GetRound(ctx, &coordpb.GetRoundRequest{RoundId: id[:]})
		if err != nil {
			return err
		}
		r.mu.Lock()
		r.rounds[id] = append(r.rounds[id], Said{member, record})
		r.ended[place{member, id}] = terminal(record)
		r.mu.Unlock()
	}
	return nil
}

// said is a copy of what was recorded.
func (r *recorder) said() map[label.Hash][]Said {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := maps.Clone(r.rounds)
	for id, s := range out {
		out[id] = slices.Clone(s)
	}
	return out
}

// seq is the newest round's.
func (r *recorder) seq() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newest
}
