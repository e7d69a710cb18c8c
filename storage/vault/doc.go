// Package vault gives a DB: a small encrypted key-value store in one folder, for one process, whose every write is on
// the disk when it returns. It is the only place where badger is named, and its job is to leave none of badger's traps
// open:
//
//   - Writes are synced: SyncWrites is set for every profile and read back at Open. A write is one transaction, since
//     badger syncs per transaction.
//   - Values stay below the value threshold, so nothing reaches the value log, whose fsync errors are only logged and
//     whose collection has brought deleted keys back.
//   - badger writes through a map of sparse files, so a full disk kills the process by a signal. Open and every write
//     first ask for the free space and return *FullError while there still is some.
//   - A new log file's entry in the folder is not synced by badger; a write that made badger start a file syncs the
//     folder before it returns.
//   - After a failed write nothing more is written until the folder is opened again, since a failed fsync may have
//     thrown pages away that badger still shows to readers.
//   - Option sets are fixed, in options.go: some combinations panic.
//
// # Assumptions
//
// Encryption at rest is AES-CTR without authentication: it hides, it does not protect from changes. Whoever needs to
// know that a value is the one that was written puts a checksum or a digest into it, as package raftlog does. Replay
// after a crash stops silently at the first bad record, so whoever needs to know that nothing is missing keeps a
// witness outside, as raftlog's guard.
//
// # Limitations
//
// A vault holds an index and small values, not files. A program that has to stay small sets GOGC to 50 or a memory
// limit itself: with the Device profile and a limit of 48 MiB the process peaks near 116 MB while it rewrites 100 MB.
package vault
