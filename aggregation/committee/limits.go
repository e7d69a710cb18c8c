package committee

const (
	// MembersMax bounds n. C(8,4) = 70 seeds per contribution still cost a phone little; C(9,4) = 126 is where masks
	// shared over subsets stop being the right scheme (secure-aggregation notes, section 1).
	MembersMax = 8

	// LenMax bounds the lanes of a vector: 256 MiB on the wire. Larger vectors belong into several tasks.
	LenMax = 1 << 26

	// chunkLanes is how much of y is masked by all subsets before the next piece, and how much of a sum takes the masks
	// of all contributions at hand: 64 KiB stay in the second-level cache while up to 70 keystreams pass over them. A
	// multiple of prg.BlockWords.
	chunkLanes = 1 << 14

	// tileLanes is the piece in which vectors are turned into bytes for hashing.
	tileLanes = 1 << 10
)
