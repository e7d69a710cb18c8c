package main

import "time"

// Bounds of what this program reads and waits for.
const (
	recordBytesMax   = 64 << 20        // a round of 65536 contributions: an Accept and a certificate are about 500 bytes each
	taskFileBytesMax = 2 << 20         // a task names every tensor of an adapter; the charter's own limit
	prefixDigitsMin  = 6               // fewer digits of an id are more likely a slip than a choice
	memberAskMax     = 5 * time.Second // one line of `members list`: a dead member must not hold up the rest
	watchEvery       = time.Second     // rounds wait
)
