package tokenizer

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"math"
)

// Hash is the identity of the tokenizer: vocabularies with the same hash give the same ids. It covers the pieces, the
// merges or scores and every rule, in a canonical form, not the file they came from; the same vocabulary with ranks
// (tokenizer.json) and with scores (GGUF) has two hashes.
func (t *Tokenizer) Hash() [32]byte {
	h := sha256.New()
	w := bufio.NewWriter(h) // writes to a hash do not fail
	w.WriteString("tokenizer 1\x00")
	number := func(n int64) { w.Write(binary.BigEndian.AppendUint64(nil, uint64(n))) }
	text := func(s string) { number(int64(len(s))); w.WriteString(s) }
	flag := func(b bool) {
		if b {
			w.WriteByte(1)
		} else {
			w.WriteByte(0)
		}
	}
	w.WriteByte(byte(t.scheme))
	text(string(t.pattern))
	text(t.space)
	w.WriteByte(byte(t.prefix))
	for _, b := range []bool{t.compose, t.splitSpaces, t.strip, t.addBOS, t.fuseUnknown, t.byteFallback, t.ignoreMerges} {
		flag(b)
	}
	for _, id := range []int32{t.unknown, t.bos, t.eos} {
		number(int64(id))
	}
	number(int64(len(t.pieces)))
	for _, p := range t.pieces {
		w.WriteByte(byte(p.kind))
		text(p.text)
	}
	number(int64(len(t.added)))
	for _, a := range t.added {
		number(int64(a.id))
		flag(a.lstrip)
		flag(a.rstrip)
	}
	number(int64(len(t.ranked)))
	for _, m := range t.ranked {
		number(int64(m.left))
		number(int64(m.right))
	}
	number(int64(len(t.scores)))
	for _, s := range t.scores {
		number(int64(math.Float32bits(s)))
	}
	w.Flush()
	return [32]byte(h.Sum(nil))
}
