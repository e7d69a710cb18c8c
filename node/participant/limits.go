package participant

import "time"

// Bounds of a device's part.
const (
	// FloorDefault is the smallest cohort a device joins unless its charter is marked demo or its owner asks for more.
	FloorDefault = 20
	// FloorDemo is the smallest cohort under a demo charter.
	FloorDemo = 3

	// ClockToleranceMs is how far a device's clock may be from a round's times before it waits and says so. Deadlines pass by
	// ticks in the log; this only keeps a device from training for a round that is over.
	clockToleranceMs = 5 * 60 * 1000

	callTimeout   = 10 * time.Second // one question
	uploadTimeout = 2 * time.Minute  // one try of an upload
	retryFirst    = 250 * time.Millisecond
	retryMax      = 5 * time.Second
	waitDefault   = 2 * time.Second  // between check-ins, if no member says otherwise
	waitFailed    = 30 * time.Second // at most, after steps that failed
	paceWritten   = 10 * time.Second // a wait that a member asked for is kept across restarts from here on
	waitMax       = 10 * time.Minute

	askedRoundsMax = 8 // records in one answer: 80 kB each at (7,3), and a message has at most 1 MiB

	stagedBytesMax = 1 << 29 // a contribution of 2^26 lanes and its head
	entryBytesMax  = 256 << 10

	// stagedKeptMs is how long staged bytes outlive the moment after which no member signs anything for their round, where
	// its end is not known: no epoch that the round lists lives longer, and a clock that is wrong by hours costs no
	// contribution.
	stagedKeptMs = 24 * 60 * 60 * 1000
)
