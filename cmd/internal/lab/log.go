package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/coordinator"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/replica"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/crypto/label"
)

var (
	errDied     = errors.New("the member has died")
	errNoLeader = errors.New("no leader: too few members are up")
)

// CrashPoint is a moment of a member's death: its next proposal of one kind.
type CrashPoint struct {
	Member   int    // Whoever: the first to propose it
	Command  string // the name of the command's field: "vote", "reveal", "accepts"…
	InTheLog bool   // the entry is committed, and the member dies before it hears of it
}

// Whoever as a CrashPoint's member is the first one that gets there.
const Whoever = -1

// CrashAt lets a member die at a point, once.
func (f *Federation) CrashAt(p CrashPoint) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crashes = append(f.crashes, p)
}

// Pending reports whether a crash point was not reached yet.
func (f *Federation) Pending(p CrashPoint) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.crashes, p)
}

// memberLog is the log as one process uses it.
type memberLog struct{ p *process }

// Propose implements coordinator.Log.
func (l *memberLog) Propose(ctx context.Context, cmd *coordpb.Command) ([]*coordpb.Outcome, error) {
	data, err := l.p.member.MarshalCommand(cmd)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f := l.p.seat.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if l.p.dead.Load() {
		return nil, errDied
	}
	if liar := l.p.seat.Liar(); liar != nil {
		return liar.propose(cmd)
	}
	f.judgeProposal(l.p, cmd, data)
	point, crash := f.crashPoint(l.p, cmd)
	if crash && !point.InTheLog {
		l.p.dead.Store(true)
		return nil, errDied
	}
	outcomes, err := f.append(l.p.seat.view, data)
	if crash {
		l.p.dead.Store(true)
		return nil, errDied
	}
	return outcomes, err
}

// crashPoint takes the point that this proposal reaches, if any. The caller holds mu.
func (f *Federation) crashPoint(p *process, cmd *coordpb.Command) (CrashPoint, bool) {
	name := commandName(cmd)
	i := slices.IndexFunc(f.crashes, func(c CrashPoint) bool { return (c.Member == p.seat.Index || c.Member == Whoever) && c.Command == name })
	if i < 0 {
		return CrashPoint{}, false
	}
	point := f.crashes[i]
	f.crashes = slices.Delete(f.crashes, i, i+1)
	return point, true
}

func commandName(cmd *coordpb.Command) string {
	m := cmd.ProtoReflect()
	if field := m.WhichOneof(m.Descriptor().Oneofs().Get(0)); field != nil {
		return string(field.Name())
	}
	return ""
}

// Inject proposes a command that no honest member made.
func (f *Federation) Inject(cmd *coordpb.Command) ([]*coordpb.Outcome, error) {
	data, err := proto.Marshal(cmd)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.append(f.views[0], data)
}

// append commits an entry. An honest leader needs a majority, has one log, and has applied the entry when append
// returns; a liar calls committed what it likes. The caller holds mu.
func (f *Federation) append(h *history, data []byte) ([]*coordpb.Outcome, error) {
	if f.lyingLeader() != nil {
		return coordinator.Outcomes(f.add(h, data))
	}
	leader := f.leaderProcess()
	if leader == nil {
		return nil, errNoLeader
	}
	if h != leader.seat.view {
		return nil, errors.New("an honest leader has another log")
	}
	outcomes := f.add(h, data)
	got, err := leader.applyTo(h.last())
	if err != nil {
		return nil, err
	}
	if !slices.Equal(got, outcomes) {
		f.fail("entry %d: the leader's outcomes are %v, another machine's are %v", h.last(), got, outcomes)
	}
	return coordinator.Outcomes(got)
}

// leaderProcess is an honest leader's process; nil without a majority. The caller holds mu.
func (f *Federation) leaderProcess() *process {
	if f.leader < 0 || f.Seats[f.leader].Liar() != nil || f.Up().Size() < f.opts.N/2+1 {
		return nil
	}
	return f.Seats[f.leader].live()
}

// applyTo applies entries of the member's log up to index and returns the last one's outcomes. The caller holds mu.
func (p *process) applyTo(index uint64) (last []round.Outcome, err error) {
	f, h := p.seat.f, p.seat.view
	for p.applied < index {
		i := p.applied
		data := h.entries[i]
		f.judgeApplied(p.seat, i+1)
		result := p.member.Apply(i+1, data)
		p.applied++
		if label.Sum(label.TagCommand, data) != h.hashes[i] {
			f.fail("entry %d changed while member %d applied it", i+1, p.seat.Index)
		}
		switch r := result.(type) {
		case []round.Outcome:
			last = r
		case replica.Halt:
			return nil, r.Err
		default:
			return nil, fmt.Errorf("the member answered %T", result)
		}
	}
	return last, nil
}

// Lead makes a member the leader, caught up; -1: there is none.
func (f *Federation) Lead(member int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leader = member
	if member < 0 {
		return nil
	}
	p := f.Seats[member].live()
	if p == nil {
		return fmt.Errorf("member %d is down", member)
	}
	if f.Seats[member].Liar() != nil {
		return nil
	}
	for _, s := range f.Seats {
		if s.view != p.seat.view && s.Liar() == nil {
			return fmt.Errorf("members %d and %d read different logs", member, s.Index)
		}
	}
	_, err := p.applyTo(p.seat.view.last())
	return err
}

// lyingLeader is the leader if it is a liar. The caller holds mu.
func (f *Federation) lyingLeader() *Liar {
	if f.leader < 0 {
		return nil
	}
	return f.Seats[f.leader].Liar()
}

// Leader is the leader's index, -1 if there is none.
func (f *Federation) Leader() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.leaderProcess() == nil && f.lyingLeader() == nil {
		return -1
	}
	return f.leader
}

// elect gives the members that are up a leader, if they are a majority and have none.
func (f *Federation) elect() error {
	if f.Leader() >= 0 || f.Up().Size() < f.opts.N/2+1 {
		return nil
	}
	up := (f.Up() &^ f.liars()).Members()
	if len(up) == 0 {
		return nil
	}
	return f.Lead(up[f.rng.IntN(len(up))])
}

// Leading implements coordinator.Log.
func (l *memberLog) Leading() bool {
	f := l.p.seat.f
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leading && f.leaderProcess() == l.p
}

// HandOver implements coordinator.Log: no clock here is another's, so no leader has a reason.
func (l *memberLog) HandOver(context.Context, int) error {
	return errors.New("leadership stays where the test puts it")
}

// EnsureApplied implements coordinator.Log.
func (l *memberLog) EnsureApplied(index uint64) error {
	f := l.p.seat.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if l.p.dead.Load() {
		return errDied
	}
	if index > l.p.applied {
		return fmt.Errorf("index %d is not applied yet", index)
	}
	l.p.seat.ensure(index)
	return nil
}

// Status implements coordinator.Log.
func (l *memberLog) Status() coordinator.LogStatus {
	f := l.p.seat.f
	f.mu.Lock()
	defer f.mu.Unlock()
	return coordinator.LogStatus{Leader: f.leader, Term: 1, Applied: l.p.applied, Committed: l.p.seat.view.last(), Guarded: l.p.seat.ensured()}
}

var _ coordinator.Log = (*memberLog)(nil)
