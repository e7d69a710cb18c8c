// Package prg expands a Seed into a stream of words: AES-256-CTR keyed by HKDF-SHA256 (SA 2.3 step 3).
//
// Word i of an expansion is the i-th little-endian uint32 of AES-256-CTR(K, IV 0), K = HKDF-SHA256(ikm = seed,
// salt = label.PRGSalt, info = purpose ‖ 0x00 ‖ context). One seed gives independent streams to different purposes and
// contexts; the context of a mask names round, device, nonce and subset, so a seed replayed elsewhere expands to noise.
//
// # Assumptions
//
// Purposes are the constants of package label, which hold no zero byte. A seed is drawn fresh for each upload and is
// never stored by a device. The zero Seed holds nothing: using it panics, since a mask from a forgotten seed is no mask.
//
// # Limitations
//
// On processors without AES instructions the standard library's AES is slow and its timing depends on the key; callers
// on such machines warn, see Accelerated. Erase is best effort: Go's collector may have copied what it clears.
package prg
