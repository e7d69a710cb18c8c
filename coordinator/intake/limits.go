package intake

import "time"

// Bounds of the data plane.
const (
	headBytesMax   = 64 << 10 // header: 35 commitments; 7 boxes of 4 KiB
	acceptBatchMax = 256      // Accepts of one log entry
	acceptDelay    = 10 * time.Millisecond
	uploadsMax     = 64               // uploads in flight at one member; each costs about 1 MiB
	storeTimeout   = 60 * time.Second // one peer's copy, bytes and fsync
	receiptTimeout = 15 * time.Second // a peer that has the copy applies the Accept within it, or the device asks again
)
