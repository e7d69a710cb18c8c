package statement

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

const (
	second = int64(1000)
	hour   = 3600 * second
	epoch0 = int64(1_800_000_000_000) // where the tests' time begins
)

// consortium is a charter with all its keys.
type consortium struct {
	ch          *charter.Charter
	identities  []*identity.Member
	authorities []*identity.Key
	votes       []*identity.Key
	packages    []Signed
	random      *rand.ChaCha8
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newConsortium(t testing.TB, n, f int) *consortium {
	t.Helper()
	c := &consortium{random: rand.NewChaCha8([32]byte{byte(n), byte(f)})}
	var cards []charter.Card
	for i := range n {
		id, err := identity.NewMember(c.random)
		must(t, err)
		authority, tls := c.key(t), c.key(t)
		c.identities, c.authorities, c.votes = append(c.identities, id), append(c.authorities, authority), append(c.votes, c.key(t))
		cards = append(cards, charter.Card{Name: fmt.Sprintf("org-%d", i), StoreID: fmt.Sprintf("00000000-0000-4000-8000-%012d", i),
			Identity: id.Public(), Authority: authority.Public(), TLSKey: tls.Public(),
			DeviceURL: fmt.Sprintf("https://org-%d.example:7420", i), MeshAddr: fmt.Sprintf("org-%d.example:7421", i)})
	}
	l, err := layout.Vector("mean", 10, []layout.Metric{{Name: "examples", Max: 64}})
	must(t, err)
	task := charter.NewTask("steps", charter.KindVector)
	task.Layout, task.Window, task.InitSeed = l, "1h", label.Sum(label.TagTask, []byte("seed"))
	task.Encoding = charter.Encoding{CReal: 4, C: 2253}
	task.Cohort = charter.Cohort{NMin: 3, NMax: 100}
	minutes := func(m int) charter.Duration { return charter.Duration(time.Duration(m) * time.Minute) }
	task.Timings = charter.Timings{CloseAfter: minutes(10), AckTimeout: minutes(1), AckAfter: minutes(5), RevealAfter: minutes(60)}
	body, err := charter.Draft(cards, charter.Options{Consortium: "Essaim", Demo: true, F: f, MinContributors: 3, Tasks: []charter.Task{task},
		Timing: charter.Timing{EpochLife: minutes(24 * 60), Slack: minutes(5), Tick: charter.Duration(time.Second)}})
	must(t, err)
	c.ch, err = charter.Parse(body)
	must(t, err)
	for j := range n {
		c.packages = append(c.packages, c.keyPackage(j, func(*KeyPackage) {}))
	}
	return c
}

func (c *consortium) key(t testing.TB) *identity.Key {
	t.Helper()
	k, err := identity.NewKey(c.random)
	must(t, err)
	return k
}

func (c *consortium) keyPackage(j int, alter func(*KeyPackage)) Signed {
	k := &KeyPackage{Charter: c.ch.Hash(), Member: j, Epoch: 1, SealKey: bytes.Repeat([]byte{byte(j + 1)}, SealPublicSize),
		VoteKey: c.votes[j].Public(), NotBeforeMs: epoch0, NotAfterMs: epoch0 + 24*hour}
	alter(k)
	return SignMember(c.identities[j], label.StmtKeyPackage, k.Bytes())
}

func (c *consortium) start() Start {
	task := &c.ch.Tasks[0]
	return Start{Model: task.Init().Hash(), Part: task.WindowPart(time.UnixMilli(epoch0 + hour))}
}

func (c *consortium) config(t testing.TB) *RoundConfig {
	t.Helper()
	rc, err := NewRoundConfig(c.ch, "steps", 1, c.start(), epoch0+hour, c.packages)
	must(t, err)
	return rc
}

// roundCert is signed by the given members.
func (c *consortium) roundCert(body []byte, members ...int) (out []MemberSignature) {
	for _, j := range members {
		out = append(out, MemberSignature{j, c.identities[j].Sign(label.StmtRoundConfig, body)})
	}
	return out
}

// said is one body signed by the vote keys of the given members.
func (c *consortium) said(stmt string, body []byte, members ...int) (out []MemberStatement) {
	for _, j := range members {
		out = append(out, MemberStatement{j, SignKey(c.votes[j], stmt, body)})
	}
	return out
}

func unixMs(ms int64) time.Time { return time.UnixMilli(ms) }
