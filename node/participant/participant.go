package participant

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
)

// Update is what a device would contribute: the trained values' change from the start and the private metrics, both in
// the layout's order.
type Update struct {
	Body []float32
	Tail []float64
}

// ErrNothing is a Learner's word that the owner has nothing to contribute now: the device sits the round out.
var ErrNothing = errors.New("nothing to contribute")

// Learner makes updates and takes published states. Its methods are not called concurrently.
type Learner interface {
	// Update trains from start, in the round seq.
	Update(ctx context.Context, task *charter.Task, seq uint64, start layout.Model) (Update, error)
	// Adopt is given every verified state once it is on disk, the public init (seq 0) first.
	Adopt(ctx context.Context, task *charter.Task, m layout.Model) error
}

// Members gives connections to members' device ports, pinned to the keys in the charter.
type Members interface {
	Device(member int) (coordpb.DeviceClient, error)
}

// Config is what a Participant works with.
type Config struct {
	Charter *charter.Charter
	Task    string
	Base    label.Hash       // the base model's hash; zero for kind vector
	Key     *identity.Key    // the device's
	Cert    statement.Signed // its certificate
	Dir     string           // staged/, adapters/, encoded/ and the ledger
	Learner Learner
	Members Members
	Now     func() time.Time
	Rand    io.Reader // cryptographic: seeds, nonces, rounding
	Logger  *slog.Logger

	// Floor is the smallest N_min the owner accepts; 0 means FloorDefault, or FloorDemo under a demo charter.
	Floor uint32
	// Observe makes the device follow the commons without ever contributing.
	Observe bool
	// KeepEncoded keeps each encoded vector in clear beside the ledger, so that a demo can compare sums. Refused unless
	// the charter is marked demo.
	KeepEncoded bool
}

// Participant is one device's part in one task. It is not safe for concurrent use.
type Participant struct {
	cfg     Config
	task    *charter.Task
	device  label.Hash
	cert    *statement.DeviceCert
	ledger  *Ledger
	current state
	refused map[label.Hash]bool // rounds this process has refused, said once
	gaveUp  map[label.Hash]bool // rounds whose upload a member refused for good
	asked   int                 // the member to ask first: each check-in begins with the next one
	pending bool                // the Learner has not taken p.current yet

	waiting map[label.Hash]*statement.RoundConfig // what is staged: files of up to 40 MB, not to be read at each step

	failures int       // steps that failed one after the other
	next     time.Time // no check-in before: a member asked an earlier run for that
}

// New checks the configuration, removes what processes that died have left of writes, opens the ledger and the last
// verified state, and hands the latter to the Learner.
func New(ctx context.Context, cfg Config) (*Participant, error) {
	task, ok := cfg.Charter.Task(cfg.Task)
	if !ok {
		return nil, fmt.Errorf("the charter has no task %q", cfg.Task)
	}
	if task.BaseHash() != cfg.Base {
		return nil, fmt.Errorf("task %s is for the base model %s, this device has %s", cfg.Task, task.BaseHash(), cfg.Base)
	}
	if cfg.KeepEncoded && !cfg.Charter.Demo {
		return nil, errors.New("keeping encoded vectors is for demo charters only")
	}
	if !cfg.Charter.Demo && cfg.Floor > 0 && cfg.Floor < FloorDefault {
		return nil, fmt.Errorf("a cohort floor of %d is under %d, which only a demo charter allows", cfg.Floor, FloorDefault)
	}
	if cfg.Floor == 0 {
		cfg.Floor = FloorDefault
		if cfg.Charter.Demo {
			cfg.Floor = FloorDemo
		}
	}
	cert, err := statement.VerifyDeviceCert(cfg.Charter, cfg.Cert)
	if err != nil {
		return nil, err
	}
	if string(cert.Public) != string(cfg.Key.Public()) {
		return nil, errors.New("the device certificate is of another key")
	}
	for _, dir := range []string{"staged", "adapters"} {
		dir = filepath.Join(cfg.Dir, dir)
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		if _, err := durable.RemoveTemps(dir); err != nil { // a whole upload each, from a process that died in stage
			return nil, err
		}
	}
	if err := sweepAdapters(filepath.Join(cfg.Dir, "adapters"), cfg.Logger); err != nil {
		return nil, err
	}
	ledger, err := OpenLedger(filepath.Join(cfg.Dir, "ledger"))
	if err != nil {
		return nil, err
	}
	p := &Participant{cfg: cfg, task: task, device: cert.Device, cert: cert, ledger: ledger,
		refused: map[label.Hash]bool{}, gaveUp: map[label.Hash]bool{}, asked: int(cert.Authority),
		waiting: map[label.Hash]*statement.RoundConfig{}}
	if p.current, err = p.loadState(); err == nil {
		err = p.loadPace()
	}
	if err == nil {
		err = cfg.Learner.Adopt(ctx, task, p.current.model)
	}
	if err != nil {
		ledger.Close()
		return nil, err
	}
	return p, nil
}

// Close closes the ledger.
func (p *Participant) Close() error { return p.ledger.Close() }

// Ledger is the device's record of what left.
func (p *Participant) Ledger() *Ledger { return p.ledger }

// Seq is the round whose state the device has adopted, 0 before the first.
func (p *Participant) Seq() uint64 { return p.current.Seq }

// State is the hash of that state.
func (p *Participant) State() label.Hash { return p.current.Model }

// Run steps until the context ends. Errors are logged and tried again: a device that is offline waits.
func (p *Participant) Run(ctx context.Context) error {
	for {
		wait, err := p.Step(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			p.cfg.Logger.Warn("the step failed; trying again", "error", err, "wait", wait.String())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// Step does what can be done now: sends what is staged, asks for the ends of earlier rounds, adopts the newest state,
// contributes to an open round. It returns how long to wait before the next.
func (p *Participant) Step(ctx context.Context) (time.Duration, error) {
	wait, err := p.step(ctx)
	if err == nil {
		p.failures = 0
		return wait, nil
	}
	if wait == 0 { // no member said when to come back
		wait = jitter(waitDefault, waitFailed, p.failures) + askedToWait(err)
		p.failures++
	}
	return wait, err
}

// step returns no wait where no member gave one.
func (p *Participant) step(ctx context.Context) (time.Duration, error) {
	if p.pending {
		if err := p.adopt(ctx); err != nil {
			return 0, err
		}
	}
	if err := p.resume(ctx); err != nil {
		return 0, err
	}
	if early := p.next.Sub(p.cfg.Now()); early > 0 && early <= waitMax { // more is a clock that was moved
		return early, nil
	}
	answer, err := p.checkIn(ctx)
	if err != nil {
		return 0, err
	}
	wait, least := window(answer.GetRetry())
	p.notBefore(least)
	for _, record := range answer.GetEarlier() {
		if err := p.end(record); err != nil {
			return wait, err
		}
	}
	if answer.GetLatest() != nil {
		if err := p.follow(ctx, answer.GetLatest()); err != nil {
			return wait, err
		}
	}
	if answer.GetRound() == nil || p.cfg.Observe {
		return wait, nil
	}
	return wait, p.join(ctx, answer.GetRound())
}

// checkIn asks members in turn until one answers.
func (p *Participant) checkIn(ctx context.Context) (*coordpb.CheckInResponse, error) {
	charterHash := p.cfg.Charter.Hash()
	req := &coordpb.CheckInRequest{CharterHash: charterHash[:], DeviceId: p.device[:], TaskId: p.task.ID, Rounds: p.unended()}
	var last error
	for range p.cfg.Charter.N {
		member := p.asked
		// The next check-in begins elsewhere, whatever this member says: one that lags, lies or answers with what does not
		// verify can hold a device up for one check-in only.
		p.asked = (p.asked + 1) % p.cfg.Charter.N
		answer, err := call(ctx, p.cfg.Members, member, func(ctx context.Context, c coordpb.DeviceClient) (*coordpb.CheckInResponse, error) {
			return c.CheckIn(ctx, req)
		})
		if err == nil {
			return answer, nil
		}
		last = fmt.Errorf("member %d: %w", member, err)
		if status.Code(err) == codes.FailedPrecondition {
			return nil, last // the charter differs, it says
		}
	}
	return nil, fmt.Errorf("no member answered: %w", last)
}

// unended are the rounds to ask about, newest first: those without a known end, then the expired ones, which can still
// get their DeadCert.
func (p *Participant) unended() (rounds [][]byte) {
	uploads := p.ledger.uploads()
	slices.Reverse(uploads)
	for _, end := range []string{"", EndExpired} {
		for _, u := range uploads {
			if u.end == end && len(rounds) < askedRoundsMax {
				rounds = append(rounds, bytes.Clone(u.entry.Round[:]))
			}
		}
	}
	return rounds
}

// call asks one member with a deadline.
func call[T any](ctx context.Context, members Members, member int, f func(context.Context, coordpb.DeviceClient) (T, error)) (T, error) {
	c, err := members.Device(member)
	if err != nil {
		var zero T
		return zero, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return f(ctx, c)
}

// end records the proven end of a round that this device uploaded to.
func (p *Participant) end(record *coordpb.RoundRecord) error {
	rc, err := statement.VerifyRoundCert(p.cfg.Charter, record.GetConfig().GetBody(), signatures(record.GetConfig().GetSignatures()))
	if err != nil {
		// A round that never opened has no certificate and took no upload of ours.
		return fmt.Errorf("the end of an earlier round: %w", err)
	}
	round := rc.ID()
	u := p.ledger.upload(round)
	if u == nil || u.end == EndPublished || u.end == EndDead {
		return nil
	}
	end := ""
	switch record.GetPhase() {
	case "published":
		r, err := statement.VerifyResultCert(p.cfg.Charter, record.GetResult().GetBody(), signatures(record.GetResult().GetSignatures()))
		if err != nil {
			return fmt.Errorf("the end of round %d: %w", rc.Seq, err)
		}
		if r.Round != round {
			return fmt.Errorf("the end of round %d: the result is of another round", rc.Seq)
		}
		end = EndPublished
	case "dead":
		if err := statement.VerifyDeadCert(p.cfg.Charter, rc, statements(record.GetVotes()), statements(record.GetExpired())); err == nil {
			end = EndDead
		} else if record.GetDeath() == "expired" && p.cfg.Now().UnixMilli() > rc.RevealMs {
			end = EndExpired // no proof exists of an expiry; it gives nothing back, so none is needed
		}
	}
	if end == "" || end == u.end {
		return nil
	}
	e := u.entry
	if err := p.ledger.Append(Entry{Time: p.cfg.Now().UTC(), Kind: KindEnd, Task: e.Task, Round: round, Seq: e.Seq, Start: e.Start, Header: e.Header, End: end}); err != nil {
		return err
	}
	p.cfg.Logger.Info("a round of ours has ended", "seq", e.Seq, "end", end)
	return p.unstage(round)
}
