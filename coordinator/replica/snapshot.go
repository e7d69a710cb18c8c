package replica

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
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
	snapshotWhole   = snapshotHead + snapshotMax + sha256.Size // bytes of the greatest
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

// A folder of a snapshot, as raft's file store has it, and a file of ours in it.
const (
	snapshotsDir = "snapshots"
	unfinished   = ".tmp" // after its name, while it is being written
	metaFile     = "meta.json"
	stateFile    = "state.bin"
	stampFile    = "meta.sum" // a checked file with the hash of what meta.json says: raft's checksum covers the state only
)

// errNotBelieved is of a snapshot whose description is damaged, or was never stamped. Its index, term and voters are not
// to be gone on from.
var errNotBelieved = errors.New("its description is not what was written")

// stamp is what the side file holds of a description.
func stamp(m raft.SnapshotMeta) ([]byte, error) {
	m.Peers = nil // what raft reads where there is no configuration
	b, err := json.Marshal(m)
	return []byte(label.Sum(label.TagSnapshot, b).String() + "\n"), err
}

// believe compares a description with the stamp in a snapshot's folder. An error that is not errNotBelieved says nothing
// of the snapshot.
func believe(dir string, m raft.SnapshotMeta) error {
	want, err := durable.ReadChecked(filepath.Join(dir, stampFile))
	if errors.Is(err, fs.ErrNotExist) || errors.As(err, new(*durable.CorruptError)) {
		return fmt.Errorf("%w: %w", errNotBelieved, err)
	}
	if err != nil {
		return err
	}
	got, err := stamp(m)
	if err == nil && !bytes.Equal(got, want) {
		err = errNotBelieved
	}
	return err
}

// description is a meta.json.
type description struct {
	raft.SnapshotMeta
	CRC []byte // of the state: CRC-64
}

// describe reads the description in a snapshot's folder, and believes it or not.
func describe(dir string) (d description, err error) {
	b, err := os.ReadFile(filepath.Join(dir, metaFile))
	if errors.Is(err, fs.ErrNotExist) {
		return d, fmt.Errorf("%w: %w", errNotBelieved, err)
	}
	if err != nil {
		return d, err
	}
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&d); err != nil { // as raft reads it
		return d, fmt.Errorf("%w: %w", errNotBelieved, err)
	}
	return d, believe(dir, d.SnapshotMeta)
}

// folders are those of the snapshots that raft finished, in no order.
func folders(root string) (out []string, err error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasSuffix(e.Name(), unfinished) {
			out = append(out, filepath.Join(root, e.Name()))
		}
	}
	return out, err
}

// snapshots is a snapshot store that lets no leader's snapshot reach the disk unless it is whole, no older than what this
// member has applied and one that the FSM takes: once stored, raft would start from it after the next restart. It gives raft none whose
// description is not believed, or from which the log does not go on.
type snapshots struct {
	raft.SnapshotStore
	dir     string // with a folder for each
	replica *Replica
	broken  map[string]bool                  // those whose state was found damaged before raft started; changed no more
	free    func(dir string) (uint64, error) // replaced by tests
}

func openSnapshots(dir string, r *Replica, logger *quiet) (*snapshots, error) {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	if err := RemoveUnfinished(dir); err != nil {
		return nil, err
	}
	files, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, logger)
	if err != nil {
		return nil, fmt.Errorf("replica: snapshots: %w", err)
	}
	return &snapshots{SnapshotStore: files, dir: filepath.Join(dir, snapshotsDir), replica: r, broken: map[string]bool{}, free: durable.FreeBytes}, nil
}

// RemoveUnfinished removes what a death left in a replica's folder of snapshots that were being written: each is as large
// as the state, and raft passes them by. New does it too; who opens the log before New calls it before that, for the log
// does not open on a disk that they fill. The folder must be the caller's.
func RemoveUnfinished(dir string) error {
	if err := removeUnfinished(filepath.Join(dir, snapshotsDir), ""); err != nil {
		return fmt.Errorf("replica: snapshots: %w", err)
	}
	return nil
}

// removeUnfinished removes those whose names begin so.
func removeUnfinished(root, prefix string) error {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && strings.HasSuffix(e.Name(), unfinished) {
			err = errors.Join(err, discard(filepath.Join(root, e.Name())))
		}
	}
	return err
}

// discard removes the folder of an unfinished snapshot. Its state is emptied first: raft may leave the file open, and a
// file that is open keeps its bytes.
func discard(dir string) error {
	_ = os.Truncate(filepath.Join(dir, stateFile), 0)
	return os.RemoveAll(dir)
}

// survey finds out what raft can start from. It refuses a compacted log whose snapshot is gone or damaged: raft would
// apply its entries to an empty state. It refuses snapshots whose log is gone: raft would go on from the newest without
// the term, the vote and the entries that this store acknowledged since. A log that a leader's snapshot emptied has a
// term, durably before the snapshot, and goes on from that one alone. Where the log holds everything, no snapshot is
// needed.
func (s *snapshots) survey() error {
	log := s.replica.opts.Log
	first, err := log.FirstIndex()
	if err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	files, err := InspectSnapshots(filepath.Dir(s.dir))
	if err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	if term, err := log.GetUint64(currentTerm); first == 0 && len(files) > 0 && term == 0 {
		return errors.Join(fmt.Errorf("replica: %w: the newest ends at entry %d", ErrNoLog, files[0].Index), err)
	}
	list, err := s.List()
	if err != nil {
		return fmt.Errorf("replica: snapshots: %w", err)
	}
	newest := uint64(0) // that is whole
	for _, m := range list {
		_, state, err := s.SnapshotStore.Open(m.ID) // reads the state
		if err != nil {
			s.broken[m.ID] = true
			s.replica.opts.Logger.Warn("a snapshot is damaged; the one before it and the log do, where they reach", "snapshot", m.ID, "error", err)
			continue
		}
		newest = max(newest, m.Index)
		if err := state.Close(); err != nil {
			return fmt.Errorf("replica: snapshots: %w", err)
		}
	}
	if first > 1 && newest == 0 {
		return fmt.Errorf("replica: %w: the log begins at entry %d", ErrNoSnapshot, first)
	}
	for _, f := range files {
		if first == 0 && f.Index > newest {
			return fmt.Errorf("replica: %w: the log is empty, and the snapshot of entry %d is damaged", ErrNoSnapshot, f.Index)
		}
	}
	return nil
}

// Create is raft.SnapshotStore's.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, transport raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, transport)
	if err != nil { // raft leaves the folder, whose name it does not tell; who writes another one of this entry fails, too
		return nil, errors.Join(err, removeUnfinished(s.dir, fmt.Sprintf("%d-%d-", term, index)))
	}
	meta := raft.SnapshotMeta{Version: version, ID: sink.ID(), Index: index, Term: term, Configuration: configuration, ConfigurationIndex: configurationIndex}
	return &admission{SnapshotSink: sink, of: s, meta: meta}, nil
}

// List is raft.SnapshotStore's.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	list, err := s.SnapshotStore.List()
	if err != nil {
		return nil, err
	}
	first, err := s.replica.opts.Log.FirstIndex()
	if err != nil {
		return nil, err
	}
	var out []*raft.SnapshotMeta
	for _, m := range list {
		err := believe(filepath.Join(s.dir, m.ID), *m)
		switch {
		case errors.Is(err, errNotBelieved):
			s.replica.opts.Logger.Warn("a snapshot is not believed; the one before it and the log do, where they reach", "snapshot", m.ID, "error", err)
		case err != nil:
			return nil, err
		case m.Index+1 >= first && !s.broken[m.ID]:
			out = append(out, m)
		}
	}
	return out, nil
}

// Open is raft.SnapshotStore's.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, source, err := s.SnapshotStore.Open(id)
	if err != nil {
		return nil, nil, err
	}
	if err := believe(filepath.Join(s.dir, id), *meta); err != nil {
		return nil, nil, errors.Join(err, source.Close())
	}
	s.replica.opts.Log.SetSnapshot(meta.Index)
	return meta, source, nil
}

// prune removes the snapshots that are not believed. Raft keeps those with the greatest index, and by its description
// that could be one of them.
func (s *snapshots) prune() error {
	all, err := folders(s.dir)
	if err != nil {
		return err
	}
	for _, dir := range all {
		_, err := describe(dir)
		if errors.Is(err, errNotBelieved) {
			err = os.RemoveAll(dir)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// admission is a sink that looks at what passes through, refuses what is too much for a snapshot or for the disk as soon
// as that shows, and decides at Close.
type admission struct {
	raft.SnapshotSink
	of      *snapshots
	meta    raft.SnapshotMeta // its size aside
	local   bool              // this member's own state
	head    []byte
	size    uint64       // by the head, once that is there
	whole   bytes.Buffer // of a leader's: what the FSM is asked about
	n       uint64
	refused error
}

// Write is io.Writer's. After an error nothing more is taken: raft cancels.
func (a *admission) Write(p []byte) (int, error) {
	if a.refused == nil {
		a.refused = a.take(p)
	}
	if a.refused != nil {
		return 0, a.refused
	}
	n, err := a.SnapshotSink.Write(p)
	p = p[:n]
	a.n += uint64(n)
	if !a.local {
		a.whole.Write(p)
	}
	return n, err
}

// take looks at what is to be written next. How much raft hands on is the leader's word, and no bound.
func (a *admission) take(p []byte) error {
	if len(a.head) < snapshotHead {
		a.head = append(a.head, p[:min(len(p), snapshotHead-len(a.head))]...)
		if len(a.head) < snapshotHead {
			return nil
		}
		length, err := a.judge()
		if err != nil {
			return err
		}
		a.size = snapshotHead + length + sha256.Size
	}
	if n := a.n + uint64(len(p)); n > a.size {
		return fmt.Errorf("snapshot has %d bytes or more, its head says %d", n, a.size)
	}
	free, err := a.of.free(a.of.dir)
	if need := a.size - a.n + snapshotsLeave; err == nil && free < need {
		err = fmt.Errorf("disk is full: %d bytes free, a snapshot of %d needs %d", free, a.size, need)
	}
	return err
}

// judge looks at a whole head, and gives the state's length.
func (a *admission) judge() (uint64, error) {
	index, length, err := decodeHead(a.head)
	switch {
	case a.local:
		return length, err
	case err != nil:
		return 0, fmt.Errorf("snapshot from the leader: %w", err)
	case index > a.meta.Index:
		return 0, fmt.Errorf("snapshot from the leader is of index %d, in a log that ends at %d", index, a.meta.Index)
	}
	if floor := a.of.replica.floor(); index < floor {
		err := fmt.Errorf("%w: the leader's is of index %d, this member has applied %d", ErrOldSnapshot, index, floor)
		a.of.replica.fail(err)
		return 0, err
	}
	return length, nil
}

// Close is io.Closer's: the snapshot is on the disk when it returns nil, and nothing of it is left when it does not.
func (a *admission) Close() error {
	r := a.of.replica
	err := a.admit()
	if err == nil {
		err = fault.Step("snapshot", r.opts.Dir, a.finish)
	}
	if err != nil {
		return errors.Join(err, a.Cancel())
	}
	r.opts.Log.SetSnapshot(a.meta.Index)
	return nil
}

// Cancel is raft.SnapshotSink's. Raft's own sink keeps the folder where what it has buffered cannot be written any more.
func (a *admission) Cancel() error {
	return errors.Join(a.SnapshotSink.Cancel(), discard(a.folder()))
}

// folder is where the snapshot lies until it has its name.
func (a *admission) folder() string { return filepath.Join(a.of.dir, a.meta.ID+unfinished) }

// finish stamps the description that raft is about to write. The stamp is on the disk before raft gives the folder its
// name: no snapshot is ever seen without.
func (a *admission) finish() error {
	a.meta.Size = int64(a.n)
	b, err := stamp(a.meta)
	if err == nil {
		err = durable.WriteChecked(filepath.Join(a.folder(), stampFile), b, 0o600)
	}
	if err == nil {
		err = a.of.prune()
	}
	if err != nil {
		return err
	}
	return a.SnapshotSink.Close()
}

// admit decides about the whole. The head is looked at again: more may be applied by now.
func (a *admission) admit() error {
	switch {
	case a.refused != nil:
		return a.refused
	case a.local:
		return nil
	}
	if _, err := a.judge(); err != nil {
		return err
	}
	if a.n != a.size {
		return fmt.Errorf("snapshot from the leader has %d bytes, its head says %d", a.n, a.size)
	}
	b := a.whole.Bytes()
	b, digest := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if sum := sha256.Sum256(b); !bytes.Equal(digest, sum[:]) {
		return errors.New("snapshot from the leader is damaged: digest differs")
	}
	return a.of.replica.machine.check(a.meta.Index, b[snapshotHead:])
}
