// Package coordinator runs one Member of a consortium: committed entries in, effects out.
//
// Every entry of the replicated log goes through round.Machine.Apply, a pure function. What this member then owes is
// read off the state by Machine.Due; Member.Work carries it out and proposes the outcome as another entry. Duties are
// level-triggered and idempotent, so a crash, a lost message or a new leader costs nothing but repetition. A leader has
// three duties more: the next RoundConfig, the next Close, and the tick that carries time into the log.
//
// The files follow the way of a round: open.go (key packages, signing a RoundConfig), close.go (pulling and acking
// candidates), vote.go, reveal.go, result.go; lead.go is the leader's part; enrol.go gives devices their certificates;
// receipts.go remembers what was receipted, epochs.go whose word it was; rejoin.go takes members in whose log is gone, and
// repair.go pulls what they lack; serve_device.go and serve_mesh.go are the two ports and admission.go what they admit;
// run.go wires real disks, sockets and Raft.
//
// # Assumptions
//
// Raft orders entries and authorises nothing: every safety decision is a signature checked against the charter, and this
// member's own votes are read from its vote file, never from the log. One process owns a member's folder.
//
// # Limitations
//
// Log time is the leader's word and never goes back: a lying leader can end every round and every key by one tick from far
// ahead, which a new charter mends; a follower cannot. Round records, device ids in them, are shown to anybody who asks.
// Contributions leave a fixed room free on their disk; there are no watermarks, and published states
// are kept for ever. Known copies are those that an Accept names: a holder whose disk broke still counts. The process sets
// no memory limit of its own: give it GOMEMLIMIT.
package coordinator
