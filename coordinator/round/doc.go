// Package round is the Machine: the rounds of a consortium as a pure, deterministic function of the replicated log.
//
// Apply takes one log entry and changes the state. It reads no clock, draws nothing at random and talks to nobody: time
// enters as ticks in the log, and everything a member says enters as a signed statement, which Apply verifies. Two
// machines that applied the same entries are equal, byte for byte (Digest). What a member still owes is asked with Due
// and depends on the state alone, so that a restart, a lost reply or a new leader costs nothing but a repetition.
//
//	Proposed → Open → Closed → Acked (decided) → Sealed → Revealed → Published
//	                                   └────────→ Dead: certified, or expired
//
// # What decides
//
// Raft orders entries and authorises nothing (SA 2.2). A round opens by q identity signatures on its config. Its
// candidates are the Accepts before its first Close; a Close has no discretion but M. The first Close whose Acks are
// complete and whose set is legal decides that set for ever; else DEAD is decided, by the ack deadline, by a floor out
// of reach or by f+1 aborts. q equal votes make the decision a certificate. Two machines with different logs, shown
// them by a lying leader, may decide differently; they can never both hold a certificate, since two quorums share an
// honest member and that one votes once. That rule is kept in its vote file, not here: this state is never the source
// of a member's own votes.
//
// # Assumptions
//
// The log time is the leader's word, up to the horizon: no tick is later than the key packages of f+1 members reach
// (HorizonMs). A lying stamp can end a round, never open one: whoever signs a config compares ProposedMs with its own clock
// first (CheckClock).
//
// # Limitations
//
// One cell; no noise, no norm check. A leader that stamps the horizon into the log ends the live rounds, and none opens
// until clocks reach that time, at most an epoch's life later.
package round
