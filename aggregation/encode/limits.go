package encode

const (
	// K is the ring's width: lanes are uint32.
	K = 32

	// Block is the side of the Hadamard matrix, and RotationRoot its root: the rotation divided by it is orthonormal. Package
	// commons divides a decoded sum by it.
	Block        = 1024
	RotationRoot = 32

	// CMax is the largest integer norm of the checked profile: √(1.25·2253²) ≤ 2520 = β/6.5 with β = 2^14 (SA 2.8), so
	// that the norm check can be switched on without another grid.
	CMax = 2253

	// CMin leaves κ ≥ 8 with layout.TailMax metrics, and a grid of useful fineness.
	CMin = 64

	// cPart: rounding noise may cost at most half of the norm, or the task trains more values than its grid carries.
	// At CMax it admits D' ≤ 15.2 million.
	cPart = 0.5

	// CRealMin and CRealMax keep γ and everything computed with it a normal float64, chosen arbitrarily wide.
	CRealMin = 1e-9
	CRealMax = 1e9

	// RedrawsMax bounds the draws of one vector: each fails with probability at most β_r = e^(−1/2), all of them with
	// e^(−64), below 2^−92.
	RedrawsMax = 128

	// randBytes is read at once from the caller's reader, to spare it a call for every lane.
	randBytes = 16 << 10
)
