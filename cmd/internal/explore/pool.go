package explore

import (
	"errors"
	"fmt"
	"strings"
)

// honestMax bounds the honest members: (7,2) has five.
const honestMax = 5

// pool is everything that honest members have signed. Liars bring any of it to anybody in any order.
type pool [honestMax]words

// reach is where one member can be while the others' words stay as they are.
type reach struct {
	states map[words]int            // how many of its states have signed exactly this
	next   map[words]map[words]bool // what it may have signed one step later
	serves map[words]value          // a set whose sums it hands out in one of those states
	folded map[words]map[value]bool // sets of which it recorded a reveal in one of them
}

// search goes through all pools.
type search struct {
	w       *world
	report  *Report
	reaches []map[string]*reach // by member, by what the leader may show it
	from    map[pool]pool
	queue   []pool
}

func (w *world) search(r *Report) error {
	s := &search{w: w, report: r, from: map[pool]pool{}}
	for range w.seats {
		s.reaches = append(s.reaches, map[string]*reach{})
	}
	s.push(pool{}, pool{})
	for len(s.queue) > 0 {
		p := s.queue[0]
		s.queue = s.queue[1:]
		if err := s.visit(p); err != nil {
			if errors.As(err, new(*Violation)) {
				return fmt.Errorf("%w\nafter: %s", err, s.road(p))
			}
			return err
		}
	}
	r.Pools = len(s.from)
	for i := range w.seats {
		r.Views += len(s.reaches[i])
	}
	return w.afterRestore(r)
}

func (s *search) push(p, from pool) {
	if _, ok := s.from[p]; !ok {
		s.from[p] = from
		s.queue = append(s.queue, p)
	}
}

// road is the order in which words were signed on the way to a pool.
func (s *search) road(p pool) string {
	var out []string
	for p != (pool{}) {
		before := s.from[p]
		for i := range p {
			if d := p[i] &^ before[i]; d != 0 {
				out = append([]string{fmt.Sprintf("member %d: %v", i, d)}, out...)
			}
		}
		p = before
	}
	return strings.Join(out, "; ")
}

func (s *search) visit(p pool) error {
	if err := s.w.check(p); err != nil {
		return err
	}
	combinations := 1.0
	for i := range s.w.seats {
		r, err := s.reach(i, p)
		if err != nil {
			return err
		}
		combinations *= float64(r.states[p[i]])
		if err := s.w.checkSums(p, i, r); err != nil {
			return err
		}
		for n := range r.next[p[i]] {
			to := p
			to[i] = n
			s.push(to, p)
			s.report.Transitions++
		}
	}
	s.report.Combinations += combinations
	s.report.see(s.w, p)
	return nil
}

// reach finds every state of member i while the others have said what is in p.
func (s *search) reach(i int, p pool) (*reach, error) {
	w, seat := s.w, s.w.seats[i]
	key := make([]byte, len(w.chunks))
	for k := range w.chunks {
		if w.allowed(i, p, k) {
			key[k] = 1
		}
	}
	if r, ok := s.reaches[i][string(key)]; ok {
		return r, nil
	}
	r := &reach{states: map[words]int{}, next: map[words]map[words]bool{}, serves: map[words]value{}, folded: map[words]map[value]bool{}}
	seen := map[int]bool{seat.start: true}
	for queue := []int{seat.start}; len(queue) > 0; queue = queue[1:] {
		l := queue[0]
		at := seat.locals[l]
		r.states[at.said]++
		steps, err := seat.does(l)
		if err != nil {
			return nil, err
		}
		if err := seat.note(r, at); err != nil {
			return nil, err
		}
		for _, st := range append(steps[:len(steps):len(steps)], seat.sees(l, func(k int) bool { return key[k] == 1 })...) {
			if st.said != 0 {
				if r.next[at.said] == nil {
					r.next[at.said] = map[words]bool{}
				}
				r.next[at.said][at.said|st.said] = true
			}
			if !seen[st.to] {
				seen[st.to] = true
				queue = append(queue, st.to)
			}
		}
	}
	s.reaches[i][string(key)] = r
	return r, nil
}

// allowed reports whether the others have said what a chunk for member i is made of.
func (w *world) allowed(i int, p pool, k int) bool {
	for j, need := range w.chunks[k].needs {
		if j != i && need&^p[j] != 0 {
			return false
		}
	}
	return true
}

// note keeps what a state would give away and what it has promised to reveal.
func (s *seat) note(r *reach, at local) error {
	w, err := s.work(at.class, at.folder)
	if err != nil {
		return err
	}
	if w.serves != none {
		r.serves[at.said] = w.serves
	}
	for _, v := range s.revealsOf(at.folder) {
		if r.folded[at.said] == nil {
			r.folded[at.said] = map[value]bool{}
		}
		r.folded[at.said][v] = true
	}
	return nil
}
