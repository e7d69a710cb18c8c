// Package commons computes the next commons from an opened sum: Average is the rule that every member runs, Orthonormal
// and Init give the public start that every device and member derives alike (learning.md 3.3).
//
// # Determinism
//
// Members sign the hash of what they compute, so amd64 and arm64 must give the same bits. Integers do most of it. Where
// floats are used: float64, one goroutine, a fixed order, only + − × ÷ √ (which IEEE 754 rounds correctly), and every
// product is written float64(a*b) before it is added, which by the Go specification keeps a compiler from fusing the two
// into one rounding. Values are rounded to float32 once, explicitly. Tests hold golden hashes, run them under an arm64
// emulator where there is one, and look for fused instructions in the arm64 code.
//
// # Limitations
//
// Trains and averages the B factor, or a plain vector. The mean is over contributions, never over masked weights: one
// liar could choose such a divisor.
package commons
