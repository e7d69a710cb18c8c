package lab

import (
	"fmt"
	"hash/maphash"
	"slices"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/crypto/label"
)

// history is one log. While leaders are honest there is one, which all members share; a lying leader shows different
// ones, each of which goes its own way from some index on.
type history struct {
	entries  [][]byte // entries[i] has index i+1
	hashes   []label.Hash
	states   []uint64       // a hash of the observer's snapshot after each entry
	observer *round.Machine // applies every entry at once
	trace    *trace         // the same log as the checks read it
}

func newHistory(ch *charter.Charter) *history {
	return &history{observer: round.New(ch), trace: newTrace()}
}

// last is the index of the last entry. The caller holds mu; Last is for others.
func (h *history) last() uint64 { return uint64(len(h.entries)) }

// common is the last index up to which two logs are the same. The caller holds mu.
func (h *history) common(o *history) uint64 {
	n := min(len(h.hashes), len(o.hashes))
	for i := range n {
		if h.hashes[i] != o.hashes[i] {
			return uint64(i)
		}
	}
	return uint64(n)
}

// log is the first log: the only one while leaders are honest.
func (f *Federation) log() *history {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.views[0]
}

// Last is the index of a log's last entry.
func (f *Federation) Last(h *history) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return h.last()
}

// after lists a log's entries behind an index, and their hashes.
func (f *Federation) after(h *history, index uint64) (entries [][]byte, hashes []label.Hash) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(h.entries[index:]), slices.Clone(h.hashes[index:])
}

// add puts an entry at the end of a log and gives the observer's outcomes. The caller holds mu.
func (f *Federation) add(h *history, data []byte) []round.Outcome {
	data = slices.Clone(data)
	h.entries = append(h.entries, data)
	h.hashes = append(h.hashes, label.Sum(label.TagCommand, data))
	if f.secrets.within(data) {
		f.fail("entry %d holds a secret", h.last())
	}
	outcomes := h.observer.ApplyBytes(h.last(), data)
	h.states = append(h.states, maphash.Bytes(f.seed, h.observer.Snapshot()))
	f.judgeEntry(h, data, outcomes)
	return outcomes
}

// Fork makes a log that is the same as h up to an index. Only a liar has a use for it.
func (f *Federation) Fork(h *history, at uint64) *history {
	f.mu.Lock()
	defer f.mu.Unlock()
	fork := newHistory(f.Charter)
	for _, data := range h.entries[:at] {
		f.add(fork, data)
	}
	f.views = append(f.views, fork)
	return fork
}

// rewriteError is what a member's log answers to a leader that takes back what it has made durable (storage/raftlog).
type rewriteError struct {
	member       int
	from, ensure uint64
}

func (e *rewriteError) Error() string {
	return fmt.Sprintf("member %d: the leader's log differs from index %d on, up to %d it is applied durably", e.member, e.from, e.ensure)
}

// Show gives a member another log to read. Its own log refuses one that differs at or below what it has made durable,
// as storage/raftlog does. What its running process has applied above that stays applied until it restarts, so a
// running member has to be shown a log that agrees with that too.
func (s *Seat) Show(h *history) error {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	same := s.view.common(h)
	if same < s.ensured() {
		return &rewriteError{s.Index, same + 1, s.ensured()}
	}
	if p := s.process.Load(); p != nil && same < p.applied {
		return fmt.Errorf("member %d has applied %d entries of a log that differs from index %d on", s.Index, p.applied, same+1)
	}
	s.view = h
	return nil
}

// Install hands a running member a leader's snapshot of a log at an index. Whether it is taken is the member's own
// decision, and a member that refuses stops (coordinator/replica).
func (s *Seat) Install(h *history, index uint64) error {
	f := s.f
	f.mu.Lock()
	defer f.mu.Unlock()
	p := s.live()
	if p == nil {
		return fmt.Errorf("member %d is down", s.Index)
	}
	m := round.New(f.Charter)
	for i, data := range h.entries[:index] {
		m.ApplyBytes(uint64(i+1), data)
	}
	data := m.Snapshot()
	if err := p.member.Restore(data); err != nil {
		p.dead.Store(true)
		return err
	}
	s.view, p.applied, p.checked = h, index, 0
	s.snapshot = &snapshot{index, data}
	s.guard = slices.Clone(h.hashes[:index])
	return nil
}

// ensured is the index up to which it is on the member's disk what it has applied. The caller holds mu.
func (s *Seat) ensured() uint64 { return uint64(len(s.guard)) }

// ensure makes it durable. The caller holds mu.
func (s *Seat) ensure(index uint64) {
	for i := s.ensured(); i < index; i++ {
		s.guard = append(s.guard, s.view.hashes[i])
	}
}

// judgeApplied: no entry changes that a member has applied durably (11). The caller holds mu.
func (f *Federation) judgeApplied(s *Seat, index uint64) {
	if index <= s.ensured() && s.guard[index-1] != s.view.hashes[index-1] {
		f.fail("invariant 11: member %d applies another entry at index %d than the one it holds durably", s.Index, index)
	}
}
