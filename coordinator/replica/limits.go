package replica

import "github.com/ruche-federation/ruche/storage/raftlog"

const (
	// MaxEntry bounds one command: AppendEntries is capped by count, never by bytes, and the log store has the same bound.
	MaxEntry = raftlog.MaxEntry
	// proposalsMax bounds the proposals that wait at one member; one more waits for a place.
	proposalsMax = 1024
	// appendMax entries go into one AppendEntries and one batch of the FSM: 64 of the largest are 32 MiB.
	appendMax = 64
	// cachedEntries are kept in memory for followers that are nearly up to date; as many of the largest are 64 MiB.
	cachedEntries = 128
	// snapshotMax bounds a snapshot's state: a million contributors of a round take a quarter of it (coordinator.md 1.4).
	snapshotMax = 1 << 30
	// snapshotsLeave is what a snapshot leaves free on its file system: the log stops below 32 MiB, and is written to
	// meanwhile.
	snapshotsLeave = 48 << 20
	// snapshotsKept: the newest, and the one before it in case the newest cannot be read.
	snapshotsKept = 2
	// fullSeconds is how long the log finds no room before somebody is told.
	fullSeconds = 60
	// poolMax connections to one member wait for the next request: heartbeat, votes, entries.
	poolMax = 3
	// inFlight is one AppendEntries per follower at a time, which turns raft's pipeline off. In v1.8.0 a pipeline whose
	// decoder has ended, at a newer term or a rejected entry, can block its sender for ever: the follower gets no more
	// entries from this leader, and raft never stops. TestPartitions found it.
	inFlight = 1
	// copyBlock is the unit in which a log is copied for a look at it.
	copyBlock = 256 << 10
	// promoteLag is how many entries a new store may lack when it gets its vote: the leader has them in memory.
	promoteLag = cachedEntries
	// termAhead is how many terms a member may have missed. Each is an election: a month of nothing else is fewer. A liar
	// who wants to use terms up needs a durable write for each step, and decades.
	termAhead = 1 << 24
	// indexAhead is how many entries a member may have missed, which at 300 a second is a century of them.
	indexAhead = 1 << 40
	// idMax bounds a server's id, which stands in every request of raft and, with its length in a byte, before the first.
	idMax = 200
)
