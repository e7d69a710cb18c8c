package replica

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/hashicorp/raft"

	"github.com/ruche-federation/ruche/storage/fault"
)

// A snapshot on disk and on the wire, version 1, integers big-endian:
//
//	"ruchesnp"  8 bytes
//	version     2
//	index       8   the last entry in the state
//	length      8   of the state
//	state
//	SHA-256     32  over everything before it
const (
	snapshotMagic   = "ruchesnp"
	snapshotVersion = 1
	snapshotHead    = 8 + 2 + 8 + 8
)

func encodeHead(index uint64, length int) []byte {
	b := make([]byte, 0, snapshotHead)
	b = append(b, snapshotMagic...)
	b = binary.BigEndian.AppendUint16(b, snapshotVersion)
	b = binary.BigEndian.AppendUint64(b, index)
	return binary.BigEndian.AppendUint64(b, uint64(length))
}

func decodeHead(b []byte) (index, length uint64, err error) {
	if len(b) != snapshotHead || string(b[:8]) != snapshotMagic {
		return 0, 0, errors.New("not a snapshot")
	}
	if v := binary.BigEndian.Uint16(b[8:]); v != snapshotVersion {
		return 0, 0, fmt.Errorf("snapshot has version %d, this program reads %d", v, snapshotVersion)
	}
	index, length = binary.BigEndian.Uint64(b[10:]), binary.BigEndian.Uint64(b[18:])
	if length > snapshotMax {
		return 0, 0, fmt.Errorf("snapshot has %d bytes, limit %d", length, snapshotMax)
	}
	return index, length, nil
}

func writeSnapshot(w io.Writer, index uint64, state []byte) error {
	sum := sha256.New()
	both := io.MultiWriter(w, sum)
	if _, err := both.Write(encodeHead(index, len(state))); err != nil {
		return err
	}
	if _, err := both.Write(state); err != nil {
		return err
	}
	_, err := w.Write(sum.Sum(nil))
	return err
}

func readSnapshot(r io.Reader) (index uint64, state []byte, err error) {
	head := make([]byte, snapshotHead)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, nil, fmt.Errorf("snapshot head: %w", err)
	}
	index, length, err := decodeHead(head)
	if err != nil {
		return 0, nil, err
	}
	var buf bytes.Buffer // grows with what is there, whatever the head says
	if n, err := io.CopyN(&buf, r, int64(length)); err != nil {
		return 0, nil, fmt.Errorf("snapshot state has %d bytes, head says %d", n, length)
	}
	sum := sha256.New()
	sum.Write(head)
	sum.Write(buf.Bytes())
	tail := make([]byte, sha256.Size+1)
	if n, _ := io.ReadFull(r, tail); n != sha256.Size {
		return 0, nil, fmt.Errorf("snapshot ends with %d bytes, wants %d", n, sha256.Size)
	}
	if !bytes.Equal(tail[:sha256.Size], sum.Sum(nil)) {
		return 0, nil, errors.New("snapshot is damaged: digest differs")
	}
	return index, buf.Bytes(), nil
}

// localSnapshot is the state as this member has it.
type localSnapshot struct {
	index uint64
	state []byte
}

// Persist is raft.FSMSnapshot's; raft closes the sink afterwards, or cancels it.
func (s *localSnapshot) Persist(sink raft.SnapshotSink) error {
	if a, ok := sink.(*admission); ok {
		a.local = true
	}
	return writeSnapshot(sink, s.index, s.state)
}

// Release is raft.FSMSnapshot's.
func (s *localSnapshot) Release() { s.state = nil }

// snapshots is a snapshot store that lets no leader's snapshot reach the disk unless it is whole and no older than
// what this member has applied: once stored, raft would start from it after the next restart.
type snapshots struct {
	raft.SnapshotStore
	replica *Replica
}

// Create is raft.SnapshotStore's.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, transport raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, transport)
	if err != nil {
		return nil, err
	}
	return &admission{SnapshotSink: sink, replica: s.replica, index: index, sum: sha256.New()}, nil
}

// Open is raft.SnapshotStore's.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, source, err := s.SnapshotStore.Open(id)
	if err == nil {
		s.replica.opts.Log.SetSnapshot(meta.Index)
	}
	return meta, source, err
}

// admission is a sink that looks at what passes through, and decides at Close.
type admission struct {
	raft.SnapshotSink
	replica *Replica
	index   uint64 // of the last entry, as raft counts
	local   bool   // this member's own state
	head    []byte
	sum     hash.Hash // over everything but the last 32 bytes
	tail    []byte
	n       uint64
}

// Write is io.Writer's.
func (a *admission) Write(p []byte) (int, error) {
	n, err := a.SnapshotSink.Write(p)
	p = p[:n]
	a.n += uint64(n)
	if len(a.head) < snapshotHead {
		a.head = append(a.head, p[:min(len(p), snapshotHead-len(a.head))]...)
	}
	a.tail = append(a.tail, p...)
	if over := len(a.tail) - sha256.Size; over > 0 {
		a.sum.Write(a.tail[:over])
		a.tail = append(a.tail[:0], a.tail[over:]...)
	}
	return n, err
}

// Close is io.Closer's: the snapshot is on the disk when it returns nil.
func (a *admission) Close() error {
	if err := a.admit(); err != nil {
		a.SnapshotSink.Cancel()
		return err
	}
	if err := fault.Step("snapshot", a.replica.opts.Dir, a.SnapshotSink.Close); err != nil {
		return err
	}
	a.replica.opts.Log.SetSnapshot(a.index)
	return nil
}

func (a *admission) admit() error {
	if a.local {
		return nil
	}
	index, length, err := decodeHead(a.head)
	switch {
	case err != nil:
		return fmt.Errorf("snapshot from the leader: %w", err)
	case a.n != snapshotHead+length+sha256.Size || !bytes.Equal(a.tail, a.sum.Sum(nil)):
		return errors.New("snapshot from the leader is damaged")
	case index > a.index:
		return fmt.Errorf("snapshot from the leader is of index %d, in a log that ends at %d", index, a.index)
	}
	if floor := a.replica.floor(); index < floor {
		err := fmt.Errorf("%w: the leader's is of index %d, this member has applied %d", ErrOldSnapshot, index, floor)
		a.replica.fail(err)
		return err
	}
	return nil
}
