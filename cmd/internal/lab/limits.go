package lab

import "time"

const (
	// stepSpan is how far the clock moves with each step: a member's retries wait a second.
	stepSpan = time.Second
	// secretMin is the shortest draw of randomness that is taken for a secret: nonces and store ids have 16 bytes, seeds,
	// keys and tokens at least 20. secretMax: longer ones are an encoder's rounding.
	secretMin, secretMax = 20, 64
	// pipeBytes buffers one in-memory connection.
	pipeBytes = 64 << 10
	// pumpEvery is how often entries are delivered while a device's step runs. Real time: it paces a loop, nothing is
	// measured by it.
	pumpEvery = 100 * time.Microsecond
	// violationsMax bounds what a broken run reports.
	violationsMax = 20
)
