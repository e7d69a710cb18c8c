package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/intake"
	"github.com/ruche-federation/ruche/coordinator/replica"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/blob"
)

// Log orders commands for all members.
type Log interface {
	// Propose returns when the command is applied at the leader. An error leaves its fate unknown.
	Propose(ctx context.Context, cmd *coordpb.Command) ([]*coordpb.Outcome, error)
	// Leading reports whether this member is the leader now.
	Leading() bool
	// HandOver makes another member the leader. It fails where this one does not lead.
	HandOver(ctx context.Context, member int) error
	// EnsureApplied returns when it is on this member's disk that the entry at index is applied: no receipt or ack
	// rests on less.
	EnsureApplied(index uint64) error
	// Status is for operators.
	Status() LogStatus
}

// LogStatus is what operators see of the log.
type LogStatus struct {
	Leader    int // -1: none known
	Term      uint64
	Applied   uint64
	Committed uint64
	Guarded   uint64    // known to be applied by this run of the member or an earlier one, durably
	Store     string    // the id of the store that holds the log
	Last      uint64    // the log's last entry
	Waiting   bool      // that store has no vote (yet): the member follows, and signs nothing
	Seats     []Seat    // the members' stores as the log has them; nil where it has none
	Contact   time.Time // when a follower heard a leader last, zero for never; says nothing at the leader
}

// Seat is a member's store in the log's configuration.
type Seat struct {
	Store string
	Voter bool
}

// Peers are the other members.
type Peers interface {
	intake.Peers
	// Alive are the members that answered of late, this one included.
	Alive() statement.Mask
	// Apart are those of them whose clocks are further than limit from one member's.
	Apart(member int, limit time.Duration) statement.Mask
}

// Config is what a Member works with.
type Config struct {
	Home    *Home
	Charter *charter.Charter
	Index   int // this member in the charter
	Now     func() time.Time
	Rand    io.Reader
	Logger  *slog.Logger
}

// Member is one member of a consortium. Its methods are safe for concurrent use, Work and Run aside: one goroutine
// calls one of them.
type Member struct {
	cfg     Config
	ch      *charter.Charter
	me      int
	log     Log
	peers   Peers
	ingress *intake.Ingress
	shelf   *intake.Shelf
	sums    *blob.Store // Σy and T-sums, a group per round
	results *blob.Store // published states, in the group "models"
	epochs  *epochs
	signed  *receipts
	alarms  *alarms
	grudges grudges
	lack    lack
	opened  opened
	read    atomic.Bool // this run has applied what the member knew before it started

	mu        sync.Mutex // guards the next three; held for memory work only, never across I/O
	machine   *round.Machine
	applied   chan struct{} // closed and replaced at each applied batch
	appliedAt time.Time

	wake  chan struct{} // for the loop of duties
	pulse chan struct{} // for the loop of keys and ticks

	// The loop of duties' own.
	later       map[round.Effect]time.Time // duties not to be tried before
	witnessed   uint64                     // applied index at the last look for own words in the log
	guarded     time.Time                  // when that index was last made durable
	followLater time.Time                  // a published state that is not here is not to be asked for before
	foldLater   time.Time                  // a revealed sum that is gone is not to be folded again before
	swept       time.Time                  // when parts of uploads were last expired
	strange     map[label.Hash]time.Time   // rounds with files here that the state does not know, and since when

	// The loop of keys and ticks' own.
	publishLater time.Time            // the key package is not to be published before
	eraseLater   time.Time            // epochs are not to be erased before: the last try failed
	erasedLater  time.Time            // erased epochs are not to be looked for before
	ticked       time.Time            // when this leader last proposed a tick
	beyond       time.Time            // since when this leader's clock is beyond the horizon, zero while it is not
	yieldLater   time.Time            // leadership is not to be handed over before; zero while nobody contradicts this leader
	short        map[string]time.Time // tasks whose next round would not list every member, and since when
}

// New opens a member's stores. Attach gives it a log and peers before its first Work.
func New(cfg Config) (*Member, error) {
	dir := cfg.Home.Dir
	m := &Member{cfg: cfg, ch: cfg.Charter, me: cfg.Index, machine: round.New(cfg.Charter),
		applied: make(chan struct{}), wake: make(chan struct{}, 1), pulse: make(chan struct{}, 1), later: map[round.Effect]time.Time{}, strange: map[label.Hash]time.Time{}, short: map[string]time.Time{}}
	m.grudges.now = cfg.Now
	err := m.openStores(dir)
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *Member) openStores(dir string) (err error) {
	if m.shelf, err = intake.OpenShelf(filepath.Join(dir, "blobs"), keepFree); err != nil {
		return err
	}
	if m.sums, err = blob.Open(filepath.Join(dir, "sums")); err != nil {
		return err
	}
	if m.results, err = blob.Open(filepath.Join(dir, "results")); err != nil {
		return err
	}
	if m.alarms, err = openAlarms(dir, m.cfg.Now, m.cfg.Logger); err != nil {
		return err
	}
	if m.signed, err = openReceipts(filepath.Join(dir, "receipts"), m.alarms); err != nil {
		return err
	}
	m.epochs, err = openEpochs(filepath.Join(dir, "epochs"), m.alarms)
	return err
}

// watchStores tells when a write in a store of files has failed so that nothing in it is there any more until it is opened
// again: this member would say that it lacks all that it holds.
func (m *Member) watchStores(ctx context.Context, broken chan<- error) {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := errors.Join(m.shelf.Err(), m.sums.Err(), m.results.Err()); err != nil {
				broken <- err
				return
			}
		}
	}
}

// Attach gives the member its log and its peers, once, before anything else runs.
func (m *Member) Attach(log Log, peers Peers) {
	m.log, m.peers = log, peers
	m.ingress = intake.New(intake.Config{Me: m.me, Receipts: m.ch.AckReceipts(), StoredMin: m.ch.Believe(),
		Shelf: m.shelf, State: m, Peers: peers, Keys: m, Log: log, Logger: m.cfg.Logger})
}

// Close ends the data plane and closes the epochs, after the services have stopped.
func (m *Member) Close() error {
	if m.ingress != nil {
		m.ingress.Close()
	}
	var errs []error
	if m.epochs != nil {
		errs = append(errs, m.epochs.close())
	}
	if m.signed != nil {
		errs = append(errs, m.signed.close())
	}
	if m.shelf != nil {
		errs = append(errs, m.shelf.Close())
	}
	if m.alarms != nil {
		errs = append(errs, m.alarms.close())
	}
	for _, s := range []*blob.Store{m.sums, m.results} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// Apply is the log's callback: one committed entry. It returns []round.Outcome.
func (m *Member) Apply(index uint64, command []byte) any {
	m.mu.Lock()
	outcomes := m.machine.ApplyBytes(index, command)
	m.appliedAt = m.cfg.Now()
	m.changed()
	m.mu.Unlock()
	for _, o := range outcomes {
		if o.Code == round.UnknownCommand {
			// To skip it would let this member's state drift from the others'.
			return replica.Halt{Err: fmt.Errorf("%w at index %d (%s): update this program", ErrLaterCommand, index, o.Detail)}
		}
	}
	return outcomes
}

// ErrLaterCommand is why a member stops that meets what a later version wrote.
var ErrLaterCommand = errors.New("the log holds a command of a later version")

// changed wakes everybody who waits for the state. The caller holds mu.
func (m *Member) changed() {
	close(m.applied)
	m.applied = make(chan struct{})
	for _, c := range []chan struct{}{m.wake, m.pulse} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Snapshot is the log's callback: the whole replicated state.
func (m *Member) Snapshot() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.machine.Snapshot(), nil
}

// Restore is the log's callback: another member's snapshot. Its certificates are verified again; an older one is refused,
// one that lacks a round certificate which this member has seen, and one without an Accept that this member signed a
// receipt for. The log stops the member after a refusal.
func (m *Member) Restore(data []byte) error {
	return m.consider(data, func(next *round.Machine) {
		m.machine, m.appliedAt = next, m.cfg.Now()
		m.changed()
	})
}

// Check is the log's callback: what Restore would say.
func (m *Member) Check(data []byte) error { return m.consider(data, func(*round.Machine) {}) }

// ErrStateRefused is what every refusal of Restore is.
var ErrStateRefused = errors.New("the state that was sent is refused")

// consider reads a state, and has it taken, under the lock, where nothing speaks against it.
func (m *Member) consider(data []byte, take func(*round.Machine)) error {
	next := round.New(m.ch)
	err := next.Restore(data)
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		if err = m.compare(next); err == nil {
			take(next)
			return nil
		}
	}
	err = fmt.Errorf("%w: %w", ErrStateRefused, err)
	m.alarms.raise(AlarmState, err)
	return err
}

// compare holds a state against what this member knows.
func (m *Member) compare(next *round.Machine) error {
	if next.Applied() < m.machine.Applied() {
		return fmt.Errorf("snapshot is of index %d, this member has applied %d", next.Applied(), m.machine.Applied())
	}
	for _, t := range m.ch.Tasks {
		if has, knows := next.Certified(t.ID), m.machine.Certified(t.ID); has < knows {
			return fmt.Errorf("the newest certified round of %s in the state is %d, this member has seen the certificate of %d", t.ID, has, knows)
		}
	}
	return m.signed.allow(next, m.cfg.Now().UnixMilli())
}

// Run carries out duties until the context ends. Duties may wait for peers; what the others wait for, keys and the
// leader's ticks, has a loop of its own, so that no peer can stop the log's time by answering slowly; so has what repairs
// copies, which no duty waits for.
func (m *Member) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() {
		loop(ctx, m.pulse, func() {
			if m.caughtUp() {
				m.keepEpochs(ctx)
				m.lead(ctx)
			}
		})
	})
	wg.Go(func() { newRepairer(m).run(ctx) })
	loop(ctx, m.wake, func() {
		if m.caughtUp() {
			m.duties(ctx)
		}
	})
	wg.Wait()
}

func loop(ctx context.Context, wake <-chan struct{}, do func()) {
	tick := time.NewTicker(workEvery)
	defer tick.Stop()
	for {
		do()
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-tick.C:
		}
	}
}

// Work carries out, once, whatever this member owes now: both loops of Run, one after the other. It reports whether
// anything was done.
func (m *Member) Work(ctx context.Context) bool {
	if !m.caughtUp() {
		return false
	}
	did := m.keepEpochs(ctx)
	did = m.duties(ctx) || did
	return m.lead(ctx) || did
}

// duties carries out what the state says that this member owes. It reports whether anything was done.
func (m *Member) duties(ctx context.Context) bool {
	m.witness()
	did := false
	m.mu.Lock()
	due := m.machine.Due(m.me)
	m.mu.Unlock()
	open := make(map[round.Effect]time.Time, len(due))
	for _, e := range due {
		now := m.cfg.Now()
		if at, ok := m.later[e]; ok && now.Before(at) {
			open[e] = at
			continue
		}
		wait := retryDuty
		if err := m.do(ctx, e); err != nil && ctx.Err() == nil {
			switch {
			case errors.As(err, new(*alarm)):
				wait = retryAlarm
				m.alarms.raise(AlarmDuty, err, "duty", e.Duty.String(), "round", e.Round.String())
			case errors.Is(err, errEpochEnded):
				wait = retryAlarm
				m.cfg.Logger.Debug("a duty has lapsed", "duty", e.Duty.String(), "round", e.Round.String(), "error", err)
			default:
				wait = retry(err)
				m.cfg.Logger.Warn("a duty has to wait", "duty", e.Duty.String(), "round", e.Round.String(), "error", err)
			}
		} else {
			did = true
		}
		open[e] = now.Add(wait)
	}
	m.later = open
	m.keepRevealed(ctx)
	did = m.followPublished(ctx) || did
	m.tidy()
	return did
}

// retry is how long what failed is not tried again.
func retry(err error) time.Duration {
	if errors.As(err, new(*blob.FullError)) {
		return retryFull
	}
	return retryDuty
}

// alarm is an error that time does not mend: a person has to look.
type alarm struct{ err error }

func (a *alarm) Error() string { return a.err.Error() }
func (a *alarm) Unwrap() error { return a.err }

func alarmf(format string, args ...any) error { return &alarm{fmt.Errorf(format, args...)} }

// do carries out one duty and proposes its outcome.
func (m *Member) do(ctx context.Context, e round.Effect) error {
	m.mu.Lock()
	v, ok := m.machine.Round(e.Round)
	m.mu.Unlock()
	if !ok {
		return nil
	}
	var cmd *coordpb.Command
	var err error
	switch e.Duty {
	case round.SignRound:
		cmd, err = m.signRound(v)
	case round.SignAck:
		cmd, err = m.signAck(ctx, v, e.Close)
	case round.SignVote:
		cmd, err = m.signVote(v, e.Value)
	case round.SignReveal:
		cmd, err = m.signReveal(ctx, v)
	case round.SignResult:
		cmd, err = m.signResult(ctx, v)
	case round.SignExpired:
		cmd, err = m.signExpired(v)
	default:
		err = alarmf("duty %v is of a later version", e.Duty)
	}
	if err != nil || cmd == nil {
		return err
	}
	return m.propose(ctx, cmd)
}

// propose hands a command to the log. A refusal is an error; "duplicate" is success.
func (m *Member) propose(ctx context.Context, cmd *coordpb.Command) error {
	ctx, cancel := context.WithTimeout(ctx, proposeWait)
	defer cancel()
	outcomes, err := m.log.Propose(ctx, cmd)
	if err != nil {
		return err
	}
	for _, o := range outcomes {
		if o.GetCode() != string(round.OK) && o.GetCode() != string(round.Duplicate) {
			return &intake.Refusal{Code: o.GetCode(), Detail: o.GetDetail()}
		}
	}
	return nil
}

// Outcomes puts what Apply returned into its envelope.
func Outcomes(applied any) ([]*coordpb.Outcome, error) {
	list, ok := applied.([]round.Outcome)
	if !ok {
		return nil, fmt.Errorf("the log answered %T", applied)
	}
	out := make([]*coordpb.Outcome, len(list))
	for i, o := range list {
		out[i] = &coordpb.Outcome{Code: string(o.Code), Detail: o.Detail, Index: o.Index}
	}
	return out, nil
}

// MarshalCommand is the log entry of a command, checked before it enters the log.
func (m *Member) MarshalCommand(cmd *coordpb.Command) ([]byte, error) {
	if err := round.Static(m.ch, cmd); err != nil {
		return nil, &intake.Refusal{Code: string(round.Malformed), Detail: err.Error()}
	}
	return proto.Marshal(cmd)
}

// ---- intake.State ----

// Terms implements intake.State.
func (m *Member) Terms(id label.Hash) (intake.Terms, bool) {
	m.mu.Lock()
	v, ok := m.machine.Round(id)
	m.mu.Unlock()
	if !ok || v.Phase == round.Proposed || v.Phase.Terminal() {
		return intake.Terms{}, false
	}
	return intake.Terms{Round: v.Config.Committee(m.ch)}, true
}

// DeviceCert implements intake.State.
func (m *Member) DeviceCert(device label.Hash) (*statement.DeviceCert, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, cert, ok := m.machine.Device(device)
	return cert, ok
}

// Acceptable implements intake.State.
func (m *Member) Acceptable(id, device, header label.Hash) (code, detail string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.machine.Acceptable(id, device, header)
	return string(o.Code), o.Detail
}

// waitAccepted waits until the Accept of a contribution is applied here.
func (m *Member) waitAccepted(ctx context.Context, id, header label.Hash) (uint64, error) {
	for {
		m.mu.Lock()
		c, ok := m.machine.Candidate(id, header)
		applied := m.applied
		m.mu.Unlock()
		if ok {
			return c.Index, nil
		}
		select {
		case <-applied:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// Await implements intake.State.
func (m *Member) Await(ctx context.Context, id, device label.Hash) {
	ctx, cancel := context.WithTimeout(ctx, roundWait)
	defer cancel()
	for {
		m.mu.Lock()
		v, ok := m.machine.Round(id)
		_, _, enrolled := m.machine.Device(device)
		applied := m.applied
		m.mu.Unlock()
		if ok && v.Phase != round.Proposed && enrolled {
			return
		}
		select {
		case <-applied:
		case <-ctx.Done():
			return
		}
	}
}

func parseCommand(b []byte) (*coordpb.Command, error) { return round.ParseCommand(b) }
