package vault

const (
	// MaxKey bounds a key: an index or a digest with a prefix.
	MaxKey = 512
	// MaxValue bounds a value. It lies below the value threshold of 1 MiB, and above a raft entry of 512 KiB with its
	// header.
	MaxValue = 768 << 10
	// valueThreshold is the size from which badger moves values to the value log, which must not happen.
	valueThreshold = 1 << 20
	// memTableSize bounds what badger holds before it writes a table. 15 % of it is badger's bound for a transaction,
	// which must not be below the value threshold: 7 MiB would be too small.
	memTableSize = 8 << 20
	// reserve is the free space below which nothing is written: the mapped log of the next memtable (twice its size),
	// the table that is being written, and as much again for a compaction.
	reserve = 4 * memTableSize
	// closeReserve is the free space below which Close does not write the last memtable out as a table.
	closeReserve = 2 * memTableSize
)
