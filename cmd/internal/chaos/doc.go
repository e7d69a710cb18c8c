// Command chaos breaks a consortium of real processes and then asks whether anything that was acknowledged is lost, and
// whether anything was said twice. Its central type is Evidence: what devices were told, what members serve and what they
// keep, which Evidence.Check holds against the promises of docs/PROTOCOL.md.
//
//	kills       SIGKILL and SIGSTOP of members and devices, the leader preferred, by a seeded schedule
//	powercuts   cuts of power to members whose folders lie on images of disks (coordinator.md 2.4), and a control that must lose
//	partitions  links between members cut, one way or both, and healed
//	failover    the leader of an open round killed or stopped: how long until the next ack
//	tests       the layers that are tests of other packages, at their full size, as Results
//	report      docs/benchmarks/durability.md from the results in docs/benchmarks
//
// Every verb writes a Result as JSON. What the machine does not allow is a Result that says so: skipped, and why.
//
// # Assumptions
//
// The charter is a demo's: devices keep what they encoded in clear, so that sums can be compared. Nobody lies here; liars
// are cmd/internal/lab's.
//
// # Limitations
//
// A schedule is seeded, processes are not: the same seed gives the same faults in the same order, at other moments of the
// protocol. The clock of all processes is this machine's.
package main
