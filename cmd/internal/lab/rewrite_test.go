package lab

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
)

// closed is a ruled federation of (4,1) whose round is closed in the one log, with nobody's ack.
func closed(t *testing.T) (*Federation, *Liar, round.View) {
	t.Helper()
	f, l := ruled(t, 4, 1, Options{Devices: 5})
	f.Begin()
	until(t, f, round.Open)
	everybody(t, f, f.Devices...)
	v, _ := f.Round()
	for f.phaseIn(f.log(), v.ID).Phase == round.Open {
		must(t, l.Drive(f.log()))
		f.Advance(time.Second)
	}
	return f, l, f.phaseIn(f.log(), v.ID)
}

// guarded is the index up to which a member has made durable what it applied.
func (s *Seat) guarded() (index uint64) {
	s.f.holding(func() { index = s.ensured() })
	return index
}

// work lets members work, one after the other, each with all of its log, within one second of their clocks.
func work(t testing.TB, f *Federation, members ...int) {
	t.Helper()
	for _, j := range members {
		must(t, f.settle())
		must(t, f.turn(f.Seats[j]))
	}
}

// votesOf lists what a member has voted in a log.
func votesOf(v round.View, member int) (out []*statement.Vote) {
	for _, s := range v.Votes {
		if b, err := statement.ParseVote(s.Statement.Body); err == nil && s.Member == member {
			out = append(out, b)
		}
	}
	return out
}

// TestEntriesTakenBack: a leader shows a member a decision, hears its vote, and takes the entries back that the member
// has applied and not made durable. Its vote file holds: in the log in which the round is dead it does not vote again.
// What it has made durable its log does not let go of.
func TestEntriesTakenBack(t *testing.T) {
	f, l, v := closed(t)
	a, seat := f.log(), f.Seats[1]
	work(t, f, 1, 0, 2, 3) // acks, the others' after member 1's
	guarded := seat.guarded()
	work(t, f, 1)
	if seat.guarded() != guarded || len(votesOf(f.phaseIn(a, v.ID), 1)) != 1 {
		t.Fatalf("member 1 has %d votes in the log and has made %d entries durable, before the decision %d", len(votesOf(f.phaseIn(a, v.ID), 1)), seat.guarded(), guarded)
	}
	seat.Crash()
	if err := seat.Show(f.Fork(a, guarded-1)); !errors.As(err, new(*rewriteError)) {
		t.Errorf("the log lets go of what was durable: %v", err)
	}
	b := f.Fork(a, guarded)
	must(t, seat.Show(b))
	if got := l.code(b, round.TickCommand(v.Config.AckMs+1)); got != round.OK {
		t.Fatal(got)
	}
	must(t, seat.Restart(false))
	for range 40 { // an alarm is tried again after a while
		must(t, f.Step())
	}
	if d := f.phaseIn(b, v.ID).Decision; d != statement.Dead() {
		t.Fatalf("the second log decides %s", d)
	}
	if n := len(votesOf(f.phaseIn(b, v.ID), 1)); n != 0 {
		t.Errorf("member 1 has voted %d times more", n)
	}
	must(t, f.Finish())
}

// TestSnapshots: what a leader sends a running member as a snapshot the member holds against itself: not an older one,
// not one in which its vote was another, and none that lacks an Accept that it gave a receipt for, before a restart and
// after. Each refusal is the member's own, and stops it.
func TestSnapshots(t *testing.T) {
	refuses := func(t *testing.T, f *Federation, h *history, index uint64, why string) {
		t.Helper()
		if err := f.Seats[1].Install(h, index); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("the snapshot: %v", err)
		}
		if f.Seats[1].running() {
			t.Error("the member goes on")
		}
		must(t, f.Seats[1].Restart(true))
	}
	t.Run("older", func(t *testing.T) {
		t.Parallel()
		f, _, v := closed(t)
		work(t, f, 1)
		must(t, f.settle())
		refuses(t, f, f.log(), f.Last(f.log())-1, "has applied")
		must(t, f.Seats[1].Install(f.log(), f.Last(f.log())))
		for range 25 {
			must(t, f.Step())
		}
		if end := everywhere(t, f, v.ID); end != "published" {
			t.Errorf("the round is %s", end)
		}
		must(t, f.Finish())
	})
	t.Run("without a receipted contribution", func(t *testing.T) {
		t.Parallel()
		f, l, _ := closed(t)
		work(t, f, 1)
		a := f.log()
		var accepts []uint64
		f.holding(func() {
			for _, x := range a.trace.order[0].accepts {
				accepts = append(accepts, x.index)
			}
		})
		for _, before := range accepts {
			b := f.Fork(a, before-1)
			must(t, l.Relay(a, b, before, func(cmd *coordpb.Command) bool { return true })) // all but that one, at other places
			must(t, l.Pad(a, b))
			refuses(t, f, b, f.Last(b), "receipt")
			must(t, f.settle())
			must(t, f.Check())
		}
		must(t, f.Finish())
	})
	t.Run("in which it has not voted", func(t *testing.T) {
		t.Parallel()
		f, l, v := closed(t)
		a := f.log()
		b := f.Fork(a, f.Last(a))
		work(t, f, 1, 0, 2, 3, 1)
		if len(votesOf(f.phaseIn(a, v.ID), 1)) != 1 {
			t.Fatal("member 1 has not voted")
		}
		l.code(b, round.TickCommand(v.Config.AckMs+1))
		must(t, l.Pad(a, b))
		must(t, f.Seats[1].Install(b, f.Last(b))) // every receipt stands in it, so it may be an honest leader's
		for range 40 {
			must(t, f.Step())
		}
		if x := f.phaseIn(b, v.ID); x.Decision != statement.Dead() || len(votesOf(x, 1)) != 0 {
			t.Errorf("member 1 has voted %d times in a log that decides %s", len(votesOf(x, 1)), x.Decision)
		}
		must(t, f.Finish())
	})
	t.Run("in which it has signed no round", func(t *testing.T) {
		t.Parallel()
		f, l := ruled(t, 4, 1, Options{Devices: 4})
		a := f.log()
		b := f.Fork(a, f.Last(a))
		f.Begin()
		must(t, l.Drive(a))
		work(t, f, 1)
		f.Advance(time.Second)
		must(t, l.Drive(b))
		must(t, l.Pad(a, b))
		must(t, f.Seats[1].Install(b, f.Last(b)))
		for range 40 {
			must(t, f.Step()) // two configs of one seq are not signed, which judgeRoundSignature sees
		}
		must(t, f.Finish())
	})
}

// TestRestoredBackup: a member votes in one log and comes back from a backup in another, with everything but its epochs.
// Without its old keys it says nothing of the round; with new ones it is no part of it.
func TestRestoredBackup(t *testing.T) {
	f, l, v := closed(t)
	a, seat := f.log(), f.Seats[1]
	work(t, f, 1, 0, 2, 3)
	guarded := seat.guarded()
	work(t, f, 1)
	seat.Crash()
	must(t, seat.LoseEpochs())
	b := f.Fork(a, guarded)
	must(t, seat.Show(b))
	l.code(b, round.TickCommand(v.Config.AckMs+1))
	must(t, seat.Restart(false))
	m := newMirror(l, a, b)
	for range 40 {
		must(t, f.Step())
		m.pass(t, "vote", "expired", "reveal")
	}
	f.Advance(CloseAfter + AckAfter + RevealAfter)
	for range 5 {
		must(t, f.Step())
		m.pass(t, "vote", "expired", "reveal")
	}
	x := f.phaseIn(b, v.ID)
	for _, s := range x.Expired {
		if s.Member == 1 {
			t.Error("member 1 says under a lost key that it never revealed")
		}
	}
	if n := len(votesOf(x, 1)); n > 1 {
		t.Errorf("member 1 has %d votes", n)
	}
	if x.Death == round.Certified {
		t.Error("the death is certain without the one member that cannot say so")
	}
	must(t, f.Finish())
}
