package round

import (
	"bytes"
	"maps"
	"slices"

	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// snapshotVersion is the format that Snapshot writes and Restore reads.
const snapshotVersion = 2

// snapshotMagic begins every snapshot.
const snapshotMagic = "ruche round state\x00"

// Snapshot returns the whole state as deterministic bytes: equal states, equal bytes. It holds what members, devices
// and authorities signed, and what the log alone knows: indices, times, counts. Nothing in it is believed beyond the
// signatures that Restore checks, and what a log could have said.
func (m *Machine) Snapshot() []byte {
	w := &writer{}
	w.b = append(w.b, snapshotMagic...)
	w.u8(snapshotVersion)
	w.u64(m.applied)
	m.encodeState(w)
	return w.b
}

// Digest is the hash of the whole state but the applied index.
func (m *Machine) Digest() label.Hash {
	w := &writer{}
	m.encodeState(w)
	return label.Sum(label.TagSnapshot, w.b)
}

func (m *Machine) encodeState(w *writer) {
	w.hash(m.ch.Hash())
	w.i64(m.timeMs)
	for _, k := range m.packages {
		w.flag(k != nil)
		if k != nil {
			w.signed(k.signed)
		}
	}
	m.encodeEpochs(w)
	w.u32(uint32(len(m.devices)))
	for _, id := range sortedHashes(m.devices) {
		w.signed(m.devices[id].signed)
		w.u32(m.devices[id].used)
	}
	for _, tokens := range m.tokens {
		w.hashMap(tokens)
	}
	for _, l := range m.lines {
		w.u64(l.seq)
		w.hash(l.usedStart)
		w.hashMap(l.used)
		w.u32(uint32(len(l.kept)))
		for _, r := range l.kept {
			r.encode(w)
			w.flag(r == l.latest)
		}
	}
}

func (r *round) encode(w *writer) {
	w.bytes(r.body)
	w.u64(r.index)
	w.u8(byte(r.phase))
	w.u8(byte(r.death))
	for p := Proposed; p <= Dead; p++ {
		w.flag(r.began[p])
		w.i64(r.times[p])
	}
	for _, s := range r.signatures {
		w.bytes(s)
	}
	w.flag(r.decided)
	w.hash(r.decision)
	w.bytes([]byte(r.reason))
	w.flag(r.foreign)
	w.u32(r.counts.accepted)
	w.u32(r.counts.contributors)
	w.u64(r.counts.bytes)
	w.hash(r.counts.candidates)
	for j := range r.votes {
		w.optional(r.aborts[j] != nil, func() statement.Signed { return *r.aborts[j] })
		w.optional(r.votes[j] != nil, func() statement.Signed { return r.votes[j].signed })
		w.optional(r.expired[j] != nil, func() statement.Signed { return *r.expired[j] })
		w.optional(r.reveals[j] != nil, func() statement.Signed { return r.reveals[j].signed })
		w.optional(r.results[j] != nil, func() statement.Signed { return r.results[j].signed })
	}
	w.flag(r.opened != nil)
	if r.opened != nil {
		w.bytes(r.opened.signed.Body)
	}
	w.u32(uint32(len(r.refused)))
	for _, code := range slices.Sorted(maps.Keys(r.refused)) {
		w.bytes([]byte(code))
		w.u32(r.refused[code])
	}
	w.flag(r.slim)
	w.u32(uint32(len(r.accepts)))
	for i := range r.accepts {
		w.bytes(r.accepts[i].Bytes())
		w.u64(r.accepts[i].index)
	}
	w.u32(uint32(len(r.closes)))
	for _, c := range r.closes {
		w.bytes(c.close.Bytes())
		w.u64(c.index)
		w.i64(c.atMs)
		for j := range c.acks {
			w.optional(c.acks[j] != nil, func() statement.Signed { return c.acks[j].signed })
			if c.acks[j] != nil {
				w.u64(c.acks[j].index)
			}
		}
	}
}

func sortedHashes[V any](in map[label.Hash]V) []label.Hash {
	return slices.SortedFunc(maps.Keys(in), func(a, b label.Hash) int { return bytes.Compare(a[:], b[:]) })
}
