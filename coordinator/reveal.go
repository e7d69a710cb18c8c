package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/epoch"
	"github.com/ruche-federation/ruche/coordinator/intake"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/blob"
	"github.com/ruche-federation/ruche/storage/fault"
)

// signReveal folds y and this member's masks over the certified set and signs their hashes (SA 2.3, Reveal). The order
// is the protocol's: all boxes of S open, then the record in the vote file, then the sums on disk, then the signature.
func (m *Member) signReveal(ctx context.Context, v round.View) (*coordpb.Command, error) {
	e, err := m.listed(v.Config)
	if err != nil {
		return nil, err
	}
	if v.Foreign {
		return nil, alarmf("round %s has a certificate for another value than this log decided", v.ID)
	}
	if err := statement.VerifySetCert(m.ch, v.Config, v.Decision, v.Votes); err != nil {
		return nil, alarmf("not revealing: %w", err)
	}
	m.mu.Lock()
	set := m.machine.Set(v.ID)
	m.mu.Unlock()
	if got := statement.HashSet(v.ID, contributors(set)); got != v.Decision {
		return nil, alarmf("not revealing: this log's set is %s, the certificate is for %s", got, v.Decision)
	}
	if e.Expired(v.ID) {
		return nil, alarmf("not revealing round %s: it expired here", v.ID)
	}
	sumY, sums, err := m.fold(ctx, e, v, intake.Terms{Round: v.Config.Committee(m.ch)}, set)
	if err != nil {
		return nil, err
	}
	if !m.stands(v.ID, round.Sealed, round.Revealed) {
		return nil, nil // folding took its time, and the round has ended meanwhile
	}
	if err := e.RecordReveal(v.ID, v.Decision); err != nil {
		return nil, m.unsaid(e, err)
	}
	reveal := &statement.Reveal{Round: v.ID, Set: v.Decision}
	if reveal.SumY, err = m.keepVector(v.ID, label.TagSum, sumY); err != nil {
		return nil, err
	}
	for _, t := range committee.SubsetsOf(m.ch.N, m.ch.F, m.me) {
		h, err := m.keepVector(v.ID, label.TagTSum, sums[t])
		if err != nil {
			return nil, err
		}
		reveal.TSums = append(reveal.TSums, statement.TSum{Subset: t, Hash: h})
	}
	body := reveal.Bytes()
	sig, err := e.Reveal(v.ID, v.Decision, body)
	if err != nil {
		return nil, m.unsaid(e, err)
	}
	m.cfg.Logger.Info("revealing sums", "task", v.Config.Task, "seq", v.Config.Seq, "contributions", len(set))
	return round.RevealCommand(v.ID, m.me, statement.Signed{Body: body, Signature: sig}), nil
}

// stands reports whether a round is in one of these phases now.
func (m *Member) stands(id label.Hash, phases ...round.Phase) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.machine.Round(id)
	return ok && slices.Contains(phases, v.Phase)
}

func contributors(set []round.Candidate) []statement.Contributor {
	out := make([]statement.Contributor, len(set))
	for i, k := range set {
		out[i] = statement.Contributor{Device: k.Device, Header: k.Header}
	}
	return out
}

// fold sums y and this member's masks over the set.
func (m *Member) fold(ctx context.Context, e *epoch.Epoch, v round.View, terms intake.Terms, set []round.Candidate) ([]uint32, committee.TSums, error) {
	sumY := make([]uint32, v.Config.Len)
	sums := committee.TSums{}
	for _, t := range committee.SubsetsOf(m.ch.N, m.ch.F, m.me) {
		sums[t] = make([]uint32, v.Config.Len)
	}
	for batch := range slices.Chunk(set, foldBatch) {
		if err := m.foldSome(ctx, e, v, terms, batch, sumY, sums); err != nil {
			for _, sum := range sums { // over the first few of S they are not what S was voted for
				clear(sum)
			}
			return nil, nil, err
		}
	}
	return sumY, sums, nil
}

// foldSome adds a few contributions to all sums, as many sums at a time as there are processors: each is one
// goroutine's alone. The seeds are erased when it returns. After an error the sums are useless.
func (m *Member) foldSome(ctx context.Context, e *epoch.Epoch, v round.View, terms intake.Terms, batch []round.Candidate, sumY []uint32, sums committee.TSums) error {
	var held []*intake.Contribution
	var opened []committee.Shares
	defer func() {
		for _, s := range opened {
			s.Erase()
		}
	}()
	for _, k := range batch {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, err := m.obtain(ctx, v, k)
		if err != nil {
			return err
		}
		shares, err := m.openBox(e, c, terms)
		if errors.As(err, new(*committee.InvalidError)) {
			return alarmf("a box of the certified set does not open: %w", err)
		}
		if err != nil {
			return err
		}
		held, opened = append(held, c), append(opened, shares)
	}
	var work errgroup.Group
	work.SetLimit(runtime.GOMAXPROCS(0))
	work.Go(func() error { return m.addY(sumY, held...) })
	for t, sum := range sums {
		work.Go(func() error { return committee.AddMasks(t, sum, opened...) })
	}
	return work.Wait()
}

// addY adds the y of contributions to the sum: a piece of the sum at a time, so that the whole of it goes through the
// cache once and not for each of them. A copy that rotted is found by its checksum and dropped, to be pulled again. After
// an error the sum is useless.
func (m *Member) addY(sum []uint32, of ...*intake.Contribution) (err error) {
	ys := make([]*intake.Y, len(of))
	defer func() {
		for _, y := range ys {
			if y != nil {
				y.Close()
			}
		}
	}()
	for i, c := range of {
		if ys[i], err = m.shelf.Y(c); err != nil {
			return m.dropped(c, err)
		}
	}
	buf := make([]byte, min(foldBytes, len(sum)*committee.LaneBytes))
	for at := 0; at < len(sum); {
		piece := buf[:min(len(buf), (len(sum)-at)*committee.LaneBytes)]
		lanes := len(piece) / committee.LaneBytes
		for i, y := range ys {
			if _, err := io.ReadFull(y, piece); err != nil {
				return m.dropped(of[i], err)
			}
			if err := committee.AddBytes(sum[at:at+lanes], piece); err != nil {
				return err
			}
		}
		at += lanes
	}
	for i, y := range ys {
		if err := y.Whole(); err != nil {
			return m.dropped(of[i], err)
		}
	}
	return nil
}

// dropped removes a damaged copy, so that it is pulled again. One that cannot be read now for another reason stays.
func (m *Member) dropped(c *intake.Contribution, err error) error {
	if !errors.As(err, new(*intake.DamageError)) {
		return fmt.Errorf("contribution %s: %w", c.Hash, err)
	}
	if failed := m.shelf.Drop(c); failed != nil {
		return errors.Join(err, failed)
	}
	return fmt.Errorf("contribution %s is damaged on disk and will be pulled again: %w", c.Hash, err)
}

// keepVector writes a sum under its hash. It is on disk when keepVector returns.
func (m *Member) keepVector(id label.Hash, tag string, v []uint32) (label.Hash, error) {
	b := committee.VectorBytes(v)
	h := label.Sum(tag, b)
	if kept, err := m.kept(m.sums, id.String(), h, tag); kept || err != nil {
		return h, err
	}
	return h, fault.Step("sum", m.cfg.Home.Dir, func() error { return m.sums.PutLeaving(sumsFree, id.String(), h, tag, b) })
}

// kept reports whether a blob that this member is about to sign for is here from an earlier try, whole. What rotted since
// is set aside, so that it is written again.
func (m *Member) kept(s *blob.Store, group string, h label.Hash, tag string) (bool, error) {
	f, _, err := s.OpenChecked(group, h, tag)
	switch {
	case err == nil:
		return true, f.Close()
	case errors.As(err, new(*blob.DigestError)):
		m.cfg.Logger.Error("a file of an earlier try is damaged on disk; it is written again", "error", err)
		return false, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	}
	return false, err
}

// keepRevealed folds again what this member revealed and has lost since, as long as the round may ask for it: a sum that
// rotted was set aside when it was read.
func (m *Member) keepRevealed(ctx context.Context) {
	now := m.cfg.Now()
	if now.Before(m.foldLater) {
		return
	}
	m.mu.Lock()
	views := m.machine.Rounds()
	m.mu.Unlock()
	for _, v := range views {
		if v.Phase != round.Sealed && v.Phase != round.Revealed {
			continue
		}
		lost := false
		for h := range m.revealed(v) {
			lost = lost || !m.sums.Has(v.ID.String(), h)
		}
		if !lost {
			continue
		}
		_, err := m.signReveal(ctx, v)
		if err != nil && ctx.Err() == nil {
			m.cfg.Logger.Error("a sum that this member revealed is gone and could not be folded again", "round", v.ID.String(), "error", err)
		}
		m.foldLater = later(m.foldLater, now.Add(retry(err)))
	}
}

// revealed are the vectors that this member's own Reveal in the log names, and which kind each is.
func (m *Member) revealed(v round.View) map[label.Hash]string {
	out := map[label.Hash]string{}
	for _, s := range v.Reveals {
		if s.Member != m.me {
			continue
		}
		if r, err := statement.ParseReveal(s.Statement.Body); err == nil && r.Set == v.Decision {
			out[r.SumY] = label.TagSum
			for _, t := range r.TSums {
				out[t.Hash] = label.TagTSum
			}
		}
	}
	return out
}

// mayServe decides whether a vector may leave this member: only one that its own signed Reveal in the log names, under a
// reveal record, and never after an expired record or a certified death (SA 2.3, Reveal; 2.4).
func (m *Member) mayServe(id, hash label.Hash) (tag string, err error) {
	m.mu.Lock()
	v, ok := m.machine.Round(id)
	m.mu.Unlock()
	if !ok {
		return "", status.Error(codes.NotFound, "no such round is kept here")
	}
	if v.Phase == round.Dead || v.Foreign {
		return "", status.Error(codes.FailedPrecondition, "the round is dead or in dispute: nothing of it leaves this member any more")
	}
	e, err := m.listed(v.Config)
	if err != nil {
		return "", status.Error(codes.FailedPrecondition, "this member has no keys for the round any more")
	}
	value, revealed := e.Revealed(id)
	if !revealed || value != v.Decision || e.Expired(id) {
		return "", status.Error(codes.FailedPrecondition, "this member has not revealed the round")
	}
	if tag, ok := m.revealed(v)[hash]; ok { // of the recorded value: it is the decision
		return tag, nil
	}
	return "", status.Error(codes.NotFound, "this member's reveal names no such vector")
}
