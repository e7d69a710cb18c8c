package charter

import "time"

// Bounds of a charter. Each is a refusal with the field's name, never a cut.
const (
	FileBytesMax    = 4 << 20 // charter.json: the body in base64 and n signatures of 3.4 kB
	CardBytesMax    = 64 << 10
	BodyBytesMax    = 2 << 20 // a layout names every tensor of an adapter: some hundred bytes each
	MembersMax      = 7       // the largest row of SA 2.2
	TasksMax        = 16      // chosen arbitrarily: each has rounds of its own in every member's memory
	NameBytesMax    = 64      // consortium, organisation, task, window
	AddressBytesMax = 256
	CohortMax       = 65536 // Accepts of one round; each is about 300 bytes of replicated state (SA 5: cells of 1-2k)
	JSONDepthMax    = 16    // far above what a charter nests
)

// Floors of SA 2.3: a cohort below them hides nobody.
const (
	CohortFloor     = 20
	DemoCohortFloor = 3
)

// EpochLifeMax is the longest life of a KeyPackage (SA 2.1).
const EpochLifeMax = 24 * time.Hour
