package explore

import (
	"fmt"
	"math/bits"
)

// Violation is a broken invariant of SA 8.
type Violation struct{ what string }

func (v *Violation) Error() string { return v.what }

func violation(format string, args ...any) error { return &Violation{fmt.Sprintf(format, args...)} }

// voices counts the members that can be made to have said a word: honest ones that did, and every liar.
func (w *world) voices(p pool, word words) int {
	n := w.ch.F
	for i := range w.honest() {
		if p[i]&word != 0 {
			n++
		}
	}
	return n
}

// certified reports whether the voices are a quorum, as the world's members count one.
func (w *world) certified(p pool, word words) bool { return w.voices(p, word) >= w.ch.Q }

// deadCert is a certificate of death, by votes or by everybody's word.
func (w *world) deadCert(p pool) bool {
	return w.certified(p, voteDead) || w.voices(p, expired1) == w.ch.N
}

// check holds a pool against SA 8.1 to 8.5.
func (w *world) check(p pool) error {
	revealed := words(0)
	for i := range w.honest() {
		said := p[i]
		if said&other != 0 {
			return violation("member %d signed what no rule lets it sign", i)
		}
		if bits.OnesCount32(uint32(said&anyVote)) > 1 {
			return violation("invariant 1: member %d signed two votes: %v", i, said&anyVote)
		}
		if bits.OnesCount32(uint32(said&anyReveal)) > 1 || said&revealA != 0 && said&(anyVote&^voteA) != 0 || said&revealB != 0 && said&(anyVote&^voteB) != 0 {
			return violation("invariant 1: member %d signed %v", i, said&(anyVote|anyReveal))
		}
		if said&expired1 != 0 && said&anyReveal != 0 {
			return violation("invariant 2: member %d signed expired and a reveal", i)
		}
		if said&(signed1|signed2) == signed1|signed2 {
			return violation("member %d signed two configs of one seq", i)
		}
		revealed |= said & anyReveal
	}
	n := 0
	for _, v := range []words{voteA, voteB, voteDead} {
		if w.certified(p, v) {
			n++
		}
	}
	if n > 1 {
		return violation("invariant 2: two values of one round have certificates")
	}
	if w.certified(p, signed1) && w.certified(p, signed2) {
		return violation("two configs of one seq are certified")
	}
	for reveal, vote := range map[words]words{revealA: voteA, revealB: voteB} {
		if revealed&reveal != 0 && !w.certified(p, vote) {
			return violation("invariant 3: %v without a certificate", reveal)
		}
	}
	if revealed != 0 && w.deadCert(p) {
		return violation("invariant 3: %v of a round with a death certificate", revealed)
	}
	if revealed == anyReveal {
		return violation("invariant 4: two sets of one round are opened")
	}
	return w.checkCertified(p)
}

// checkCertified: what is certified was opened by a RoundCert, and every candidate of the set was acked by all of one
// Close's M, which is large enough (8.5).
func (w *world) checkCertified(p pool) error {
	for v, word := range map[value]words{setA: voteA, setB: voteB} {
		if !w.certified(p, word) {
			continue
		}
		if !w.certified(p, signed1) {
			return violation("invariant 5: %v is certified in a round without a RoundCert", v)
		}
		backed := false
		for i, c := range w.closes {
			all := c.close.Active.Size() >= min(w.ch.N, 2*w.ch.F+1) && (v == setB || c.list == devices)
			for j := range w.honest() {
				all = all && (!c.close.Active.Has(j) || p[j]&(ack0<<i) != 0)
			}
			backed = backed || all
		}
		if !backed {
			return violation("invariant 5: %v is certified, and no Close has the acks of all its members for it", v)
		}
	}
	return nil
}

// checkSums: sums that lie ready, or leave, are those of the certified set (8.3). They count from the record on: who has
// recorded a reveal may hand out its T-sums a moment later.
func (w *world) checkSums(p pool, i int, r *reach) error {
	served := r.serves[p[i]]
	for _, v := range []value{setA, setB} {
		if !r.folded[p[i]][v] && served != v {
			continue
		}
		if !w.certified(p, voteWord[v]) {
			return violation("invariant 3: member %d opens %v, which has no certificate", i, v)
		}
		if w.deadCert(p) {
			return violation("invariant 3: member %d opens %v of a round with a death certificate", i, v)
		}
	}
	return nil
}

// revealsOf lists the sets that a folder's vote file has a reveal record of.
func (s *seat) revealsOf(folder int) (out []value) {
	file := s.folders.list[folder][votesOf]
	for _, v := range []value{setA, setB} {
		r := append(append([]byte{1, 2}, s.w.ids[0][:]...), s.w.hashes[v][:]...)
		if containsRecord(file, r) {
			out = append(out, v)
		}
	}
	return out
}

// afterRestore: a member that comes back from a backup never signs for a round that lists its lost keys, and hands out
// nothing, whatever the leader shows it (8.9). A restored member is thus as good as silent, and search need not follow it.
func (w *world) afterRestore(r *Report) error {
	for _, s := range w.seats {
		if err := s.mend(); err != nil {
			return err
		}
		all := words(0)
		for k := range w.spoken {
			if k.member == s.me {
				all |= k.word
			}
		}
		seen := map[int]bool{}
		var queue []int
		add := func(l int) {
			if !seen[l] {
				seen[l] = true
				queue = append(queue, l)
			}
		}
		add(s.local(local{said: all, restored: true, folder: s.backup()}))
		for ; len(queue) > 0; queue = queue[1:] {
			at := s.locals[queue[0]]
			did, err := s.work(at.class, at.folder)
			if err != nil {
				return err
			}
			for _, o := range did.outs {
				if o.said != 0 {
					return violation("invariant 9: member %d signs %q after it was restored from a backup", s.me, o.said)
				}
			}
			if did.serves != none {
				return violation("invariant 9: member %d hands out sums after it was restored from a backup", s.me)
			}
			steps, err := s.does(queue[0])
			if err != nil {
				return err
			}
			for _, st := range append(steps[:len(steps):len(steps)], s.sees(queue[0], w.heard)...) {
				add(st.to)
			}
		}
		r.Restored += len(seen)
	}
	return nil
}
