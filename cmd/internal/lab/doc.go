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
// # Assumptions
//
// What runs is as honest as the programs are. A test that plays a liar does so from outside: it injects commands and
// uploads, and the invariants are about everybody else.
//
// # Limitations
//
// One leader at a time and one log: leaders that show different logs to different members are coordinator/round's tests.
// Deliveries and turns follow the seed; what runs beside them (a device's upload, copies to other members) is ordered by
// the scheduler. A member's death between two writes of one duty is coordinator/epoch's and storage's affair: here it
// dies before or after a proposal, which is between any two duties.
package lab
