// Package raftlog gives a Store: the log and stable store of hashicorp/raft, on a vault of its own, with a guard file
// beside it that knows what the log must still hold.
//
// It is raft's LogStore, StableStore, MonotonicLogStore and CommitTrackingLogStore, and differs from a plain one in
// what it refuses:
//
//   - A lying leader of a higher term can make raft truncate entries that this member has applied and signed receipts
//     about. The applied index stands in the guard, and nothing at or below it is truncated or overwritten: the call
//     fails with *AppliedRewriteError, and Options.OnAppliedRewrite is told, since raft only logs the error.
//   - A database may lose its end to bit rot and look as if that had been a torn write. The guard holds the last
//     index, so a log that got shorter is *ShortLogError at Open. Current term and vote stand in the guard only.
//
// # Layout
//
// The folder holds `guard` and the vault `log`. Keys of the vault: "b" for the bounds, "e" and the index for entries,
// "s" and raft's key for stable values. The bounds {first, last, commit} are written in the same transaction as what
// they are about, and whatever key lies outside of them is garbage, whether its deletion is still due or came undone.
// Every entry carries its own index and a checksum, since the vault's encryption does not authenticate.
//
// # Guard
//
// Two slots of one sector each, in different pages. A change is written to the slot that is not known to be durable and
// fdatasynced, then copied to the other one without waiting: so at any moment one slot is whole and on the disk, and
// both are soon after, which leaves a second copy for the day when one rots. The newer slot whose checksum holds
// counts. Both damaged: *GuardError.
//
// # Duties of the caller
//
// SetApplied before a receipt or an ack rests on an index. SetSnapshot as soon as a snapshot is durable or restored:
// it allows the whole log to go, which raft does after installing one. RecordLast about once a second, so that the
// guard follows the log also while nothing is applied.
//
// # Limitations
//
// The commit index is kept for raft's RestoreCommittedLogs, but raft v1.8.0 with that option on reads configuration
// entries only above the restored commit index, so a member without a snapshot starts with an empty configuration and
// never elects. Leave the option off until raft reads them.
package raftlog
