package coordinator

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/ruche-federation/ruche/coordinator/replica"
	"github.com/ruche-federation/ruche/storage/blob"
	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/raftlog"
	"github.com/ruche-federation/ruche/storage/vault"
)

// Cause is why a member stopped or does not start, in words for whoever runs it.
type Cause struct {
	Word  string `json:"word"`  // stable
	Means string `json:"means"` // what it means for the member and the consortium
	Do    string `json:"do"`    // what to do next
}

const (
	rejoinFirst = "run `ruche-coordinator rejoin`: it sets the log aside, and at its next start the member learns it from the others; keys, epochs and receipts stay"
	keepIt      = "the raft folder is not to be started from again: a member that forgets what it acknowledged counts as lying"
)

// rejoinOr is what to do where the log is not to be gone on with, among so many members.
func rejoinOr(members int) string {
	if members > 0 && !CanRejoin(members) {
		return fmt.Sprintf("found the consortium anew, with a new charter: of %d without this one no majority is left to learn the log from, so `ruche-coordinator rejoin` does not help", members)
	}
	return rejoinFirst
}

// CauseOf explains an error of Run in a consortium of so many members, 0 where that is not known. An unknown one has the
// word "failed".
func CauseOf(err error, members int) Cause {
	rejoin := rejoinOr(members)
	switch {
	case errors.Is(err, raftlog.ErrAppliedRewrite):
		return Cause{"log_rewrite", "a leader asked this member to rewrite entries that it has applied: that leader lies, or its disk or this one's was rolled back; the entries here are as they were, and what rests on them holds",
			"keep this folder as evidence, compare with the other members (`ruche rounds verify --all-members`), then " + rejoin}
	case errors.As(err, new(*raftlog.ShortLogError)):
		return Cause{"log_short", "the log lacks entries that this member acknowledged: the disk lost them, or the folder was restored from a copy; " + keepIt, rejoin}
	case errors.As(err, new(*raftlog.GuardError)):
		return Cause{"guard_lost", "the guard file, which holds the term, the vote and how far the log went, is missing or damaged: this member cannot know whom it voted for; " + keepIt, rejoin}
	case errors.As(err, new(*raftlog.DamagedError)), errors.As(err, new(*vault.TableError)):
		return Cause{"log_damaged", "entries of the log are not what was written: the disk damaged them; " + keepIt, "check the disk, then " + rejoin}
	case errors.Is(err, ErrStoreUnknown), errors.Is(err, replica.ErrNoSnapshot), errors.Is(err, replica.ErrNoLog):
		return Cause{"log_incomplete", "a part of the raft folder is missing: its store id, its log, or the snapshot that the log goes on from; " + keepIt, rejoin}
	case errors.Is(err, ErrStateRefused), errors.Is(err, replica.ErrOldSnapshot):
		return Cause{"state_refused", "a leader sent a state that contradicts what this member applied, saw certified or signed receipts for: that leader lies, or it lost a part of its log; nothing of it was taken over",
			"compare with the other members (`ruche rounds verify --all-members`, `ruche members list`); when the others agree again, start this member; if they agree against this one, " + rejoin}
	case errors.Is(err, ErrLaterCommand):
		return Cause{"unknown_command", "the log holds an entry that this version does not know; to skip it would make this member's state another than the others'", "install the version that the other members run, then start it"}
	case errors.Is(err, vault.ErrWrongKey):
		return Cause{"wrong_key", "keys/storage.key does not open the raft folder: one of the two was exchanged", "put back the key file that belongs to this folder, or " + rejoin}
	case errors.Is(err, ErrTooFew):
		return Cause{"log_gone", "the log is gone, and without it there is no majority to learn it from", "put the raft folder back if it was only moved away; otherwise found the consortium anew, with a new charter"}
	case errors.As(err, new(*vault.FullError)), errors.As(err, new(*blob.FullError)), errors.Is(err, syscall.ENOSPC):
		return Cause{"disk_full", "the disk is full: nothing that would have to be durable can be said", "free space on this file system, then start it"}
	case errors.Is(err, durable.ErrLocked):
		return Cause{"locked", "another process works in this folder", "see `ruche-coordinator status`"}
	case errors.Is(err, fs.ErrPermission):
		return Cause{"permission_denied", "a file or folder cannot be read or written by this user", "run as the user who owns the folder"}
	case errors.As(err, new(*durable.BrokenError)):
		return Cause{"write_failed", "a write to the disk failed, and what it left there is not known before it is read again: until then nothing more is written, acknowledged or signed",
			"start it: it reads what is there and goes on; if it stops so again, check the disk, and how many files this user may open"}
	case errors.As(err, new(*durable.CorruptError)):
		return Cause{"file_damaged", "a file of this folder is not what was written", "run `ruche-coordinator doctor`, which names it"}
	case err == nil:
		return Cause{}
	}
	return Cause{"failed", "", "look at the message; `ruche-coordinator doctor` looks at the folder"}
}
