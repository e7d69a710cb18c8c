package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/ruche-federation/ruche/coordinator/epoch"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
)

// epochs are this member's epoch folders. Authority over a round lies in the one that the round lists, and dies with it.
type epochs struct {
	root string
	mu   sync.Mutex // guards open
	open map[uint64]*epoch.Epoch
}

// openEpochs loads what is there. A damaged epoch has lost its keys by now; the member goes on with a new one.
func openEpochs(root string, told *alarms) (*epochs, error) {
	list, damaged, err := epoch.Load(root)
	if err != nil {
		return nil, err
	}
	for _, a := range damaged {
		told.raise(AlarmEpoch, a)
	}
	s := &epochs{root: root, open: map[uint64]*epoch.Epoch{}}
	for _, e := range list {
		s.open[e.Number()] = e
	}
	return s, nil
}

func (s *epochs) get(number uint64) (*epoch.Epoch, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.open[number]
	return e, ok
}

// newest is the epoch with the highest number, nil if there is none.
func (s *epochs) newest() *epoch.Epoch {
	s.mu.Lock()
	defer s.mu.Unlock()
	var best *epoch.Epoch
	for n, e := range s.open {
		if best == nil || n > best.Number() {
			best = e
		}
	}
	return best
}

func (s *epochs) create(number uint64, rand io.Reader) (*epoch.Epoch, error) {
	e, err := epoch.Create(s.root, number, rand)
	if errors.Is(err, epoch.ErrExists) {
		// An attempt failed after all was there. Nobody has seen its keys: they are taken up as after a restart.
		if err = durable.SyncDir(s.root); err == nil {
			e, err = epoch.Open(s.root, number)
		}
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[number] = e
	return e, nil
}

func (s *epochs) list() []*epoch.Epoch {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*epoch.Epoch
	for _, e := range s.open {
		out = append(out, e)
	}
	return out
}

func (s *epochs) destroy(e *epoch.Epoch) error {
	if err := e.Destroy(); err != nil {
		return err
	}
	s.forget(e)
	return nil
}

// forget takes an epoch out whose keys are gone: the member has none then, and publishes a new one.
func (s *epochs) forget(e *epoch.Epoch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[e.Number()] == e {
		delete(s.open, e.Number())
	}
}

// reopen reads an epoch again after a write to its vote file failed, on a full disk for one: only the file knows
// whether the record is in it. Whoever holds the old value finds it closed.
func (s *epochs) reopen(e *epoch.Epoch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[e.Number()] != e {
		return nil // somebody else was faster
	}
	if err := e.Close(); err != nil {
		return err
	}
	again, err := epoch.Open(s.root, e.Number())
	if errors.As(err, new(*epoch.AlarmError)) {
		delete(s.open, e.Number())
		return &alarm{err}
	}
	if err != nil {
		return err // the closed one stays in its place: the next duty tries again
	}
	s.open[e.Number()] = again
	return nil
}

func (s *epochs) close() error {
	var first error
	for _, e := range s.list() {
		if err := e.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// listed is the epoch under which this member speaks in a round: the one that the round lists, with the very keys that
// it lists.
func (m *Member) listed(rc *statement.RoundConfig) (*epoch.Epoch, error) {
	k, ok := rc.Package(m.me)
	if !ok {
		return nil, fmt.Errorf("round %d does not list this member", rc.Seq)
	}
	if now := m.cfg.Now().UnixMilli(); now > k.NotAfterMs {
		return nil, fmt.Errorf("epoch %d, which round %d lists: %w", k.Epoch, rc.Seq, errEpochEnded)
	}
	e, ok := m.epochs.get(k.Epoch)
	if !ok {
		return nil, alarmf("round %d lists epoch %d of this member, whose keys are gone", rc.Seq, k.Epoch)
	}
	if string(e.VotePublic()) != string(k.VoteKey) || string(e.SealPublic()) != string(k.SealKey) {
		return nil, alarmf("round %d lists other keys for epoch %d than this member drew", rc.Seq, k.Epoch)
	}
	return e, nil
}

// errEpochEnded is no alarm: nothing signed by an epoch's keys exists after its end (SA 8.9).
var errEpochEnded = errors.New("the epoch has ended")

// keepEpochs draws and publishes an epoch when the member has none in the first half of its life, and erases epochs
// whose rounds have all ended (SA 2.1, 2.6).
func (m *Member) keepEpochs(ctx context.Context) bool {
	now := m.cfg.Now().UnixMilli()
	m.mu.Lock()
	_, known, ok := m.machine.KeyPackage(m.me)
	applied := m.machine.Applied()
	m.mu.Unlock()
	if applied == 0 && m.log.Status().Committed > 0 {
		return false // the log is still being replayed: what it holds of ours is not known yet
	}
	m.eraseEpochs(now)
	said := m.sayErased(ctx)
	if ok {
		// Keys whose life begins later than now are of a clock that was wrong: no round lists them until then.
		early := now < known.NotBeforeMs-m.ch.Timing.Slack.Milliseconds()
		if e, held := m.epochs.get(known.Epoch); held && !early && string(e.VotePublic()) == string(known.VoteKey) && now <= known.HalfMs()-m.ch.Timing.Tick.Milliseconds() {
			return said
		}
	}
	if m.cfg.Now().Before(m.publishLater) {
		return said
	}
	m.publishLater = m.cfg.Now().Add(retryDuty) // also after success: this member may apply its own entry a little later
	if err := m.publishEpoch(ctx, now, known, ok); err != nil {
		m.cfg.Logger.Warn("the epoch keys are not in the log yet", "error", err)
		return said
	}
	return true
}

// publishEpoch makes sure there is an epoch above everything known, and puts its KeyPackage into the log.
func (m *Member) publishEpoch(ctx context.Context, now int64, known *statement.KeyPackage, have bool) error {
	next := uint64(1)
	if have {
		next = known.Epoch + 1
	}
	e := m.epochs.newest()
	if e == nil || e.Number() < next {
		var err error
		if e, err = m.epochs.create(next, m.cfg.Rand); err != nil {
			return err
		}
	}
	k := &statement.KeyPackage{Charter: m.ch.Hash(), Member: m.me, Epoch: e.Number(), SealKey: e.SealPublic(), VoteKey: e.VotePublic(),
		NotBeforeMs: now, NotAfterMs: now + m.ch.Timing.EpochLife.Milliseconds()}
	s := statement.SignMember(m.cfg.Home.Identity, label.StmtKeyPackage, k.Bytes())
	if err := m.propose(ctx, round.KeyPackageCommand(s)); err != nil {
		return err
	}
	m.cfg.Logger.Info("epoch keys are published", "epoch", e.Number())
	return nil
}

// eraseEpochs destroys an epoch once the log shows a later one of this member's and each round that lists it is published
// or certified dead, and any epoch at the end of its life. A round lists the newest package of the log it is proposed
// in: so whoever has applied a later package has applied every round that lists an earlier one. Before that, as while a
// log is replayed, nothing is known of what a round may still need.
func (m *Member) eraseEpochs(now int64) {
	all := m.epochs.list()
	if len(all) == 0 || m.cfg.Now().Before(m.eraseLater) {
		return
	}
	m.mu.Lock()
	needed := map[uint64]bool{}
	ended := map[uint64]bool{}
	published := uint64(0)
	if _, k, ok := m.machine.KeyPackage(m.me); ok {
		published = k.Epoch
		ended[k.Epoch] = now > k.NotAfterMs
	}
	for _, v := range m.machine.Rounds() {
		k, ok := v.Config.Package(m.me)
		if !ok {
			continue
		}
		if now > k.NotAfterMs {
			ended[k.Epoch] = true
		}
		if v.Phase != round.Published && !(v.Phase == round.Dead && v.Death == round.Certified) {
			needed[k.Epoch] = true
		}
	}
	m.mu.Unlock()
	for _, e := range all {
		if n := e.Number(); ended[n] || n < published && !needed[n] {
			if err := m.epochs.destroy(e); err != nil {
				m.cfg.Logger.Error("erasing an epoch failed; it is tried again", "epoch", n, "error", err)
				m.eraseLater = m.cfg.Now().Add(retryDuty)
			} else {
				m.cfg.Logger.Info("epoch is erased", "epoch", n)
			}
		}
	}
}

// sayErased puts this member's word into the log that it erased an epoch, once the erasure is on the disk (SA 2.6). What
// the disk shows as erased and the log does not is owed again after every restart. An epoch whose folder was lost is not
// called erased: nobody here knows where its keys are.
func (m *Member) sayErased(ctx context.Context) bool {
	now := m.cfg.Now()
	if now.Before(m.erasedLater) {
		return false
	}
	m.erasedLater = now.Add(retryDuty)
	erased, err := epoch.Erased(m.epochs.root)
	if err != nil {
		m.cfg.Logger.Warn("the erased epochs are not known", "error", err)
		return false
	}
	did := false
	for _, n := range erased {
		if _, held := m.epochs.get(n); held { // an earlier one of this number, which nobody saw
			continue
		}
		m.mu.Lock()
		due := slices.Contains(m.machine.ErasuresDue(m.me), n)
		_, said := m.machine.Erasure(m.me, n)
		old := n < m.machine.OldestEpoch(m.me)
		m.mu.Unlock()
		switch {
		case due:
			x := &statement.Erasure{Charter: m.ch.Hash(), Member: m.me, Epoch: n, AtMs: now.UnixMilli()}
			s := statement.SignMember(m.cfg.Home.Identity, label.StmtErasure, x.Bytes())
			if err := m.propose(ctx, round.ErasureCommand(s)); err != nil {
				m.cfg.Logger.Warn("the erasure of an epoch is not in the log yet", "epoch", n, "error", err)
				return did
			}
			did = true
		case said, old:
			if err := epoch.Forget(m.epochs.root, n); err != nil {
				m.cfg.Logger.Warn("an erased epoch is not forgotten", "error", err)
			}
		}
	}
	return did
}

// witness compares this member's own votes, reveals and expiries in the log with its vote files. One that the log holds
// and the file lacks means that the file was cut or the key is elsewhere: the epoch destroys its keys (SA 2.5). The
// machine keeps only statements whose signature verifies by the vote key that the round lists, on apply and on restore
// alike; witness looks only where that key is the epoch's own, so nobody else's word can destroy it.
func (m *Member) witness() {
	m.mu.Lock()
	index := m.machine.Applied()
	var views []round.View
	if index != m.witnessed {
		views = m.machine.Rounds()
	}
	m.mu.Unlock()
	for _, v := range views {
		k, ok := v.Config.Package(m.me)
		if !ok {
			continue
		}
		e, ok := m.epochs.get(k.Epoch)
		if !ok || string(e.VotePublic()) != string(k.VoteKey) {
			continue
		}
		check := func(kind epoch.Kind, list []statement.MemberStatement, value func(body []byte) (label.Hash, error)) {
			for _, s := range list {
				if s.Member != m.me {
					continue
				}
				h, err := value(s.Statement.Body)
				if err == nil {
					err = e.Witness(kind, v.ID, h)
				}
				if errors.Is(err, epoch.ErrClosed) {
					return // its keys are gone while we look: there is nothing left to speak with
				}
				if errors.As(err, new(*epoch.AlarmError)) {
					m.epochs.forget(e)
				}
				if err != nil {
					m.alarms.raise(AlarmWitness, err, "round", v.ID.String())
				}
			}
		}
		check(epoch.KindVote, v.Votes, func(b []byte) (label.Hash, error) {
			s, err := statement.ParseVote(b)
			if err != nil {
				return label.Hash{}, err
			}
			return s.Value, nil
		})
		check(epoch.KindReveal, v.Reveals, func(b []byte) (label.Hash, error) {
			s, err := statement.ParseReveal(b)
			if err != nil {
				return label.Hash{}, err
			}
			return s.Set, nil
		})
		check(epoch.KindExpired, v.Expired, func(b []byte) (label.Hash, error) { return label.Hash{}, nil })
	}
	if index == m.witnessed {
		return
	}
	m.witnessed = index
	// What was compared is not to be forgotten either: after a restart this member acts again only when it has applied
	// at least as much (caughtUp), its own words among it.
	if now := m.cfg.Now(); now.Sub(m.guarded) >= guardEvery {
		m.guarded = now
		if err := m.log.EnsureApplied(index); err != nil {
			m.cfg.Logger.Debug("the applied index is not guarded yet", "error", err)
		}
	}
}

// caughtUp reports whether this member's state is at least where an earlier run of it was seen to be, and its store has a
// vote: before that, what the log holds of its own words is not known yet.
func (m *Member) caughtUp() bool {
	s := m.log.Status()
	return !s.Waiting && s.Applied >= s.Guarded
}
