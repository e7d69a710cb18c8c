package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// symbol is a stretch of a word that is, or may become, one token. Symbols form a list in the order of the word.
type symbol struct {
	prev, next int32 // -1 at the ends
	start, end int32 // bytes of the word; start == end: merged into the one before
	id         int32 // -1: not in the vocabulary
}

// candidate is a merge that was possible when it was found. It is stale once either side has changed.
type candidate struct {
	order       float64 // the smallest is merged first: a rank, or a score with its sign turned
	left, right int32
	size        int32 // bytes of both sides together
	id          int32 // what they become
}

func (c candidate) before(d candidate) bool {
	return c.order < d.order || c.order == d.order && c.left < d.left
}

// merger is the working memory of one Encode.
type merger struct {
	t       *Tokenizer
	symbols []symbol
	heap    []candidate
}

// word appends the tokens of one word to out. Merging goes by the least order, the leftmost first: what the
// repeated search of the definition finds, in O(n log n).
func (m *merger) word(word string, out []int32) []int32 {
	for len(word) > maxWord {
		cut := m.t.cut(word[:maxWord])
		out = m.word(word[:cut], out)
		word = word[cut:]
	}
	if m.t.ignoreMerges {
		if id, ok := m.t.ids[word]; ok {
			return append(out, id)
		}
	}
	m.fill(word)
	m.heap = m.heap[:0]
	for i := range len(m.symbols) - 1 {
		m.offer(word, int32(i), int32(i+1))
	}
	for len(m.heap) > 0 {
		c := m.pop()
		l, r := &m.symbols[c.left], &m.symbols[c.right]
		// A side that was merged away is empty; one that grew changed the size, or the neighbour.
		if l.start == l.end || r.start == r.end || l.next != c.right || r.end-l.start != c.size {
			continue
		}
		l.end, l.id, l.next = r.end, c.id, r.next
		r.start = r.end
		if l.next >= 0 {
			m.symbols[l.next].prev = c.left
			m.offer(word, c.left, l.next)
		}
		if l.prev >= 0 {
			m.offer(word, l.prev, c.left)
		}
	}
	unknown := false // the token before is the unknown one
	for i := int32(0); i >= 0 && len(m.symbols) > 0; i = m.symbols[i].next {
		s := m.symbols[i]
		if s.id >= 0 {
			out, unknown = append(out, s.id), false
			continue
		}
		out, unknown = m.t.fallback(out, word[s.start:s.end], unknown)
	}
	return out
}

// fill makes the list of single bytes (byte-level) or characters of word.
func (m *merger) fill(word string) {
	m.symbols = m.symbols[:0]
	for i := 0; i < len(word); {
		n, id := 1, int32(-1)
		if m.t.scheme == byteLevel {
			id = m.t.bytes[word[i]]
		} else {
			_, n = utf8.DecodeRuneInString(word[i:])
			if k, ok := m.t.ids[word[i:i+n]]; ok {
				id = k
			}
		}
		at := int32(len(m.symbols))
		m.symbols = append(m.symbols, symbol{prev: at - 1, next: at + 1, start: int32(i), end: int32(i + n), id: id})
		i += n
	}
	if len(m.symbols) > 0 {
		m.symbols[len(m.symbols)-1].next = -1
	}
}

// offer pushes the merge of two neighbours, if the vocabulary has it.
func (m *merger) offer(word string, left, right int32) {
	l, r := m.symbols[left], m.symbols[right]
	c := candidate{left: left, right: right, size: r.end - l.start}
	if m.t.scores != nil {
		if int(c.size) > m.t.longest {
			return
		}
		id, ok := m.t.ids[word[l.start:r.end]]
		if !ok {
			return
		}
		c.id, c.order = id, -float64(m.t.scores[id])
	} else {
		to, ok := m.t.merges[pair{l.id, r.id}]
		if !ok {
			return
		}
		c.id, c.order = to.id, float64(to.rank)
	}
	m.push(c)
}

func (m *merger) push(c candidate) {
	m.heap = append(m.heap, c)
	for i := len(m.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !m.heap[i].before(m.heap[up]) {
			break
		}
		m.heap[i], m.heap[up] = m.heap[up], m.heap[i]
		i = up
	}
}

func (m *merger) pop() candidate {
	top, last := m.heap[0], len(m.heap)-1
	m.heap[0] = m.heap[last]
	m.heap = m.heap[:last]
	for i := 0; ; {
		down := 2*i + 1
		if down >= last {
			break
		}
		if down+1 < last && m.heap[down+1].before(m.heap[down]) {
			down++
		}
		if !m.heap[down].before(m.heap[i]) {
			break
		}
		m.heap[i], m.heap[down] = m.heap[down], m.heap[i]
		i = down
	}
	return top
}

// fallback appends text that the vocabulary does not have: its bytes, else the unknown token, else nothing.
func (t *Tokenizer) fallback(out []int32, text string, unknown bool) ([]int32, bool) {
	if t.scheme == sentencePiece && t.byteFallback {
		for i := range len(text) {
			out = append(out, t.bytes[text[i]])
		}
		return out, false
	}
	if t.unknown >= 0 && !(unknown && t.fuseUnknown) {
		out = append(out, t.unknown)
	}
	return out, true
}

// cut returns where a word that is too long is cut: before a space where there is one, else between characters.
func (t *Tokenizer) cut(word string) int {
	if t.scheme == sentencePiece {
		if i := strings.LastIndex(word, t.space); i > 0 {
			return i
		}
	}
	for i := len(word); i > len(word)-utf8.UTFMax; i-- {
		if r, n := utf8.DecodeLastRuneInString(word[:i]); r != utf8.RuneError || n > 1 {
			return i
		}
	}
	return len(word)
}
