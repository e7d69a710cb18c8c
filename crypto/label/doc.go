// Package label gives a Hash to every byte string under a tag, and holds every domain-separation label of the
// protocol: no other package spells one. A value hashed or signed for one purpose is thereby never valid for another.
//
// Labels begin with Version, so two versions of the protocol share no hash, signature, seed expansion or box.
//
// # Assumptions
//
// Sum does not frame its parts: H(tag, "ab", "c") = H(tag, "a", "bc"). Callers concatenate fields of fixed length, or
// canonical encodings that carry their own lengths. Tags and statement types are constants of this package and hold
// no zero byte; a test checks it.
package label
