package coordinator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/aggregation/commons"
	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/intake"
	"github.com/ruche-federation/ruche/coordinator/mesh"
	"github.com/ruche-federation/ruche/coordinator/replica"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// plainMember is a member that sums vectors in the clear: what the secure round is measured against. It is a Member in
// everything but the masks: it opens no box, expands no seed, and neither writes nor fetches a sum of masks. TLS, Raft,
// hashes, fsyncs, votes, receipts and results are the same. It exists in this benchmark only.
type plainMember struct {
	*Member
	later map[round.Effect]time.Time
}

// OpenOwnBox is intake.Keys' without a box.
func (p *plainMember) OpenOwnBox(*intake.Contribution, intake.Terms) error { return nil }

// runPlain is Run for a plainMember.
func runPlain(ctx context.Context, o RunOptions) (err error) {
	home, err := OpenHome(o.Dir, rand.Reader)
	if err != nil {
		return err
	}
	ch, me, err := home.Charter()
	if err != nil {
		return err
	}
	m, err := New(Config{Home: home, Charter: ch, Index: me, Now: time.Now, Rand: rand.Reader, Logger: o.Logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	cert, err := mesh.Certificate(home.TLS, home.Card.Name, time.Now())
	if err != nil {
		return err
	}
	peers, err := dialPeers(ch, me, cert, time.Now)
	if err != nil {
		return err
	}
	defer peers.close()
	listener, err := mesh.Listen(ctx, home.Card.MeshAddr, cert, peerKeys(ch, me), o.Logger)
	if err != nil {
		return err
	}
	defer listener.Close()
	o.Timing = replica.Profile(ch.Timing.Profile)
	log, closeLog, err := openLog(o, home, ch, me, m, peers, cert, listener.Raft())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeLog()) }()
	p := &plainMember{m, map[round.Effect]time.Time{}}
	m.Attach(log, peers)
	m.ingress.Close()
	m.ingress = intake.New(intake.Config{Me: m.me, Receipts: ch.AckReceipts(), StoredMin: ch.Believe(),
		Shelf: m.shelf, State: m, Peers: peers, Keys: p, Log: log, Logger: o.Logger})
	u, err := url.Parse(home.Card.DeviceURL)
	if err != nil {
		return err
	}
	port, err := net.Listen("tcp", u.Host)
	if err != nil {
		return err
	}
	meshServer, deviceServer := newMeshServer(m), newDeviceServer(m, cert)
	work, stop := context.WithCancel(ctx)
	defer stop()
	peers.watch(work)
	errs := make(chan error, 2)
	go func() { errs <- meshServer.Serve(listener.RPC()) }()
	go func() { errs <- deviceServer.Serve(limitConnections(port, deviceConns)) }()
	var working sync.WaitGroup
	working.Go(func() {
		loop(work, m.pulse, func() {
			if m.caughtUp() {
				m.keepEpochs(work)
				m.lead(work)
			}
		})
	})
	working.Go(func() {
		loop(work, m.wake, func() {
			if m.caughtUp() {
				p.duties(work)
			}
		})
	})
	working.Go(func() { (&reporter{dir: o.Dir, logger: o.Logger, last: Status{State: StateRunning}}).keep(work, m) })
	select {
	case <-ctx.Done():
	case err = <-errs:
	}
	deviceServer.Stop()
	stop()
	working.Wait()
	meshServer.Stop()
	return err
}

// duties is Member's.
func (p *plainMember) duties(ctx context.Context) {
	p.witness()
	p.mu.Lock()
	due := p.machine.Due(p.me)
	p.mu.Unlock()
	for _, e := range due {
		if time.Now().Before(p.later[e]) {
			continue
		}
		if err := p.do(ctx, e); err != nil && ctx.Err() == nil {
			p.cfg.Logger.Warn("a duty has to wait", "duty", e.Duty.String(), "error", err)
		}
		p.later[e] = time.Now().Add(retryDuty)
	}
	p.followPublished(ctx)
	p.tidy()
}

// do is Member's but for what masks have a part in.
func (p *plainMember) do(ctx context.Context, e round.Effect) error {
	p.mu.Lock()
	v, ok := p.machine.Round(e.Round)
	p.mu.Unlock()
	if !ok {
		return nil
	}
	var cmd *coordpb.Command
	var err error
	switch e.Duty {
	case round.SignAck:
		cmd, err = p.signAck(ctx, v, e.Close)
	case round.SignReveal:
		cmd, err = p.signReveal(ctx, v)
	case round.SignResult:
		cmd, err = p.signResult(ctx, v)
	default:
		return p.Member.do(ctx, e)
	}
	if err != nil || cmd == nil {
		return err
	}
	return p.propose(ctx, cmd)
}

func (p *plainMember) signAck(ctx context.Context, v round.View, closing label.Hash) (*coordpb.Command, error) {
	e, err := p.listed(v.Config)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	c, ok := p.machine.Close(v.ID, closing)
	candidates, applied := p.machine.Candidates(v.ID), p.machine.Applied()
	p.mu.Unlock()
	if !ok {
		return nil, nil
	}
	ack := &statement.Ack{Round: v.ID, Close: c.Hash()}
	for _, k := range candidates {
		k, err := p.obtain(ctx, v, k)
		if err != nil {
			return nil, err
		}
		if err := p.shelf.Verify(k); err != nil { // the scrub of the other path: rot has nothing to do with masks
			return nil, err
		}
		ack.Verdicts = append(ack.Verdicts, statement.OK)
	}
	if err := p.log.EnsureApplied(applied); err != nil {
		return nil, err
	}
	body := ack.Bytes()
	sig, err := e.Ack(body)
	if err != nil {
		return nil, err
	}
	return round.AckCommand(v.ID, p.me, statement.Signed{Body: body, Signature: sig}), nil
}

func (p *plainMember) signReveal(ctx context.Context, v round.View) (*coordpb.Command, error) {
	e, err := p.listed(v.Config)
	if err != nil {
		return nil, err
	}
	if err := statement.VerifySetCert(p.ch, v.Config, v.Decision, v.Votes); err != nil {
		return nil, err
	}
	p.mu.Lock()
	set := p.machine.Set(v.ID)
	p.mu.Unlock()
	sum, err := p.fold(ctx, v, set)
	if err != nil {
		return nil, err
	}
	if err := e.RecordReveal(v.ID, v.Decision); err != nil {
		return nil, err
	}
	reveal := &statement.Reveal{Round: v.ID, Set: v.Decision}
	if reveal.SumY, err = p.keepVector(v.ID, label.TagSum, sum); err != nil {
		return nil, err
	}
	for _, t := range committee.SubsetsOf(p.ch.N, p.ch.F, p.me) { // the log asks for a hash each; there is nothing behind it
		reveal.TSums = append(reveal.TSums, statement.TSum{Subset: t, Hash: label.Sum(label.TagTSum, nil)})
	}
	body := reveal.Bytes()
	sig, err := e.Reveal(v.ID, v.Decision, body)
	if err != nil {
		return nil, err
	}
	return round.RevealCommand(v.ID, p.me, statement.Signed{Body: body, Signature: sig}), nil
}

// fold sums y over the set: a part of the set on each processor.
func (p *plainMember) fold(ctx context.Context, v round.View, set []round.Candidate) ([]uint32, error) {
	parts := make([][]uint32, runtime.GOMAXPROCS(0))
	var work errgroup.Group
	for i := range parts {
		parts[i] = make([]uint32, v.Config.Len)
		work.Go(func() error {
			var held []*intake.Contribution
			for at := i; at < len(set); at += len(parts) {
				c, err := p.obtain(ctx, v, set[at])
				if err != nil {
					return err
				}
				held = append(held, c)
			}
			for some := range slices.Chunk(held, foldBatch) {
				if err := p.addY(parts[i], some...); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	for _, part := range parts[1:] {
		if err := committee.AddVector(parts[0], part); err != nil {
			return nil, err
		}
	}
	return parts[0], nil
}

func (p *plainMember) signResult(ctx context.Context, v round.View) (*coordpb.Command, error) {
	p.mu.Lock()
	sums, ok := p.machine.Sums(v.ID)
	set := p.machine.Set(v.ID)
	p.mu.Unlock()
	task, known := p.ch.Task(v.Config.Task)
	if !ok || !known {
		return nil, nil
	}
	x, err := p.vector(ctx, v, label.TagSum, sums.SumY, int(v.Config.Len))
	if err != nil {
		return nil, err
	}
	params := v.Config.Params(task)
	opened, err := params.Decode(x, len(set))
	if err != nil {
		return nil, err
	}
	start, err := p.state(ctx, v.Config.Start.Model, task.Init())
	if err != nil {
		return nil, fmt.Errorf("start of round %d: %w", v.Config.Seq, err)
	}
	values, err := commons.Average(start.Values, opened, len(set), params)
	if err != nil {
		return nil, err
	}
	next := layout.Model{TaskID: task.ID, LayoutHash: v.Config.Layout, Seq: v.Config.Seq, Values: values}
	if err := next.Validate(); err != nil {
		return nil, err
	}
	if err := p.keepModel(next); err != nil {
		return nil, err
	}
	if !p.stands(v.ID, round.Revealed) {
		return nil, nil
	}
	if err := p.keepDerived(v.ID, next.Hash()); err != nil {
		return nil, err
	}
	result := &statement.Result{Round: v.ID, Set: v.Decision, X: committee.HashVector(label.TagUnmasked, x), Model: next.Hash()}
	return round.ResultCommand(v.ID, p.me, statement.SignMember(p.cfg.Home.Identity, label.StmtResult, result.Bytes())), nil
}

var _ intake.Keys = (*plainMember)(nil)
