// Package lab is the Federation: a consortium's members and their devices in one process, under a seed, a virtual clock
// and a log that the lab orders itself.
//
// Members are real: coordinator.Member on real folders, the real Mesh and Device services over in-memory connections, and
// devices are real participants. What the lab replaces is time, Raft and the network: one leader appends commands to one
// sequence, each member applies them at a pace that the seed chooses, and any member may die at any proposal and come
// back from what lies in its folder. The package is the one place that knows both sides of the protocol.
//
// After every turn of every member Check looks at everything that was ever said (each proposed command, whether or not
// it reached the log, each receipt, each vector that left a member) and at what lies on the disks, and holds it against
// the invariants of secure-aggregation.md, section 8. It reads the log with code of its own, not with the state machine.
//
// # Liars
//
// Corrupt makes a member a Liar: its program runs on, what it says passes through the liar, who has its keys and may say
// anything besides. A liar that leads may show members different logs (Fork, Show), take entries back that a member has
// not made durable, and send snapshots (Install). Every check judges an honest member by the log that it reads; what has
// to hold across logs counts a liar as having signed everything that its keys can sign (across.go). Nothing that a liar
// says is judged. With a lying leader safety is asked for, and that nothing acknowledged is lost; progress is asked for
// where at most f members lie and the leader does not.
//
// Seize is a thief: all bytes of members' folders and every upload that ever passed by.
//
// # Assumptions
//
// A member's own log refuses what storage/raftlog refuses: entries that differ at or below the index that it has made
// durable. A member whose snapshot is refused stops, as coordinator/replica stops it.
//
// # Limitations
//
// One leader at a time. An honest leader has one log: how members that were shown different ones come together again
// under it is Raft's affair and an operator's (CO 1.3). Snapshots are of logs; states that no log gives are
// coordinator/round's tests. Members' calls among each other carry no caller: a liar answers all alike.
// Deliveries and turns follow the seed; what runs beside them (a device's upload, copies to other members) is ordered by
// the scheduler. A member's death between two writes of one duty is coordinator/epoch's and storage's affair: here it
// dies before or after a proposal, which is between any two duties.
//
// # How much of it runs
//
// At (7,2) `make test` tells one lie of four, and of the sets of members that go missing in committees of five and more it
// takes one moment of a few; its siege has four seeds. All of it:
//
//	RUCHE_LAB=all go test -timeout 2h ./cmd/internal/lab
package lab
