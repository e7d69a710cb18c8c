package round

import (
	"fmt"
	"slices"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/crypto/label"
)

// Machine is the replicated state. It is not safe for concurrent use: whoever applies the log owns it, and readers take
// turns with that owner. What its methods return are copies, or values that never change again.
type Machine struct {
	ch      *charter.Charter
	applied uint64 // index of the last entry applied
	timeMs  int64  // log time: the greatest tick that was taken

	packages []*keyPackage               // by member; nil before the first
	epochs   [][]*lived                  // by member: the last it published, ascending
	devices  map[label.Hash]*device      // by device id
	tokens   []map[label.Hash]label.Hash // by authority: token hash to device id
	lines    []*line                     // in the charter's order of tasks
	rounds   map[label.Hash]*round       // those that lines keep
}

// New returns the state before the first entry.
func New(ch *charter.Charter) *Machine {
	m := &Machine{ch: ch, packages: make([]*keyPackage, ch.N), epochs: make([][]*lived, ch.N), devices: map[label.Hash]*device{},
		tokens: make([]map[label.Hash]label.Hash, ch.N), rounds: map[label.Hash]*round{}}
	for i := range m.tokens {
		m.tokens[i] = map[label.Hash]label.Hash{}
	}
	for i := range ch.Tasks {
		t := &ch.Tasks[i]
		m.lines = append(m.lines, &line{task: t, init: t.Init().Hash(), used: map[label.Hash]label.Hash{}})
	}
	return m
}

// Charter returns the rules that the machine runs by.
func (m *Machine) Charter() *charter.Charter { return m.ch }

// Applied is the index of the last entry applied.
func (m *Machine) Applied() uint64 { return m.applied }

// TimeMs is the log time: the greatest tick that was taken, 0 before the first.
func (m *Machine) TimeMs() int64 { return m.timeMs }

// Apply applies the entry at index. Entries at or below the applied index change nothing, so a log may be replayed over
// a snapshot. A refused item changes nothing but, for a contribution that its device signed, the count of refusals.
// No command makes Apply panic. It returns one Outcome per item.
func (m *Machine) Apply(index uint64, cmd *coordpb.Command) []Outcome {
	if index <= m.applied {
		return []Outcome{refuse(StaleIndex, fmt.Sprintf("index %d, applied %d", index, m.applied))}
	}
	m.applied = index
	c, err := parse(m.ch, cmd)
	if err != nil {
		return []Outcome{refuseErr(err)}
	}
	return c.apply(m, index)
}

// ApplyBytes is Apply for a marshalled Command. A code of UnknownCommand means that the log is of a later version: the
// caller must stop, since skipping the entry would make its state another than the others'.
func (m *Machine) ApplyBytes(index uint64, data []byte) []Outcome {
	cmd, err := ParseCommand(data)
	if err != nil {
		m.applied = max(m.applied, index)
		return []Outcome{refuseErr(err)}
	}
	return m.Apply(index, cmd)
}

// line returns the rounds of a task.
func (m *Machine) line(task string) *line {
	for _, l := range m.lines {
		if l.task.ID == task {
			return l
		}
	}
	return nil
}

func (c tickCommand) apply(m *Machine, _ uint64) []Outcome { return m.tick(int64(c)) }

// HorizonMs is the latest time that the log can have: the (f+1)-th greatest end among the members' newest key packages.
// One of f+1 members is honest and published its keys by its own clock, so no leader and no f liars carry the time further
// than an epoch's life from what an honest member calls now. Of the others f+1 keep the horizon ahead of time, whatever f
// liars publish. It is 0 before f+1 members have published keys: the log's time begins with them.
//
// A package is taken only if it ends after the log time, so the horizon never falls below that: a standstill of any length
// is over as soon as f+1 members have published new keys.
func (m *Machine) HorizonMs() int64 {
	var ends []int64
	for _, k := range m.packages {
		if k != nil {
			ends = append(ends, k.parsed.NotAfterMs)
		}
	}
	if len(ends) <= m.ch.F {
		return 0
	}
	slices.Sort(ends)
	return ends[len(ends)-1-m.ch.F]
}

// tick advances the log time and lets deadlines pass, in their order (SA 2.3, Set rule).
func (m *Machine) tick(ms int64) []Outcome {
	if ms <= m.timeMs {
		return []Outcome{refuse(StaleTick, fmt.Sprintf("tick %d, log time %d", ms, m.timeMs))}
	}
	if horizon := m.HorizonMs(); ms > horizon {
		return []Outcome{refuse(BeyondHorizon, fmt.Sprintf("tick %d, the keys of f+1 members reach %d", ms, horizon))}
	}
	m.timeMs = ms
	for _, l := range m.lines {
		r := l.newest
		if r == nil || r.phase.Terminal() {
			continue
		}
		m.deadlines(r)
		if ms > r.rc.RevealMs && !r.phase.Terminal() {
			m.expire(l, r)
		}
	}
	return []Outcome{{Code: OK}}
}

// deadlines decides DEAD where the log time or a full cohort rules out a set.
func (m *Machine) deadlines(r *round) {
	switch {
	case r.decided:
	case r.phase == Proposed && m.timeMs > r.rc.CloseMs:
		m.decideDead(r, "not certified by the close deadline")
	case m.timeMs > r.rc.AckMs:
		m.decideDead(r, "no complete and legal close by the ack deadline")
	case (r.phase == Open || r.phase == Closed) && r.frozen(m.timeMs) && !m.floorReached(r, nil):
		m.decideDead(r, fmt.Sprintf("floor of %d out of reach with %d contributions", r.rc.NMin, len(r.accepts)))
	}
}
