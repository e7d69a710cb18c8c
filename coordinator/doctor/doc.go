// Package doctor gives an Examination of a member's folder: what is there, what the member would find at its next start, and what to do.
//
// It changes nothing. The log is opened as a copy in the system's temporary folder, since opening a database writes to it;
// the state is rebuilt in memory from the newest snapshot and that copy, by the code that the member itself runs. A
// running member holds its folder, so then only what it writes whole is looked at: its status, alarms and vote files.
//
// # Limitations
//
// Examine counts vectors, and only Deep hashes them: the member does that itself when it reads one. Whether a key was copied elsewhere
// no folder can tell.
package doctor
