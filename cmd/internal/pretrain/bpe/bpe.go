package bpe

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/ruche-federation/ruche/node/llm/tokenizer"
)

// The special tokens have the first ids, the 256 bytes the next.
const (
	BOS     = "<s>"
	EOS     = "</s>"
	special = 2
	// Smallest is a vocabulary without a merge.
	Smallest = special + 256
)

// word is one distinct word and how often it comes.
type word struct {
	ids   []int32
	count int
}

type pair struct{ left, right int32 }

// Train returns a tokenizer of exactly size pieces.
func Train(texts iter.Seq[string], size int) (*tokenizer.Tokenizer, error) {
	if size < Smallest {
		return nil, fmt.Errorf("bpe: vocabulary of %d pieces, at least %d are needed", size, Smallest)
	}
	pieces := []string{BOS, EOS}
	for b := range 256 {
		pieces = append(pieces, tokenizer.Symbols(string([]byte{byte(b)})))
	}
	words := distinct(texts)
	known := map[string]bool{}
	for _, p := range pieces {
		known[p] = true
	}
	var merges [][2]string
	for len(pieces) < size {
		best, ok := mostFrequent(words, func(p pair) bool { return known[pieces[p.left]+pieces[p.right]] })
		if !ok {
			return nil, fmt.Errorf("bpe: the texts give %d pieces, not %d", len(pieces), size)
		}
		id := int32(len(pieces))
		left, right := pieces[best.left], pieces[best.right]
		pieces, merges, known[left+right] = append(pieces, left+right), append(merges, [2]string{left, right}), true
		for i := range words {
			words[i].ids = merge(words[i].ids, best, id)
		}
	}
	return tokenizer.NewByteLevel(pieces, merges, BOS, EOS)
}

// distinct counts words and spells them in bytes, in the order of the text.
func distinct(texts iter.Seq[string]) []word {
	index := map[string]int{}
	var words []word
	for text := range texts {
		for w := range tokenizer.Words(text) {
			i, ok := index[w]
			if !ok {
				i = len(words)
				index[strings.Clone(w)] = i
				ids := make([]int32, len(w))
				for j := range len(w) {
					ids[j] = special + int32(w[j])
				}
				words = append(words, word{ids: ids})
			}
			words[i].count++
		}
	}
	return words
}

// mostFrequent returns the pair that comes most often. A pair that would spell a piece again is passed over.
func mostFrequent(words []word, taken func(pair) bool) (pair, bool) {
	counts := map[pair]int{}
	for _, w := range words {
		for j := 1; j < len(w.ids); j++ {
			counts[pair{w.ids[j-1], w.ids[j]}] += w.count
		}
	}
	var best pair
	most := 0
	for p, n := range counts { // the order of the map does not matter: the ties below are total
		if n < most || n == most && (p.left > best.left || p.left == best.left && p.right >= best.right) || taken(p) {
			continue
		}
		best, most = p, n
	}
	return best, most > 0
}

// merge replaces every p in ids by id, from the left.
func merge(ids []int32, p pair, id int32) []int32 {
	if !slices.Contains(ids, p.left) {
		return ids
	}
	out := ids[:0]
	for i := 0; i < len(ids); i++ {
		if i+1 < len(ids) && ids[i] == p.left && ids[i+1] == p.right {
			out = append(out, id)
			i++
			continue
		}
		out = append(out, ids[i])
	}
	return out
}
