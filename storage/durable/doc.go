// Package durable gives writes that are on the disk when they return: WriteFile for whole files, WriteChecked for small
// ones with a checksum, Records for an append-only, hash-chained file, MkdirAll and SyncDir for folders, and Lock for "one process at a time". FreeBytes tells
// whether there is room.
//
// # The happy path of WriteFile, as system calls
//
//	openat(dir/.name.tmp-*, O_RDWR|O_CREAT|O_EXCL, 0600)
//	fchmod(perm)
//	pwrite, repeated until every byte is taken
//	fsync(file)            the bytes are on the disk, under a name nobody reads
//	close
//	rename(temp, path)     readers see the old content or the new one, never a part
//	openat(dir), fsync, close   the new name is on the disk
//
// # The happy path of Records.Append
//
//	pwrite(one frame at the end)
//	fsync(file)            the folder's entry was synced when the file was made
//	pread(the same bytes)  compared with what was written
//
// An error of WriteFile before the rename leaves the old content; an error of the last fsync leaves the new content,
// though perhaps not for ever. In both cases the caller must act as if either could be true. An error of Append makes
// the Records refuse everything after it: a failed fsync may have thrown the pages away, so only opening the file
// again tells what it holds.
//
// # Assumptions
//
// The file system keeps what it has fsynced, and shows a piece that never reached the disk as missing or as zeros. A
// disk that lies about its cache is outside. On Windows a folder cannot be synced; the rename is then as durable as
// NTFS makes it.
//
// # Limitations
//
// A temporary file left by a crash stays until RemoveTemps. Records are read whole: the file is for thousands of
// small records, not for data.
package durable
