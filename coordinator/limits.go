package coordinator

import "time"

// Bounds of a member's own work.
const (
	workEvery     = 100 * time.Millisecond // duties are looked for at least this often; an applied entry wakes the loop at once
	retryDuty     = time.Second            // a duty that failed, or whose entry is not yet applied, is tried again after this
	retryAlarm    = 30 * time.Second       // one that failed for a reason that time does not mend
	retryFull     = 30 * time.Second       // one that found no room on the disk: it has computed or fetched for nothing
	beyondFor     = time.Minute            // a leader's clock beyond the horizon, before it is an alarm: members publish keys within seconds
	yieldEvery    = time.Minute            // a leader whose clock is wrong hands leadership over at most so often
	alarmAgain    = time.Hour              // an alarm whose cause lasts is said again in the log after this
	shortWait     = 3 * time.Second        // for members that a round would not list, before it is proposed without them; and for a member that seems away
	proposeWait   = 10 * time.Second       // one proposal; an unknown outcome is harmless, every command is idempotent
	applyWait     = 5 * time.Second        // for the replica to count an entry that the state shows already
	fetchWait     = 60 * time.Second       // one vector from a peer
	guardEvery    = time.Second            // the applied index is made durable this often, besides before every receipt and ack
	keepFree      = 128 << 20              // bytes that contributions leave free on their file system: the log stops below 32 MiB
	sumsFree      = 64 << 20               // bytes that sums and states leave free: a round that lacks them does not end, and frees nothing
	partFor       = time.Hour              // what is left of an upload that broke off
	statesKept    = 16                     // published states of a task that anybody may ask for; what open rounds start from stays besides
	sweepEvery    = 5 * time.Minute
	strangeFor    = 48 * time.Hour // of a round that the log does not know (any more): no round lives that long
	repairEvery   = time.Second
	repairAfter   = 5 * time.Second  // most of what is lacking is on its way already
	repairRetry   = 30 * time.Second // one that nobody had
	repairPulls   = 2                // contributions at a time
	repairRate    = 32 << 20         // bytes a second, on average: a quarter of a network of 1 Gb/s, which devices need too
	seatsEvery    = 500 * time.Millisecond
	removeEvery   = time.Minute // one member's store is taken out of the log's configuration at most so often
	grudge        = time.Minute // a member that failed us is asked last
	foldBytes     = 64 << 10    // y is read, hashed and added in pieces of this size: the second-level cache holds two
	foldBatch     = 8           // contributions whose seeds are open at a time: their masks pass over a sum together
	alarmsMax     = 1000        // alarms kept; more say nothing new
	alarmBytes    = 2000        // of an alarm's text
	tokenBytes    = 20          // 160 bits of an enrolment token
	deviceQuota   = 1 << 16     // contributions under one certificate
	deviceCertFor = 365 * 24 * time.Hour
	checkInRounds = 16               // earlier rounds that one check-in may ask for
	callWait      = 30 * time.Second // a call without a stream, whatever its caller's deadline
	sendWait      = 30 * time.Second // for the receiver of a stream to take the next message
	leaderFor     = 3 * time.Second  // a leader that was heard so long ago is not said to lead: heartbeats come ten times in it
	statusWait    = 2 * time.Second  // for a peer's own line of status
	deviceConns   = 4096             // connections at the device port: 40 KiB each when idle
	meshStreams   = 1024             // per mesh connection; what they may take is counted per member (admission.go)
	roundWait     = 5 * time.Second  // for a round that a peer has applied and this member has not
)
