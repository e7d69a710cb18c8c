package node

import "time"

const (
	// messageBytesMax bounds a message in either direction: chunks of 256 KiB, and check-ins with the records of a few
	// rounds (coordinator design, section 5).
	messageBytesMax = 1 << 20

	// pingAfter and pingWait find a member that went away in the middle of a stream. Nothing pings without a stream, and
	// members refuse pings more often than every 15 s.
	pingAfter = 20 * time.Second
	pingWait  = 20 * time.Second

	// redialMax bounds the wait before a member that was down is dialled again. grpc's own bound is two minutes: longer
	// than a round of some tasks.
	redialFirst = 250 * time.Millisecond
	redialMax   = 5 * time.Second

	// idleAfter drops a connection that no call uses: members drop theirs after a minute too.
	idleAfter = time.Minute

	// enrolWait bounds an enrolment: a token's certificate goes through the consortium's log.
	enrolWait = 30 * time.Second

	// tokenBytesMax bounds an enrolment token; members issue 20 bytes.
	tokenBytesMax = 64

	// deviceFileMax and statusFileMax bound what is read of the folder's small files.
	deviceFileMax = 64 << 10
	statusFileMax = 16 << 20

	// evaluationsMax and trainTimesMax bound the status: older ones are dropped.
	evaluationsMax = 4096
	trainTimesMax  = 16

	// statusEvery is how often a running device says that it lives. Without a word for staleAfter it is not called running:
	// several times as long, and less than the five seconds within which a status has to be true.
	statusEvery = time.Second
	staleAfter  = 4 * time.Second

	// journalTries is how often the journal is asked for while another process of the owner's, an import, has it.
	journalTries = 50
	journalWait  = 100 * time.Millisecond

	// lockTries is how often a starting device asks for its folder while somebody only looks.
	lockTries = 4
	lockWait  = 50 * time.Millisecond

	// evaluationWindow is the most tokens that a loss is measured over at once; less where the model's context is less.
	evaluationWindow = 128

	// memoryFloor is what a device needs beside its model: the runtime, TLS, the journal's tables, one upload.
	memoryFloor = 64 << 20
)
