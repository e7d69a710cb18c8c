// Package identity holds the keys that sign: Member for organisations, Key for everything shorter-lived.
//
// A Member signs with Ed25519 and with ML-DSA-65 (FIPS 204), and both halves must verify: what an organisation says
// has to hold for years, against a quantum computer too, and against a flaw in the younger scheme. A Key is Ed25519
// alone: devices, enrolment authorities and the vote keys of an epoch, whose statements have to hold for a day.
//
// Every signature is over label.Signing(statement type, exact body bytes), so no signature of one type serves another
// (SA 2.1). ML-DSA gets label.Context of the type as its context string besides. Signing is deterministic: a member
// that repeats itself after a crash says the same bytes. Only seeds are stored, never expanded keys.
//
// # Limitations
//
// Ed25519 verification is the standard library's: it accepts public keys of small order, under which anybody can sign.
// Whoever registers such a key harms only himself.
package identity
