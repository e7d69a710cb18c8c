package round

import (
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// keyPackage is a member's newest KeyPackage.
type keyPackage struct {
	signed statement.Signed
	parsed *statement.KeyPackage
}

// device is one certified device.
type device struct {
	signed statement.Signed
	cert   *statement.DeviceCert
	used   uint32 // contributions accepted under cert and not given back
}

// line is one task's sequence of rounds.
type line struct {
	task *charter.Task
	init label.Hash // hash of the public start
	seq  uint64     // of the newest round

	newest *round   // nil before the first
	latest *round   // newest published; nil before the first
	kept   []*round // oldest first; the newest included

	// Devices that uploaded from usedStart in an expired round, with that round: SA 2.4, Retry. A start that was left
	// never comes back, so one start is enough.
	usedStart label.Hash
	used      map[label.Hash]label.Hash
}

// round is one round. Fields below "full" are dropped when it is old (RoundsFull).
type round struct {
	id     label.Hash
	rc     *statement.RoundConfig
	body   []byte
	start  label.Hash
	listed statement.Mask
	index  uint64 // of the proposal

	phase      Phase
	death      Death
	times      [Dead + 1]int64 // log time at which each phase began
	began      [Dead + 1]bool  // which phases did
	signatures [statement.MembersMax][]byte

	decided  bool
	decision label.Hash // H(S) or DEAD, once decided
	reason   string     // why DEAD
	opened   *result    // the Result that f+1 members signed
	foreign  bool       // q votes for a value that is not the decision of this log
	counts   counts

	aborts  [statement.MembersMax]*statement.Signed
	votes   [statement.MembersMax]*vote
	expired [statement.MembersMax]*statement.Signed
	reveals [statement.MembersMax]*reveal
	results [statement.MembersMax]*result
	refused map[Code]uint32

	// full
	slim     bool
	accepts  []accept // log order
	byDevice map[label.Hash]int
	closes   []*closing
	set      []int // indices of accepts, ascending by device id; nil unless decided for a set
}

// counts outlive the Accepts they count.
type counts struct {
	accepted     uint32
	contributors uint32
	bytes        uint64
	candidates   label.Hash // H(candidates) once frozen by a Close
}

type accept struct {
	statement.Accept
	index uint64
}

type closing struct {
	close    *statement.Close
	hash     label.Hash
	index    uint64
	atMs     int64
	acks     [statement.MembersMax]*ack
	complete bool
	legal    bool
	blamed   statement.Mask // whose word alone costs too much
}

type ack struct {
	signed   statement.Signed
	verdicts []statement.Verdict
	index    uint64 // of its entry
}

type vote struct {
	signed statement.Signed
	value  label.Hash
}

type reveal struct {
	signed statement.Signed
	parsed *statement.Reveal
}

type result struct {
	signed statement.Signed
	parsed *statement.Result
}

// enter moves r to phase p at log time ms.
func (r *round) enter(p Phase, ms int64) {
	r.phase = p
	r.times[p], r.began[p] = ms, true
}

func (r *round) reached(p Phase) bool { return r.began[p] }

// frozen reports whether no further Accept can be added, whatever else happens.
func (r *round) frozen(timeMs int64) bool {
	return len(r.accepts) >= int(r.rc.NMax) || timeMs > r.rc.CloseMs
}

// contributors lists the Accepts in log order, as candidate lists name them.
func (r *round) contributors() []statement.Contributor {
	out := make([]statement.Contributor, len(r.accepts))
	for i := range r.accepts {
		out[i] = statement.Contributor{Device: r.accepts[i].Device, Header: r.accepts[i].Header}
	}
	return out
}

// signers counts the identity signatures over the config.
func (r *round) signers() (m statement.Mask) {
	for i, s := range r.signatures {
		if s != nil {
			m |= 1 << i
		}
	}
	return m
}

// votesFor is who voted for value.
func (r *round) votesFor(value label.Hash) (m statement.Mask) {
	for i, v := range r.votes {
		if v != nil && v.value == value {
			m |= 1 << i
		}
	}
	return m
}
