//go:build faults

package raftlog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/ruche-federation/ruche/storage/fault"
)

// contents is all that raft reads of a store.
type contents struct {
	first, last uint64
	terms       string // of every entry, by index
	term, voted uint64
	candidate   string
}

func read(t *testing.T, s *Store) (c contents) {
	t.Helper()
	must(t, s.Verify())
	c.first, _ = s.FirstIndex()
	c.last, _ = s.LastIndex()
	for i := max(c.first, 1); i <= c.last; i++ {
		var l raft.Log
		must(t, s.GetLog(i, &l))
		c.terms += fmt.Sprintf("%d:%d ", i, l.Term)
	}
	c.term, _ = s.GetUint64([]byte(keyCurrentTerm))
	c.voted, _ = s.GetUint64([]byte(keyLastVoteTerm))
	b, _ := s.Get([]byte(keyLastVoteCand))
	c.candidate = string(b)
	return c
}

// TestFaultInALog does random things to a store, each of which fails once, before its write or after it, in the guard or
// in the log. Opened again, the store is as it was before, or as the whole thing would have left it: nothing else. The
// guard's applied index never falls, and no term and no vote is taken back.
func TestFaultInALog(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	struck := map[fault.Passing]int{}
	dir := t.TempDir()
	s := mustOpen(t, dir)
	term := uint64(1)
	for n := range 160 {
		first, _ := s.FirstIndex()
		last, _ := s.LastIndex()
		applied := s.Applied()
		next := max(last, applied) + 1
		var name string
		var do func(*Store) error
		switch op := rng.IntN(7); {
		case op == 0:
			term++
			at := term
			name, do = "term", func(s *Store) error { return s.SetUint64([]byte(keyCurrentTerm), at) }
		case op == 1:
			at := term
			name, do = "vote", func(s *Store) error {
				if v, _ := s.GetUint64([]byte(keyLastVoteTerm)); v == at {
					return nil
				}
				return s.SetUint64([]byte(keyLastVoteTerm), at)
			}
		case op == 2 && last > applied:
			to := applied + 1 + rng.Uint64N(last-applied)
			name, do = "apply", func(s *Store) error { return s.SetApplied(to) }
		case op == 3 && last > applied && applied > first:
			from := max(applied+1, last-rng.Uint64N(3))
			name, do = "truncate", func(s *Store) error { return s.DeleteRange(from, last) }
		case op == 4 && last > first && applied > first:
			to := first + rng.Uint64N(min(applied, last-1)-first+1)
			name, do = "compact", func(s *Store) error { return s.DeleteRange(first, to) }
		case op == 5 && last > applied:
			from := max(applied+1, last-rng.Uint64N(3))
			logs := run(from, from+rng.Uint64N(4), term)
			name, do = "over", func(s *Store) error { return s.StoreLogs(logs) }
		default:
			logs := run(next, next+rng.Uint64N(5), term)
			name, do = "append", func(s *Store) error { return s.StoreLogs(logs) }
		}
		before := read(t, s)
		at := fault.Passing{Name: fault.Points{"guard", "entries"}[rng.IntN(2)], Moment: []fault.Moment{fault.Before, fault.After}[rng.IntN(2)]}
		plan := &fault.Plan{At: at}
		remove := fault.Install(dir, plan.Handle)
		err := do(s)
		remove()
		if plan.Struck() != (err != nil) {
			t.Fatalf("%d: %s at %v: %v", n, name, at, err)
		}
		if plan.Struck() {
			struck[at]++
		}
		s.guard.f.Close() // the process is gone
		s.db.Close()
		s = mustOpen(t, dir)
		now := read(t, s)
		if s.Applied() < applied || now.term < before.term || now.voted < before.voted {
			t.Fatalf("%d: %s at %v took back: applied %d of %d, %+v of %+v", n, name, at, s.Applied(), applied, now, before)
		}
		if plan.Struck() {
			must(t, do(s)) // again: it comes to where it would have come
		}
		after := read(t, s)
		if plan.Struck() && now != before && now != after {
			t.Fatalf("%d: %s at %v leaves neither what was nor what was to be:\nbefore %+v\n   now %+v\n after %+v", n, name, at, before, now, after)
		}
		if name == "vote" {
			candidate := binary.BigEndian.AppendUint64([]byte("org"), uint64(n))
			if len(s.guard.w.candidate) == 0 {
				must(t, s.Set([]byte(keyLastVoteCand), candidate))
			} else if err := s.Set([]byte(keyLastVoteCand), candidate); err == nil && !bytes.Equal(candidate, s.guard.w.candidate) {
				t.Fatalf("%d: a second candidate in term %d", n, s.guard.w.voteTerm)
			}
		}
	}
	must(t, s.Close())
	cases := 0
	for _, name := range []string{"guard", "entries"} {
		for _, m := range []fault.Moment{fault.Before, fault.After} {
			if n := struck[fault.Passing{Name: name, Moment: m}]; n == 0 {
				t.Errorf("nothing failed %s %q", m, name)
			} else {
				t.Logf("%d failures %s %q", n, m, name)
			}
			cases += struck[fault.Passing{Name: name, Moment: m}]
		}
	}
	t.Logf("2 points, %d cases", cases)
}
