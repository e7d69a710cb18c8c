package statement

import "github.com/ruche-federation/ruche/coordinator/charter"

// Bounds of decoded statements, each above what an honest sender needs.
const (
	MembersMax     = charter.MembersMax
	NameBytesMax   = charter.NameBytesMax
	PartBytesMax   = 128 // a factor, or a window with its beginning
	SubsetsMax     = 35  // C(7,3): subsets of size n-f at (7,3)
	StartsMax      = 16  // earlier results that one start rests on: one per cell
	CandidatesMax  = charter.CohortMax
	AckBytesMax    = 256 << 10 // one log entry (SA 2.3); CandidatesMax candidates, all refused, take 72 kB
	ConfigBytesMax = 64 << 10  // 7 key packages of 4.8 kB
	BodyBytesMax   = 512 << 10 // any body: the largest entry that the log takes
	SignatureMax   = 4 << 10   // a composite signature has 3373 bytes
	BoxBytesMax    = 4 << 10   // 1136 bytes and 20 seeds
	ReasonBytesMax = 200
)

// Sizes of the keys in a KeyPackage.
const (
	SealPublicSize = 1216
	VotePublicSize = 32
)
