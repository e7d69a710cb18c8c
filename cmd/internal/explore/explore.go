package explore

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// Part is how much of a round is explored.
type Part int

// Parts. The two halves together are less than the whole by members that are shown one config to its end and then the
// other: what is promised in one round is kept apart from the other by its id, and only one of the two is ever certified.
const (
	Whole         Part = iota
	Opening            // two configs of one seq, until contributions would be taken
	VoteAndReveal      // one config
)

// Options say what is explored.
type Options struct {
	N, F int // a row of SA 2.2
	Part Part
	// Walks, if set, replaces the complete search by so many random walks of Steps steps each under Seed.
	Walks, Steps int
	Seed         uint64
	Dir          string           // for the members' folders; a fresh temporary one, in memory where there is such a place, if empty
	Now          func() time.Time // for Report.Seconds; time.Now if nil

	// Weaker worlds, in which a search must find what goes wrong.
	Quorum       int  // in place of q
	KeysInBackup bool // a backup holds the epoch folder; for walks
}

// Report counts what was explored.
type Report struct {
	N, F         int
	Pools        int            // sets of statements that honest members may have signed: the states of the search
	Transitions  int            // from pool to pool
	Combinations float64        // pools with every combination of member states that goes with them
	Views        int            // of a member on what the others have signed, as far as it makes a difference to it
	Locals       int            // states of single members
	Steps        int            // transitions of single members
	Runs         int            // of the real member, each on a folder and a log
	Entries      int            // applied to the real state machine
	Restored     int            // states of members restored from a backup
	Walked       int            // steps of random walks
	Reached      map[string]int // how many pools have what, so that nobody mistakes an empty search for a clean one
	Seconds      float64
}

// see counts what a pool has.
func (r *Report) see(w *world, p pool) {
	note := func(name string, has bool) {
		if has {
			r.Reached[name]++
		}
	}
	note("RoundCert", w.certified(p, signed1))
	note("SetCert A", w.certified(p, voteA))
	note("SetCert B", w.certified(p, voteB))
	note("DeadCert by votes", w.certified(p, voteDead))
	note("DeadCert by expiry", w.voices(p, expired1) == w.ch.N)
	split := words(0)
	for i := range w.honest() {
		split |= p[i]
	}
	note("reveal A", split&revealA != 0)
	note("reveal B", split&revealB != 0)
	note("votes split", split&anyVote == anyVote || split&anyVote == voteA|voteB)
}

// Landmarks are the names in Report.Reached, in order.
func Landmarks() []string {
	return []string{"RoundCert", "SetCert A", "SetCert B", "DeadCert by votes", "DeadCert by expiry", "reveal A", "reveal B", "votes split"}
}

// Missing lists the landmarks that a run with these options has to reach and that this one has not: where a search has not
// been nothing can have gone wrong. Of A and B, and of the two ways to die, a walk has to reach one.
func (r *Report) Missing(o Options) (out []string) {
	either := map[string]string{}
	want := Landmarks()
	switch {
	case o.Walks > 0:
		want = []string{"RoundCert", "SetCert A", "DeadCert by votes", "reveal A"}
		either = map[string]string{"SetCert A": "SetCert B", "DeadCert by votes": "DeadCert by expiry", "reveal A": "reveal B"}
	case o.N == 1: // which is not split
		want = want[:len(want)-1]
	case o.Part == Opening:
		want = []string{"RoundCert", "DeadCert by votes", "DeadCert by expiry"}
	}
	for _, name := range want {
		if r.Reached[name] == 0 && r.Reached[either[name]] == 0 {
			out = append(out, strings.TrimSuffix(name+" or "+either[name], " or "))
		}
	}
	return out
}

// String is one line for people.
func (r *Report) String() string {
	return fmt.Sprintf("(%d,%d): %d pools, %d transitions, %.3g combinations of member states; %d states and %d transitions of single members, %d of them restored; %d runs of the real member, %d entries applied; %d steps walked; %.1f s",
		r.N, r.F, r.Pools, r.Transitions, r.Combinations, r.Locals, r.Steps, r.Restored, r.Runs, r.Entries, r.Walked, r.Seconds)
}

// Run explores. A broken invariant is *Violation, with the words that led there.
func Run(opts Options) (report *Report, err error) {
	if opts.N-opts.F > honestMax {
		return nil, fmt.Errorf("%d honest members, at most %d", opts.N-opts.F, honestMax)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	dir := opts.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp(inMemory(), "ruche-explore-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	begun := opts.Now()
	report = &Report{N: opts.N, F: opts.F, Reached: map[string]int{}}
	w, err := newWorld(opts, dir)
	if err != nil {
		return nil, fmt.Errorf("setting up (%d,%d): %w", opts.N, opts.F, err)
	}
	if opts.Walks > 0 {
		err = w.walk(report)
	} else {
		err = w.search(report)
	}
	for _, s := range w.seats {
		report.Locals += len(s.locals)
		report.Runs += len(s.works)
		report.Entries += s.entries
		report.Steps += len(s.next)
		for _, steps := range s.alone {
			report.Steps += len(steps)
		}
	}
	report.Seconds = opts.Now().Sub(begun).Seconds()
	return report, err
}

// inMemory is a folder whose files cost no disk, "" if there is none: what is explored is what is written, not how long
// the disk takes for it.
func inMemory() string {
	const shm = "/dev/shm"
	if d, err := os.MkdirTemp(shm, "ruche-"); err == nil {
		os.Remove(d)
		return shm
	}
	return ""
}

func containsRecord(file string, record []byte) bool { return strings.Contains(file, string(record)) }
