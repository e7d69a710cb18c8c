// Package replica gives a Replica: one member's copy of a state machine that all members keep equal, over hashicorp/raft.
//
// The state machine is any FSM. Propose hands a command to the log and returns when this member, as the leader, has
// applied it. Raft orders here, it never authorises: a member of a consortium trusts no leader, so what a
// command may do is decided by the FSM from the signatures in it. coordinator.md 1.3 gives the rules for who may
// read what:
//
//	local   the FSM as it is; may be old
//	leader  Barrier, then the FSM at the leader
//	log     Propose; everything that a member signs about rests on this and on EnsureApplied
//
// # What differs from plain raft
//
//   - A leader of a higher term may make raft overwrite entries that were applied, and may install any snapshot. The
//     log store refuses the first (storage/raftlog); this package refuses a snapshot older than what this member has
//     applied, now or before a restart, before it reaches the disk. Both end in Failed: the replica stops, and Err says why.
//   - raft writes as much of a snapshot as its sender says that there is. Here it is bounded by snapshotMax, by its own
//     head and by the room on the disk, while it comes; of one that is refused, or that fails, nothing is left.
//   - Raft believes its members. A gate refuses, before raft reads them, requests and answers that no honest member sends
//     and that raft could not recover from; a leader's state is shown to the FSM before its snapshot is stored.
//   - A write of the log or its guard whose fate is unknown ends in Failed too: neither takes another one before it is
//     opened again, which the next process does. raft only logs it, and a member that stayed would use up f for nothing.
//   - Servers are known by their ids in raft's own configuration, never by an address. Options.Dial turns an id into a
//     connection to the member that proved the id's key.
//   - A proposal whose fate is unknown is ErrUnknownOutcome and nothing else is: after any other error the command was
//     not and will not be applied.
//   - Every member with a fresh store founds the same configuration, so a new consortium needs no first among equals. A
//     store that was used and is empty now never does (Options.Found): it gets a new id, waits without a vote, and the
//     leader takes it in by NextChange and Change. Every connection says which store it means, and no other answers.
//
// # Assumptions
//
// The FSM is deterministic and cheap: it runs on one goroutine, between a commit and its answer. It holds its whole
// state in memory; at start it is rebuilt from the newest snapshot and the log.
//
// # Limitations
//
// Raft tolerates members that stop, not members that lie: a lying leader can stall the log. The set of members is fixed by
// Options.Members, only their stores change; a store with other members in it is refused. With two members nobody is left
// to take the other one in. Snapshots hold replicated state, which is no secret of
// a member, and lie unencrypted beside the log. Raft's restore of committed entries at start is off: its queue
// of 128 batches is not drained before start ends, so a longer log would hang it.
package replica
