// Package participant is one device's part in a round: the Participant checks what the consortium shows it, has its
// Learner make an update, masks it, uploads it once and follows the round to its end (SA 2.3 "Device").
//
// It believes its charter file, then q signatures on a RoundConfig, then f+1 signatures on a result, and nothing else.
// Whatever it refuses, it says why, in an error that names what differed.
//
// Durable before said: the finished bytes are staged and fsynced, then the ledger's entry, then the first byte is sent.
// A restart sends exactly the staged bytes until they are acked or the round has ended. The ledger is the only source
// for "no second upload from one start": an entry without a proven death of its round blocks the start for ever.
//
// # Assumptions
//
// The clock is used for liveness only: a wrong one makes the device wait, refuse or give an upload up, never upload twice
// or to another round. One process owns the folder: New removes what others left half written in staged/ and adapters/.
package participant
