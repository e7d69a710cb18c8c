// Package committee is the one-shot masked sum: what a device, a member and the opener compute, as pure functions of a
// Round (secure-aggregation notes, 2.1 to 2.3).
//
// The committee has n members of which f may be dishonest or down. For every Mask, a subset T of n−f members, the
// device draws a seed s_T, commits to it and adds its expansion to the vector:
//
//	y = x + Σ_T PRG(s_T) mod 2^32
//
// Each member gets one box with the seeds of the subsets it belongs to. Some subset holds honest members only, so y
// tells f members nothing; any f+1 members hold every seed. After a contributor set S is certified, members add the
// expansions of S subset by subset (TSums) and Unmask takes those sums from the sum of y: never one device alone.
//
// Members are numbered 0 … n−1 in charter order and are bits of a Mask. Subsets go in increasing mask order everywhere.
// A device speaks once: Contribute. Members call OpenBox, then Shares.AddTo. Whoever opens calls Unmask.
//
// # Assumptions
//
// Round.ID is H(RC) of a certified round, so that commitments, boxes and masks are bound to its start model, layout
// and epoch keys. nonce is fresh for every upload. AddTo is called only for members of the one certified set: the
// package computes, whether something may be revealed is decided by votes elsewhere.
//
// # Limitations
//
// Any f+1 members together can unmask any single device. Nothing here bounds x: that is the encoder's affair on honest
// devices and the norm check's on others.
package committee
