package prg

const (
	// BlockWords is the number of words in one AES block: expansions can be read from any multiple of it on.
	BlockWords = 4

	// tileBytes: keystream is made and consumed in pieces of 4 KiB. Smaller tiles lose AES throughput to call
	// overhead, larger ones push the destination out of the first-level cache.
	tileBytes = 4096
)
