package replica

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/hashicorp/raft"

	"github.com/ruche-federation/ruche/storage/raftlog"
	"github.com/ruche-federation/ruche/storage/vault"
)

// SnapshotFile is one snapshot on the disk, as somebody finds it who changes nothing.
type SnapshotFile struct {
	Path  string
	Index uint64 // of raft's last entry in it
	Term  uint64
	Bytes int64
	Err   error // why its description is not believed; then Index and Term are those in the folder's name

	crc []byte
}

// InspectSnapshots lists the finished snapshots in a replica's folder, newest first, without opening anything for
// writing.
func InspectSnapshots(dir string) ([]SnapshotFile, error) {
	all, err := folders(filepath.Join(dir, snapshotsDir))
	if err != nil {
		return nil, fmt.Errorf("snapshots: %w", err)
	}
	var out []SnapshotFile
	for _, path := range all {
		d, err := describe(path)
		if err != nil {
			f := SnapshotFile{Path: path, Err: err}
			fmt.Sscanf(filepath.Base(path), "%d-%d-", &f.Term, &f.Index) // 0 where it is none
			out = append(out, f)
			continue
		}
		out = append(out, SnapshotFile{Path: path, Index: d.Index, Term: d.Term, Bytes: d.Size, crc: d.CRC})
	}
	slices.SortStableFunc(out, func(a, b SnapshotFile) int {
		return cmp.Or(cmp.Compare(b.Term, a.Term), cmp.Compare(b.Index, a.Index))
	})
	return out, nil
}

// State reads the state in a snapshot, and checks its digest and what raft compares.
func (s SnapshotFile) State() ([]byte, error) {
	if s.Err != nil {
		return nil, s.Err
	}
	f, err := os.Open(filepath.Join(s.Path, stateFile))
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	defer f.Close()
	sum := crc64.New(crc64.MakeTable(crc64.ECMA))
	_, state, err := readSnapshot(io.TeeReader(f, sum)) // reads it to its end
	if err == nil && !bytes.Equal(sum.Sum(nil), s.crc) {
		err = errors.New("snapshot is damaged: its checksum differs")
	}
	return state, err
}

// LogFacts is what a replica's log and guard say.
type LogFacts struct {
	Term     uint64 `json:"term"`
	VoteTerm uint64 `json:"vote_term"` // the term of the last vote
	VotedFor string `json:"voted_for"` // id of the candidate it was for
	Applied  uint64 `json:"applied"`   // guarded: nothing at or below it is ever rewritten
	First    uint64 `json:"first"`     // first and last entry, 0 for none
	Last     uint64 `json:"last"`
	Commit   uint64 `json:"commit"` // known to be committed when it was written
}

// InspectLog opens a copy of a replica's log, as New would open the log itself, and passes every command in it to visit,
// in order. The folder is not changed, and must not be in use: opening a database writes to it, so a copy is opened. Where
// there is no room for that the error is ErrNoPlace.
func InspectLog(dir string, key *vault.Key, visit func(index uint64, command []byte)) (facts LogFacts, err error) {
	temp, err := os.MkdirTemp("", "ruche-doctor-")
	if err != nil {
		return facts, noPlace(err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	if err := copyTree(temp, filepath.Join(dir, "log")); err != nil {
		return facts, fmt.Errorf("copying the log: %w", err)
	}
	defer func() {
		if errors.As(err, new(*vault.FullError)) || errors.Is(err, syscall.ENOSPC) { // the copy's disk is, not the log's
			err = noPlace(err)
		}
	}()
	store, err := raftlog.Open(temp, key, raftlog.Options{})
	if err != nil {
		return facts, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	facts.Term, _ = store.GetUint64(currentTerm) // these lie in memory by now
	facts.VoteTerm, _ = store.GetUint64([]byte("LastVoteTerm"))
	candidate, _ := store.Get([]byte("LastVoteCand"))
	facts.VotedFor, facts.Applied = string(candidate), store.Applied()
	facts.First, _ = store.FirstIndex()
	facts.Last, _ = store.LastIndex()
	if facts.Commit, err = store.GetCommitIndex(); err != nil {
		return facts, err
	}
	for i := max(1, facts.First); i <= facts.Last; i++ {
		var entry raft.Log
		if err := store.GetLog(i, &entry); err != nil {
			return facts, err
		}
		if entry.Type == raft.LogCommand {
			visit(i, entry.Data)
		}
	}
	return facts, nil
}

// noPlace hides what kind of error it was: that is about another disk than the log's.
func noPlace(err error) error { return fmt.Errorf("%w: %v", ErrNoPlace, err) }

// copyTree copies regular files and folders. Blocks of zeros become holes: a database reserves far more than it uses.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case e.IsDir():
			if err := os.MkdirAll(target, 0o700); err != nil {
				return noPlace(err)
			}
			return nil
		case !e.Type().IsRegular():
			return nil
		}
		return copyFile(target, path)
	})
}

func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return noPlace(err)
	}
	defer func() {
		if cerr := out.Close(); err == nil && cerr != nil {
			err = noPlace(cerr)
		}
	}()
	block, zeros := make([]byte, copyBlock), make([]byte, copyBlock)
	var size int64
	for {
		n, rerr := io.ReadFull(in, block)
		if n > 0 && !bytes.Equal(block[:n], zeros[:n]) {
			if _, err := out.WriteAt(block[:n], size); err != nil {
				return noPlace(err)
			}
		}
		size += int64(n)
		if errors.Is(rerr, io.EOF) || errors.Is(rerr, io.ErrUnexpectedEOF) {
			if err := out.Truncate(size); err != nil {
				return noPlace(err)
			}
			return nil
		}
		if rerr != nil {
			return rerr
		}
	}
}
