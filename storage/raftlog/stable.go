package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ruche-federation/ruche/storage/vault"
)

// raft's names for what the guard keeps.
const (
	keyCurrentTerm  = "CurrentTerm"
	keyLastVoteTerm = "LastVoteTerm"
	keyLastVoteCand = "LastVoteCand"
)

// errNotFound must read "not found": raft compares the text.
var errNotFound = errors.New("not found")

// VoteRewriteError is a change of term or vote that raft never makes: back in term, or to another candidate in the
// same term.
type VoteRewriteError struct {
	Key       string
	Have, Got string
}

func (e *VoteRewriteError) Error() string {
	return fmt.Sprintf("raft guard refuses %s %s: it holds %s", e.Key, e.Got, e.Have)
}

// Set stores one value of raft durably. The candidate of a vote goes into the guard, where it cannot be replaced by
// another one in the same term.
func (s *Store) Set(key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch string(key) {
	case keyCurrentTerm, keyLastVoteTerm:
		if len(value) != 8 {
			return fmt.Errorf("raft store: %s has %d bytes, want 8", key, len(value))
		}
		return s.setTerm(string(key), binary.BigEndian.Uint64(value))
	case keyLastVoteCand:
		w := s.guard.w
		switch {
		case len(value) == 0 || len(value) > maxCandidate:
			return fmt.Errorf("raft store: candidate has %d bytes, limit %d, at least 1", len(value), maxCandidate)
		case bytes.Equal(w.candidate, value):
			return nil
		case len(w.candidate) > 0:
			return &VoteRewriteError{keyLastVoteCand, fmt.Sprintf("%q in term %d", w.candidate, w.voteTerm), fmt.Sprintf("%q", value)}
		}
		w.candidate = bytes.Clone(value)
		return s.guard.set(w)
	}
	if len(key) > maxStableKey || len(value) > maxStableValue {
		return fmt.Errorf("raft store: stable key of %d bytes, value of %d, limits %d and %d", len(key), len(value), maxStableKey, maxStableValue)
	}
	return s.db.Set(stableKey(key), value)
}

// Get returns what Set stored, or an error that reads "not found", as raft wants it.
func (s *Store) Get(key []byte) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch string(key) {
	case keyCurrentTerm:
		return binary.BigEndian.AppendUint64(nil, s.guard.w.term), nil
	case keyLastVoteTerm:
		return binary.BigEndian.AppendUint64(nil, s.guard.w.voteTerm), nil
	case keyLastVoteCand:
		if len(s.guard.w.candidate) == 0 {
			return nil, errNotFound
		}
		return bytes.Clone(s.guard.w.candidate), nil
	}
	b, err := s.db.Get(stableKey(key))
	if errors.Is(err, vault.ErrNotFound) {
		return nil, errNotFound
	}
	return b, err
}

// SetUint64 stores one number of raft durably. Terms go into the guard and never back.
func (s *Store) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 returns what SetUint64 stored, or 0.
func (s *Store) GetUint64(key []byte) (uint64, error) {
	b, err := s.Get(key)
	switch {
	case errors.Is(err, errNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case len(b) != 8:
		return 0, fmt.Errorf("raft store: stable value %q has %d bytes, want 8", key, len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

func (s *Store) setTerm(key string, term uint64) error {
	w := s.guard.w
	at := &w.term
	if key == keyLastVoteTerm {
		at = &w.voteTerm
		w.candidate = nil // raft sets the candidate next; a crash in between is a vote that nobody heard
	}
	switch {
	case term == *at:
		return nil
	case term < *at:
		return &VoteRewriteError{key, fmt.Sprint(*at), fmt.Sprint(term)}
	}
	*at = term
	return s.guard.set(w)
}

func stableKey(key []byte) []byte { return append([]byte{'s'}, key...) }
