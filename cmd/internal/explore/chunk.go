package explore

import (
	"fmt"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// chunk is one or more entries that the leader shows a member together. In between the member would owe nothing that it
// does not owe after them, so that to show them one by one adds no behaviour.
type chunk struct {
	name    string
	needs   []words                         // by honest member: what has to be signed already
	own     words                           // and by the member that it is shown to
	fits    func(s *shown) bool             // whether it may change what the member knows
	entries func(me int) []*coordpb.Command // of which none may be missing; nil where the bytes are fixed
}

// shown is what a member knows of the two rounds from the log that it was shown.
type shown struct {
	keys   uint64 // the epoch of this member's key package; 0: none in the log
	timeMs int64
	rounds [2]roundShown
}

type roundShown struct {
	known     bool
	phase     round.Phase
	death     round.Death
	decision  value // none before it
	foreign   bool  // a certificate for another value than the log decided
	signed    bool  // own signature in the log, as all that follows
	accepts   int
	closed    [3]bool
	complete  [3]bool
	acked     [3]bool
	voted     value
	liarVoted value // all liars vote together
	revealed  value
	expired   bool
}

// read makes shown of a machine.
func (w *world) read(m *round.Machine, me int) shown {
	var s shown
	if _, k, ok := m.KeyPackage(me); ok {
		s.keys = k.Epoch
	}
	for k, id := range w.ids {
		v, ok := m.Round(id)
		if !ok {
			continue
		}
		r := roundShown{known: true, phase: v.Phase, death: v.Death, foreign: v.Foreign, accepts: v.Accepted}
		if v.Decided {
			r.decision = w.value(v.Decision)
		}
		for _, g := range v.Signatures {
			r.signed = r.signed || g.Member == me
		}
		for _, c := range v.Closes {
			for i, have := range w.closes {
				if have.hash == c.Hash {
					r.closed[i], r.complete[i], r.acked[i] = true, c.Complete, c.Acked.Has(me)
				}
			}
		}
		for _, s := range v.Votes {
			b, err := statement.ParseVote(s.Statement.Body)
			if err != nil {
				continue // the machine keeps none that cannot be read
			}
			if s.Member == me {
				r.voted = w.value(b.Value)
			} else if s.Member >= w.honest() {
				r.liarVoted = w.value(b.Value)
			}
		}
		for _, s := range v.Reveals {
			if b, err := statement.ParseReveal(s.Statement.Body); err == nil && s.Member == me {
				r.revealed = w.value(b.Set)
			}
		}
		for _, s := range v.Expired {
			r.expired = r.expired || s.Member == me
		}
		s.rounds[k] = r.essence()
		if r.decision == none { // no deadline but the last hangs on the time any more, and that one ends the round
			s.timeMs = m.TimeMs()
		}
	}
	return s
}

// essence forgets what nothing can hang on any more: before the decision everything counts; after it neither the list, nor
// the Closes, nor who signed the config; after the end nothing but how it ended and which own words stand in the log.
func (r roundShown) essence() roundShown {
	if r.phase != round.Proposed {
		r.signed = false
	}
	if r.decision == none {
		return r
	}
	r.accepts, r.closed, r.complete, r.acked = 0, [3]bool{}, [3]bool{}, [3]bool{}
	if r.phase == round.Published || r.death == round.Certified {
		r.liarVoted = none
	}
	return r
}

// awaitsVotes: votes that come before the Close are as good as if they came with it. No duty before that asks for them.
func (r *roundShown) awaitsVotes() bool {
	return (r.phase == round.Closed || r.decision != none) && r.phase != round.Published && r.death != round.Certified
}

// makeChunks lists the leader's alphabet.
func (w *world) makeChunks() {
	h, first := w.honest(), func(s *shown) *roundShown { return &s.rounds[0] }
	add := func(name string, needs []words, fits func(s *shown) bool, entries func(me int) []*coordpb.Command) {
		if needs == nil {
			needs = make([]words, h)
		}
		w.chunks = append(w.chunks, chunk{name, needs, 0, fits, entries})
	}
	addOwn := func(name string, word words, fits func(s *shown) bool) {
		add(name, nil, fits, func(me int) []*coordpb.Command { return w.repeat([]int{me}, word) })
		w.chunks[len(w.chunks)-1].own = word
	}
	fixed := func(cmds ...*coordpb.Command) func(int) []*coordpb.Command {
		return func(int) []*coordpb.Command { return cmds }
	}
	// of: these honest members have said that word. All liars say it as well.
	of := func(members []int, word words) []words {
		out := make([]words, h)
		for _, j := range members {
			out[j] = word
		}
		return out
	}
	enough := w.ch.Q - w.ch.F // honest voices for a quorum
	groups := subsets(h, enough)

	add("keys and devices", nil, func(s *shown) bool { return s.keys == 0 }, fixed(w.genesis...))
	for k := range w.configs {
		if k == 1 && w.opts.Part == VoteAndReveal {
			break
		}
		id := w.ids[k]
		add(fmt.Sprintf("propose %d", k+1), nil, func(s *shown) bool {
			return s.keys > 0 && s.timeMs == 0 && !s.rounds[0].known && !s.rounds[1].known
		}, fixed(round.ProposeCommand(w.configs[k])))
		sign := [...]words{signed1, signed2}[k]
		for _, g := range groups {
			add(fmt.Sprintf("signatures %d of %v", k+1, g), of(g, sign), func(s *shown) bool {
				return s.rounds[k].known && s.rounds[k].phase == round.Proposed && s.rounds[k].decision == none
			}, func(me int) []*coordpb.Command {
				out := w.repeat(g, sign)
				for j := h; j < w.ch.N; j++ {
					out = append(out, round.RoundSignatureCommand(id, j, w.homes[j].Identity.Sign(label.StmtRoundConfig, w.configs[k].Bytes())))
				}
				return out
			})
		}
		values := []value{dead}
		if k == 0 {
			values = []value{setA, setB, dead}
		}
		for _, v := range values {
			word := voteWord[v]
			if k == 1 {
				word = vote2Dead
			}
			for _, g := range groups {
				add(fmt.Sprintf("votes for %v in %d of %v", v, k+1, g), of(g, word), func(s *shown) bool {
					r := &s.rounds[k]
					return r.awaitsVotes() && r.liarVoted == none
				}, func(me int) []*coordpb.Command {
					out := w.repeat(g, word)
					for j := h; j < w.ch.N; j++ {
						out = append(out, w.vote(id, j, v))
					}
					return out
				})
			}
			addOwn(fmt.Sprintf("own vote for %v in %d", v, k+1), word, func(s *shown) bool { return s.rounds[k].awaitsVotes() && s.rounds[k].voted == none })
		}
		ended := [...]words{expired1, expired2}[k]
		addOwn(fmt.Sprintf("own expired in %d", k+1), ended, func(s *shown) bool { return s.rounds[k].death == round.Expired && !s.rounds[k].expired })
		all := make([]int, h)
		for j := range all {
			all[j] = j
		}
		add(fmt.Sprintf("all expired in %d", k+1), of(all, ended), func(s *shown) bool {
			return s.rounds[k].death == round.Expired
		}, func(me int) []*coordpb.Command {
			out := w.repeat(all, ended)
			for j := h; j < w.ch.N; j++ {
				body := (&statement.Expired{Round: id}).Bytes()
				out = append(out, round.ExpiredCommand(id, j, statement.SignKey(w.liars[j], label.StmtExpired, body)))
			}
			return out
		})
	}

	lists := []int{devices, floor}
	if w.opts.Part == Opening {
		lists = nil // and so no Close, no set, no reveal
	}
	for _, n := range lists {
		add(fmt.Sprintf("%d accepts", n), nil, func(s *shown) bool {
			return first(s).phase == round.Open && first(s).accepts == 0
		}, fixed(round.AcceptsCommand(w.accepts[:n]...)))
	}
	for i, c := range w.closes {
		cmd := round.CloseCommand(c.close)
		add("close "+c.name, nil, func(s *shown) bool {
			r := first(s)
			return (r.phase == round.Open || r.phase == round.Closed) && r.accepts == c.list && !r.closed[i]
		}, fixed(cmd))
		var active []int
		for j := range h {
			if c.close.Active.Has(j) {
				active = append(active, j)
			}
		}
		for _, refuse := range []bool{false, true} {
			if refuse && c.list == floor {
				continue // the floor would be out of reach
			}
			name := "acks "
			if refuse {
				name = "acks with a refusal "
			}
			add(name+c.name, of(active, ack0<<i), func(s *shown) bool {
				return first(s).phase == round.Closed && first(s).closed[i] && !first(s).complete[i]
			}, func(me int) []*coordpb.Command {
				out := w.repeat(active, ack0<<i)
				for j := h; j < w.ch.N; j++ {
					a := &statement.Ack{Round: w.ids[0], Close: c.hash, Verdicts: make([]statement.Verdict, c.list)}
					for d := range a.Verdicts {
						a.Verdicts[d] = statement.OK
					}
					if refuse {
						a.Verdicts[c.list-1] = statement.Missing
					}
					out = append(out, round.AckCommand(w.ids[0], j, statement.SignKey(w.liars[j], label.StmtAck, a.Bytes())))
				}
				return out
			})
		}
	}
	for _, v := range []value{setA, setB} {
		addOwn(fmt.Sprintf("own reveal of %v", v), revealWord[v], func(s *shown) bool {
			p := first(s).phase
			return (p == round.Sealed || p == round.Revealed) && first(s).revealed == none && first(s).decision == v
		})
		add(fmt.Sprintf("results over %v", v), nil, func(s *shown) bool {
			return first(s).phase == round.Sealed && first(s).decision == v
		}, func(me int) []*coordpb.Command { return w.results(me, v) })
	}
	// A tick matters where it lets a deadline pass that something hangs on.
	for i, ms := range w.deadlines() {
		add("tick past the "+[]string{"close", "ack", "reveal"}[i]+" deadline", nil, func(s *shown) bool {
			for k := range s.rounds {
				r := &s.rounds[k]
				if r.known && s.timeMs < ms && !r.phase.Terminal() && (r.decision == none || i == 2) {
					return true
				}
			}
			return false
		}, fixed(round.TickCommand(ms)))
	}
}

// deadlines are times just past those of both rounds: close, ack, reveal.
func (w *world) deadlines() [3]int64 {
	last := w.configs[1]
	return [3]int64{last.CloseMs + 1, last.AckMs + 1, last.RevealMs + 1}
}

// repeat is what honest members said, as they said it.
func (w *world) repeat(members []int, word words) (out []*coordpb.Command) {
	for _, j := range members {
		cmd, ok := w.spoken[said{j, word}]
		if !ok {
			return nil
		}
		out = append(out, cmd)
	}
	return out
}

func (w *world) vote(id label.Hash, j int, v value) *coordpb.Command {
	body := (&statement.Vote{Round: id, Value: w.hashes[v]}).Bytes()
	return round.VoteCommand(id, j, statement.SignKey(w.liars[j], label.StmtVote, body))
}

// results are those of all liars and of one honest member that knows the sum: more than any liar could have, since to
// sign a Result the honest one needs every T-sum. A published round owes less than any other.
func (w *world) results(me int, v value) (out []*coordpb.Command) {
	body := (&statement.Result{Round: w.ids[0], Set: w.hashes[v], X: label.Sum(label.TagUnmasked), Model: label.Sum(label.TagModel)}).Bytes()
	for j := range w.ch.N {
		if j >= w.honest() || j == (me+1)%w.honest() {
			out = append(out, round.ResultCommand(w.ids[0], j, statement.SignMember(w.homes[j].Identity, label.StmtResult, body)))
		}
	}
	return out
}

// subsets lists the sets of k members below n.
func subsets(n, k int) (out [][]int) {
	for mask := 0; mask < 1<<n; mask++ {
		var s []int
		for j := range n {
			if mask>>j&1 == 1 {
				s = append(s, j)
			}
		}
		if len(s) == k {
			out = append(out, s)
		}
	}
	return out
}
