package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ruche-federation/ruche/coordinator"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/raftlog"
)

// stored is the state in the folder of a member that has stopped: its newest snapshot and the entries of its log.
type stored struct {
	machine *round.Machine
	entries map[uint64][]byte // commands behind the snapshot
	last    uint64            // of the log that are known to be committed
}

// openStored reads a member's folder. The member must not run.
func openStored(dir string, ch *charter.Charter) (*stored, error) {
	home, err := coordinator.OpenHome(dir, rand.Reader)
	if err != nil {
		return nil, err
	}
	s := &stored{machine: round.New(ch), entries: map[uint64][]byte{}}
	if err := s.restore(filepath.Join(dir, "raft", "snapshots")); err != nil {
		return nil, err
	}
	log, err := raftlog.Open(filepath.Join(dir, "raft", "log"), home.Storage, raftlog.Options{})
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if s.last, err = log.GetCommitIndex(); err != nil {
		return nil, err
	}
	// What was applied is committed, and the guard may know more of it than the entries behind it.
	s.last = max(s.last, log.Applied())
	first, err := log.FirstIndex()
	if err != nil {
		return nil, err
	}
	read := reader(log.GetLog)
	for i := max(first, s.machine.Applied()+1); i <= s.last; i++ {
		entry, err := read(i)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		if entry.Type == 0 { // a command; raft's own entries are none of the machine's
			s.entries[i] = entry.Data
		}
	}
	return s, nil
}

// reader makes a function that returns an entry of one that fills it in.
func reader[E any](get func(uint64, *E) error) func(uint64) (*E, error) {
	return func(i uint64) (*E, error) {
		e := new(E)
		return e, get(i, e)
	}
}

// The parts of a stored snapshot around the state: coordinator/replica's format.
const (
	snapshotHead = 8 + 2 + 8 + 8
	snapshotTail = 32
)

// restore loads the newest snapshot, if there is one.
func (s *stored) restore(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	newest, index := "", uint64(0)
	for _, e := range entries {
		parts := strings.Split(e.Name(), "-") // term-index-time
		if len(parts) != 3 {
			continue
		}
		if i, err := strconv.ParseUint(parts[1], 10, 64); err == nil && i >= index {
			newest, index = e.Name(), i
		}
	}
	if newest == "" {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(dir, newest, "state.bin"))
	if err != nil {
		return err
	}
	if len(b) < snapshotHead+snapshotTail {
		return fmt.Errorf("snapshot %s has %d bytes", newest, len(b))
	}
	return s.machine.Restore(b[snapshotHead : len(b)-snapshotTail])
}

// apply brings the state to index.
func (s *stored) apply(index uint64) error {
	if s.machine.Applied() > index {
		return fmt.Errorf("the snapshot is of index %d, behind %d", s.machine.Applied(), index)
	}
	for i := s.machine.Applied() + 1; i <= index; i++ {
		if data, ok := s.entries[i]; ok {
			s.machine.ApplyBytes(i, data)
		}
	}
	return nil
}

// openAll reads the folders of all members.
func openAll(dirs []string, ch *charter.Charter) (all []*stored, err error) {
	for i, dir := range dirs {
		s, err := openStored(dir, ch)
		if err != nil {
			return nil, fmt.Errorf("member %d: %w", i, err)
		}
		all = append(all, s)
	}
	return all, nil
}

// sameState compares what all members keep, at the last index that all know to be committed.
func sameState(all []*stored) (index uint64, digest label.Hash, violations []string, err error) {
	index = slices.MinFunc(all, func(a, b *stored) int { return int(a.last) - int(b.last) }).last
	for i, s := range all {
		if err := s.apply(index); err != nil {
			return index, digest, nil, fmt.Errorf("member %d: %w", i, err)
		}
		switch got := s.machine.Digest(); {
		case i == 0:
			digest = got
		case got != digest:
			violations = append(violations, fmt.Sprintf("at log index %d member %d keeps another state than member 0", index, i))
		}
	}
	return index, digest, violations, nil
}
