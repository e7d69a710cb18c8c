package round

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

var fourOne = options{n: 4, f: 1, nMin: 3, nMax: 6, kind: charter.KindLoRA}

// open runs a log to an open round with the given number of contributions.
func open(t testing.TB, o options, contributions int) (*log, label.Hash) {
	t.Helper()
	l := newLog(t, o)
	for j := range o.n {
		l.apply(t, l.c.freshPackage(t, j, l.nowMs))
	}
	l.apply(t, TickCommand(l.nowMs))
	rc, reason := l.m.NextConfig("steps", l.now(), 1<<o.n-1)
	if rc == nil {
		t.Fatal(reason)
	}
	l.apply(t, ProposeCommand(rc))
	id := rc.ID()
	for j := range o.n {
		l.apply(t, l.c.sign(l.m, j, id))
	}
	var items []*statement.Accept
	for i := range contributions {
		name := fmt.Sprintf("d%d", i)
		l.apply(t, l.c.enrol(t, name, i%o.n, 100, l.nowMs+1e12, "token of "+name))
		items = append(items, l.c.contribution(t, l.m, id, name, "1"))
	}
	l.apply(t, AcceptsCommand(items...))
	return l, id
}

// closed runs a log to a closed round, short of every Ack.
func closed(t testing.TB, o options, contributions int) (*log, label.Hash) {
	t.Helper()
	l, id := open(t, o, contributions)
	v, _ := l.m.Round(id)
	l.nowMs = v.Config.CloseMs + 1
	l.apply(t, TickCommand(l.nowMs))
	c, ok := l.m.NextClose(id, l.now(), 1<<o.n-1)
	if !ok {
		t.Fatal("no close is due")
	}
	l.apply(t, CloseCommand(c))
	return l, id
}

// published runs a log to a published round.
func published(t testing.TB, o options) (*log, label.Hash) {
	t.Helper()
	l, id := closed(t, o, int(o.nMin)+1)
	v, _ := l.m.Round(id)
	for _, j := range v.Closes[0].Active.Members() {
		l.apply(t, l.c.ack(l.m, j, id, v.Closes[0].Hash, nil))
	}
	v, _ = l.m.Round(id)
	for j := range o.n {
		l.apply(t, l.c.vote(j, id, v.Decision))
	}
	for j := range o.n {
		l.apply(t, l.c.reveal(j, id, v.Decision, ""))
	}
	for j := range o.n {
		l.apply(t, l.c.result(j, id, v.Decision, ""))
	}
	if v, _ = l.m.Round(id); v.Phase != Published {
		t.Fatalf("the round is %s", v.Phase)
	}
	return l, id
}

// fork returns a second machine in the same state: another log with the same beginning.
func (l *log) fork(t testing.TB) *log {
	t.Helper()
	m := New(l.c.ch)
	must(t, m.Restore(l.m.Snapshot()))
	return &log{c: l.c, m: m, index: l.index, nowMs: l.nowMs}
}

// branch is fork without verifying anything again, for tests that take many. It shares what votes, Closes and Acks
// leave as it is.
func (l *log) branch() *log {
	m := *l.m
	m.rounds, m.lines = map[label.Hash]*round{}, nil
	for _, old := range l.m.lines {
		line := *old
		line.used, line.kept = maps.Clone(old.used), nil
		for _, k := range old.kept {
			r := *k
			r.refused, r.closes = maps.Clone(k.refused), nil
			for _, c := range k.closes {
				copied := *c
				r.closes = append(r.closes, &copied)
			}
			line.kept = append(line.kept, &r)
			m.rounds[r.id], line.newest = &r, &r
			if old.latest == k {
				line.latest = &r
			}
		}
		m.lines = append(m.lines, &line)
	}
	m.devices = map[label.Hash]*device{}
	for id, d := range l.m.devices {
		copied := *d
		m.devices[id] = &copied
	}
	return &log{c: l.c, m: &m, index: l.index, nowMs: l.nowMs}
}

// TestEverySizePublishes runs a round at every size of the table.
func TestEverySizePublishes(t *testing.T) {
	for _, s := range [][2]int{{1, 0}, {2, 1}, {3, 1}, {4, 1}, {5, 1}, {5, 2}, {7, 2}, {7, 3}} {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			l, id := published(t, options{n: s[0], f: s[1], nMin: 3, nMax: 6, kind: charter.KindLoRA})
			for me := range s[0] {
				if due := l.m.Due(me); len(due) > 0 {
					t.Errorf("member %d still owes %v", me, due)
				}
			}
			l.restart(t)
			sums, ok := l.m.Sums(id)
			if !ok || l.m.Revealed(id, sums.SumY).Size() != s[0] || len(l.m.Set(id)) != 4 {
				t.Errorf("sums %v, set of %d", ok, len(l.m.Set(id)))
			}
			latest, ok := l.m.Latest("steps")
			next, reason := l.m.NextConfig("steps", l.now(), 1<<s[0]-1)
			if !ok || latest.ID != id || next == nil || next.Start.Model != latest.Result.Model ||
				!slices.Equal(next.Start.Results, []label.Hash{statement.HashResult(latest.ResultBody)}) {
				t.Errorf("the next round does not start from the result (%s)", reason)
			}
		})
	}
}

// TestNoTwoCertificates: a lying leader shows two logs of one round. One decides a set, the other DEAD. Every honest
// member votes once, as the log that it sees says; f liars vote for both. Whatever votes reach whom, in whatever order
// and however often, no two certificates exist (SA 2.2, invariant 2).
func TestNoTwoCertificates(t *testing.T) {
	for _, s := range [][2]int{{3, 1}, {4, 1}, {5, 1}, {5, 2}, {7, 2}, {7, 3}} {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			n, f := s[0], s[1]
			set, id := closed(t, options{n: n, f: f, nMin: 3, nMax: 6, kind: charter.KindLoRA}, 4)
			dead := set.fork(t)
			v, _ := set.m.Round(id)
			for _, j := range v.Closes[0].Active.Members() {
				set.apply(t, set.c.ack(set.m, j, id, v.Closes[0].Hash, nil))
			}
			dead.apply(t, TickCommand(v.Config.AckMs+1))
			v, _ = set.m.Round(id)
			if w, _ := dead.m.Round(id); w.Decision != statement.Dead() || !v.Decided || v.Decision == statement.Dead() {
				t.Fatal("the two logs do not differ")
			}
			rapid.Check(t, func(r *rapid.T) {
				a, b := set.branch(), dead.branch()
				var votes []*coordpb.Command
				members := rapid.Permutation(indices(n)).Draw(r, "members")
				for k, j := range members {
					value := rapid.SampledFrom([]label.Hash{v.Decision, statement.Dead()}).Draw(r, "shown log")
					votes = append(votes, a.c.vote(j, id, value))
					if k < f { // a liar
						votes = append(votes, a.c.vote(j, id, v.Decision), a.c.vote(j, id, statement.Dead()))
					}
				}
				var pool []statement.MemberStatement
				for _, l := range []*log{a, b} {
					for _, i := range rapid.SliceOf(rapid.IntRange(0, len(votes)-1)).Draw(r, "delivered") {
						l.m.Apply(l.m.Applied()+1, votes[i])
					}
					got, _ := l.m.Round(id)
					pool = append(pool, got.Votes...)
				}
				va, _ := a.m.Round(id)
				vb, _ := b.m.Round(id)
				if (va.Phase == Sealed || vb.Phase == Sealed) && (va.Death == Certified || vb.Death == Certified) {
					r.Fatalf("one log is %s, the other %s: both certified", va.Phase, vb.Phase)
				}
				if statement.VerifySetCert(a.c.ch, v.Config, v.Decision, pool) == nil && statement.VerifyDeadCert(a.c.ch, v.Config, pool, nil) == nil {
					r.Fatal("the votes of both logs make two certificates")
				}
			})
		})
	}
}

func indices(n int) (out []int) {
	for i := range n {
		out = append(out, i)
	}
	return out
}

// TestGarbage: entries of a whole round, altered and out of place, at every point of it. What is refused changes
// nothing, nothing panics, and the round still ends as it would.
func TestGarbage(t *testing.T) {
	l, id := published(t, fourOne)
	rapid.Check(t, func(r *rapid.T) {
		cut := rapid.IntRange(0, len(l.all)).Draw(r, "prefix")
		m := New(l.c.ch)
		for i, data := range l.all[:cut] {
			m.ApplyBytes(uint64(i+1), data)
		}
		garbage := bytes.Clone(rapid.SampledFrom(l.all).Draw(r, "entry"))
		switch rapid.IntRange(0, 4).Draw(r, "how") {
		case 0:
			garbage = rapid.SliceOf(rapid.Byte()).Draw(r, "bytes")
		case 1:
			garbage = garbage[:rapid.IntRange(0, len(garbage)-1).Draw(r, "length")]
		case 2, 3:
			for range rapid.IntRange(1, 3).Draw(r, "flips") {
				garbage[rapid.IntRange(0, len(garbage)-1).Draw(r, "at")] ^= rapid.Byte().Draw(r, "by")
			}
		}
		before := unrefused(m)
		held := false
		for _, o := range m.ApplyBytes(uint64(cut+1), garbage) {
			held = held || o.Held()
		}
		if !held && unrefused(m) != before {
			r.Fatalf("a refused entry changed the state: %x", garbage)
		}
		if held {
			return
		}
		for i, data := range l.all[cut:] {
			m.ApplyBytes(uint64(cut+2+i), data)
		}
		if v, _ := m.Round(id); v.Phase != Published {
			r.Fatalf("after garbage the round is %s", v.Phase)
		}
	})
}

// TestNobodySpeaksForAMember: before each Ack, vote, reveal and result of a whole round comes one like it with a forged
// signature, and none counts.
func TestNobodySpeaksForAMember(t *testing.T) {
	l, _ := published(t, fourOne)
	m := New(l.c.ch)
	refused := map[string]int{}
	for i, data := range l.all {
		var cmd coordpb.Command
		must(t, proto.Unmarshal(data, &cmd))
		for what, s := range map[string]*coordpb.RoundStatement{"ack": cmd.GetAck(), "vote": cmd.GetVote(), "reveal": cmd.GetReveal(), "result": cmd.GetResult()} {
			if s == nil {
				continue
			}
			s.Statement.Signature[7] ^= 1
			switch o := m.Apply(uint64(2*i+1), &cmd)[0]; o.Code {
			case BadSignature:
				refused[what]++
			case TooLate:
			default:
				t.Errorf("entry %d, a forged %s: %s", i, what, o.Code)
			}
		}
		m.ApplyBytes(uint64(2*i+2), data)
	}
	if len(refused) != 4 {
		t.Errorf("refused are %v only", refused)
	}
}

// unrefused is the digest without the counts of refusals, which a device's own signature may raise.
func unrefused(m *Machine) label.Hash {
	counts := map[*round]map[Code]uint32{}
	for _, r := range m.rounds {
		counts[r], r.refused = r.refused, map[Code]uint32{}
	}
	d := m.Digest()
	for r, c := range counts {
		r.refused = c
	}
	return d
}

// TestSnapshotGarbage: a snapshot is a leader's word. Every altered byte is refused or gives a state whose certificates
// hold, and a refusal leaves the state as it was.
func TestSnapshotGarbage(t *testing.T) {
	l, _ := published(t, fourOne)
	good := l.m.Snapshot()
	rapid.Check(t, func(r *rapid.T) {
		bad := bytes.Clone(good)
		at := rapid.IntRange(0, len(bad)-1).Draw(r, "at")
		bad[at] ^= byte(rapid.IntRange(1, 255).Draw(r, "by"))
		m := New(l.c.ch)
		if err := m.Restore(bad); err != nil {
			if m.Digest() != New(l.c.ch).Digest() {
				r.Fatal("a refused snapshot changed the state")
			}
			return
		}
		if !bytes.Equal(m.Snapshot(), bad) {
			r.Fatalf("the state restored from an altered byte %d is not the snapshot's", at)
		}
	})
	m := New(l.c.ch)
	for _, n := range []int{0, 5, len(snapshotMagic), len(good) / 2, len(good) - 1} {
		if m.Restore(good[:n]) == nil {
			t.Errorf("%d of %d bytes were restored", n, len(good))
		}
	}
	if m.Restore(append(bytes.Clone(good), 0)) == nil {
		t.Error("a trailing byte was accepted")
	}
	later := bytes.Clone(good)
	later[len(snapshotMagic)]++
	if err := m.Restore(later); err == nil {
		t.Error("a later version was accepted")
	}
	other := newLog(t, options{n: 3, f: 1, nMin: 3, nMax: 6, kind: charter.KindLoRA})
	if other.m.Restore(good) == nil {
		t.Error("a state of another charter was accepted")
	}
}

// TestForgedSnapshots raises phases and drops obligations in a snapshot's content, as a lying leader might.
func TestForgedSnapshots(t *testing.T) {
	good, id := published(t, fourOne)
	for name, forge := range map[string]func(m *Machine, r *round){
		"published without signatures": func(m *Machine, r *round) { r.results = [statement.MembersMax]*result{} },
		"published by one signature": func(m *Machine, r *round) {
			for j := range r.results {
				if r.results[j] != r.opened {
					r.results[j] = nil
				}
			}
		},
		"sealed with too few votes":    func(m *Machine, r *round) { r.votes[0], r.votes[1] = nil, nil },
		"another decision":             func(m *Machine, r *round) { r.decision = label.Sum(label.TagSet) },
		"a candidate left out":         func(m *Machine, r *round) { r.accepts = r.accepts[1:]; r.counts.accepted-- },
		"an ack left out":              func(m *Machine, r *round) { r.closes[0].acks[0] = nil },
		"certified death":              func(m *Machine, r *round) { r.phase, r.death, r.opened = Dead, Certified, nil; r.began[Dead] = true },
		"too few round signatures":     func(m *Machine, r *round) { r.signatures[0], r.signatures[1] = nil, nil },
		"a forged reveal":              func(m *Machine, r *round) { r.reveals[0].signed.Signature[0] ^= 1 },
		"the newest result forgotten":  func(m *Machine, r *round) { m.lines[0].latest = nil },
		"another seq":                  func(m *Machine, r *round) { m.lines[0].seq++ },
		"a time beyond the horizon":    func(m *Machine, r *round) { m.timeMs = m.HorizonMs() + 1 },
		"a phase of the future":        func(m *Machine, r *round) { r.times[Closed] = m.timeMs + 1 },
		"a close of the future":        func(m *Machine, r *round) { r.closes[0].atMs = m.timeMs + 1 },
		"a device without certificate": func(m *Machine, r *round) { delete(m.devices, r.accepts[0].Device) },
		"a token forgotten":            func(m *Machine, r *round) { m.tokens[0] = map[label.Hash]label.Hash{} },
	} {
		forged := good.fork(t)
		forge(forged.m, forged.m.rounds[id])
		if err := New(good.c.ch).Restore(forged.m.Snapshot()); err == nil {
			t.Errorf("%s: restored", name)
		}
	}
}

// TestForgedCohort: a snapshot in which contributions count for other authorities than their devices' is refused while
// the round can still be decided. By it one authority's devices would reach the floor alone, and the sum of a round be
// that of one stranger and theirs.
func TestForgedCohort(t *testing.T) {
	for name, at := range map[string]func(testing.TB, options, int) (*log, label.Hash){"open": open, "closed": closed} {
		for what, forge := range map[string]func(a *accept){
			"another authority":      func(a *accept) { a.Authority = (a.Authority + 1) % fourOne.n },
			"an authority of nobody": func(a *accept) { a.Authority = fourOne.n },
			"held by one member":     func(a *accept) { a.Holders = 1 },
		} {
			l, id := at(t, fourOne, 4)
			forged := l.fork(t)
			forge(&forged.m.rounds[id].accepts[0])
			if err := New(l.c.ch).Restore(forged.m.Snapshot()); err == nil {
				t.Errorf("%s, %s: restored", name, what)
			}
		}
	}
}

// TestADeviceChangesItsAuthority: a device whose certificate ended gets one from another authority, but not before the
// round is over in which its contribution counts for the first. A snapshot of any moment is taken.
func TestADeviceChangesItsAuthority(t *testing.T) {
	l, id := open(t, fourOne, 2)
	v, _ := l.m.Round(id)
	ends := v.Config.CloseMs - 1
	l.apply(t, l.c.enrol(t, "short", 0, 100, ends, "first"))
	l.apply(t, AcceptsCommand(l.c.contribution(t, l.m, id, "short", "1")))
	l.nowMs = ends
	l.apply(t, TickCommand(l.nowMs))
	again := l.c.enrol(t, "short", 1, 100, l.nowMs+1e12, "second")
	if out := l.apply(t, again); out[0].Code != Conflict {
		t.Fatalf("in the round: %+v", out)
	}
	l.restart(t)
	if out := l.apply(t, l.c.enrol(t, "short", 0, 100, l.nowMs+1e12, "third")); out[0].Code != OK {
		t.Fatalf("the same authority: %+v", out)
	}
	l.restart(t)
	l2, id := open(t, fourOne, 2)
	l2.apply(t, l2.c.enrol(t, "short", 0, 100, ends, "first"))
	l2.apply(t, AcceptsCommand(l2.c.contribution(t, l2.m, id, "short", "1")))
	for j := range 2 {
		l2.apply(t, l2.c.abort(j, id))
	}
	for j := range fourOne.n {
		l2.apply(t, l2.c.vote(j, id, statement.Dead()))
	}
	if v, _ := l2.m.Round(id); v.Phase != Dead {
		t.Fatalf("the round is %s", v.Phase)
	}
	l2.nowMs = ends
	l2.apply(t, TickCommand(l2.nowMs))
	if out := l2.apply(t, l2.c.enrol(t, "short", 1, 100, l2.nowMs+1e12, "second")); out[0].Code != OK {
		t.Fatalf("after the round: %+v", out)
	}
	l2.restart(t)
}

// TestForgedSeqs: a snapshot whose newest round has a seq that no log can have come to by then is refused, whatever rounds
// a liar makes up before it. A member that signed it would sign no true round of the task any more.
func TestForgedSeqs(t *testing.T) {
	good, id := published(t, fourOne)
	first := good.m.rounds[id].rc
	every := good.m.lines[0].everyMs()
	// forge adds a proposed round, after dead ones that nobody signed, at most four.
	forge := func(m *Machine, seqs []uint64, times []int64) {
		l := m.lines[0]
		for i, seq := range seqs {
			rc, err := statement.NewRoundConfig(good.c.ch, "steps", seq, l.nextStart("B"), times[i], first.KeyPackages)
			must(t, err)
			r := newRound(rc.ID(), rc.Bytes(), rc, 1)
			r.enter(Proposed, m.timeMs)
			if i < len(seqs)-1 {
				r.decided, r.decision, r.death = true, statement.Dead(), Expired
				r.enter(Dead, m.timeMs)
			}
			l.newest, l.seq = r, seq
			l.kept = append(l.kept, r)
			m.rounds[r.id] = r
		}
		l.usedStart = l.newest.start
	}
	at := func(n int64) int64 { return first.ProposedMs + n*every }
	for name, c := range map[string]struct {
		seqs  []uint64
		times []int64
		fine  bool
	}{
		"the next":                     {[]uint64{2}, []int64{at(1)}, true},
		"after two that died":          {[]uint64{2, 3, 4}, []int64{at(1), at(2), at(3)}, true},
		"as many as there was time":    {[]uint64{61}, []int64{at(60)}, true}, // those between are pruned
		"a huge one":                   {[]uint64{1 << 60}, []int64{at(1)}, false},
		"one more than there was time": {[]uint64{62}, []int64{at(60)}, false},
		"too soon":                     {[]uint64{2}, []int64{at(1) - 1}, false},
		"after a huge one that died":   {[]uint64{1 << 60, 1<<60 + 1}, []int64{at(1), at(2)}, false},
		"time that goes back":          {[]uint64{2, 3}, []int64{at(2), at(1)}, false},
	} {
		forged := good.fork(t)
		forge(forged.m, c.seqs, c.times)
		if err := New(good.c.ch).Restore(forged.m.Snapshot()); (err == nil) != c.fine {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Before anything is certified only the first round stands for the seqs after it.
	young := newLog(t, fourOne)
	for j := range young.c.ch.N {
		young.apply(t, young.c.freshPackage(t, j, young.nowMs))
	}
	good, first = young, &statement.RoundConfig{}
	for _, k := range young.m.packages {
		first.KeyPackages = append(first.KeyPackages, k.signed)
	}
	for seq, fine := range map[uint64]bool{1: true, 2: false, 1 << 60: false} {
		forged := good.fork(t)
		forge(forged.m, []uint64{seq}, []int64{epoch0})
		if err := New(good.c.ch).Restore(forged.m.Snapshot()); (err == nil) != fine {
			t.Errorf("round %d as the first: %v", seq, err)
		}
	}
}

// TestForgedStart: a snapshot whose proposed round starts where its task does not stand is refused, as the log refuses the
// proposal: members compare a start with the newest result only if they derived that themselves.
func TestForgedStart(t *testing.T) {
	good, id := published(t, fourOne)
	first := good.m.rounds[id].rc
	for name, c := range map[string]struct {
		forge func(s *statement.Start)
		fine  bool
	}{
		"the newest result":        {func(*statement.Start) {}, true},
		"another model":            {func(s *statement.Start) { s.Model = label.Sum(label.TagSet) }, false},
		"a result that nobody has": {func(s *statement.Start) { s.Results = []label.Hash{label.Sum(label.TagSet)} }, false},
		"where it stood before":    {func(s *statement.Start) { *s = first.Start }, false},
	} {
		forged := good.fork(t)
		l := forged.m.lines[0]
		start := l.nextStart("B")
		c.forge(&start)
		rc, err := statement.NewRoundConfig(good.c.ch, "steps", 2, start, first.ProposedMs+l.everyMs(), first.KeyPackages)
		must(t, err)
		r := newRound(rc.ID(), rc.Bytes(), rc, 1)
		r.enter(Proposed, forged.m.timeMs)
		l.newest, l.seq, l.usedStart, l.kept = r, 2, r.start, append(l.kept, r)
		forged.m.rounds[r.id] = r
		if err := New(good.c.ch).Restore(forged.m.Snapshot()); (err == nil) != c.fine {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTheFirstRoundStays: as long as nothing is certified the first round is kept beside the newest, since by it a stranger
// believes their seqs; then the newest that is certified.
func TestTheFirstRoundStays(t *testing.T) {
	l := newLog(t, options{n: 1, f: 0, nMin: 3, nMax: 6, kind: charter.KindLoRA})
	die := func(sign bool) {
		t.Helper()
		l.nowMs += 60_000
		if k := l.m.packages[0]; k == nil || l.nowMs > k.parsed.HalfMs() {
			l.apply(t, l.c.freshPackage(t, 0, l.nowMs))
		}
		rc, reason := l.m.NextConfig("steps", l.now(), 1)
		if rc == nil {
			t.Fatal(reason)
		}
		l.apply(t, ProposeCommand(rc))
		if sign {
			l.apply(t, l.c.sign(l.m, 0, rc.ID()))
		}
		l.apply(t, l.c.abort(0, rc.ID()))
		l.apply(t, l.c.vote(0, rc.ID(), statement.Dead()))
	}
	kept := func(want ...uint64) {
		t.Helper()
		for i, v := range l.m.Rounds()[:len(want)] {
			if v.Config.Seq != want[i] {
				t.Errorf("round %d stands where %d should", v.Config.Seq, want[i])
			}
		}
		if n := len(l.m.Rounds()); n != RoundsKept {
			t.Errorf("%d rounds are kept, limit %d", n, RoundsKept)
		}
		l.restart(t)
	}
	for range RoundsKept + 3 {
		die(false)
	}
	kept(1, 5, 6)
	if got := l.m.Certified("steps"); got != 0 {
		t.Errorf("round %d is called certified", got)
	}
	die(true)
	for range RoundsKept + 3 {
		die(false)
	}
	if got := l.m.Certified("steps"); got != RoundsKept+4 {
		t.Errorf("round %d is the newest certified, want %d", got, RoundsKept+4)
	}
	kept(RoundsKept+4, RoundsKept+9)
}

// TestCommands: what is no command of this version.
func TestCommands(t *testing.T) {
	l, id := open(t, fourOne, 0)
	later, err := proto.Marshal(&coordpb.Command{})
	must(t, err)
	later = protowire.AppendTag(later, 99, protowire.BytesType)
	later = protowire.AppendBytes(later, []byte("of a later version"))
	for _, c := range []struct {
		name string
		data []byte
		want Code
	}{
		{"nothing", nil, Malformed},
		{"no protobuf", []byte{0xff}, Malformed},
		{"a later command", later, UnknownCommand},
		{"too long", make([]byte, CommandBytesMax+1), Malformed},
		{"no items", marshal(t, AcceptsCommand()), Malformed},
		{"too many items", marshal(t, AcceptsCommand(make257(id)...)), Malformed},
		{"no round id", marshal(t, &coordpb.Command{Command: &coordpb.Command_Vote{}}), Malformed},
		{"no member", marshal(t, VoteCommand(id, 9, statement.Signed{})), NotMember},
		{"another round's vote", marshal(t, VoteCommand(id, 0, statement.Signed{Body: (&statement.Vote{}).Bytes()})), Malformed},
		{"a vote as an ack", marshal(t, AckCommand(id, 0, statement.Signed{Body: (&statement.Vote{Round: id}).Bytes()})), Malformed},
		{"an unsigned vote", marshal(t, VoteCommand(id, 0, statement.Signed{Body: (&statement.Vote{Round: id}).Bytes()})), BadSignature},
		{"a vote in no round", marshal(t, VoteCommand(label.Hash{1}, 0, statement.Signed{Body: (&statement.Vote{Round: label.Hash{1}}).Bytes()})), UnknownRound},
		{"a tick of no time", marshal(t, TickCommand(0)), Malformed},
		{"a tick beyond time", marshal(t, TickCommand(statement.TimeMax+1)), Malformed},
		{"an old tick", marshal(t, TickCommand(l.nowMs)), StaleTick},
	} {
		before := l.m.Digest()
		l.index++
		got := l.m.ApplyBytes(l.index, c.data)
		if len(got) != 1 || got[0].Code != c.want {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
		if l.m.Digest() != before {
			t.Errorf("%s: the state changed", c.name)
		}
	}
	if got := l.m.ApplyBytes(l.index, marshal(t, TickCommand(l.nowMs+1))); got[0].Code != StaleIndex {
		t.Errorf("an entry applied twice: %v", got)
	}
	if err := Static(l.c.ch, AcceptsCommand(&statement.Accept{})); err == nil {
		t.Error("a malformed item passes the static check")
	}
	if err := Static(l.c.ch, TickCommand(1)); err != nil {
		t.Error(err)
	}
}

func marshal(t *testing.T, cmd *coordpb.Command) []byte {
	t.Helper()
	b, err := proto.Marshal(cmd)
	must(t, err)
	return b
}

func make257(id label.Hash) (out []*statement.Accept) {
	for range AcceptItemsMax + 1 {
		out = append(out, &statement.Accept{Round: id})
	}
	return out
}

// TestMemoryIsBounded runs more rounds than are kept: the newest result stays, old rounds go, and those between keep
// only what proves their end.
func TestMemoryIsBounded(t *testing.T) {
	l, first := published(t, options{n: 1, f: 0, nMin: 3, nMax: 6, kind: charter.KindLoRA})
	for range RoundsKept + 20 {
		l.nowMs += 60_000
		if l.nowMs > epoch0+11*3600_000*int64(l.c.epochs[0]) {
			l.m.Apply(l.m.Applied()+1, l.c.freshPackage(t, 0, l.nowMs))
		}
		rc, reason := l.m.NextConfig("steps", l.now(), 1)
		if rc == nil {
			t.Fatal(reason)
		}
		l.m.Apply(l.m.Applied()+1, ProposeCommand(rc))
		l.m.Apply(l.m.Applied()+1, l.c.abort(0, rc.ID()))
		l.m.Apply(l.m.Applied()+1, l.c.vote(0, rc.ID(), statement.Dead()))
	}
	rounds := l.m.Rounds()
	if len(rounds) != RoundsKept || len(l.m.rounds) != RoundsKept {
		t.Errorf("%d rounds are kept, limit %d", len(rounds), RoundsKept)
	}
	latest, ok := l.m.Latest("steps")
	if !ok || latest.ID != first || latest.Result == nil || l.m.Candidates(first) != nil && len(l.m.Candidates(first)) > 0 {
		t.Error("the newest result is gone, or keeps its contributions")
	}
	restarted := New(l.c.ch)
	must(t, restarted.Restore(l.m.Snapshot()))
	if restarted.Digest() != l.m.Digest() {
		t.Error("a restarted machine differs")
	}
}

func FuzzApply(f *testing.F) {
	l, _ := published(f, options{n: 1, f: 0, nMin: 3, nMax: 6, kind: charter.KindLoRA})
	for _, data := range l.all {
		f.Add(data)
	}
	erasure, err := proto.Marshal(l.c.erasure(0, 1, l.nowMs))
	must(f, err)
	f.Add(erasure)
	snapshot := l.m.Snapshot()
	f.Fuzz(func(t *testing.T, data []byte) {
		m := New(l.c.ch)
		must(t, m.Restore(snapshot))
		before := m.Digest()
		for _, o := range m.ApplyBytes(m.Applied()+1, data) {
			if o.Held() {
				return
			}
		}
		if m.Digest() != before && len(data) < 200 {
			t.Errorf("%x is refused and changes the state", data)
		}
	})
}

func FuzzRestore(f *testing.F) {
	l, _ := open(f, options{n: 1, f: 0, nMin: 3, nMax: 6, kind: charter.KindLoRA}, 1)
	f.Add(l.m.Snapshot())
	l.nowMs += 25 * 3600 * 1000
	l.apply(f, l.c.freshPackage(f, 0, l.nowMs))
	l.apply(f, TickCommand(l.nowMs))
	l.apply(f, l.c.erasure(0, 1, l.nowMs))
	f.Add(l.m.Snapshot())
	f.Fuzz(func(t *testing.T, data []byte) {
		m := New(l.c.ch)
		if m.Restore(data) == nil && !bytes.Equal(m.Snapshot(), data) {
			t.Error("a restored state is not the snapshot's")
		}
	})
}
