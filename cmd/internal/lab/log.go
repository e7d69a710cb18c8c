package lab

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
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
	f.judgeProposal(l.p, cmd, data)
	point, crash := f.crashPoint(l.p, cmd)
	if crash && !point.InTheLog {
		l.p.dead.Store(true)
		return nil, errDied
	}
	outcomes, err := f.append(data)
	if crash {
		l.p.dead.Store(true)
		return nil, errDied
	}
	return outcomes, err
}

// crashPoint takes the point that this proposal reaches, if any.
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
	return f.append(data)
}

// append commits an entry: the leader and a majority are up. It is applied at the leader when append returns.
func (f *Federation) append(data []byte) ([]*coordpb.Outcome, error) {
	leader := f.leaderProcess()
	if leader == nil {
		return nil, errNoLeader
	}
	data = slices.Clone(data)
	f.entries = append(f.entries, data)
	index := uint64(len(f.entries))
	f.hashes = append(f.hashes, label.Sum(label.TagCommand, data))
	if f.secrets.within(data) {
		f.fail("entry %d holds a secret", index)
	}
	outcomes := f.observer.ApplyBytes(index, data)
	f.states = append(f.states, maphash.Bytes(f.seed, f.observer.Snapshot()))
	f.judgeEntry(index, data, outcomes)
	got, err := leader.applyTo(index)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(got, outcomes) {
		f.fail("entry %d: the leader's outcomes are %v, another machine's are %v", index, got, outcomes)
	}
	return coordinator.Outcomes(got)
}

// leaderProcess is the leader's process; nil without a majority. The caller holds mu.
func (f *Federation) leaderProcess() *process {
	if f.leader < 0 || f.Up().Size() < f.opts.N/2+1 {
		return nil
	}
	return f.Seats[f.leader].live()
}

// applyTo applies entries up to index and returns the last one's outcomes. The caller holds the federation's mu.
func (p *process) applyTo(index uint64) (last []round.Outcome, err error) {
	f := p.seat.f
	for p.applied < index {
		i := p.applied
		data := f.entries[i]
		result := p.member.Apply(i+1, data)
		p.applied++
		if label.Sum(label.TagCommand, data) != f.hashes[i] {
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
	_, err := p.applyTo(uint64(len(f.entries)))
	return err
}

// Leader is the leader's index, -1 if there is none.
func (f *Federation) Leader() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.leaderProcess() == nil {
		return -1
	}
	return f.leader
}

// elect gives the members that are up a leader, if they are a majority and have none.
func (f *Federation) elect() error {
	if f.Leader() >= 0 || f.Up().Size() < f.opts.N/2+1 {
		return nil
	}
	up := f.Up().Members()
	return f.Lead(up[f.rng.IntN(len(up))])
}

// Leading implements coordinator.Log.
func (l *memberLog) Leading() bool {
	f := l.p.seat.f
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leading && f.leaderProcess() == l.p
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
	l.p.ensured = max(l.p.ensured, index)
	return nil
}

// Status implements coordinator.Log.
func (l *memberLog) Status() coordinator.LogStatus {
	f := l.p.seat.f
	f.mu.Lock()
	defer f.mu.Unlock()
	return coordinator.LogStatus{Leader: f.leader, Term: 1, Applied: l.p.applied, Committed: uint64(len(f.entries))}
}

var _ coordinator.Log = (*memberLog)(nil)
