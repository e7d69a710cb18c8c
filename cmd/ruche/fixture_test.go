package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

const (
	hourMs = int64(3600 * 1000)
	epoch0 = int64(1_800_000_000_000) // where the tests' time begins
)

// hive is a charter of four members with all its keys: whatever a test fabricates, it can sign.
type hive struct {
	t           testing.TB
	ch          *charter.Charter
	file        []byte // charter.json
	identities  []*identity.Member
	authorities []*identity.Key
	votes       []*identity.Key
	tls         []ed25519.PrivateKey
	packages    []statement.Signed
	random      *rand.ChaCha8
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newHive draws the same keys each time. urls are the device URLs of the members; nil gives them some.
func newHive(t testing.TB, urls []string) *hive {
	t.Helper()
	h := &hive{t: t, random: rand.NewChaCha8([32]byte{7})}
	var cards []charter.Card
	for i := range 4 {
		id, err := identity.NewMember(h.random)
		must(t, err)
		authority, tls := h.key(), h.key()
		h.identities, h.authorities, h.votes = append(h.identities, id), append(h.authorities, authority), append(h.votes, h.key())
		h.tls = append(h.tls, ed25519.NewKeyFromSeed(tls.Bytes()))
		card := charter.Card{Name: fmt.Sprintf("org-%d", i), StoreID: fmt.Sprintf("00000000-0000-4000-8000-%012d", i),
			Identity: id.Public(), Authority: authority.Public(), TLSKey: tls.Public(),
			DeviceURL: fmt.Sprintf("https://org-%d.example:7420", i), MeshAddr: fmt.Sprintf("org-%d.example:7421", i)}
		if urls != nil {
			card.DeviceURL = urls[i]
		}
		cards = append(cards, card)
	}
	minutes := func(m int) charter.Duration { return charter.Duration(time.Duration(m) * time.Minute) }
	l, err := layout.LoRA([]layout.Module{{Name: "model.layers.0.self_attn.q_proj", In: 8, Out: 8}, {Name: "model.layers.0.mlp.up_proj", In: 8, Out: 16}}, 2, 2, layout.StandardTail())
	must(t, err)
	commons := charter.NewTask("commons", charter.KindLoRA)
	commons.Base, commons.Layout = label.Sum(label.TagTask, []byte("base")).String(), l
	commons.Recipe = charter.Recipe{Rank: 2, Alpha: 2, Steps: 8, Batch: 8, Window: 96, LR: 1e-2, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Clip: 1}
	v, err := layout.Vector("steps", 10, layout.StandardTail()[:1])
	must(t, err)
	steps := charter.NewTask("steps", charter.KindVector)
	steps.Layout, steps.Window = v, "1h"
	for _, task := range []*charter.Task{&commons, &steps} {
		task.InitSeed = label.Sum(label.TagTask, []byte("seed"), []byte(task.ID))
		task.Encoding, task.Cohort = charter.Encoding{CReal: 4, C: 2253}, charter.Cohort{NMin: 3, NMax: 100}
		task.Timings = charter.Timings{CloseAfter: minutes(10), AckTimeout: minutes(1), AckAfter: minutes(5), RevealAfter: minutes(60)}
	}
	body, err := charter.Draft(cards, charter.Options{Consortium: "Essaim", Demo: true, F: 1, MinContributors: 3, Tasks: []charter.Task{commons, steps},
		Timing: charter.Timing{EpochLife: minutes(24 * 60), Slack: minutes(5), Tick: charter.Duration(time.Second)}})
	must(t, err)
	var sigs []charter.Signature
	for _, k := range h.identities {
		s, err := charter.Sign(body, k)
		must(t, err)
		sigs = append(sigs, s)
	}
	h.file, err = charter.Assemble(body, sigs)
	must(t, err)
	h.ch, err = charter.ParseFile(h.file)
	must(t, err)
	for j := range 4 {
		k := &statement.KeyPackage{Charter: h.ch.Hash(), Member: j, Epoch: 1, SealKey: bytes.Repeat([]byte{byte(j + 1)}, statement.SealPublicSize),
			VoteKey: h.votes[j].Public(), NotBeforeMs: epoch0, NotAfterMs: epoch0 + 24*hourMs}
		h.packages = append(h.packages, statement.SignMember(h.identities[j], label.StmtKeyPackage, k.Bytes()))
	}
	return h
}

func (h *hive) key() *identity.Key {
	k, err := identity.NewKey(h.random)
	must(h.t, err)
	return k
}

// cert is a body with the identity signatures of members.
func (h *hive) cert(stmt string, body []byte, members ...int) *coordpb.Certificate {
	c := &coordpb.Certificate{Body: body}
	for _, j := range members {
		c.Signatures = append(c.Signatures, &coordpb.MemberSignature{Member: uint32(j), Signature: h.identities[j].Sign(stmt, body)})
	}
	return c
}

// said is a body with the vote-key signature of one member.
func (h *hive) said(stmt string, body []byte, member int) *coordpb.MemberStatement {
	return round.ToMemberStatement(statement.MemberStatement{Member: member, Statement: statement.SignKey(h.votes[member], stmt, body)})
}

func (h *hive) votesFor(id, value label.Hash, members ...int) (out []*coordpb.MemberStatement) {
	for _, j := range members {
		out = append(out, h.said(label.StmtVote, (&statement.Vote{Round: id, Value: value}).Bytes(), j))
	}
	return out
}

func (h *hive) expired(id label.Hash, members ...int) (out []*coordpb.MemberStatement) {
	for _, j := range members {
		out = append(out, h.said(label.StmtExpired, (&statement.Expired{Round: id}).Bytes(), j))
	}
	return out
}

// published is a round and all that a member serves of it. Tests spoil it.
type published struct {
	id      label.Hash
	rc      *statement.RoundConfig
	rec     *coordpb.RoundRecord
	model   layout.Model
	state   []byte
	devices []*identity.Key
	set     label.Hash
}

// publish makes an honest record of a published round of commons: five devices, member 2 misses the last one's
// contribution, members 0, 1 and 2 vote and reveal, 0 and 1 sign the result.
func (h *hive) publish(seq uint64, before *published) *published {
	task, _ := h.ch.Task("commons")
	start := statement.Start{Model: task.Init().Hash(), Part: task.Layout.Factor}
	if before != nil {
		start.Model, start.Results = before.model.Hash(), []label.Hash{statement.HashResult(before.rec.GetResult().GetBody())}
	}
	return h.publishFrom(seq, start)
}

func (h *hive) publishFrom(seq uint64, start statement.Start) *published {
	t := h.t
	task, _ := h.ch.Task("commons")
	at := epoch0 + int64(seq)*hourMs
	rc, err := statement.NewRoundConfig(h.ch, "commons", seq, start, at, h.packages)
	must(t, err)
	p := &published{id: rc.ID(), rc: rc}
	p.rec = &coordpb.RoundRecord{Config: h.cert(label.StmtRoundConfig, rc.Bytes(), 0, 1, 3), Phase: round.Published.String(), Seq: seq, TaskId: "commons", RoundId: p.id[:],
		Refused: map[string]uint32{"round_closed": 2, "no_quota": 1}}
	for i, phase := range []round.Phase{round.Proposed, round.Open, round.Closed, round.Acked, round.Sealed, round.Revealed, round.Published} {
		p.rec.Phases = append(p.rec.Phases, &coordpb.PhaseTime{Phase: phase.String(), UnixMs: at + int64(i*i)*1500})
	}
	var list []statement.Contributor
	for i := range 5 {
		d := h.key()
		p.devices = append(p.devices, d)
		id := identity.DeviceID(d.Public())
		cert := &statement.DeviceCert{Charter: h.ch.Hash(), Device: id, Public: d.Public(), Authority: i % 4, Quota: 10, ExpiresMs: epoch0 + 1000*hourMs, Token: label.Sum(label.TagToken, []byte{byte(i)})}
		b, err := proto.Marshal(round.ToSigned(statement.SignKey(h.authorities[i%4], label.StmtDeviceCert, cert.Bytes())))
		must(t, err)
		p.rec.DeviceCerts = append(p.rec.DeviceCerts, b)
		header := label.Sum(label.TagHeader, id[:])
		a := &statement.Accept{Round: p.id, Header: header, Device: id, Authority: i % 4, Size: rc.ContributionSize(h.ch), Holders: 0b0111,
			Signature: statement.SignContribution(d, p.id, header)}
		p.rec.Accepts, p.rec.UploadBytes = append(p.rec.Accepts, a.Bytes()), p.rec.UploadBytes+a.Size
		list = append(list, statement.Contributor{Device: id, Header: header})
	}
	candidates := statement.HashCandidates(p.id, list)
	p.rec.ClosedAcceptsHash = candidates[:]
	closing := &statement.Close{Round: p.id, Active: 0b0111, Candidates: candidates}
	p.rec.Closes = [][]byte{closing.Bytes()}
	for j := range 3 {
		ack := &statement.Ack{Round: p.id, Close: closing.Hash(), Verdicts: make([]statement.Verdict, 5)}
		if j == 2 {
			ack.Verdicts[4] = statement.Missing
		}
		p.rec.Acks = append(p.rec.Acks, h.said(label.StmtAck, ack.Bytes(), j))
	}
	p.decide(list[:4])
	p.rec.Votes = h.votesFor(p.id, p.set, 0, 1, 2)
	for j := range 3 {
		p.rec.Reveals = append(p.rec.Reveals, h.reveal(p, j))
	}
	p.model = layout.Model{TaskID: task.ID, LayoutHash: task.Layout.Hash(), Seq: seq, Values: make([]float32, task.Layout.D())}
	for i := range p.model.Values {
		p.model.Values[i] = float32(i+int(seq)) / 64
	}
	p.state = p.model.Canonical()
	p.rec.Result = h.result(p, 0, 1)
	return p
}

// decide writes a set into the record as its decision.
func (p *published) decide(s []statement.Contributor) {
	s = slices.Clone(s)
	statement.SortContributors(s)
	p.set = statement.HashSet(p.id, s)
	p.rec.Decision, p.rec.Contributors = p.set[:], nil
	for _, c := range s {
		p.rec.Contributors = append(p.rec.Contributors, bytes.Clone(c.Device[:]))
	}
}

func (h *hive) reveal(p *published, member int, alter ...func(*statement.Reveal)) *coordpb.MemberStatement {
	r := &statement.Reveal{Round: p.id, Set: p.set, SumY: label.Sum(label.TagSum, p.set[:])}
	for _, m := range committee.SubsetsOf(h.ch.N, h.ch.F, member) {
		r.TSums = append(r.TSums, statement.TSum{Subset: m, Hash: label.Sum(label.TagTSum, p.set[:], []byte{byte(m)})})
	}
	for _, f := range alter {
		f(r)
	}
	return h.said(label.StmtReveal, r.Bytes(), member)
}

func (h *hive) result(p *published, members ...int) *coordpb.Certificate {
	r := &statement.Result{Round: p.id, Set: p.set, X: label.Sum(label.TagUnmasked, p.set[:]), Model: p.model.Hash()}
	return h.cert(label.StmtResult, r.Bytes(), members...)
}

// sources serve what these rounds need.
func (h *hive) sources(rounds ...*published) sources {
	return sources{
		state: func(model label.Hash) ([]byte, error) {
			for _, p := range rounds {
				if p.model.Hash() == model {
					return p.state, nil
				}
			}
			return nil, fmt.Errorf("no state %s", model)
		},
		previous: func(_ string, model label.Hash) (*coordpb.RoundRecord, error) {
			for _, p := range rounds {
				if p.model.Hash() == model {
					return p.rec, nil
				}
			}
			return nil, absent("the round it starts from is not kept any more")
		},
	}
}

// ruche runs the program as a user would.
func ruche(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	code = cli.Run(ctx, newApp(), append([]string{"ruche"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}
