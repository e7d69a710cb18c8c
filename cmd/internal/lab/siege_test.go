package lab

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// TestSiege: a leader that lies, with liars beside it up to f, does what chance says, step after step, to members that
// die, come back, and come back from backups. No progress is asked for; every invariant is, and that nothing
// acknowledged is lost. By the seed it begins before there is a round, when one is to be closed, when two logs decide one
// differently, or when one has its certificate: what it does has to be done to rounds that are published too, and to some
// that are decided in two ways. RUCHE_LAB=all and RUCHE_LAB_SEEDS run more of it.
func TestSiege(t *testing.T) {
	seeds, steps := 4, 25
	if testing.Short() {
		seeds = 1
	}
	if everything {
		seeds, steps = 100, 40
	}
	if n, err := strconv.Atoi(os.Getenv("RUCHE_LAB_SEEDS")); err == nil {
		seeds = n
	}
	committees := []struct{ n, f int }{{3, 1}, {4, 1}, {7, 2}}
	var mu sync.Mutex // guards all
	var all []map[string]int
	t.Cleanup(func() {
		if t.Failed() || seeds < 4 || len(all) < seeds*len(committees) {
			return // not every beginning was there, or some were chosen by hand
		}
		for _, fate := range []string{round.Published.String(), twoWays} {
			if !slices.ContainsFunc(all, func(fates map[string]int) bool { return fates[fate] > 0 }) {
				t.Errorf("in %d sieges no round was %s", len(all), fate)
			}
		}
	})
	for _, s := range committees {
		for seed := range seeds {
			t.Run(fmt.Sprintf("(%d,%d) %d", s.n, s.f, seed), func(t *testing.T) {
				t.Parallel()
				b := besiege(t, s.n, s.f, uint64(1000*s.n+seed+1))
				for range steps {
					b.step(t)
				}
				must(t, b.f.Finish())
				fates := b.fates()
				mu.Lock()
				all = append(all, fates)
				mu.Unlock()
				t.Logf("%d steps, %d turns, %d logs, %d lies, %d vectors fetched; rounds: %v", b.f.Steps(), b.f.Turns(), b.f.logs(), b.told, len(b.f.Served()), fates)
			})
		}
	}
}

// siege is a federation and what chance makes its liars do.
type siege struct {
	f      *Federation
	liars  []*Liar
	chance *rand.Rand
	told   int
	full   map[label.Hash]bool // rounds whose devices it has waited for

	twoWays map[label.Hash]bool // rounds that two logs, both read by members, decided differently
}

func besiege(t *testing.T, n, faulty int, seed uint64) *siege {
	t.Helper()
	f, leader := ruled(t, n, faulty, Options{Devices: 5, NMax: 8, Window: "1m", Seed: seed})
	b := &siege{f: f, chance: rand.New(rand.NewPCG(seed, 7)), full: map[label.Hash]bool{}, twoWays: map[label.Hash]bool{}}
	for _, s := range f.Seats {
		if s.Liar() != nil {
			b.liars = append(b.liars, s.Liar())
		}
	}
	f.Begin()
	if at := seed % 4; at > 0 { // else it begins before there is a round
		v := until(t, f, round.Open)
		must(t, f.Contribute(f.Devices...))
		f.Advance(CloseAfter)
		b.full[v.ID] = true
		switch at {
		case 2:
			b.tear(t, leader)
		case 3:
			until(t, f, round.Sealed)
		}
	}
	f.opts.Patience = 100 * time.Millisecond
	return b
}

// tear closes the round, which is then decided in two ways in two logs: for all devices in one; in the other, as chance
// has it, without one of them, or for DEAD as its time has run.
func (b *siege) tear(t testing.TB, leader *Liar) {
	t.Helper()
	for _, l := range b.liars {
		l.says("ack", func(*coordpb.Command) []*coordpb.Command { return nil })
	}
	v := acked(t, b.f, leader)
	honest := (v.Config.Listed() &^ b.f.liars()).Members()
	some := b.chance.Perm(len(honest))[:1+b.chance.IntN(len(honest)-1)]
	for i, at := range some {
		some[i] = honest[at]
	}
	one, other := split(t, b.f, some...)
	var closing *statement.Close
	b.f.holding(func() { closing, _ = one.observer.Close(v.ID, v.Closes[0].Hash) })
	refused := b.chance.IntN(2 * v.Accepted) // of nobody, as often as not
	for _, l := range b.liars {
		l.Behave(func(m *Manner) { *m = Manner{} })
		l.code(one, l.Ack(v.Config, closing, v.Accepted, func(int) statement.Verdict { return statement.OK }))
		if refused < v.Accepted {
			l.code(other, l.Ack(v.Config, closing, v.Accepted, func(i int) statement.Verdict {
				if i == refused {
					return statement.Missing
				}
				return statement.OK
			}))
		}
	}
	if refused >= v.Accepted {
		l := b.liars[0]
		l.code(other, round.TickCommand(v.Config.AckMs+1000))
	}
	if one, _ := b.torn(); one == nil {
		t.Fatal("the round is not decided in two ways")
	}
}

func (b *siege) often(percent int) bool { return b.chance.IntN(100) < percent }

// log is one that somebody reads.
func (b *siege) log() *history {
	logs := b.f.shown()
	return logs[b.chance.IntN(len(logs))]
}

func (b *siege) liar() *Liar { return b.liars[b.chance.IntN(len(b.liars))] }

// honest is a member that does not lie.
func (b *siege) honest() *Seat {
	for {
		if s := b.f.Seats[b.chance.IntN(len(b.f.Seats))]; s.Liar() == nil {
			return s
		}
	}
}

// step is one step in which anything may happen.
func (b *siege) step(t testing.TB) {
	t.Helper()
	f := b.f
	if b.often(15) {
		b.split()
	}
	if b.often(6) {
		b.honest().Crash()
	}
	if s := b.honest(); !s.running() && b.often(60) {
		if b.often(25) {
			must(t, s.LoseEpochs())
		}
		if b.often(30) {
			_ = s.Show(b.log()) // its log may refuse
		}
		if err := s.Restart(b.often(50)); err != nil {
			must(t, s.Restart(false))
		}
	}
	if b.often(10) {
		if b.often(70) {
			must(t, b.liar().Pad(f.shown()...))
		}
		h := b.log()
		index := f.Last(h)
		if b.often(20) {
			index = uint64(1 + b.chance.IntN(int(index)))
		}
		_ = b.honest().Install(h, index) // it may refuse, and stops
	}
	if one, other := b.torn(); one != nil && b.often(40) { // whoever has voted by the one is shown the other
		must(t, b.liar().Pad(f.shown()...))
		if s := b.honest(); s.reads() == one {
			_ = s.Install(other, f.Last(other))
		}
	}
	b.honest().Held = b.often(10)
	b.honest().Pace = uint64(b.chance.IntN(3))
	for range b.chance.IntN(3) {
		b.lie(t)
	}
	if v := b.newest(); v.Phase == round.Open && b.often(40) {
		for _, d := range f.Devices {
			if !d.Acked(v.ID) && b.often(60) {
				_ = f.Contribute(d) // what goes wrong for a device is not looked at
				must(t, f.Check())
			}
		}
		if !b.full[v.ID] && b.often(50) {
			b.full[v.ID] = true
			f.Advance(CloseAfter)
		}
	} else if v.Phase.Terminal() {
		f.Advance(time.Minute)
	}
	switch {
	case b.often(1):
		f.Advance(7 * time.Hour)
	case b.often(3):
		f.Advance(CloseAfter + AckAfter + RevealAfter)
	case b.often(1):
		f.Advance(AckAfter)
	}
	must(t, f.Step())
}

// torn gives two logs that are read and decide one round in two ways, if there are any.
func (b *siege) torn() (one, other *history) {
	shown := b.f.shown()
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	for _, h := range shown {
		for _, v := range h.observer.Rounds() {
			for _, o := range shown {
				if w, ok := o.observer.Round(v.ID); ok && v.Decided && w.Decided && v.Decision != w.Decision {
					b.twoWays[v.ID] = true
					return h, o
				}
			}
		}
	}
	return nil, nil
}

// newest is the newest round of some log.
func (b *siege) newest() round.View {
	h := b.log()
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	v, _ := h.observer.Newest(TaskID)
	return v
}

// split shows some members another log, of at most four that differ.
func (b *siege) split() {
	f := b.f
	from := b.log()
	at := f.Last(from)
	at -= min(uint64(b.chance.IntN(4)), at-1)
	to := b.log()
	if len(f.shown()) < 4 && b.often(70) {
		to = f.Fork(from, at)
	}
	for _, s := range f.Seats {
		if s.Liar() == nil && b.often(50) {
			_ = s.Show(to) // its log may refuse
		}
	}
}

// lie is one thing that one liar does.
func (b *siege) lie(t testing.TB) {
	t.Helper()
	b.told++
	l, h := b.liar(), b.log()
	switch b.chance.IntN(16) {
	case 0: // another manner for its program
		l.Behave(func(m *Manner) { *m = Manner{} })
		if told := lies[b.chance.IntN(len(lies))]; b.often(50) {
			told.tell(l)
		}
	case 1, 2, 3: // what was said in one log of late is said in another, some kinds of it or all
		kinds := b.chance.Uint64() | uint64(b.chance.IntN(2))*0xffff
		from := b.log()
		last := b.f.Last(from)
		must(t, l.Relay(from, h, last-min(last, uint64(b.chance.IntN(30))), func(cmd *coordpb.Command) bool {
			return cmd.GetTickUnixMs() == 0 && kinds>>(len(commandName(cmd))%16)&1 == 1
		}))
	case 4:
		must(t, l.Pad(b.f.shown()...))
	case 5, 6, 7:
		must(t, l.Follow(h))
	case 8: // time: a little early, or past every deadline of the round
		ahead := time.Duration(b.chance.IntN(60)) * time.Second
		if b.often(15) {
			ahead = CloseAfter + AckAfter
		}
		l.code(h, round.TickCommand(b.f.Now().Add(ahead).UnixMilli()))
	default:
		if cmd := b.word(l, h); cmd != nil {
			l.code(h, cmd)
		}
	}
}

// word is something about the newest round of a log, or an earlier one.
func (b *siege) word(l *Liar, h *history) *coordpb.Command {
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	rounds := h.observer.Rounds()
	if len(rounds) == 0 {
		return nil
	}
	v := rounds[len(rounds)-1]
	if b.often(15) {
		v = rounds[b.chance.IntN(len(rounds))]
	}
	values := []label.Hash{statement.Dead(), label.Sum(label.TagSet, []byte("mine"))}
	for _, o := range b.f.views {
		if r, ok := o.observer.Round(v.ID); ok && r.Decided {
			values = append(values, r.Decision)
		}
	}
	value := values[b.chance.IntN(len(values))]
	active := statement.Mask(b.chance.IntN(1 << len(b.f.Seats)))
	var candidates []statement.Contributor
	for _, c := range h.observer.Candidates(v.ID) {
		candidates = append(candidates, statement.Contributor{Device: c.Device, Header: c.Header})
	}
	closing := &statement.Close{Round: v.ID, Active: active, Candidates: statement.HashCandidates(v.ID, candidates)}
	switch b.chance.IntN(8) {
	case 0:
		return l.Vote(v.Config, value)
	case 1:
		return l.Expired(v.Config)
	case 2:
		return round.CloseCommand(closing)
	case 3:
		for _, c := range v.Closes {
			if k, ok := h.observer.Close(v.ID, c.Hash); ok && b.often(50) {
				closing = k
			}
		}
		return l.Ack(v.Config, closing, len(candidates), func(int) statement.Verdict { return statement.Verdict(b.chance.IntN(3)) })
	case 4:
		return l.Result(&statement.Result{Round: v.ID, Set: value, X: label.Sum(label.TagSum), Model: label.Sum(label.TagModel)})
	case 5:
		return l.Config(v)
	case 6:
		rc := *v.Config
		rc.Seq += uint64(b.chance.IntN(2))
		rc.ProposedMs = b.f.Now().UnixMilli() + int64(b.chance.IntN(2000))
		next, err := statement.NewRoundConfig(b.f.Charter, TaskID, rc.Seq, rc.Start, rc.ProposedMs, rc.KeyPackages)
		if err != nil {
			return nil
		}
		return round.ProposeCommand(next)
	}
	if b.often(80) {
		return l.Vote(v.Config, value)
	}
	return round.AbortCommand(v.ID, l.seat.Index, statement.SignMember(l.home.Identity, label.StmtAbort, (&statement.Abort{Round: v.ID, Reason: "a lie"}).Bytes()))
}

// logs counts the logs that there ever were.
func (f *Federation) logs() (n int) {
	f.holding(func() { n = len(f.views) })
	return n
}

// fates counts how rounds ended in any log that is read, and those that were ever decided in two ways.
func (b *siege) fates() map[string]int {
	out := map[string]int{}
	shown := b.f.shown()
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	for _, h := range shown {
		for _, v := range h.observer.Rounds() {
			out[strings.TrimSpace(fmt.Sprintf("%s %s %s", v.Phase, v.Death, v.Reason))]++
			if v.Foreign {
				out["certified elsewhere"]++
			}
		}
	}
	if n := len(b.twoWays); n > 0 {
		out[twoWays] = n
	}
	return out
}

const twoWays = "decided in two ways"
