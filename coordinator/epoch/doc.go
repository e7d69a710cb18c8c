// Package epoch keeps one Epoch of a member: its seal key, its vote key and, in the same folder, everything the vote key
// ever promised (secure-aggregation notes, 2.5 and 2.6).
//
// A member may vote once per round, for ever, and reveal only what its vote allows. That holds across crashes because a
// record is appended, fsynced and read back before the signature is computed, and across lost or restored disks because
// the key lies beside the records: whoever lost the file lost the key. No call signs a vote, a reveal or an expiry
// without its record: there is no such function.
//
//	root/
//	  7/keys        seal seed, vote seed, checksum; mode 0600
//	  7/votes       storage/durable.Records: begin, then vote, reveal and expired records
//	  .new-8/       an epoch that was being made: nobody has seen its public keys
//	  .gone-6/      an epoch that is being erased
//	  erased-4/     empty: its keys were erased, and the log does not hold the member's word for it yet
//	  damaged-5/    what was left of a damaged epoch: its votes, for a person to look at; no keys
//
// The folder 7/ appears by one rename when both files are on the disk, and leaves by one rename before anything in it is
// touched. So within it a missing file, or anything else but a torn last record, is damage: Open then destroys the keys
// and returns *AlarmError, and the member goes on with a new epoch.
//
// # Assumptions
//
// One process works on root at a time (the member's own lock). root is in no backup and no snapshot: a whole disk that
// is rolled back, keys included, cannot be told from a lie. Callers destroy an epoch at its not-after time at the latest.
//
// # Limitations
//
// The keys lie in the folder in the clear; whoever reads the disk of a running member reads them. Erasing overwrites
// before it removes, which a copy-on-write or flash disk may not honour. Records cut off whole at the end of the file by
// somebody with access to the disk are not seen here, but by Witness, when the log shows what the file lacks.
package epoch
