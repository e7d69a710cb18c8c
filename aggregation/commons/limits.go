package commons

const (
	// degenerate is the part of a vector that must be left after the earlier rows are taken out of it; below, what is
	// left is rounding error and its direction means nothing (learning.md 3.3 step 1).
	degenerate = 1e-6

	// drawsMax bounds the public vectors tried for one row. A uniform vector lies within 1e-6 of a given subspace so
	// rarely that a second draw has never been seen.
	drawsMax = 64
)
