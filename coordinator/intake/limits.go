package intake

import "time"

// Bounds of the data plane.
const (
	headBytesMax   = 64 << 10 // header: 35 commitments; 7 boxes of 4 KiB
	verifyBytes    = 64 << 10 // y is read for its checksum in pieces of this size
	acceptBatchMax = 256      // Accepts of one log entry
	acceptDelay    = 10 * time.Millisecond
	uploadsMax     = 64 // uploads in flight at one member; each costs about 1 MiB
	copiesMax      = 64 // copies under way to one member: a slow one lacks what comes above, and pulls it before it acks
	// headersPerDevice bounds what one device begins in one round at one member besides what the log accepted: an honest
	// device has one header per round, for ever, and every further one is disk taken from others.
	headersPerDevice = 2
	// An honest sender fills its chunks and may begin anew once; what comes above that is a sender that wants our time.
	sendsMax  = 2
	chunksMax = 8 // times as many chunks as full ones would be

	storeTimeout   = 60 * time.Second      // one peer's copy, bytes and fsync
	receiptTimeout = 15 * time.Second      // a peer that has the copy applies the Accept within it, or the device asks again
	busyPause      = 50 * time.Millisecond // between tries to receive what is coming in from elsewhere
	busyTries      = 100
)

// How slowly a stream may come (coordinator design, section 5).
var (
	deviceTempo = tempo{wait: 30 * time.Second, window: time.Minute, least: 60 * 8 << 10, total: 30 * time.Minute}
	peerTempo   = tempo{wait: 10 * time.Second, window: 20 * time.Second, least: 20 * 64 << 10, total: storeTimeout}
)
