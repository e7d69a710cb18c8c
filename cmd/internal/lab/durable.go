package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/aggregation/commons"
	"github.com/ruche-federation/ruche/aggregation/encode"
	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// What has to be true, and on the disk, before something is said (SA 2.5), and what a Result has to say. Callers hold mu.

// judgeDurable looks for what a statement rests on. Who signs with a vote key has it on its disk, within its life (9).
func (f *Federation) judgeDurable(p *process, r *roundTrace, s *said, promised *promises) {
	if k, ok := r.rc.Package(s.member); ok && s.result == nil && !s.abort {
		if e := promised.epoch(k.Epoch); e == nil || !bytes.Equal(e.VotePublic(), k.VoteKey) {
			f.fail("invariant 9: member %d signs a %s with a vote key that is not on its disk", s.member, s.kind)
		}
		if f.now.Load() > k.NotAfterMs {
			f.fail("invariant 9: member %d signs a %s after the end of epoch %d", s.member, s.kind, k.Epoch)
		}
	}
	onDisk := func(what string, path ...string) {
		if _, err := os.Stat(filepath.Join(append([]string{p.seat.Dir}, path...)...)); err != nil {
			f.fail("member %d signs a %s before the %s is on its disk: %v", s.member, s.kind, what, err)
		}
	}
	switch {
	case s.ack != nil:
		for _, c := range r.closes {
			if c.Hash() == s.ack.Close && c.index > p.seat.ensured() {
				f.fail("member %d acks the close of index %d, its disk knows of %d", s.member, c.index, p.seat.ensured())
			}
		}
		for i, a := range r.accepts {
			if a.index > p.seat.ensured() {
				f.fail("member %d acks the candidate of index %d, its disk knows of %d", s.member, a.index, p.seat.ensured())
			}
			if i < len(s.ack.Verdicts) && s.ack.Verdicts[i] == statement.OK {
				if y, ok := f.holds(p.seat, r.id, a.Header); !ok || !p.seat.wholeY(r.id, y) {
					f.fail("member %d calls a candidate ok that it does not hold, or not whole", s.member)
				}
			}
		}
	case s.reveal != nil:
		onDisk("sum", "sums", r.id.String(), s.reveal.SumY.String())
		for _, t := range s.reveal.TSums {
			onDisk("sum of masks", "sums", r.id.String(), t.Hash.String())
		}
	case s.result != nil:
		onDisk("state", "results", "models", s.result.Model.String())
	}
}

// signedSeq is a place in a task's sequence of rounds that a member has signed a config for.
type signedSeq struct {
	member int
	task   string
	seq    uint64
}

// judgeRoundSignature: a member signs one config for each place, listing its own keys (SA 2.3, Opening).
func (f *Federation) judgeRoundSignature(p *process, c *coordpb.RoundStatement) {
	id, err := label.HashFromBytes(c.GetRoundId())
	r := p.seat.view.trace.rounds[id]
	if err != nil || r == nil || int(c.GetMember()) != p.seat.Index {
		f.fail("member %d signs a config that the log does not hold", p.seat.Index)
		return
	}
	key := signedSeq{p.seat.Index, r.rc.Task, r.rc.Seq}
	if old, ok := f.signed[key]; ok && old != id {
		f.fail("member %d signs two configs for round %d", p.seat.Index, r.rc.Seq)
	}
	f.signed[key] = id
	promised, err := p.seat.promises()
	if err != nil {
		f.fail("member %d: its epochs: %v", p.seat.Index, err)
		return
	}
	k, ok := r.rc.Package(p.seat.Index)
	if !ok {
		f.fail("member %d signs a config that does not list it", p.seat.Index)
	} else if e := promised.epoch(k.Epoch); e == nil || !bytes.Equal(e.VotePublic(), k.VoteKey) {
		f.fail("member %d signs a config that lists keys which are not on its disk", p.seat.Index)
	}
}

// judgeKeyPackage: the epoch's folder is on the disk before its keys are published (SA 2.5).
func (f *Federation) judgeKeyPackage(p *process, signed *coordpb.Signed) {
	k, err := statement.VerifyKeyPackage(f.Charter, round.FromSigned(signed))
	if err != nil || k.Member != p.seat.Index {
		f.fail("member %d proposes a key package that is not its own: %v", p.seat.Index, err)
		return
	}
	promised, err := p.seat.promises()
	if err != nil {
		f.fail("member %d: its epochs: %v", p.seat.Index, err)
		return
	}
	if e := promised.epoch(k.Epoch); e == nil || !bytes.Equal(e.VotePublic(), k.VoteKey) || !bytes.Equal(e.SealPublic(), k.SealKey) {
		f.fail("member %d publishes keys of epoch %d that are not on its disk", p.seat.Index, k.Epoch)
	}
}

// judgeResult: X is the plain sum over S, bit for bit (10).
func (f *Federation) judgeResult(p *process, r *roundTrace, s *said) {
	if r.decided == nil || s.result.Set != r.setHash() {
		f.fail("invariant 10: a result of round %s is of a set that the log did not decide", r.id)
		return
	}
	var plain [][]uint32
	for _, a := range r.set {
		x, err := f.encoded(a, r)
		if err != nil {
			f.fail("invariant 10: the plain vector of a device in round %s: %v", r.id, err)
			return
		}
		plain = append(plain, x)
	}
	sum := encode.SumPlain(plain...)
	if s.result.X != committee.HashVector(label.TagUnmasked, sum) {
		f.fail("invariant 10: member %d opened another sum than the plain one over %d devices", s.member, len(plain))
		return
	}
	want, err := f.nextModel(p, r, sum)
	if err != nil || want != s.result.Model {
		f.fail("invariant 10: member %d signs another state than the plain sum gives (%v)", s.member, err)
	}
}

// nextModel is the state that a round's plain sum gives.
func (f *Federation) nextModel(p *process, r *roundTrace, sum []uint32) (label.Hash, error) {
	start := f.task.Init()
	if r.rc.Start.Model != start.Hash() {
		b, err := os.ReadFile(filepath.Join(p.seat.Dir, "results", "models", r.rc.Start.Model.String()))
		if err != nil {
			return label.Hash{}, err
		}
		if start, err = layout.ParseModel(b, f.task.Layout.D()); err != nil || start.Hash() != r.rc.Start.Model {
			return label.Hash{}, fmt.Errorf("the start on its disk is another: %w", err)
		}
	}
	params := r.rc.Params(f.task)
	opened, err := params.Decode(sum, len(r.set))
	if err != nil {
		return label.Hash{}, err
	}
	values, err := commons.Average(start.Values, opened, len(r.set), params)
	if err != nil {
		return label.Hash{}, err
	}
	return layout.Model{TaskID: TaskID, LayoutHash: r.rc.Layout, Seq: r.rc.Seq, Values: values}.Hash(), nil
}

// encoded is what a device hid in a contribution: its program keeps one vector per round, one made by hand is named.
func (f *Federation) encoded(a acceptTrace, r *roundTrace) ([]uint32, error) {
	d, err := f.device(a.Device)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(d.Dir, "forged", a.Header.String()))
	if errors.Is(err, fs.ErrNotExist) {
		b, err = os.ReadFile(filepath.Join(d.Dir, "encoded", r.id.String()))
	}
	if err != nil {
		return nil, err
	}
	return committee.ParseVector(b, int(r.rc.Len))
}
