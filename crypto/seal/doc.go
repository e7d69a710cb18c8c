// Package seal encrypts to one recipient, a PrivateKey's holder: HPKE (RFC 9180) in base mode with X-Wing
// (ML-KEM-768 and X25519), HKDF-SHA256 and AES-256-GCM.
//
// A box is enc ‖ ciphertext, one message per encapsulation. info and aad are both bound: a box opens only under the
// info and aad it was sealed with. Boxes are not malleable (IND-CCA2), and hybrid: they stay closed unless both
// ML-KEM-768 and X25519 fall.
//
// # Limitations
//
// Base mode authenticates no sender; whoever needs that signs the box's hash. The standard library draws the
// encapsulation's randomness by itself, so sealing takes no rand argument and two seals of one text differ.
package seal
