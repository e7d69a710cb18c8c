// Package statement holds everything that is said under signature between devices, members and authorities: each
// statement's canonical bytes, its signature, and the certificates that several signatures make (SA 2.3).
//
// The central type is Signed: the exact bytes of a body and one signature over them. A body is hashed, verified, stored
// and passed on as received. It is parsed to be understood, and never encoded again to be verified.
//
// Every type has one encoding per version: a type byte, a version byte, then the fields in the order of the struct,
// integers big-endian, strings, byte strings and lists preceded by a uint32 length. A Parse function accepts exactly
// what the Bytes method writes: another version, a bound that is passed, a byte too many are errors. So equal
// statements have equal bytes, and equal hashes mean equal statements.
//
// # Who signs what
//
// Identity keys (composite): KeyPackage, RoundConfig, Result, Abort, Erasure. Vote keys of an epoch (Ed25519): Receipt,
// Ack, Vote, Expired, Reveal. Authority keys: DeviceCert. Device keys: a contribution, as round id ‖ header hash.
//
// # Assumptions
//
// Times are milliseconds since the Unix epoch. Members are numbered as in the charter, from 0; bit i of a mask is
// member i.
package statement
