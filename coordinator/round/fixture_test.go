package round

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

const epoch0 = int64(1_800_000_000_000) // where the tests' time begins

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// options shape a test's charter.
type options struct {
	n, f, faulty int
	nMin, nMax   uint32
	kind         string
	window       string
}

// consortium is a charter with all its keys, and devices.
type consortium struct {
	ch          *charter.Charter
	identities  []*identity.Member
	authorities []*identity.Key
	votes       []*identity.Key
	epochs      []uint64
	devices     map[string]*identity.Key
	random      *rand.ChaCha8
}

func newConsortium(t testing.TB, o options) *consortium {
	t.Helper()
	c := &consortium{random: rand.NewChaCha8([32]byte{byte(o.n), byte(o.f)}), devices: map[string]*identity.Key{}, epochs: make([]uint64, o.n)}
	var cards []charter.Card
	for i := range o.n {
		id, err := identity.NewMember(c.random)
		must(t, err)
		authority, tls := c.key(t), c.key(t)
		c.identities, c.authorities, c.votes = append(c.identities, id), append(c.authorities, authority), append(c.votes, nil)
		cards = append(cards, charter.Card{Name: fmt.Sprintf("org-%d", i), StoreID: fmt.Sprintf("00000000-0000-4000-8000-%012d", i),
			Identity: id.Public(), Authority: authority.Public(), TLSKey: tls.Public(),
			DeviceURL: fmt.Sprintf("https://org-%d.example:7420", i), MeshAddr: fmt.Sprintf("org-%d.example:7421", i)})
	}
	task := charter.NewTask("steps", o.kind)
	var err error
	if o.kind == charter.KindLoRA {
		task.Layout, err = layout.LoRA([]layout.Module{{Name: "q", In: 16, Out: 8}}, 2, 2, nil)
		task.Base = label.Sum(label.TagBase).String()
		task.Recipe = charter.Recipe{Rank: 2, Alpha: 2, Steps: 8, Batch: 4, Window: 64, LR: 1e-2, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Clip: 1}
	} else {
		task.Layout, err = layout.Vector("mean", 10, nil)
		task.Window = o.window
	}
	must(t, err)
	task.InitSeed = label.Sum(label.TagTask, []byte("seed"))
	task.Encoding = charter.Encoding{CReal: 4, C: 2253}
	task.Cohort = charter.Cohort{NMin: o.nMin, NMax: o.nMax}
	minutes := func(m int) charter.Duration { return charter.Duration(time.Duration(m) * time.Minute) }
	task.Timings = charter.Timings{Every: minutes(1), CloseAfter: minutes(10), AckTimeout: minutes(1), AckAfter: minutes(5), RevealAfter: minutes(60)}
	body, err := charter.Draft(cards, charter.Options{Consortium: "Essaim", Demo: true, F: o.f, AuthoritiesFaulty: o.faulty, MinContributors: 3,
		Tasks: []charter.Task{task}, Timing: charter.Timing{EpochLife: minutes(24 * 60), Slack: minutes(5), Tick: charter.Duration(time.Second)}})
	must(t, err)
	c.ch, err = charter.Parse(body)
	must(t, err)
	return c
}

func (c *consortium) key(t testing.TB) *identity.Key {
	t.Helper()
	k, err := identity.NewKey(c.random)
	must(t, err)
	return k
}

// freshPackage draws a member's next epoch.
func (c *consortium) freshPackage(t testing.TB, j int, nowMs int64) *coordpb.Command {
	return c.packageFor(t, j, nowMs, 24*time.Hour)
}

// packageFor draws a member's next epoch, of any life.
func (c *consortium) packageFor(t testing.TB, j int, fromMs int64, life time.Duration) *coordpb.Command {
	c.votes[j] = c.key(t)
	c.epochs[j]++
	k := &statement.KeyPackage{Charter: c.ch.Hash(), Member: j, Epoch: c.epochs[j],
		SealKey: bytes.Repeat([]byte{byte(j + 1), byte(c.epochs[j])}, statement.SealPublicSize/2),
		VoteKey: c.votes[j].Public(), NotBeforeMs: fromMs, NotAfterMs: fromMs + life.Milliseconds()}
	return KeyPackageCommand(statement.SignMember(c.identities[j], label.StmtKeyPackage, k.Bytes()))
}

func (c *consortium) erasure(j int, epoch uint64, nowMs int64) *coordpb.Command {
	x := &statement.Erasure{Charter: c.ch.Hash(), Member: j, Epoch: epoch, AtMs: nowMs}
	return ErasureCommand(statement.SignMember(c.identities[j], label.StmtErasure, x.Bytes()))
}

func (c *consortium) device(t testing.TB, name string) *identity.Key {
	if c.devices[name] == nil {
		c.devices[name] = c.key(t)
	}
	return c.devices[name]
}

func (c *consortium) deviceID(t testing.TB, name string) label.Hash {
	return identity.DeviceID(c.device(t, name).Public())
}

func (c *consortium) enrol(t testing.TB, name string, authority int, quota uint32, expiresMs int64, token string) *coordpb.Command {
	k := c.device(t, name)
	cert := &statement.DeviceCert{Charter: c.ch.Hash(), Device: identity.DeviceID(k.Public()), Public: k.Public(), Authority: authority,
		Quota: quota, ExpiresMs: expiresMs, Token: statement.HashToken([]byte(token))}
	return DeviceCertCommand(statement.SignKey(c.authorities[authority], label.StmtDeviceCert, cert.Bytes()))
}

// contribution is a device's Accept; nonce tells two contributions of one device apart.
func (c *consortium) contribution(t testing.TB, m *Machine, round label.Hash, name, nonce string) *statement.Accept {
	v, _ := m.Round(round)
	id := c.deviceID(t, name)
	header := label.Sum(label.TagHeader, round[:], id[:], []byte(nonce))
	authority := 0
	if _, cert, ok := m.Device(id); ok {
		authority = cert.Authority
	}
	return &statement.Accept{Round: round, Header: header, Device: id, Authority: authority, Size: v.Config.ContributionSize(c.ch),
		Holders: v.Config.Listed(), Signature: statement.SignContribution(c.device(t, name), round, header)}
}

func (c *consortium) sign(m *Machine, j int, round label.Hash) *coordpb.Command {
	v, _ := m.Round(round)
	return RoundSignatureCommand(round, j, c.identities[j].Sign(label.StmtRoundConfig, v.Body))
}

func (c *consortium) vote(j int, round, value label.Hash) *coordpb.Command {
	return VoteCommand(round, j, statement.SignKey(c.votes[j], label.StmtVote, (&statement.Vote{Round: round, Value: value}).Bytes()))
}

func (c *consortium) expired(j int, round label.Hash) *coordpb.Command {
	return ExpiredCommand(round, j, statement.SignKey(c.votes[j], label.StmtExpired, (&statement.Expired{Round: round}).Bytes()))
}

func (c *consortium) abort(j int, round label.Hash) *coordpb.Command {
	return AbortCommand(round, j, statement.SignMember(c.identities[j], label.StmtAbort, (&statement.Abort{Round: round, Reason: "test"}).Bytes()))
}

// ack refuses the candidates for which bad says so.
func (c *consortium) ack(m *Machine, j int, round, closing label.Hash, bad func(label.Hash) bool) *coordpb.Command {
	a := &statement.Ack{Round: round, Close: closing}
	for _, k := range m.Candidates(round) {
		v := statement.OK
		if bad != nil && bad(k.Device) {
			v = statement.BadBox
		}
		a.Verdicts = append(a.Verdicts, v)
	}
	return AckCommand(round, j, statement.SignKey(c.votes[j], label.StmtAck, a.Bytes()))
}

// reveal makes up the hashes that honest members compute: the same for all, unless lie says otherwise.
func (c *consortium) reveal(j int, round, set label.Hash, lie string) *coordpb.Command {
	r := &statement.Reveal{Round: round, Set: set, SumY: label.Sum(label.TagSum, round[:], []byte(lie))}
	for _, t := range committee.SubsetsOf(c.ch.N, c.ch.F, j) {
		r.TSums = append(r.TSums, statement.TSum{Subset: t, Hash: label.Sum(label.TagTSum, round[:], []byte{byte(t)}, []byte(lie))})
	}
	return RevealCommand(round, j, statement.SignKey(c.votes[j], label.StmtReveal, r.Bytes()))
}

func (c *consortium) result(j int, round, set label.Hash, lie string) *coordpb.Command {
	r := &statement.Result{Round: round, Set: set, X: label.Sum(label.TagUnmasked, round[:], []byte(lie)), Model: label.Sum(label.TagModel, round[:], []byte(lie))}
	return ResultCommand(round, j, statement.SignMember(c.identities[j], label.StmtResult, r.Bytes()))
}

// log applies commands as a member does: marshalled, one index after the other; if it is asked to, restarted from a
// snapshot after each.
type log struct {
	restarts bool
	c        *consortium
	m        *Machine
	index    uint64
	nowMs    int64
	all      [][]byte
}

func newLog(t testing.TB, o options) *log {
	c := newConsortium(t, o)
	return &log{c: c, m: New(c.ch), nowMs: epoch0}
}

func (l *log) apply(t testing.TB, cmd *coordpb.Command) []Outcome {
	t.Helper()
	data, err := proto.Marshal(cmd)
	must(t, err)
	l.index++
	l.all = append(l.all, data)
	out := l.m.ApplyBytes(l.index, data)
	if l.restarts {
		l.restart(t)
	}
	return out
}

// restart replaces the machine by one restored from its snapshot, which must be equal and owe the same.
func (l *log) restart(t testing.TB) {
	t.Helper()
	restarted := New(l.c.ch)
	if err := restarted.Restore(l.m.Snapshot()); err != nil {
		t.Fatalf("entry %d: restart: %v", l.index, err)
	}
	if restarted.Digest() != l.m.Digest() || restarted.Applied() != l.index {
		t.Fatalf("entry %d: a restarted machine differs", l.index)
	}
	for me := range l.c.ch.N {
		if fmt.Sprint(restarted.Due(me)) != fmt.Sprint(l.m.Due(me)) {
			t.Fatalf("entry %d: a restarted machine owes something else", l.index)
		}
	}
	l.m = restarted
}

func (l *log) now() time.Time { return time.UnixMilli(l.nowMs) }
