package main

// Mutant is the product with a check removed.
type Mutant struct {
	Name    string
	Promise string // what the check is for
	Edits   []Edit
	Package string // whose test must fail
	Test    string
	Pair    string // for two checks that cover each other: why one alone may go
}

// Edit replaces Old, which stands once in File, by New.
type Edit struct{ File, Old, New string }

// mutants lists what is removed. Sections are those of secure-aggregation.md.
func mutants() []Mutant {
	one := func(name, promise, file, old, new, pkg, test string) Mutant {
		return Mutant{Name: name, Promise: promise, Edits: []Edit{{file, old, new}}, Package: pkg, Test: test}
	}
	return []Mutant{
		one("q is a plain majority", "two quorums share an honest member (2.2)",
			"coordinator/charter/quorum.go", "return (n+f)/2 + 1", "return n/2 + 1", "coordinator/charter", "TestTableOfSizes"),
		one("an ack is f+1 receipts, all over", "the signers of an ack and any M share an honest member (2.2)",
			"coordinator/charter/quorum.go", "return min(c.N, max(c.N-c.F, c.F+1))", "return min(c.N, c.F+1)", "coordinator/statement", "TestAckCert"),
		one("a device takes f+1 receipts for an ack", "an ack is n-f receipts, counted by the device (2.2)",
			"coordinator/statement/cert.go", "signers.Size() < ch.AckReceipts()", "signers.Size() < ch.Believe()", "coordinator/statement", "TestAckCert"),
		one("votes are not fsynced", "a vote is on the disk before it is signed (2.5)",
			"storage/durable/records.go", "if err := r.disk.sync(r.f); err != nil {\n\t\treturn fmt.Errorf(\"fsync: %w\", err)\n\t}\n\tback", "back", "storage/durable", "TestAppendFailures"),
		one("a vote is signed whatever its file says", "one vote per round (8.1)",
			"coordinator/epoch/promises.go", "\t\tif old != r.value {\n\t\t\treturn false, conflict(KindVote, old)\n\t\t}\n", "\t\t_ = old\n", "coordinator/epoch", "TestAVoteIsForEver"),
		one("a reveal after expired", "no reveal after the expired record (8.3)",
			"coordinator/epoch/promises.go", "if r.kind == KindReveal && p.expired[r.round] {", "if false {", "coordinator/epoch", "TestRules"),
		one("expired is signed after a reveal record", "nobody says that it never revealed who did (8.2)",
			"coordinator/epoch/epoch.go", "ok && r.kind == KindExpired {", "ok && false {", "coordinator/epoch", "TestExpiryIsSignedOnlyByWhoNeverRevealed"),
		one("an own vote that the file lacks is overlooked", "the key goes with its file (2.5)",
			"coordinator/epoch/epoch.go", "if e.promises.holds(record{kind, round, value}) {", "if true {", "coordinator/epoch", "TestWitnessDestroysAKeyWhoseFileForgot"),
		one("a member does not compare the log with its vote file", "the key goes with its file (2.5)",
			"coordinator/coordinator.go", "\tm.witness()\n", "", "coordinator", "TestWitness"),
		{Name: "epoch keys are the same after a restore", Promise: "nothing is signed by an epoch's key after a restore (8.9)", Edits: []Edit{
			{"coordinator/epoch/folder.go", "voteKey, err := identity.NewKey(rand)", "voteKey, err := identity.NewKey(strings.NewReader(strings.Repeat(\"k\", 64)))"},
			{"coordinator/epoch/folder.go", "sealKey, err := seal.GenerateKey(rand)", "sealKey, err := seal.GenerateKey(strings.NewReader(strings.Repeat(\"s\", 64)))"}},
			Package: "cmd/internal/explore", Test: "TestOneMember", Pair: "a member compares both keys with those that the round lists"},
		one("a set certificate is a vote short", "q votes are a certificate (2.2)",
			"coordinator/round/vote.go", "Size() < m.ch.Q", "Size() < m.ch.Q-1", "coordinator/round", "TestNoTwoCertificates"),
		one("commitments are not compared", "a box holds the seeds that the device committed to (2.3, Intake)",
			"aggregation/committee/open.go", "subtle.ConstantTimeCompare(com[:], commitments[i][:]) != 1", "subtle.ConstantTimeCompare(com[:], commitments[i][:]) > 1", "aggregation/committee", "TestReplayUnderTheSameHeaderMeetsTheCommitments"),
		one("a round certificate is a signature short", "q members stand behind a round (2.2)",
			"coordinator/statement/cert.go", "if signers.Size() < ch.Q {", "if signers.Size() < ch.Q-1 {", "coordinator/statement", "TestRoundCert"),
		one("a device does not count a round's signatures", "q members stand behind a round (2.3, Device)",
			"coordinator/statement/cert.go", "if signers.Size() < ch.Q {", "if false {", "node/participant", "TestARoundIsRefusedByWhatIsWrongWithIt"),
		one("signatures of key packages are not checked", "devices seal to keys that a member vouches for (2.3, Device)",
			"coordinator/statement/keypackage.go", "if err := ch.Members[k.Member].Identity.Verify(label.StmtKeyPackage, s.Body, s.Signature); err != nil {", "if label.StmtKeyPackage == \"\" {", "coordinator/statement", "TestRoundCert"),
		one("one signature makes a result", "f+1 members stand behind a result (2.3)",
			"coordinator/statement/cert.go", "if signers.Size() < ch.Believe() {", "if signers.Size() < 1 {", "coordinator/statement", "TestResultCert"),
		one("the floor counts dishonest authorities", "the cohort floor holds without the f_E largest authorities (2.3, Set rule)",
			"coordinator/round/accept.go", "sorted[min(max(faulty, 0), len(sorted)):]", "sorted", "coordinator/round", "TestCohortFloor"),
		one("anybody speaks for a device in the log", "no member can occupy a device's slot (2.3, Intake)",
			"coordinator/round/accept.go", "if err := statement.VerifyContribution(d.cert.Public, a.Round, a.Header, a.Signature); err != nil {", "if err := error(nil); err != nil {", "coordinator/round", "TestStories"),
		one("a device stands twice in a set", "devices of a set are distinct (8.5)",
			"coordinator/round/close.go", "if candidates[d.Set[k-1]].Device == candidates[d.Set[k]].Device {", "if false {", "coordinator/round", "TestSetRule"),
		one("the log takes a second upload from one start", "one start, one upload (2.4, Retry)",
			"coordinator/round/accept.go", "used && l.usedStart == r.start {", "used && false {", "coordinator/round", "TestStories"),
		one("a device uploads twice from one start", "one start, one upload (8.6)",
			"node/participant/ledger.go", "if u.entry.Start == start && u.entry.Round != round && u.end != EndDead {", "if false {", "node/participant", "TestOneStartOneUploadUnlessItsDeathIsCertified"),
		{Name: "a second upload from one start, nobody minds", Promise: "one start, one upload (8.6)", Edits: []Edit{
			{"coordinator/round/accept.go", "used && l.usedStart == r.start {", "used && false {"},
			{"node/participant/ledger.go", "if u.entry.Start == start && u.entry.Round != round && u.end != EndDead {", "if false {"}},
			Package: "node/participant", Test: "TestOneStartOneUploadUnlessItsDeathIsCertified"},
		one("a device debits after it has sent", "the ledger entry is durable before the first byte (8.6)",
			"node/participant/contribute.go", "\tif err := p.debit(s); err != nil {\n\t\treturn err\n\t}\n\treturn p.send(ctx, s)\n", "\tif err := p.send(ctx, s); err != nil {\n\t\treturn err\n\t}\n\treturn p.debit(s)\n", "node/participant", "TestACrashSendsTheSameBytes"),
		one("applied entries are overwritten", "no applied entry changes (8.11)",
			"storage/raftlog/store.go", "case index <= applied:", "case false:", "storage/raftlog", "TestAppliedEntriesAreNeverRewritten"),
		one("applied entries are truncated", "no applied entry changes (8.11)",
			"storage/raftlog/store.go", "case low <= applied && !(low == b.first && s.snapshot >= applied):", "case false:", "storage/raftlog", "TestAppliedEntriesAreNeverRewritten"),
		one("a leader's snapshot may be older", "no applied entry changes (8.11)",
			"coordinator/replica/snapshot.go", "index < floor {", "false && index < floor {", "coordinator/replica", "TestALeadersSnapshotIsAdmittedOrNeverStored"),
		one("the guard is not synced", "the applied index is durable before a receipt (2.5)",
			"storage/raftlog/guard.go", "\t\treturn g.sync()\n", "\t\treturn nil\n", "storage/raftlog", "TestGuardFailures"),
		one("a receipt rests on an unguarded log", "the applied index is durable before a receipt (2.5)",
			"coordinator/close.go", "if err := m.log.EnsureApplied(index); err != nil {", "if err := error(nil); err != nil {", "coordinator", "TestNoReceiptOrAckRestsOnAnUnguardedLog"),
		one("an ack rests on an unguarded log", "the applied index is durable before an ack (2.5)",
			"coordinator/close.go", "if err := m.log.EnsureApplied(applied); err != nil {", "if applied == 0 {", "coordinator", "TestNoReceiptOrAckRestsOnAnUnguardedLog"),
		one("members vote by their own clocks", "a member votes for its log's decision (2.3, Set rule)",
			"coordinator/vote.go", "\te, err := m.listed(v.Config)\n\tif err != nil {\n\t\treturn nil, err\n\t}\n\tif earlier", "\te, err := m.listed(v.Config)\n\tif err != nil {\n\t\treturn nil, err\n\t}\n\tif m.cfg.Now().UnixMilli() > v.Config.AckMs {\n\t\tvalue = statement.Dead()\n\t}\n\tif earlier", "coordinator", "TestVotesFollowTheLog"),
		one("a member reveals without counting the votes", "a reveal needs q votes for exactly its set (2.3, Reveal)",
			"coordinator/reveal.go", "if err := statement.VerifySetCert(m.ch, v.Config, v.Decision, v.Votes); err != nil {", "if err := error(nil); err != nil {", "coordinator", "TestRevealNeedsItsCertificate"),
		one("epochs go while a round needs them", "epoch keys stay until every round that lists them has ended (2.6)",
			"coordinator/epochs.go", "n < published && !needed[n]", "n < published", "coordinator", "TestEpochsSurviveReplay"),
		one("sums are served by whoever has not revealed", "vectors leave under a reveal record only, and never after expired (8.3)",
			"coordinator/reveal.go", "if !revealed || value != v.Decision || e.Expired(id) {", "if false {", "coordinator", "TestMayServe"),
	}
}
