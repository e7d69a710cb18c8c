package lab

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// ruled is a federation whose leader, member 0, lies, with as many liars beside it, from the end, as f allows.
func ruled(t *testing.T, n, faulty int, o Options) (*Federation, *Liar) {
	t.Helper()
	o.N, o.F = n, faulty
	f := story(t, o)
	var leader *Liar
	for i := range faulty {
		l, err := f.Corrupt((n - i) % n)
		must(t, err)
		if i == 0 {
			leader = l
		}
	}
	must(t, f.Lead(0))
	return f, leader
}

// split shows some members another log from here on.
func split(t testing.TB, f *Federation, who ...int) (a, b *history) {
	t.Helper()
	a = f.log()
	b = f.Fork(a, f.Last(a))
	for _, j := range who {
		must(t, f.Seats[j].Show(b))
	}
	return a, b
}

// persist lets devices try until they have their acks: members that read another log know nothing of the round.
func persist(t testing.TB, f *Federation, id label.Hash, devices ...*Device) {
	t.Helper()
	defer func() { f.opts.Patience = 0 }()
	for _, d := range devices {
		f.opts.Patience = patience
		for try := range 40 {
			if d.Acked(id) {
				break
			}
			if try%4 == 3 { // it may be the machine that needs longer
				f.opts.Patience = min(2*f.opts.Patience, 20*time.Second)
			}
			_ = f.Contribute(d)        // a member that knows no round is no error, one that gives no receipt is
			f.Advance(4 * time.Second) // it comes back when it was asked to
		}
		if !d.Acked(id) {
			t.Fatalf("%s has no ack", d.Name)
		}
	}
}

// mirror carries what is said in one log into the others too, once.
type mirror struct {
	l    *Liar
	logs []*history
	at   []uint64
	seen map[label.Hash]bool
}

func newMirror(l *Liar, logs ...*history) *mirror {
	m := &mirror{l: l, logs: logs, seen: map[label.Hash]bool{}}
	for _, h := range logs {
		m.at = append(m.at, l.seat.f.Last(h))
	}
	return m
}

// pass carries what was said since the last time, the kinds named.
func (m *mirror) pass(t testing.TB, names ...string) {
	t.Helper()
	for i, from := range m.logs {
		_, fresh := m.l.seat.f.after(from, m.at[i])
		for j, to := range m.logs {
			if i == j {
				continue
			}
			at := -1
			must(t, m.l.Relay(from, to, m.at[i], func(cmd *coordpb.Command) bool {
				at++
				return at < len(fresh) && slices.Contains(names, commandName(cmd)) && !m.seen[fresh[at]]
			}))
		}
		for _, h := range fresh {
			m.seen[h] = true
		}
		m.at[i] += uint64(len(fresh))
	}
}

// phaseIn is how a round stands in one log.
func (f *Federation) phaseIn(h *history, id label.Hash) round.View {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, _ := h.observer.Round(id)
	return v
}

// splits are committees and which honest members see the second log.
var splits = []struct {
	n, f   int
	second []int
}{{4, 1, []int{3}}, {4, 1, []int{1}}, {7, 2, []int{4, 5}}}

func eachSplit(t *testing.T, tell func(t *testing.T, n, f int, second []int)) {
	for _, s := range splits {
		if testing.Short() && s.n == 7 {
			continue
		}
		t.Run(fmt.Sprintf("(%d,%d) %v apart", s.n, s.f, s.second), func(t *testing.T) {
			t.Parallel()
			tell(t, s.n, s.f, s.second)
		})
	}
}

// TestTwoConfigs: a lying leader proposes two rounds of one seq. No honest member signs both, and one at most is
// certified; what is certified is published; those who were shown the other take nothing back of what they hold durably.
func TestTwoConfigs(t *testing.T) {
	eachSplit(t, func(t *testing.T, n, faulty int, second []int) {
		f, l := ruled(t, n, faulty, Options{Devices: 5})
		a, b := split(t, f, second...)
		f.Begin()
		must(t, l.Drive(a))
		f.Advance(time.Second)
		for range 6 {
			must(t, f.Step())
		}
		first, _ := f.Round()
		var other round.View
		ok := false
		f.holding(func() { other, ok = b.observer.Newest(TaskID) })
		if !ok || other.ID == first.ID || other.Config.Seq != first.Config.Seq {
			t.Fatal("there are no two rounds of one seq")
		}
		if first.Phase != round.Open || other.Phase != round.Proposed {
			t.Errorf("the rounds are %s and %s", first.Phase, other.Phase)
		}
		persist(t, f, first.ID, f.Devices...)
		for range 25 {
			must(t, f.Step())
		}
		if v := f.phaseIn(a, first.ID); v.Phase != round.Published || v.Contributors != 5 {
			t.Errorf("the certified round is %s with %d contributors", v.Phase, v.Contributors)
		}
		if err := f.Seats[second[0]].Show(a); !errors.As(err, new(*rewriteError)) {
			t.Errorf("the member's log takes its signature back: %v", err)
		}
		must(t, f.Finish())
	})
}

// TestTwoCloses: a lying leader keeps an accepted contribution from some members and closes the round in both logs, each
// with its own list. The one that holds the acknowledged contribution decides; in the other nothing can be complete.
func TestTwoCloses(t *testing.T) {
	eachSplit(t, func(t *testing.T, n, faulty int, second []int) {
		f, l := ruled(t, n, faulty, Options{Devices: 6, NMax: 12})
		f.Begin()
		until(t, f, round.Open)
		everybody(t, f, f.Devices[:5]...)
		a, b := split(t, f, second...)
		for _, j := range second { // they are down while the last device contributes: it needs them for nothing
			f.Seats[j].Crash()
		}
		id := f.first(a)
		persist(t, f, id, f.Devices[5])
		if n := f.phaseIn(b, id).Accepted; n != 5 {
			t.Fatalf("the second log has %d accepts", n)
		}
		for _, j := range second {
			must(t, f.Seats[j].Restart(false))
		}
		f.Advance(CloseAfter + time.Second)
		m := newMirror(l, a, b)
		for range 30 {
			must(t, f.Step())
			m.pass(t, "ack", "vote", "reveal", "result", "close")
		}
		va, vb := f.phaseIn(a, id), f.phaseIn(b, id)
		if va.Phase != round.Published || va.Contributors != 6 {
			t.Errorf("the first log has the round %s with %d contributors", va.Phase, va.Contributors)
		}
		if vb.Decided || vb.Candidates == va.Candidates {
			t.Errorf("the second log has decided %v over the candidates %s", vb.Decided, vb.Candidates)
		}
		must(t, f.Finish())
	})
}

// TestTwoSets: the liars ack one Close in two ways, so that two logs decide two sets. Every vote is shown to everybody:
// one set has a certificate, the members that voted for the other see it and reveal nothing.
func TestTwoSets(t *testing.T) {
	eachSplit(t, func(t *testing.T, n, faulty int, second []int) {
		f, l := ruled(t, n, faulty, Options{Devices: 6})
		f.Begin()
		until(t, f, round.Open)
		everybody(t, f, f.Devices...)
		v, _ := f.Round()
		for f.phaseIn(f.log(), v.ID).Phase == round.Open {
			must(t, l.Drive(f.log()))
			f.Advance(time.Second)
		}
		a, b := split(t, f, second...)
		l.acks(func(i int) statement.Verdict { // in the first log; in the second it calls all of them ok
			if i == 0 {
				return statement.BadBox
			}
			return statement.OK
		})
		honest := func(cmd *coordpb.Command) bool {
			return commandName(cmd) == "ack" && cmd.GetAck().GetMember() != uint32(l.Index())
		}
		fork := f.Last(b)
		for range 15 { // the first log has all acks, the second waits for those of the others
			must(t, f.Step())
			must(t, l.Relay(b, a, fork, honest))
		}
		m := newMirror(l, a, b)
		l.code(b, l.Vote(v.Config, f.phaseIn(a, v.ID).Decision))
		must(t, l.Relay(a, b, fork, func(cmd *coordpb.Command) bool { return honest(cmd) || cmd.GetVote() != nil }))
		for range 15 {
			must(t, f.Step())
			m.pass(t, "vote", "reveal", "result")
		}
		va, vb := f.phaseIn(a, v.ID), f.phaseIn(b, v.ID)
		if !va.Decided || !vb.Decided || va.Decision == vb.Decision {
			t.Fatalf("the logs decide %s and %s", va.Decision, vb.Decision)
		}
		if va.Foreign || !vb.Foreign {
			t.Errorf("the certificate is another log's: in the first %v, in the second %v", va.Foreign, vb.Foreign)
		}
		f.mu.Lock()
		for _, j := range second {
			if f.of(v.ID).reveals[j] != nil {
				t.Errorf("member %d reveals a set that it did not decide", j)
			}
		}
		f.mu.Unlock()
		if va.Phase != round.Published || vb.Phase == round.Published {
			t.Errorf("the round is %s in one log, %s in the other", va.Phase, vb.Phase)
		}
		must(t, f.Finish())
	})
}

// TestSetAndDeath: in one log a set is decided, in the other, where its last Acks never came, time runs and DEAD is. Every
// vote is shown to everybody, and the liars cast theirs for one of the two; for the other as well, which counts nowhere.
// What q votes are for is certain, and nothing else ever is: a set is published where it was decided, and where DEAD was,
// the certificate is seen as another log's and nobody reveals; a death is one in both logs, and no vector leaves anybody.
// Where neither finds q votes the round expires.
func TestSetAndDeath(t *testing.T) {
	const set, death = "the set", "death"
	for _, c := range []struct {
		n, f    int
		second  []int // decide DEAD
		votes   string
		certain string
	}{
		{4, 1, []int{3}, set, set},
		{4, 1, []int{1}, set, set},
		{7, 2, []int{4, 5}, set, set},
		{4, 1, []int{2, 3}, death, death},
		{7, 2, []int{3, 4, 5}, death, death},
		{4, 1, []int{3}, death, "nothing"},
	} {
		if testing.Short() && c.n == 7 {
			continue
		}
		t.Run(fmt.Sprintf("(%d,%d) %v apart, the liars vote for %s", c.n, c.f, c.second, c.votes), func(t *testing.T) {
			t.Parallel()
			f, l := ruled(t, c.n, c.f, Options{Devices: 5})
			var liars []*Liar
			for _, j := range f.liars().Members() {
				liars = append(liars, f.Seats[j].Liar())
				liars[len(liars)-1].says("ack", func(*coordpb.Command) []*coordpb.Command { return nil })
			}
			f.Begin()
			until(t, f, round.Open)
			everybody(t, f, f.Devices...)
			v := acked(t, f, l)

			a, b := split(t, f, c.second...)
			var closing *statement.Close
			f.holding(func() { closing, _ = a.observer.Close(v.ID, v.Closes[0].Hash) })
			for _, l := range liars {
				l.code(a, l.Ack(v.Config, closing, 5, func(int) statement.Verdict { return statement.OK }))
			}
			if got := l.code(b, round.TickCommand(v.Config.AckMs+1000)); got != round.OK {
				t.Fatal(got)
			}
			decided, dead := f.phaseIn(a, v.ID).Decision, f.phaseIn(b, v.ID).Decision
			if dead != statement.Dead() || decided == dead || decided.IsZero() {
				t.Fatalf("the logs decide %s and %s", decided, dead)
			}

			m := newMirror(l, a, b)
			other := dead
			for _, l := range liars {
				if c.votes == set { // in the first log their programs do
					l.Behave(func(m *Manner) { *m = Manner{} })
					l.code(b, l.Vote(v.Config, decided))
					continue
				}
				other = decided
				l.says("vote", func(*coordpb.Command) []*coordpb.Command { return nil })
				l.code(a, l.Vote(v.Config, dead))
				l.code(b, l.Vote(v.Config, dead))
			}
			run := func(steps int) (va, vb round.View) {
				for range steps {
					must(t, f.Step())
					m.pass(t, "vote", "reveal", "result", "expired")
				}
				return f.phaseIn(a, v.ID), f.phaseIn(b, v.ID)
			}
			va, vb := run(15)
			for _, l := range liars {
				for _, h := range m.logs {
					if got := l.code(h, l.Vote(v.Config, other)); got != round.Conflict {
						t.Errorf("the second vote of member %d: %s", l.Index(), got)
					}
				}
			}
			switch c.certain {
			case set:
				if va.Phase != round.Published || va.Contributors != 5 || va.Foreign {
					t.Errorf("where the set was decided the round is %s with %d contributors, the certificate another log's: %v", va.Phase, va.Contributors, va.Foreign)
				}
				if vb.Phase != round.Acked || !vb.Foreign {
					t.Errorf("where DEAD was decided the round is %s %s, the certificate another log's: %v", vb.Phase, vb.Death, vb.Foreign)
				}
			case death:
				if va.Death != round.Certified || vb.Death != round.Certified {
					t.Errorf("the deaths are %q and %q", va.Death, vb.Death)
				}
			default:
				if va.Phase != round.Acked || vb.Phase != round.Acked || va.Foreign || vb.Foreign {
					t.Errorf("the round is %s and %s", va.Phase, vb.Phase)
				}
			}
			f.Advance(CloseAfter + AckAfter + RevealAfter)
			va, vb = run(10)
			want := map[string][2]round.Death{set: {round.NotDead, round.Expired}, death: {round.Certified, round.Certified}, "nothing": {round.Expired, round.Expired}}
			if got := [2]round.Death{va.Death, vb.Death}; got != want[c.certain] {
				t.Errorf("after the deadlines the deaths are %q", got)
			}
			f.holding(func() {
				for j := range f.of(v.ID).reveals {
					if c.certain != set || slices.Contains(c.second, j) {
						t.Errorf("member %d reveals", j)
					}
				}
			})
			if n := len(f.Served()); c.certain != set && n > 0 {
				t.Errorf("%d vectors have left members", n)
			}
			must(t, f.Finish())
		})
	}
}

// acked lets a lying leader close the round, and all honest members ack while the clock stands. Liars have said nothing.
func acked(t testing.TB, f *Federation, l *Liar) round.View {
	t.Helper()
	v, _ := f.Round()
	for f.phaseIn(f.log(), v.ID).Phase == round.Open {
		must(t, l.Drive(f.log()))
		f.Advance(time.Second)
	}
	for range 20 {
		if v = f.phaseIn(f.log(), v.ID); v.Closes[0].Acked == v.Config.Listed()&^f.liars() {
			return v
		}
		for _, s := range f.Seats {
			must(t, f.turn(s))
		}
	}
	t.Fatalf("members %v have acked", v.Closes[0].Acked)
	return v
}

// TestEverybodyAlone: every honest member is shown a log of its own, with another set in each. No value finds q votes;
// the round expires, and only when every member has said that it never revealed is the death a certain one.
func TestEverybodyAlone(t *testing.T) {
	f, l := ruled(t, 4, 1, Options{Devices: 6})
	f.Begin()
	until(t, f, round.Open)
	everybody(t, f, f.Devices...)
	v, _ := f.Round()
	for f.phaseIn(f.log(), v.ID).Phase == round.Open {
		must(t, l.Drive(f.log()))
		f.Advance(time.Second)
	}
	a, b := split(t, f, 2)
	c := f.Fork(a, f.Last(a))
	must(t, f.Seats[3].Show(c))
	refused := map[*history]int{a: 0, b: 1, c: 2}
	m := newMirror(l, a, b, c)
	var closing *statement.Close
	for _, k := range f.phaseIn(a, v.ID).Closes {
		f.mu.Lock()
		closing, _ = a.observer.Close(v.ID, k.Hash)
		f.mu.Unlock()
	}
	l.Behave(func(m *Manner) { m.Word = func(*coordpb.Command) []*coordpb.Command { return nil } })
	for h, at := range refused {
		l.code(h, l.Ack(v.Config, closing, 6, func(i int) statement.Verdict {
			if i == at {
				return statement.Missing
			}
			return statement.OK
		}))
	}
	run := func(steps int) {
		for range steps {
			must(t, f.Step())
			m.pass(t, "ack", "vote", "reveal", "result", "expired")
		}
	}
	run(10)
	values := map[label.Hash]bool{}
	for h := range refused {
		values[f.phaseIn(h, v.ID).Decision] = true
		l.code(h, l.Vote(v.Config, f.phaseIn(h, v.ID).Decision))
	}
	if len(values) != 3 {
		t.Fatalf("the logs decide %d values", len(values))
	}
	run(10)
	for h := range refused {
		if p := f.phaseIn(h, v.ID).Phase; p != round.Acked {
			t.Errorf("the round is %s", p)
		}
	}
	f.Advance(CloseAfter + AckAfter + RevealAfter)
	run(10)
	for h := range refused {
		if d := f.phaseIn(h, v.ID).Death; d != round.Expired {
			t.Errorf("the round's death is %q without the liar's word", d)
		}
		l.code(h, l.Expired(v.Config))
		if d := f.phaseIn(h, v.ID).Death; d != round.Certified {
			t.Errorf("the round's death is %q when all have said that they never revealed", d)
		}
	}
	if n := len(f.Served()); n != 0 {
		t.Errorf("%d vectors have left members", n)
	}
	must(t, f.Finish())
}
