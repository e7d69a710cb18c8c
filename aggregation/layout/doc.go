// Package layout says what a vector means: a Layout names the trained values of a task, their shapes and their one
// order, and the private metrics that travel behind them; a Model is a published result in that layout.
//
// The hash of a layout's canonical bytes stands in every RoundConfig and in every Model, so a device, a member and an
// auditor who agree on 32 bytes agree on the place and meaning of every number.
//
// # Order
//
// Trained and Frozen list their tensors by name, strictly ascending byte by byte ("layers.10" comes before "layers.2").
// The trained vector is the concatenation of the trained tensors in that order, each row-major. Metrics keep the order
// in which they are listed; their names are distinct. Validate enforces all of it, and every decoder calls Validate.
//
// # Canonical bytes
//
// One version byte, then fixed-width big-endian integers and length-prefixed strings; the values of a Model are
// little-endian IEEE 754 binary32, bit for bit the state that devices load. A decoder accepts exactly the bytes that the
// encoder writes: other versions, trailing bytes, unbounded lengths, NaN and infinities are refused.
package layout
