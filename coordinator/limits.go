package coordinator

import "time"

// Bounds of a member's own work.
const (
	workEvery     = 100 * time.Millisecond // duties are looked for at least this often; an applied entry wakes the loop at once
	retryDuty     = time.Second            // a duty that failed, or whose entry is not yet applied, is tried again after this
	retryAlarm    = 30 * time.Second       // one that failed for a reason that time does not mend
	proposeWait   = 10 * time.Second       // one proposal; an unknown outcome is harmless, every command is idempotent
	applyWait     = 5 * time.Second        // for the replica to count an entry that the state shows already
	fetchWait     = 60 * time.Second       // one vector from a peer
	guardEvery    = time.Second            // the applied index is made durable this often, besides before every receipt and ack
	foldBytes     = 256 << 10              // y is read and added in pieces of this size
	tokenBytes    = 20                     // 160 bits of an enrolment token
	deviceQuota   = 1 << 16                // contributions under one certificate
	deviceCertFor = 365 * 24 * time.Hour
	checkInRounds = 16              // earlier rounds that one check-in may ask for
	roundWait     = 5 * time.Second // for a round that a peer has applied and this member has not
)
