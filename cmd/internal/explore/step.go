package explore

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
)

// classify names the class of a machine.
func (s *seat) classify(entries [][]byte, m *round.Machine) int {
	shown := s.w.read(m, s.me)
	key := fmt.Sprint(shown)
	if n, ok := s.classOf[key]; ok {
		return n
	}
	n := len(s.classes)
	s.classOf[key] = n
	c := class{entries: entries, snapshot: m.Snapshot(), shown: shown}
	for k := range s.w.chunks {
		if s.w.chunks[k].fits(&shown) {
			c.fits = append(c.fits, k)
		}
	}
	s.classes = append(s.classes, c)
	return n
}

// deliver shows a chunk to a member in a class. It returns the class that follows, -1 where nothing changes.
func (s *seat) deliver(c, k int) int {
	at := [2]int{c, k}
	if n, ok := s.next[at]; ok {
		return n
	}
	from := &s.classes[c]
	m := round.New(s.w.ch)
	if len(from.entries) > 0 {
		if err := m.Restore(from.snapshot); err != nil {
			panic(fmt.Sprintf("a machine does not take its own snapshot: %v", err))
		}
	}
	entries := append([][]byte(nil), from.entries...)
	for _, cmd := range s.w.chunks[k].entries(s.me) {
		entries = append(entries, marshal(cmd))
		m.ApplyBytes(uint64(len(entries)), entries[len(entries)-1])
		s.entries++
	}
	n := s.classify(entries, m)
	if n == c {
		n = -1
	}
	s.next[at] = n
	return n
}

// work lets the real member do in a class, with a folder, whatever it does, once, and notes what a crash at any moment
// would leave.
func (s *seat) work(c, folder int) (*work, error) {
	at := [2]int{c, folder}
	if w, ok := s.works[at]; ok {
		return w, nil
	}
	cl := &s.classes[c]
	p, err := s.open(cl, folder, "later")
	if err != nil {
		return nil, fmt.Errorf("member %d does not start: %w", s.me, err)
	}
	w := &work{}
	if w.serves, err = s.serves(p, cl, folder); err != nil {
		return nil, errors.Join(err, p.member.Close())
	}
	last := s.folders.list[folder]
	p.note = func(bool) error {
		files, err := s.folders.read()
		if err != nil {
			return err
		}
		if half, ok := torn(last, files); ok {
			s.halves[s.folders.id(half)] = s.folders.id(maps.Clone(last))
		}
		w.add(out{s.folders.id(files), p.said, p.guarded})
		last = files
		return nil
	}
	p.member.Work(context.Background())
	sums, err := s.folders.readParts("sums")
	maps.Copy(s.constant, sums)
	if err = errors.Join(err, p.note(false), p.member.Close(), p.err); err != nil {
		return nil, err
	}
	s.folders.now = s.folders.id(maps.Clone(last))
	s.works[at] = w
	return w, nil
}

func (w *work) add(o out) {
	for _, have := range w.outs {
		if have == o {
			return
		}
	}
	w.outs = append(w.outs, o)
}

// mend opens every folder whose vote file ends in half a record: the member must find it as it was before, since what
// was half written was never signed (SA 2.5). So a torn file leads to no state of its own.
func (s *seat) mend() error {
	for half, before := range s.halves {
		p, err := s.open(&s.classes[0], half, "later")
		if err != nil {
			return err
		}
		if err := p.member.Close(); err != nil {
			return err
		}
		files, err := s.folders.read()
		if err != nil {
			return err
		}
		if s.folders.id(files) != before {
			return violation("member %d makes something else of a torn vote file than what it was before", s.me)
		}
	}
	return nil
}

// serves asks the member for every vector of its own reveal.
func (s *seat) serves(p *process, c *class, folder int) (value, error) {
	v := c.shown.rounds[0].revealed
	if v == none {
		return none, nil
	}
	cmd := s.w.spoken[said{s.me, revealWord[v]}]
	if cmd == nil {
		return none, fmt.Errorf("member %d has a reveal in its log that it never signed", s.me)
	}
	r, err := statement.ParseReveal(cmd.GetReveal().GetStatement().GetBody())
	if err != nil {
		return none, err
	}
	served := none
	for _, t := range append(r.TSums, statement.TSum{Hash: r.SumY}) {
		d := &download{}
		if err := p.member.MeshServer().FetchSum(&coordpb.FetchSumRequest{RoundId: s.w.ids[0][:], Hash: t.Hash[:]}, d); err == nil && d.taken {
			served = v
		}
	}
	if served != none {
		have, err := s.folders.promises()
		if err != nil {
			return none, err
		}
		if have[promise{kind: 3, round: s.w.ids[0]}] {
			return none, violation("invariant 3: member %d hands out sums after its expired record", s.me)
		}
	}
	return served, nil
}

// step is one transition of a member.
type step struct {
	to    int   // local
	said  words // newly
	chunk int   // that the leader shows; -1: none
}

// does are the steps of a member that need nobody: its own work, and a crash with a log that comes back no further than
// its disk says it was applied. Whoever crashes without losing any of its log is where it was: each run of its work
// starts from the disk.
func (s *seat) does(l int) ([]step, error) {
	if out, ok := s.alone[l]; ok {
		return out, nil
	}
	at := s.locals[l]
	w, err := s.work(at.class, at.folder)
	if err != nil {
		return nil, err
	}
	out := []step{}
	add := func(to local) {
		if to != at {
			out = append(out, step{s.local(to), to.said &^ at.said, -1})
		}
	}
	for _, o := range w.outs {
		to := at
		to.folder, to.said = o.folder, at.said|o.said
		if o.guarded {
			to.guarded = at.class
		}
		add(to)
	}
	cut := at
	cut.class = at.guarded
	add(cut)
	s.alone[l] = out
	return out, nil
}

// sees are the steps by which the leader shows the member more of a log, as far as the words that a chunk is made of
// are there: the others' by allowed, its own by its state.
func (s *seat) sees(l int, allowed func(k int) bool) (out []step) {
	at := s.locals[l]
	for _, k := range s.classes[at.class].fits {
		c := &s.w.chunks[k]
		if own := c.own | c.needs[s.me]; own&^at.said != 0 || !allowed(k) {
			continue
		}
		if n := s.deliver(at.class, k); n >= 0 {
			to := at
			to.class = n
			out = append(out, step{s.local(to), 0, k})
		}
	}
	return out
}

// heard reports whether all words that a chunk is made of were spoken in some state: before that it cannot be made.
func (w *world) heard(k int) bool {
	for j, need := range w.chunks[k].needs {
		ok := true
		need.each(func(b words) { ok = ok && w.spoken[said{j, b}] != nil })
		if !ok {
			return false
		}
	}
	return true
}
