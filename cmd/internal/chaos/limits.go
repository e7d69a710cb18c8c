package main

import "time"

// Bounds and paces of a run. The task's own stand in arena.go.
const (
	recordEvery = 400 * time.Millisecond // members are asked for ended rounds; four ended rounds are kept in full
	askWait     = 5 * time.Second        // one look at a member
	truthWithin = 5 * time.Second        // status and rounds list tell the truth within this of a kill or a lost quorum
	truthEvery  = 300 * time.Millisecond // they are asked this often until they do
	settleWait  = 90 * time.Second       // for devices and rounds to come to an end
	stopWait    = 2 * time.Minute        // for a member that was told to end
	returnWait  = 2 * time.Minute        // for a member that was started again to answer
	holdWait    = time.Minute            // for one question whether a member holds a contribution
	suspendMax  = 10 * time.Second       // the longest SIGSTOP
	checkEvery  = 10                     // kills between two looks at the evidence
	devicesMax  = 64
	faultsMax   = 100_000

	biteAfter = 7 * time.Second // a partition that lasts so long is felt: members ask each other every 0.5 s and wait 5 s at most

	imageBytes   = 512 << 20        // of a member's disk; sparse. Members keep 128 MiB free
	copyTries    = 20               // of a disk that the kernel writes to just now
	controlLoad  = 10 * time.Second // of acknowledgements that the control may lose; the kernel writes back after 30 s
	roundsRecent = 20               // of a device's acks, the newest, are looked for after a power cut of all
	answerEvery  = 50 * time.Millisecond
)
