// Package intake is the data plane: it takes a contribution from a device or from another member, checks it, keeps it,
// hands it on to the other members and yields receipts. The central type is Ingress, one upload's way from the first
// byte to the device's ack (coordinator design 4.2; SA 2.3 "Intake").
//
// A contribution never enters the replicated log: only its Accept does. It lies on a member's Shelf as two files, y and
// a head (the device's signed header and the boxes); the head is written last, so a contribution with a head is whole.
//
// Durable before said: y and its folder, then the head and its folder, then "stored"; the Accept committed, its index
// in the guard and the receipt noted, then a Receipt. The device's ack is n-f receipts.
//
// # Bounds
//
// Whatever the log would not accept is refused before the body is read. A sender has to make progress; a device begins two
// contributions to a round at a member and no more; copies to a member are counted; contributions leave room on the disk.
//
// # Assumptions
//
// State answers from what this member has applied. Peers authenticates members. Everything else that arrives is checked.
package intake
