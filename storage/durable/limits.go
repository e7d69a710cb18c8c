package durable

const (
	// MaxRecord is the largest record that any Records file may hold, whatever its options say: a record is a vote, a
	// receipt or a ledger line, and 1 MiB is chosen arbitrarily above all of them.
	MaxRecord = 1 << 20
	// defaultMaxRecord bounds a record where RecordsOptions does not: sixteen pages.
	defaultMaxRecord = 64 << 10
	// MaxRecordsFile bounds a Records file, since opening reads it whole.
	MaxRecordsFile = 256 << 20
	// MaxChecked bounds a file with a checksum: a line or two.
	MaxChecked = 16 << 10
	// maxTag is the room for the tag in a Records header.
	maxTag = 32
	// sector is the smallest piece a disk writes or loses. Larger real sectors are multiples of it.
	sector = 512
)
