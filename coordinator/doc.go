// Package coordinator runs one Member of a consortium: committed entries in, effects out.
//
// Every entry of the replicated log goes through round.Machine.Apply, a pure function. What this member then owes is
// read off the state by Machine.Due; Member.Work carries it out and proposes the outcome as another entry. Duties are
// level-triggered and idempotent, so a crash, a lost message or a new leader costs nothing but repetition. A leader has
// three duties more: the next RoundConfig, the next Close, and the tick that carries time into the log.
//
// The files follow the way of a round: open.go (key packages, signing a RoundConfig), close.go (pulling and acking
// candidates), vote.go, reveal.go, result.go; lead.go is the leader's part; enrol.go gives devices their certificates;
// serve_device.go and serve_mesh.go are the two ports; run.go wires real disks, sockets and Raft.
//
// # Assumptions
//
// Raft orders entries and authorises nothing: every safety decision is a signature checked against the charter, and this
// member's own votes are read from its vote file, never from the log. One process owns a member's folder.
package coordinator
