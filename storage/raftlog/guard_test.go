package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/storage/durable"
)

var full = witness{term: 7, voteTerm: 6, candidate: []byte("member-2:7421"), applied: 40, last: 50}

func same(a, b witness) bool {
	return a.term == b.term && a.voteTerm == b.voteTerm && bytes.Equal(a.candidate, b.candidate) && a.applied == b.applied && a.last == b.last
}

func freshGuard(t *testing.T) (*guard, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "guard")
	g, err := openGuard(path, true)
	if err != nil {
		t.Fatal(err)
	}
	return g, path
}

func TestVoteSurvivesAndCannotBeRewritten(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	if _, err := s.Get([]byte("LastVoteCand")); err == nil || err.Error() != "not found" {
		t.Fatalf("no vote yet: %v", err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.SetUint64([]byte("CurrentTerm"), 5))
	must(s.SetUint64([]byte("LastVoteTerm"), 5))
	must(s.Set([]byte("LastVoteCand"), []byte("a")))
	must(s.Set([]byte("LastVoteCand"), []byte("a"))) // again is fine
	must(s.Set([]byte("other"), []byte("value")))
	must(s.SetUint64([]byte("number"), 1<<40))
	for range 2 {
		var rewrite *VoteRewriteError
		for name, err := range map[string]error{
			"other candidate": s.Set([]byte("LastVoteCand"), []byte("b")),
			"term back":       s.SetUint64([]byte("CurrentTerm"), 4),
			"vote term back":  s.SetUint64([]byte("LastVoteTerm"), 4),
		} {
			if !errors.As(err, &rewrite) {
				t.Fatalf("%s: %v", name, err)
			}
		}
		term, err1 := s.GetUint64([]byte("CurrentTerm"))
		vote, err2 := s.GetUint64([]byte("LastVoteTerm"))
		cand, err3 := s.Get([]byte("LastVoteCand"))
		other, err4 := s.Get([]byte("other"))
		number, err5 := s.GetUint64([]byte("number"))
		if term != 5 || vote != 5 || string(cand) != "a" || string(other) != "value" || number != 1<<40 || errors.Join(err1, err2, err3, err4, err5) != nil {
			t.Fatalf("%d %d %q %q %d, %v", term, vote, cand, other, number, errors.Join(err1, err2, err3, err4, err5))
		}
		s.Close()
		s = mustOpen(t, dir)
	}
	// A new vote: between the two writes raft makes, nobody has been voted for.
	must(s.SetUint64([]byte("LastVoteTerm"), 6))
	if _, err := s.Get([]byte("LastVoteCand")); err == nil {
		t.Fatal("the old candidate stands in the new term")
	}
	must(s.Set([]byte("LastVoteCand"), []byte("b")))
	if n, err := s.GetUint64([]byte("never set")); n != 0 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	for name, err := range map[string]error{
		"empty candidate": s.Set([]byte("LastVoteCand"), nil),
		"long candidate":  s.Set([]byte("LastVoteCand"), make([]byte, maxCandidate+1)),
		"odd term":        s.Set([]byte("CurrentTerm"), []byte("5")),
		"long value":      s.Set([]byte("k"), make([]byte, maxStableValue+1)),
		"long key":        s.Set(make([]byte, maxStableKey+1), nil),
	} {
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	s.Close()
}

// TestGuardFailures breaks each step of a change: the old or the new state comes back, whole, and nothing is written
// after the failure.
func TestGuardFailures(t *testing.T) {
	broken := errors.New("injected")
	for _, c := range []struct {
		name string
		call int // which write or sync fails
		sync bool
		do   bool // it happens all the same
		new  bool // the new state is what comes back
	}{
		{"first write, not done", 1, false, false, false},
		{"first write, done", 1, false, true, true},
		{"sync, not done", 1, true, false, true}, // written, though perhaps not for ever
		{"sync, done", 1, true, true, true},
		{"second write, not done", 2, false, false, true},
		{"second write, done", 2, false, true, true},
	} {
		g, path := freshGuard(t)
		before := witness{term: 1, last: 3}
		if err := g.set(before); err != nil {
			t.Fatal(err)
		}
		writes, syncs := 0, 0
		write, sync := g.writeAt, g.sync
		g.writeAt = func(p []byte, off int64) (int, error) {
			if writes++; !c.sync && writes == c.call {
				if c.do {
					write(p, off)
				}
				return 0, broken
			}
			return write(p, off)
		}
		g.sync = func() error {
			if syncs++; c.sync && syncs == c.call {
				if c.do {
					sync()
				}
				return broken
			}
			return sync()
		}
		if err := g.set(full); !errors.Is(err, broken) || !strings.Contains(err.Error(), path) {
			t.Fatalf("%s: %v", c.name, err)
		}
		if err := g.set(witness{term: 99}); !errors.Is(err, broken) || !errors.As(err, new(*durable.BrokenError)) {
			t.Fatalf("%s: a change after a failure: %v", c.name, err)
		}
		g.f.Close()
		again, err := openGuard(path, false)
		if err != nil {
			t.Fatal(err)
		}
		want := before
		if c.new {
			want = full
		}
		if !same(again.w, want) {
			t.Errorf("%s: came back as %+v", c.name, again.w)
		}
		again.close()
	}
}

// TestTornGuardWriteLeavesTheOtherSlot cuts the write of a slot at every byte, from either slot.
func TestTornGuardWriteLeavesTheOtherSlot(t *testing.T) {
	g, path := freshGuard(t)
	for round := range 2 {
		before := witness{term: uint64(10 + round), last: 3}
		if err := g.set(before); err != nil {
			t.Fatal(err)
		}
		g.f.Sync()
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		next := encodeSlot(g.seq+1, full)
		off := (1 - g.trusted) * slotStride
		for cut := range slotSize + 1 {
			b := bytes.Clone(whole)
			copy(b[off:], next[:cut])
			p := filepath.Join(t.TempDir(), "guard")
			if err := os.WriteFile(p, b, 0o600); err != nil {
				t.Fatal(err)
			}
			again, err := openGuard(p, false)
			if err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			if got := again.w; !same(got, before) && !(same(got, full) && bytes.Equal(b[off:off+slotSize], next)) {
				t.Fatalf("cut at %d: %+v", cut, got)
			}
			again.close()
		}
	}
	g.close()
}

// TestFlippedBitInEitherSlotIsMended: both slots hold the state, so one may rot, whichever it is.
func TestFlippedBitInEitherSlotIsMended(t *testing.T) {
	g, path := freshGuard(t)
	if err := g.set(full); err != nil {
		t.Fatal(err)
	}
	g.close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for off := range guardSize {
		if off >= slotSize && off < slotStride {
			continue // between the slots
		}
		bad := bytes.Clone(whole)
		bad[off] ^= 1 << (off % 8)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		g, err := openGuard(path, false)
		if err != nil || !same(g.w, full) {
			t.Fatalf("flip at %d: %v", off, err)
		}
		g.close()
		mended, _ := os.ReadFile(path)
		for _, at := range []int{0, slotStride} {
			if _, w, err := decodeSlot(mended[at : at+slotSize]); err != nil || !same(w, full) {
				t.Fatalf("flip at %d: slot at %d was not mended: %v", off, at, err)
			}
		}
	}
	var guardErr *GuardError
	both := bytes.Clone(whole)
	both[20], both[slotStride+20] = both[20]^1, both[slotStride+20]^1
	for off := range slotSize { // the same place in both slots: nothing is left to believe
		bad := bytes.Clone(whole)
		bad[off], bad[slotStride+off] = bad[off]^1<<(off%8), bad[slotStride+off]^1<<(off%8)
		os.WriteFile(path, bad, 0o600)
		if _, err := openGuard(path, false); err == nil {
			t.Fatalf("flips at %d of both slots are believed", off)
		}
	}
	for size := range guardSize {
		os.WriteFile(path, whole[:size], 0o600)
		if _, err := openGuard(path, false); !errors.As(err, &guardErr) {
			t.Fatalf("cut at %d: %v", size, err)
		}
	}
	for name, bad := range map[string][]byte{"both": both, "short": whole[:guardSize-1], "long": append(bytes.Clone(whole), 0), "empty": nil} {
		os.WriteFile(path, bad, 0o600)
		if _, err := openGuard(path, false); !errors.As(err, &guardErr) || !strings.Contains(err.Error(), "rejoin") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNextGuardVersionIsRefused(t *testing.T) {
	g, path := freshGuard(t)
	g.close()
	b, _ := os.ReadFile(path)
	for _, at := range []int{0, slotStride} {
		binary.BigEndian.PutUint16(b[at+8:], guardVersion+1)
		binary.BigEndian.PutUint32(b[at+slotSize-4:], castagnoli(b[at:at+slotSize-4]))
	}
	os.WriteFile(path, b, 0o600)
	var guardErr *GuardError
	_, err := openGuard(path, false)
	if err == nil || errors.As(err, &guardErr) || !strings.Contains(err.Error(), "format version 2") {
		t.Fatalf("%v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(after, b) {
		t.Fatal("a file of a later release was changed")
	}
}
