package lab

import (
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"

	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/node/participant"
)

// Check holds everything that was said and everything on the disks against SA 8: what was judged while it was said, and
// what has to stay true.
func (f *Federation) Check() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.Seats {
		if s.Liar() == nil {
			f.checkState(s)
			f.checkSums(s)
		}
	}
	f.checkReceipts()
	return f.violations()
}

// checkState: at one index all members are equal, whatever road led there (11). The caller holds mu, here and below.
func (f *Federation) checkState(s *Seat) {
	p := s.process.Load()
	if p == nil || p.applied == 0 || p.applied == p.checked {
		return
	}
	p.checked = p.applied
	data, err := p.member.Snapshot()
	if err != nil {
		f.fail("member %d: snapshot: %v", s.Index, err)
		return
	}
	if maphash.Bytes(f.seed, data) != s.view.states[p.applied-1] {
		f.fail("invariant 11: member %d has another state at index %d than the log gives", s.Index, p.applied)
	}
	if f.secrets.within(data) { // 9, 14
		f.fail("invariant 9: the snapshot of member %d holds a secret", s.Index)
	}
	if p.applied%3 == 0 && p.applied <= s.ensured() {
		s.snapshot = &snapshot{p.applied, data}
	}
}

// checkSums: no sum of masks exists anywhere before its member has applied the certificate (3).
func (f *Federation) checkSums(s *Seat) {
	p := s.process.Load()
	if p == nil {
		return
	}
	for _, r := range s.view.trace.order {
		if entries, err := os.ReadDir(filepath.Join(s.Dir, "sums", r.id.String())); err != nil || len(entries) == 0 {
			continue
		}
		// What the member knew when it wrote it is at most what some log holds now.
		if !f.shownCertificate(r.id) {
			f.fail("invariant 3: member %d holds sums of round %s, which has no certificate", s.Index, r.id)
		}
	}
}

// checkReceipts: who signed a receipt holds the copy until its round has ended (8).
func (f *Federation) checkReceipts() {
	kept := f.receipts[:0]
	for _, c := range f.receipts {
		s := f.Seats[c.member]
		if r, ok := s.view.observer.Round(c.round); !ok || r.Phase.Terminal() {
			continue
		}
		if _, err := os.Stat(filepath.Join(s.Dir, "blobs", "heads", c.round.String(), c.header.String())); err != nil || !s.hasY(c.round, c.y) {
			f.fail("invariant 8: member %d has lost a contribution that it receipted (%v)", c.member, err)
			continue
		}
		kept = append(kept, c)
	}
	f.receipts = kept
}

// Finish looks at what ended: every device's acks, and the last log lines (7, 14).
func (f *Federation) Finish() error {
	if err := f.Check(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.Devices {
		entries, err := participant.ReadLedger(filepath.Join(d.Dir, "ledger"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			f.fail("%s: %v", d.Name, err)
		}
		for _, e := range entries {
			if e.Kind == participant.KindAck {
				f.checkAcked(d, e)
			}
		}
	}
	f.secrets.flush()
	return f.violations()
}

// checkAcked: what was acknowledged counts, or the deciding Acks say why not, or the round is dead (7): in every log that
// some member has read.
func (f *Federation) checkAcked(d *Device, e participant.Entry) {
	known := false
	for _, h := range f.views {
		r := h.trace.rounds[e.Round]
		v, ok := h.observer.Round(e.Round)
		if r == nil || !ok {
			continue
		}
		at := -1
		for i, a := range r.accepts {
			if a.Header == e.Header {
				at, known = i, true
			}
		}
		if v.Phase == round.Published && !counts(r, at, e.Header) {
			f.fail("invariant 7: the acknowledged contribution of %s is not in the published set of round %d, and no Ack says why", d.Name, r.rc.Seq)
		}
	}
	if !known {
		f.fail("invariant 7: %s has an ack of a contribution that no log ever accepted", d.Name)
	}
}

// counts reports whether a published round counts the candidate at a place of its list, or an Ack of its says why not.
func counts(r *roundTrace, at int, header label.Hash) bool {
	for _, a := range r.set {
		if a.Header == header {
			return true
		}
	}
	if at < 0 || r.decided == nil {
		return false
	}
	for _, j := range r.decided.Active.Members() {
		if r.decided.acks[j].Verdicts[at] != statement.OK {
			return true
		}
	}
	return false
}

// hasY reports whether a masked vector lies whole on the member's disk.
func (s *Seat) hasY(id, y label.Hash) bool {
	matches, err := filepath.Glob(filepath.Join(s.Dir, "blobs", "y", id.String(), y.String()))
	return err == nil && len(matches) == 1
}

// wholeY reports whether a masked vector on the member's disk is what its name says.
func (s *Seat) wholeY(id, y label.Hash) bool {
	b, err := os.ReadFile(filepath.Join(s.Dir, "blobs", "y", id.String(), y.String()))
	return err == nil && label.Sum(label.TagContribution, b) == y
}

// device finds a device by its id. The caller holds mu.
func (f *Federation) device(id label.Hash) (*Device, error) {
	for _, d := range f.Devices {
		if d.ID == id {
			return d, nil
		}
	}
	return nil, fmt.Errorf("no device of the lab has the id %s", id)
}
