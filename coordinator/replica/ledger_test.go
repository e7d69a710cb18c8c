package replica

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
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

// consortium is a charter with all its keys and devices: what signs, in a storm, is real.
type consortium struct {
	ch          *charter.Charter
	identities  []*identity.Member
	authorities []*identity.Key
	votes       []*identity.Key
	devices     []*identity.Key // device i is enrolled by authority i%n
}

const stormTask = "mean"

func newConsortium(t testing.TB, n, f int) *consortium {
	t.Helper()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	random := rand.NewChaCha8([32]byte{byte(n), byte(f)})
	key := func() *identity.Key {
		k, err := identity.NewKey(random)
		ok(err)
		return k
	}
	c := &consortium{}
	var cards []charter.Card
	for i := range n {
		id, err := identity.NewMember(random)
		ok(err)
		authority := key()
		c.identities, c.authorities, c.votes = append(c.identities, id), append(c.authorities, authority), append(c.votes, key())
		cards = append(cards, charter.Card{Name: fmt.Sprintf("org%d", i), StoreID: fmt.Sprintf("00000000-0000-4000-8000-%012d", i),
			Identity: id.Public(), Authority: authority.Public(), TLSKey: key().Public(),
			DeviceURL: fmt.Sprintf("https://org-%d.example:7420", i), MeshAddr: fmt.Sprintf("org-%d.example:7421", i)})
	}
	task := charter.NewTask(stormTask, charter.KindVector)
	var err error
	task.Layout, err = layout.Vector("mean", 10, nil)
	ok(err)
	task.Window = "30s"
	task.InitSeed = label.Sum(label.TagTask, []byte("storm"))
	task.Encoding = charter.Encoding{CReal: 4, C: 2253}
	task.Cohort = charter.Cohort{NMin: 3, NMax: 3}
	d := func(d time.Duration) charter.Duration { return charter.Duration(d) }
	task.Timings = charter.Timings{Every: d(30 * time.Second), CloseAfter: d(3 * time.Minute), AckTimeout: d(5 * time.Second),
		AckAfter: d(5 * time.Minute), RevealAfter: d(15 * time.Minute)}
	body, err := charter.Draft(cards, charter.Options{Consortium: "Storm", Demo: true, F: f, MinContributors: 3, Tasks: []charter.Task{task},
		Timing: charter.Timing{EpochLife: d(24 * time.Hour), Slack: d(time.Minute), Tick: d(time.Second)}})
	ok(err)
	c.ch, err = charter.Parse(body)
	ok(err)
	for range 3 {
		c.devices = append(c.devices, key())
	}
	return c
}

// wishes are the commands that a member of a consortium, with the devices it enrolled, would have in the log by now: a
// pure function of the state, as in the product. Ledgers never lie.
func (c *consortium) wishes(m *round.Machine, me int, now time.Time) (out []*coordpb.Command) {
	if _, _, ok := m.KeyPackage(me); !ok {
		k := &statement.KeyPackage{Charter: c.ch.Hash(), Member: me, Epoch: 1, SealKey: bytes.Repeat([]byte{byte(me + 1)}, statement.SealPublicSize),
			VoteKey: c.votes[me].Public(), NotBeforeMs: now.UnixMilli(), NotAfterMs: now.UnixMilli() + 24*3600*1000}
		out = append(out, round.KeyPackageCommand(statement.SignMember(c.identities[me], label.StmtKeyPackage, k.Bytes())))
	}
	for i, key := range c.devices {
		if i%c.ch.N != me {
			continue
		}
		id := identity.DeviceID(key.Public())
		if _, _, ok := m.Device(id); !ok {
			cert := &statement.DeviceCert{Charter: c.ch.Hash(), Device: id, Public: key.Public(), Authority: me, Quota: 1 << 16,
				ExpiresMs: now.Add(300 * 24 * time.Hour).UnixMilli(), Token: statement.HashToken([]byte{byte(i)})}
			out = append(out, round.DeviceCertCommand(statement.SignKey(c.authorities[me], label.StmtDeviceCert, cert.Bytes())))
			continue
		}
		if v, ok := m.Newest(stormTask); ok && v.Phase == round.Open && m.Acceptable(v.ID, id, label.Hash{}).Code == round.OK {
			header := label.Sum(label.TagHeader, v.ID[:], id[:])
			out = append(out, round.AcceptsCommand(&statement.Accept{Round: v.ID, Header: header, Device: id, Authority: me,
				Size: v.Config.ContributionSize(c.ch), Holders: v.Config.Listed(), Signature: statement.SignContribution(key, v.ID, header)}))
		}
	}
	for _, e := range m.Due(me) {
		if cmd := c.duty(m, me, e); cmd != nil {
			out = append(out, cmd)
		}
	}
	return out
}

func (c *consortium) duty(m *round.Machine, me int, e round.Effect) *coordpb.Command {
	v, _ := m.Round(e.Round)
	id := e.Round
	signed := func(stmt string, body []byte) statement.Signed { return statement.SignKey(c.votes[me], stmt, body) }
	switch e.Duty {
	case round.SignRound:
		return round.RoundSignatureCommand(id, me, c.identities[me].Sign(label.StmtRoundConfig, v.Body))
	case round.SignAck:
		a := &statement.Ack{Round: id, Close: e.Close}
		for range m.Candidates(id) {
			a.Verdicts = append(a.Verdicts, statement.OK)
		}
		return round.AckCommand(id, me, signed(label.StmtAck, a.Bytes()))
	case round.SignVote:
		return round.VoteCommand(id, me, signed(label.StmtVote, (&statement.Vote{Round: id, Value: e.Value}).Bytes()))
	case round.SignReveal:
		r := &statement.Reveal{Round: id, Set: e.Value, SumY: label.Sum(label.TagSum, id[:], e.Value[:])}
		for _, s := range committee.SubsetsOf(c.ch.N, c.ch.F, me) {
			r.TSums = append(r.TSums, statement.TSum{Subset: s, Hash: label.Sum(label.TagTSum, id[:], []byte{byte(s)})})
		}
		return round.RevealCommand(id, me, signed(label.StmtReveal, r.Bytes()))
	case round.SignResult:
		r := &statement.Result{Round: id, Set: e.Value, X: label.Sum(label.TagUnmasked, id[:], e.Value[:]), Model: label.Sum(label.TagModel, id[:], e.Value[:])}
		return round.ResultCommand(id, me, statement.SignMember(c.identities[me], label.StmtResult, r.Bytes()))
	case round.SignExpired:
		return round.ExpiredCommand(id, me, signed(label.StmtExpired, (&statement.Expired{Round: id}).Bytes()))
	}
	return nil
}

// leads are the commands that the leader adds.
func (c *consortium) leads(m *round.Machine, now time.Time, alive statement.Mask) (out []*coordpb.Command) {
	if now.UnixMilli()-m.TimeMs() >= time.Second.Milliseconds() {
		out = append(out, round.TickCommand(now.UnixMilli()))
	}
	if rc, _ := m.NextConfig(stormTask, now, alive); rc != nil {
		out = append(out, round.ProposeCommand(rc))
	}
	if v, ok := m.Newest(stormTask); ok {
		if cl, due := m.NextClose(v.ID, now, alive); due {
			out = append(out, round.CloseCommand(cl))
		}
	}
	return out
}

func marshal(t testing.TB, cmd *coordpb.Command) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(cmd)
	if err != nil {
		t.Error(err)
	}
	return b
}
