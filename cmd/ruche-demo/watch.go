package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/ruche-federation/ruche/cmd/internal/consortium"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
)

const (
	pollEvery  = 150 * time.Millisecond
	roundLimit = 3 * time.Minute // a round that makes no step for so long is stuck
)

// watcher follows the rounds, shows progress, and kills the leader where it was told to.
type watcher struct {
	c          *consortium.Consortium
	devices    []*device
	rounds     int
	target     int
	killRound  int
	keep       bool
	say        func(string)
	leaders    map[uint64]string // who led when the round was first seen open
	killed     map[uint64]bool
	down       int // the member that was killed and not started again, or -1
	records    map[uint64]*coordpb.RoundRecord
	lastChange time.Time
	lastSeen   int
}

// follow returns when all rounds have ended, with their records.
func (w *watcher) follow(ctx context.Context) error {
	w.down, w.lastChange = -1, time.Now()
	w.leaders, w.killed, w.records = map[uint64]string{}, map[uint64]bool{}, map[uint64]*coordpb.RoundRecord{}
	phase := ""
	for {
		if err := w.c.Failed(); err != nil {
			return err
		}
		for _, d := range w.devices {
			if err := d.process.Failed(); err != nil {
				return err
			}
		}
		list, err := w.c.Rounds(ctx)
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && len(list) > 0 {
			if p := consortium.Progress(list); p != w.lastSeen {
				w.lastSeen, w.lastChange = p, time.Now()
			}
			newest := list[len(list)-1]
			if now := fmt.Sprintf("round %d of %d: %-9s %d/%d contributions", newest.GetSeq(), w.rounds, newest.GetPhase(), newest.GetAccepted(), w.target); now != phase && int(newest.GetSeq()) <= w.rounds {
				phase = now
				w.say(now)
			}
			if err := w.visit(ctx, list); err != nil {
				return err
			}
			if w.done(list) {
				return nil
			}
		}
		if time.Since(w.lastChange) > roundLimit {
			return fmt.Errorf("nothing has moved for %s; the last was %s", roundLimit, phase)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollEvery):
		}
	}
}

// visit keeps what is needed of each round before members forget it, and does the killing.
func (w *watcher) visit(ctx context.Context, list []*coordpb.RoundSummary) error {
	newest := list[len(list)-1]
	seq := newest.GetSeq()
	if _, ok := w.leaders[seq]; !ok {
		if i, err := w.c.Leader(ctx); err == nil {
			w.leaders[seq] = w.c.Charter.Members[i].Name
		}
	}
	if w.down >= 0 && int(seq) > w.killRound && newest.GetPhase() != "proposed" {
		w.say("starting " + w.c.Members[w.down].Name + " again")
		if err := w.c.Members[w.down].Start(); err != nil {
			return err
		}
		w.down = -1
	}
	if w.killRound > 0 && int(seq) == w.killRound && !w.killed[seq] && newest.GetPhase() == "open" && 2*int(newest.GetAccepted()) >= w.target {
		if i, err := w.c.Leader(ctx); err == nil {
			w.say(fmt.Sprintf("killing the leader, %s (SIGKILL), with %d of %d contributions acknowledged", w.c.Members[i].Name, newest.GetAccepted(), w.target))
			w.c.Members[i].Kill()
			w.killed[seq], w.down = true, i
			w.leaders[seq] = w.c.Charter.Members[i].Name
		}
	}
	for _, r := range list {
		if w.records[r.GetSeq()] != nil || r.GetPhase() != "published" && r.GetPhase() != "dead" {
			continue
		}
		record, err := w.c.Record(ctx, r.GetRoundId())
		if err != nil {
			continue // asked again at the next poll
		}
		if record.GetPhase() == r.GetPhase() {
			w.records[r.GetSeq()] = record
			w.say(fmt.Sprintf("round %d of %d: %s with %d contributions, adapter %.16s…", r.GetSeq(), w.rounds, r.GetPhase(), r.GetContributors(), hex.EncodeToString(r.GetModelHash())))
		}
	}
	return nil
}

// done reports whether every round has ended and every device has measured the last one's adapter.
func (w *watcher) done(list []*coordpb.RoundSummary) bool {
	ended := 0
	var lastPublished uint64
	for seq, r := range w.records {
		ended++
		if r.GetPhase() == "published" {
			lastPublished = max(lastPublished, seq)
		}
	}
	if ended < w.rounds {
		return false
	}
	done := true
	for _, d := range w.devices {
		switch {
		case !d.measured(lastPublished):
			done = false
		case !w.keep && !d.stopping:
			// The next round has begun: there is no need to train for it.
			d.stopping = true
			go func() { _ = d.process.Stop(8 * time.Second) }() // killed otherwise
		}
	}
	return done
}
