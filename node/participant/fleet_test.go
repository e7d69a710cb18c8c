package participant

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// TestAFleetWithoutLeader: devices upload while the consortium has no leader for 15 s, and one member is down all along.
// No device hears an error, no device sends other bytes than its first, their tries do not gather at one moment, and each
// ends with exactly one accepted contribution. In virtual time.
func TestAFleetWithoutLeader(t *testing.T) {
	const fleet, without = 48, 15 * time.Second
	synctest.Test(t, func(t *testing.T) {
		c := newConsortium(t, nil)
		c.alter(func() { c.now = time.Now() })
		rc := c.show(c.config(taskMean, 1, nil))
		began := time.Now()
		var mu sync.Mutex // guards what follows
		tries := map[label.Hash][]time.Duration{}
		accepted := map[label.Hash]map[label.Hash]bool{}
		c.bend(func(member int, _ *coordpb.CheckInResponse) error {
			if member == 3 {
				return status.Error(codes.Unavailable, "down")
			}
			return nil
		})
		c.decide(func(r received) (*coordpb.UploadResponse, error) {
			h, err := statement.ParseHeader(r.open.GetHeader().GetBody())
			if err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			at := time.Since(began)
			tries[h.Device] = append(tries[h.Device], at)
			if r.member == 3 {
				return nil, status.Error(codes.Unavailable, "down")
			}
			if at < without {
				return nil, status.Error(codes.Unavailable, "no leader is known")
			}
			if accepted[h.Device] == nil {
				accepted[h.Device] = map[label.Hash]bool{}
			}
			accepted[h.Device][statement.HashHeader(r.open.GetHeader().GetBody())] = true
			return c.receipts(r.open, 0, 1, 2), nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for i := range fleet {
			d := c.device(taskMean)
			d.cfg.Rand = rand.NewChaCha8([32]byte{byte(i), 7})
			d.cfg.Now = time.Now
			p := d.start()
			running.Go(func() {
				for {
					wait, err := p.Step(ctx)
					if ctx.Err() != nil {
						return
					}
					if err != nil {
						t.Errorf("device %d hears: %v", i, err)
					}
					if kinds(p) == "contribution ack" {
						return
					}
					time.Sleep(wait)
				}
			})
		}
		running.Wait()
		cancel()
		if len(accepted) != fleet {
			t.Fatalf("%d devices of %d are in the round %d", len(accepted), fleet, rc.Seq)
		}
		// After the leader is back the tries spread over the bound of the jitter: no half second has a third of them.
		back := map[int]int{}
		last := time.Duration(0)
		for device, list := range tries {
			if len(accepted[device]) != 1 {
				t.Errorf("a device has %d accepted contributions", len(accepted[device]))
			}
			at := list[len(list)-1]
			back[int((at-without)/(500*time.Millisecond))]++
			last = max(last, at)
		}
		for slot, n := range back {
			if n > fleet/3 {
				t.Errorf("%d of %d devices come back in half second %d after the leader: %v", n, fleet, slot, back)
			}
		}
		if last > without+4*retryMax {
			t.Errorf("the last one comes %s after the leader", last-without)
		}
	})
}

// TestAMemberThatShedsIsLeftAlone for as long as it asked, while the others are tried.
func TestAMemberThatShedsIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConsortium(t, nil)
		c.alter(func() { c.now = time.Now() })
		c.show(c.config(taskMean, 1, nil))
		shed, err := status.New(codes.ResourceExhausted, "busy").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(20 * time.Second)})
		must(t, err)
		began := time.Now()
		at := map[int][]time.Duration{}
		c.decide(func(r received) (*coordpb.UploadResponse, error) {
			at[r.member] = append(at[r.member], time.Since(began))
			if time.Since(began) < time.Minute {
				return nil, shed.Err()
			}
			return c.receipts(r.open, 0, 1, 2), nil
		})
		d := c.device(taskMean)
		d.cfg.Now = time.Now
		step(t, d.start())
		for member, tries := range at {
			for i := 1; i < len(tries); i++ {
				if gap := tries[i] - tries[i-1]; gap < 20*time.Second {
					t.Errorf("member %d hears again after %s", member, gap)
				}
			}
		}
		if len(at) < 4 {
			t.Errorf("members asked: %v", at)
		}
	})
}

// TestTheAskedWaitSurvivesARestart: a member asked for a minute, and the device is started again and again.
func TestTheAskedWaitSurvivesARestart(t *testing.T) {
	c := newConsortium(t, nil)
	least := int64(60_000)
	c.bend(func(_ int, r *coordpb.CheckInResponse) error {
		r.Retry = &coordpb.RetryWindow{DelayMinMs: least, DelayMaxMs: 2 * least}
		return nil
	})
	d := c.device(taskMean)
	d.cfg.Logger = slog.New(slog.DiscardHandler)
	first := d.start()
	step(t, first)
	must(t, first.Close())
	for range 3 {
		c.wait(15 * time.Second)
		p := d.start()
		wait, err := p.Step(t.Context())
		must(t, err)
		if wait > time.Minute {
			t.Errorf("waits for %s", wait)
		}
		must(t, p.Close())
	}
	if n := len(c.order()); n != 1 {
		t.Fatalf("%d check-ins within the minute", n)
	}
	c.wait(16 * time.Second)
	p := d.start()
	step(t, p)
	must(t, p.Close())
	if n := len(c.order()); n != 2 {
		t.Errorf("%d check-ins after the minute", n)
	}
	// What is written there can be damaged, or from a clock that was wrong: it costs one early check-in.
	for i, b := range []string{"x", fmt.Sprint(c.clock().Add(48 * time.Hour).UnixMilli())} {
		must(t, os.WriteFile(p.pacePath(), []byte(b), 0o600))
		q := d.start()
		step(t, q)
		must(t, q.Close())
		if n := len(c.order()); n != 3+i {
			t.Errorf("%q: %d check-ins", b, n)
		}
	}
}
