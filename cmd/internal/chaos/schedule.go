package main

import (
	"math/rand/v2"
	"time"
)

// kind is what a fault does.
type kind int

const (
	killMember kind = iota
	killDevice
	suspendMember
	blackout // more members than the protocol bears: nothing goes on, nothing is lost
)

// fault is one step of a schedule. Whom it meets is decided when it comes, by who leads and who is up.
type fault struct {
	kind   kind
	leader bool          // the leader rather than another
	again  bool          // the member that was met last
	many   int           // blackout: members
	wait   time.Duration // since the fault before
	down   time.Duration // until it is back
	truth  bool          // the operators' commands are to tell the truth meanwhile, and when they are back
	pick   uint64        // chooses among those who may be met
}

// kills is how many processes it kills.
func (f fault) kills() int {
	switch f.kind {
	case suspendMember:
		return 0
	case blackout:
		return f.many
	}
	return 1
}

// schedule draws faults with so many kills in all. The same seed and number give the same schedule.
func schedule(seed uint64, kills, members int) []fault {
	rng := rand.New(rand.NewPCG(seed, 0))
	between := func(lo, hi time.Duration) time.Duration { return lo + time.Duration(rng.Int64N(int64(hi-lo)+1)) }
	var out []fault
	for n := 0; n < kills && len(out) < faultsMax; {
		f := fault{wait: between(200*time.Millisecond, 2500*time.Millisecond), pick: rng.Uint64()}
		switch p := rng.IntN(100); {
		case p < 10:
			f.kind, f.leader, f.down = suspendMember, rng.IntN(2) == 0, between(100*time.Millisecond, suspendMax)
		case p < 14 && members > 1:
			f.kind, f.many, f.down = blackout, 2+rng.IntN(members-1), between(0, 3*time.Second)
		case p < 32:
			f.kind = killDevice // its loop starts it again
		case p < 42:
			f.kind, f.again, f.down = killMember, true, between(0, time.Second)
			f.wait = between(100*time.Millisecond, 1500*time.Millisecond)
		default:
			f.kind, f.leader = killMember, rng.IntN(4) > 0
			switch q := rng.IntN(10); {
			case q < 5:
				f.down = between(0, 50*time.Millisecond)
			case q < 8:
				f.down = between(500*time.Millisecond, 3*time.Second)
			default:
				f.down = between(4*time.Second, 8*time.Second)
			}
		}
		// Of ten kills one is watched by the operators' commands, of twenty a loss of the quorum.
		switch k := f.kills(); {
		case n+k > kills:
			continue
		case n%20 == 6 && members > 2:
			f = fault{kind: blackout, many: 2, wait: f.wait, down: truthWithin, truth: true, pick: f.pick}
		case n%10 == 3:
			f = fault{kind: killMember, leader: true, wait: f.wait, down: truthWithin, truth: true, pick: f.pick}
		}
		if n+f.kills() > kills {
			f = fault{kind: killMember, leader: true, wait: f.wait, pick: f.pick}
		}
		n += f.kills()
		out = append(out, f)
	}
	return out
}
