package explore

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/seal"
)

const (
	taskID   = "mean"
	lanes    = 8
	devices  = 4 // A is all of them, B lacks the last
	floor    = devices - 1
	beginMs  = int64(1_800_000_000_000)
	closeDur = 10 * time.Minute
	ackDur   = 10 * time.Minute
	revDur   = time.Hour
)

// world is everything that is the same in every state: the charter, all keys, what devices sent, what a liar may say.
type world struct {
	opts  Options
	ch    *charter.Charter
	homes []*coordinator.Home // all members'; a liar's keys are in the leader's hands
	liars []*identity.Key     // their vote keys, by member; nil for the honest
	seats []*seat             // the honest members

	genesis []*coordpb.Command        // key packages and device certificates
	configs [2]*statement.RoundConfig // of one seq
	ids     [2]label.Hash             // theirs
	hashes  [foreign]label.Hash       // by value
	accepts []*statement.Accept       // to configs[0]
	uploads [][]*coordpb.UploadRequest
	closes  []closing
	chunks  []chunk

	spoken map[said]*coordpb.Command // the exact command of what an honest member signed, as it first left it
}

// closing is one Close that the leader may show, with the list that it closes.
type closing struct {
	name  string
	close *statement.Close
	list  int // how many of the accepts, in order
	hash  label.Hash
}

// honest is how many members keep to the protocol; they have the lowest indices, the leader is the last member.
func (w *world) honest() int { return w.ch.N - w.ch.F }

func seeded(parts ...string) *rand.ChaCha8 {
	var b []byte
	for _, p := range parts {
		b = append(append(b, p...), 0)
	}
	return rand.NewChaCha8(label.Sum(label.TagPersonal, b))
}

func marshal(cmd *coordpb.Command) []byte {
	b, err := proto.Marshal(cmd)
	if err != nil {
		panic(err) // commands are built here
	}
	return b
}

// newWorld holds the key ceremony, draws every key, and lets every honest member take the contributions.
func newWorld(opts Options, dir string) (*world, error) {
	w := &world{opts: opts, spoken: map[said]*coordpb.Command{}, liars: make([]*identity.Key, opts.N)}
	if err := w.charter(dir); err != nil {
		return nil, err
	}
	for i := range w.honest() {
		w.seats = append(w.seats, newSeat(w, i))
	}
	m := round.New(w.ch)
	add := func(cmd *coordpb.Command) error {
		b := marshal(cmd)
		w.genesis = append(w.genesis, cmd)
		for _, o := range m.ApplyBytes(uint64(len(w.genesis)), b) {
			if o.Code != round.OK {
				return fmt.Errorf("genesis: %s: %s", o.Code, o.Detail)
			}
		}
		return nil
	}
	for i, h := range w.homes {
		cmd, err := w.keyPackage(i, h)
		if err != nil {
			return nil, err
		}
		if err := add(cmd); err != nil {
			return nil, err
		}
	}
	var keys []*identity.Key
	for d := range devices {
		k, err := identity.NewKey(seeded("device", fmt.Sprint(d)))
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
		cert := &statement.DeviceCert{Charter: w.ch.Hash(), Device: identity.DeviceID(k.Public()), Public: k.Public(), Authority: 0,
			Quota: 100, ExpiresMs: beginMs + 48*time.Hour.Milliseconds(), Token: statement.HashToken([]byte{byte(d)})}
		if err := add(round.DeviceCertCommand(statement.SignKey(w.homes[0].Authority, label.StmtDeviceCert, cert.Bytes()))); err != nil {
			return nil, err
		}
	}
	for k := range w.configs {
		rc, reason := m.NextConfig(taskID, w.now().Add(time.Duration(k)*time.Millisecond), 1<<w.ch.N-1)
		if rc == nil {
			return nil, errors.New(reason)
		}
		w.configs[k], w.ids[k] = rc, rc.ID()
	}
	for d, k := range keys {
		if err := w.contribution(m, d, k); err != nil {
			return nil, err
		}
	}
	w.hashes = [foreign]label.Hash{setA: w.set(devices), setB: w.set(floor), dead: statement.Dead()}
	w.makeCloses()
	w.makeChunks()
	for _, s := range w.seats {
		if err := s.begin(); err != nil {
			return nil, fmt.Errorf("member %d: %w", s.me, err)
		}
	}
	return w, nil
}

// now is every honest member's clock. It stands still: the log's time is what the leader's ticks say.
func (w *world) now() time.Time { return time.UnixMilli(beginMs).UTC() }

func (w *world) charter(dir string) error {
	var cards []charter.Card
	for i := range w.opts.N {
		h, err := coordinator.InitHome(filepath.Join(dir, fmt.Sprintf("member-%d", i)), coordinator.HomeOptions{Name: fmt.Sprintf("org-%d", i),
			DeviceURL: fmt.Sprintf("https://org-%d.example:7420", i), MeshAddr: fmt.Sprintf("org-%d.example:7421", i)}, seeded("member", fmt.Sprint(i)))
		if err != nil {
			return err
		}
		w.homes, cards = append(w.homes, h), append(cards, h.Card)
	}
	task := charter.NewTask(taskID, charter.KindVector)
	var err error
	if task.Layout, err = layout.Vector("mean", lanes, nil); err != nil {
		return err
	}
	task.Window = "once"
	task.InitSeed = label.Sum(label.TagTask, []byte("explore"))
	task.Encoding = charter.Encoding{CReal: 4, C: 2253}
	task.Cohort = charter.Cohort{NMin: floor, NMax: devices}
	d := func(d time.Duration) charter.Duration { return charter.Duration(d) }
	task.Timings = charter.Timings{Every: d(time.Minute), CloseAfter: d(closeDur), AckTimeout: d(5 * time.Second), AckAfter: d(ackDur), RevealAfter: d(revDur)}
	body, err := charter.Draft(cards, charter.Options{Consortium: "Explore", Demo: true, F: w.opts.F, MinContributors: floor, Tasks: []charter.Task{task},
		Timing: charter.Timing{EpochLife: d(24 * time.Hour), Slack: d(time.Minute), Tick: d(time.Second)}})
	if err != nil {
		return err
	}
	if w.ch, err = charter.Parse(body); err != nil {
		return err
	}
	if w.opts.Quorum != 0 {
		w.ch.Q = w.opts.Quorum // a weaker world: what q is for
	}
	return nil
}

// keyPackage is a member's first epoch. An honest member draws and publishes it by itself.
func (w *world) keyPackage(i int, h *coordinator.Home) (*coordpb.Command, error) {
	if i < w.honest() {
		return w.seats[i].firstEpoch()
	}
	r := seeded("liar", fmt.Sprint(i))
	sealKey, err := seal.GenerateKey(r)
	if err != nil {
		return nil, err
	}
	if w.liars[i], err = identity.NewKey(r); err != nil {
		return nil, err
	}
	k := &statement.KeyPackage{Charter: w.ch.Hash(), Member: i, Epoch: 1, SealKey: sealKey.Public(), VoteKey: w.liars[i].Public(),
		NotBeforeMs: beginMs, NotAfterMs: beginMs + w.ch.Timing.EpochLife.Milliseconds()}
	return round.KeyPackageCommand(statement.SignMember(h.Identity, label.StmtKeyPackage, k.Bytes())), nil
}

// contribution makes what a device sends to the first round, and its Accept.
func (w *world) contribution(m *round.Machine, d int, key *identity.Key) error {
	rc, id := w.configs[0], w.ids[0]
	signed, _, ok := m.Device(identity.DeviceID(key.Public()))
	if !ok {
		return fmt.Errorf("device %d is not enrolled", d)
	}
	h := &statement.Header{Round: id, Device: identity.DeviceID(key.Public()), Cert: statement.HashDeviceCert(signed.Body), Kind: statement.KindDevice, Len: rc.Len}
	h.Nonce[0] = byte(d + 1)
	x := make([]uint32, rc.Len)
	for i := range x {
		x[i] = uint32(10*d + i)
	}
	sealed, err := committee.Contribute(rc.Committee(w.ch), h.Device, h.Nonce, x, func(commitments []label.Hash, y label.Hash) []byte {
		h.Commitments, h.Y = commitments, y
		return h.AAD()
	}, seeded("contribution", fmt.Sprint(d)))
	if err != nil {
		return err
	}
	h.Boxes = statement.HashBoxes(sealed.Boxes)
	body := h.Bytes()
	signature := statement.SignContribution(key, id, statement.HashHeader(body))
	w.accepts = append(w.accepts, &statement.Accept{Round: id, Header: statement.HashHeader(body), Device: h.Device, Authority: 0,
		Size: rc.ContributionSize(w.ch), Holders: rc.Listed(), Signature: signature})
	list := []*coordpb.UploadRequest{{Message: &coordpb.UploadRequest_Open{Open: &coordpb.UploadOpen{RoundId: id[:], Boxes: sealed.Boxes,
		Header: &coordpb.Signed{Body: body, Signature: signature}}}}}
	err = coordpb.SendChunks(bytes.NewReader(sealed.Y), 0, func(c *coordpb.Chunk) error {
		list = append(list, &coordpb.UploadRequest{Message: &coordpb.UploadRequest_Chunk{Chunk: c}})
		return nil
	})
	w.uploads = append(w.uploads, list)
	return err
}

// set is H(S) over the first n accepts.
func (w *world) set(n int) label.Hash {
	var s []statement.Contributor
	for _, a := range w.accepts[:n] {
		s = append(s, statement.Contributor{Device: a.Device, Header: a.Header})
	}
	statement.SortContributors(s)
	return statement.HashSet(w.ids[0], s)
}

// makeCloses: two Closes of the long list whose M overlap in as few members as SA 2.2 allows, one of the short list.
func (w *world) makeCloses() {
	var liars statement.Mask
	for i := w.honest(); i < w.ch.N; i++ {
		liars |= 1 << i
	}
	few := w.ch.ActiveMin() - w.ch.F
	low := statement.Mask(1)<<few - 1
	high := low << (w.honest() - few)
	add := func(name string, active statement.Mask, list int) {
		var of []statement.Contributor
		for _, a := range w.accepts[:list] {
			of = append(of, statement.Contributor{Device: a.Device, Header: a.Header})
		}
		id := w.ids[0]
		c := &statement.Close{Round: id, Active: active, Candidates: statement.HashCandidates(id, of)}
		for _, have := range w.closes {
			if have.hash == c.Hash() {
				return
			}
		}
		w.closes = append(w.closes, closing{name, c, list, c.Hash()})
	}
	add("long, low", low|liars, devices)
	add("long, high", high|liars, devices)
	add("short, high", high|liars, floor)
}
