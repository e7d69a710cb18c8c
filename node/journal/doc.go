// Package journal is the owner's private store: the Journal keeps what the owner said to the device, encrypted at rest,
// and says which part of it may be learned from.
//
// A record is {seq, user, text, imported_at}; seq is the order of time. Import reads JSON lines {"user","text"}, checks
// every line before it writes one, and adds all new records or none: a crash in the middle leaves the journal as it was.
// An exact repeat of a text is kept once, so that no text stands on both sides of a split.
//
// # Splits
//
// Of n records in the order of time the first ⌊8n/10⌋ are for training, those up to ⌊9n/10⌋ for validation, the rest for
// testing. From 10 records on none of the three is empty. As the journal grows both boundaries only move forward: what
// was trained on never becomes a test.
//
// # Assumptions
//
// The key lies in a file of the owner's, 0600, beside the folder; whoever has both has the text. One process has the
// journal open at a time.
//
// # Limitations
//
// A file is read into memory as a whole before anything of it is written. There is no way yet to forget a record.
//
// Nothing of a text, and no user's name but the one the caller gave, is ever in an error or a log line.
package journal
