// Package blob gives a Store of immutable files, named by the digest of their content and grouped in folders: the
// contributions of one round, its sums, the results.
//
// A blob is there when its file is complete, its digest right, and file, name and folder are on the disk; before that
// it is a `.part`, of which Create tells how much there is already. The happy path of a Writer, as system calls:
//
//	openat(<group>/<digest>.part)
//	fallocate(KEEP_SIZE, declared size)   a full disk is *FullError here, not half an upload later
//	pwrite ...                            the file's size is the offset to resume from
//	fsync(file)
//	rename(<digest>.part, <digest>)
//	fsync(folder)
//
// Where the system has no fallocate that keeps the size, the free space is looked at instead: what several begin at once is
// then not kept for them.
//
// # Assumptions
//
// One process has the store open, held by a lock. Digests are label.Sum of a tag and the content; the caller gives the
// tag, since the store does not know what its files mean.
//
// # Limitations
//
// A `.part` is not synced before Commit: after a power cut its content may be wrong, Commit finds that out by the
// digest, drops it, and the upload starts again. Open, the method, does not verify: it is for serving bytes to somebody
// who will; Read verifies.
package blob
