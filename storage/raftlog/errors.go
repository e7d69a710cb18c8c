package raftlog

import (
	"errors"
	"fmt"
)

// ErrAppliedRewrite is what every *AppliedRewriteError is.
var ErrAppliedRewrite = errors.New("refused to rewrite applied entries")

// AppliedRewriteError says that raft was made to truncate or overwrite entries that this member has applied: the leader
// lies, or this member's disk was rolled back. The member must stop and be rebuilt.
type AppliedRewriteError struct {
	Op          string // "truncate" or "overwrite"
	First, Last uint64 // the entries that would have gone
	Applied     uint64
}

func (e *AppliedRewriteError) Error() string {
	return fmt.Sprintf("raft store: %v: %s of entries %d to %d, applied index %d", ErrAppliedRewrite, e.Op, e.First, e.Last, e.Applied)
}

// Is makes errors.Is(err, ErrAppliedRewrite) true.
func (e *AppliedRewriteError) Is(target error) bool { return target == ErrAppliedRewrite }

// ShortLogError says that the log holds less than it once did: acknowledged entries are gone.
type ShortLogError struct {
	Dir        string
	Have, Want uint64 // last index of the log, and of the guard
}

func (e *ShortLogError) Error() string {
	return fmt.Sprintf("raft store %s: the log ends at %d, but held entry %d durably: it lost acknowledged entries; the member must rejoin as a wiped one (new store id) and keeps its epoch folder", e.Dir, e.Have, e.Want)
}

// EntryTooLargeError is an entry above MaxEntry.
type EntryTooLargeError struct {
	Index uint64
	Bytes int
}

func (e *EntryTooLargeError) Error() string {
	return fmt.Sprintf("raft store: entry %d has %d bytes, limit %d", e.Index, e.Bytes, MaxEntry)
}

// GapError is an entry that does not follow the log.
type GapError struct {
	Index, Want uint64
}

func (e *GapError) Error() string {
	return fmt.Sprintf("raft store: entry %d does not follow, want %d", e.Index, e.Want)
}

// DamagedError is a stored record that is not what was written: at an index, or the bounds where Index is 0.
type DamagedError struct {
	Dir    string
	Index  uint64
	Reason string
}

func (e *DamagedError) Error() string {
	if e.Index == 0 {
		return fmt.Sprintf("raft store %s: %s", e.Dir, e.Reason)
	}
	return fmt.Sprintf("raft store %s: entry %d: %s", e.Dir, e.Index, e.Reason)
}
