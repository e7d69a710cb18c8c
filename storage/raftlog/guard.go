package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/fault"
)

// witness is what the guard knows.
type witness struct {
	term      uint64 // current term
	voteTerm  uint64 // the term of the last vote
	candidate []byte // whom it was for; empty while the vote is being made
	applied   uint64 // nothing at or below is ever rewritten
	last      uint64 // the log held entries up to here
}

// The stored form of a slot, big-endian, one sector: magic[8] version[2] candidateLen[2] sequence[8] term[8]
// voteTerm[8] applied[8] last[8] candidate[256], zeros, crc32c[4].
const (
	guardMagic   = "rucheGRD"
	guardVersion = 1
	slotSize     = 512
	slotStride   = 4096 // slots in different pages, and in different sectors of any disk
	guardSize    = slotStride + slotSize
	slotFixed    = 8 + 2 + 2 + 5*8
)

// GuardError is a guard file that cannot be trusted: term and vote are lost with it, so the member must not vote.
type GuardError struct {
	Path   string
	Reason string
}

func (e *GuardError) Error() string {
	return fmt.Sprintf("raft guard %s: %s; the member must rejoin as a wiped one (new store id) and keeps its epoch folder", e.Path, e.Reason)
}

func encodeSlot(seq uint64, w witness) []byte {
	b := make([]byte, slotSize)
	copy(b, guardMagic)
	binary.BigEndian.PutUint16(b[8:], guardVersion)
	binary.BigEndian.PutUint16(b[10:], uint16(len(w.candidate)))
	for i, x := range []uint64{seq, w.term, w.voteTerm, w.applied, w.last} {
		binary.BigEndian.PutUint64(b[12+8*i:], x)
	}
	copy(b[slotFixed:], w.candidate)
	binary.BigEndian.PutUint32(b[slotSize-4:], castagnoli(b[:slotSize-4]))
	return b
}

var errNextVersion = errors.New("written by a later release")

func decodeSlot(b []byte) (seq uint64, w witness, err error) {
	if len(b) != slotSize || string(b[:8]) != guardMagic {
		return 0, w, errors.New("not a guard slot")
	}
	if v := binary.BigEndian.Uint16(b[8:]); v != guardVersion {
		return 0, w, fmt.Errorf("format version %d, this program reads version %d: %w", v, guardVersion, errNextVersion)
	}
	if castagnoli(b[:slotSize-4]) != binary.BigEndian.Uint32(b[slotSize-4:]) {
		return 0, w, errors.New("checksum")
	}
	n := int(binary.BigEndian.Uint16(b[10:]))
	if n > maxCandidate || len(bytes.TrimRight(b[slotFixed+n:slotSize-4], "\x00")) != 0 {
		return 0, w, fmt.Errorf("candidate of %d bytes", n)
	}
	for i, x := range []*uint64{&seq, &w.term, &w.voteTerm, &w.applied, &w.last} {
		*x = binary.BigEndian.Uint64(b[12+8*i:])
	}
	if n > 0 {
		w.candidate = bytes.Clone(b[slotFixed : slotFixed+n])
	}
	return seq, w, nil
}

// guard is the open file. It is used under the store's lock.
type guard struct {
	path    string
	f       *os.File
	writeAt func(p []byte, off int64) (int, error) // replaced by tests
	sync    func() error                           // replaced by tests
	seq     uint64
	w       witness
	trusted int64 // the slot that is whole and durable
	broken  error // after a failure nothing more is written: what the disk holds is unknown
}

// openGuard opens the guard, or makes it where fresh allows that. What it returns is on the disk, in both slots.
func openGuard(path string, fresh bool) (*guard, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if !fresh {
			return nil, &GuardError{path, "missing, though the log has entries"}
		}
		b := make([]byte, guardSize)
		copy(b, encodeSlot(1, witness{}))
		copy(b[slotStride:], encodeSlot(1, witness{}))
		if err := durable.WriteFile(path, b, 0o600); err != nil {
			return nil, fmt.Errorf("raft guard: %w", err)
		}
		f, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("raft guard: %w", err)
	}
	g := &guard{path: path, f: f, writeAt: f.WriteAt, sync: func() error { return datasync(f) }}
	if err := g.load(); err != nil {
		f.Close()
		return nil, err
	}
	return g, nil
}

func (g *guard) load() error {
	b, err := io.ReadAll(io.LimitReader(g.f, guardSize+1))
	if err != nil {
		return fmt.Errorf("raft guard %s: %w", g.path, err)
	}
	if len(b) != guardSize {
		return &GuardError{g.path, fmt.Sprintf("has %d bytes, want %d", len(b), guardSize)}
	}
	seq0, w0, err0 := decodeSlot(b[:slotSize])
	seq1, w1, err1 := decodeSlot(b[slotStride:])
	switch {
	case errors.Is(err0, errNextVersion) && errors.Is(err1, errNextVersion): // one alone is a flipped bit
		return fmt.Errorf("raft guard %s: %w", g.path, err0)
	case err0 != nil && err1 != nil:
		return &GuardError{g.path, fmt.Sprintf("both slots are damaged: %v; %v", err0, err1)}
	case err1 != nil || (err0 == nil && seq0 >= seq1):
		g.seq, g.w, g.trusted = seq0, w0, 0
	default:
		g.seq, g.w, g.trusted = seq1, w1, 1
	}
	// Twice, so that both slots hold what was read: this mends a damaged slot, and brings to the disk what an earlier
	// process wrote but could not sync.
	for range 2 {
		if err := g.set(g.w); err != nil {
			return err
		}
	}
	return nil
}

// set makes w durable. After an error the old or the new state is on the disk, and the guard takes no other.
func (g *guard) set(w witness) error {
	if g.broken != nil {
		return g.broken
	}
	b := encodeSlot(g.seq+1, w)
	err := fault.Step("guard", g.path, func() error {
		if err := g.put(b, 1-g.trusted); err != nil {
			return err
		}
		return g.sync()
	})
	if err == nil {
		// The other slot is durable now, so this one may be torn. It becomes durable with the next sync, before the
		// other one is touched again.
		err = g.put(b, g.trusted)
	}
	if err != nil {
		g.broken = fmt.Errorf("raft guard: %w", &durable.BrokenError{Path: g.path, Err: err})
		return g.broken
	}
	g.seq, g.w, g.trusted = g.seq+1, w, 1-g.trusted
	return nil
}

func (g *guard) put(b []byte, slot int64) error {
	n, err := g.writeAt(b, slot*slotStride)
	if err == nil && n != len(b) {
		err = io.ErrShortWrite
	}
	return err
}

func (g *guard) close() error {
	err := g.sync()
	if closed := g.f.Close(); err == nil {
		err = closed
	}
	return err
}
