// Package encode turns a device's floats into integers that can be summed under masks, and the opened sum back into
// numbers: Params holds the public rules of one round, Encode runs on a device, Decode on every member.
//
// A vector is (body, tail): the trained values' change, and h private metrics (SA 3.2, the *checked* profile, k = 32).
//
// Body. u = Δ·min(1, C_real/‖Δ‖₂). Its D values, padded with zeros to D' = 1024·nb, are multiplied by public ±1 signs and
// dealt round-robin into nb blocks of 1024: value i is element i div nb of block i mod nb. Each block is multiplied by
// the Hadamard matrix H, which spreads every value over 1024 lanes. Divided by 32 = √1024 the rotation is orthonormal,
// so it keeps norms. Lane i of the wire is the rotated value i in the same dealing: nothing is moved, the blocks are
// the columns of a 1024×nb matrix. Then x = StochRound(H·s·u/(32γ)), drawn again until ‖x‖ ≤ C in integers.
//
// Tail. A metric v with public range [0, R] is StochRound(κ·v/R), κ = ⌊C/(2√h)⌋, so that the tail's norm is at most C/2 and
// ‖(body, tail)‖² ≤ B = ⌊1.25·C²⌋ for every honest device. Encode checks it each time, in integers.
//
// Exactness. A sum of contributions is an exact integer, and so is its inverse rotation s·H·X in int64: |X| < 2^31 and
// 1024 of them stay below 2^41. The two halves 1/32 of rotation and inverse, and γ, and the number of contributors, are
// left to one last multiplication by γ/(32·|S|) in package commons. Members agree bit for bit, whatever their processor.
// Devices need not: their rounding is random anyway.
//
// # The grid
//
// γ = C_real/c, with c the largest number for which the rounded vector stays within C with probability at least 1 − β_r
// per draw (Kairouz, Liu, Steinke, The Distributed Discrete Gaussian Mechanism, 2102.06387, conditional rounding):
//
//	min{ c² + D'/4 + √(2·ln(1/β_r))·(c + √D'/2), (c + √D')² } ≤ C²,   β_r = e^(−1/2), hence √(2·ln(1/β_r)) = 1.
//
// D' counts, not D: rounding touches the padding too. At C = 2253 and D' = 2^20, c ≈ 2193.
//
// # Assumptions
//
// The rotation seed is public and fixed before devices train. The random reader is cryptographic. Values of a round
// reach Decode only as a sum over the certified set.
//
// # Limitations
//
// Drawing again when the norm is exceeded biases the mean a little toward zero; the rounding of one draw alone does not.
// The number of draws, and so the time of Encode, depends on the device's values. A lying device is bounded here only by
// what its lanes do to the whole sum: binding it alone takes the norm check of SA 2.8. The *packed* profile is refused.
package encode
