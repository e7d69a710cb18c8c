package train

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ruche-federation/ruche/node/llm"
)

// letters is a tokenizer whose ids are the bytes of a text, and whose BOS is 256.
type letters struct{ bos, eos int32 }

func (letters) Encode(text string) []int32 {
	var out []int32
	for _, b := range []byte(text) {
		out = append(out, int32(b))
	}
	return out
}
func (l letters) BOS() int32 { return l.bos }
func (l letters) EOS() int32 { return l.eos }

func TestWindowsByHand(t *testing.T) {
	got := Windows(letters{bos: 256, eos: 257}, []string{"abc", "", "de"}, 3)
	want := []llm.Sequence{
		{IDs: []int32{256, 'a', 'b', 'c'}, Score: []bool{true, true, true}},
		{IDs: []int32{256, 'd', 'e'}, Score: []bool{true, true}},
	}
	// The stream is BOS a b c BOS BOS d e; its second window begins with c, whose targets BOS, BOS and d are one scored.
	want = append(want[:1], llm.Sequence{IDs: []int32{'c', 256, 256, 'd'}, Score: []bool{false, false, true}}, llm.Sequence{IDs: []int32{'d', 'e'}, Score: []bool{true}})
	if !slices.EqualFunc(got, want, func(a, b llm.Sequence) bool {
		return slices.Equal(a.IDs, b.IDs) && slices.Equal(a.Score, b.Score)
	}) {
		t.Errorf("%v, want %v", got, want)
	}
	if n := Tokens(got); n != 5 {
		t.Errorf("%d tokens, want 5", n)
	}
	if got := Windows(letters{bos: 256}, []string{"", ""}, 4); len(got) != 0 {
		t.Errorf("records of nothing make windows: %v", got)
	}
	if got := Windows(letters{bos: 256}, []string{"ab"}, 0); Tokens(got) != 2 {
		t.Errorf("windows of no positions: %v", got)
	}
}

// TestEveryTokenIsScoredOnce: whatever the records and the window, the scored targets, in order, are the records' tokens,
// and what a target is predicted from is the stream before it.
func TestEveryTokenIsScoredOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := rapid.SliceOfN(rapid.StringMatching(`[a-z]{0,12}`), 0, 8).Draw(t, "records")
		window := rapid.IntRange(1, 20).Draw(t, "window")
		tok := letters{bos: 256, eos: 257}
		if rapid.Bool().Draw(t, "no BOS") {
			tok.bos = -1 // then EOS begins a record
		}
		begin := max(tok.bos, 256)
		if tok.bos < 0 {
			begin = tok.eos
		}
		var scored []int32
		var stream []int32
		for _, r := range records {
			stream = append(append(stream, begin), tok.Encode(r)...)
		}
		at := 0
		for _, w := range Windows(tok, records, window) {
			if len(w.Score) > window || len(w.IDs) != len(w.Score)+1 {
				t.Fatalf("a window of %d ids and %d scores, %d positions allowed", len(w.IDs), len(w.Score), window)
			}
			if !slices.Contains(w.Score, true) {
				t.Fatal("a window with nothing to learn")
			}
			// Windows that were left out hold begins only, so the next one is found further on.
			for !slices.Equal(stream[at:at+len(w.IDs)], w.IDs) {
				if at++; at+len(w.IDs) > len(stream) {
					t.Fatalf("window %v is no part of %v", w.IDs, stream)
				}
			}
			at += len(w.Score)
			for p, counts := range w.Score {
				if counts {
					scored = append(scored, w.IDs[p+1])
				}
			}
		}
		if want := tok.Encode(strings.Join(records, "")); !slices.Equal(scored, want) {
			t.Fatalf("scored %v, want %v", scored, want)
		}
	})
}

// TestOrderDealsEachWindowOncePerPass, differently in each pass, and the same for the same seed.
func TestOrderDealsEachWindowOncePerPass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 50).Draw(t, "windows")
		seed := [32]byte{byte(rapid.IntRange(0, 255).Draw(t, "seed"))}
		a, b := NewOrder(n, seed), NewOrder(n, seed)
		var passes [3][]int
		for p := range passes {
			for range n {
				i := a.Next()
				if j := b.Next(); i != j {
					t.Fatalf("one seed deals %d and %d", i, j)
				}
				passes[p] = append(passes[p], i)
			}
			sorted := slices.Sorted(slices.Values(passes[p]))
			for i, v := range sorted {
				if i != v {
					t.Fatalf("pass %d deals %v", p, passes[p])
				}
			}
		}
		if n > 20 && (slices.Equal(passes[0], passes[1]) || slices.Equal(passes[1], passes[2])) {
			t.Fatal("two passes in one order")
		}
	})
}
