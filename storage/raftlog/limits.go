package raftlog

const (
	// MaxEntry bounds data and extensions of one entry: raft caps an AppendEntries by count, never by bytes, and an
	// entry must stay below the vault's bound for a value.
	MaxEntry = 512 << 10
	// maxCandidate bounds the candidate of a vote: a server's address.
	maxCandidate = 256
	// maxStableKey and maxStableValue bound raft's other stable values, which are small integers today.
	maxStableKey   = 128
	maxStableValue = 64 << 10
	// sweepPerBatch is how many dead entries a StoreLogs deletes on its way, besides one per entry it stores: so
	// garbage shrinks whenever the log grows, and no write ever waits for a long deletion.
	sweepPerBatch = 32
)
