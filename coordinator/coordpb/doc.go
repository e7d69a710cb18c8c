// Package coordpb carries signed bodies between devices, members and operators' tools: the
// envelopes, the Device and Mesh services and the Command of the replicated log, generated from
// coordinator.proto.
//
// Everything under a signature is an opaque bytes field here. A body is stored and verified as it was
// received and never marshalled again, so that nothing rests on protobuf having one encoding
// (it has none); what the bytes mean is defined in coordinator/statement.
//
// The schema only grows: a field number is never reused and never changes its meaning.
package coordpb

//go:generate sh -c "cd _gen && go run ."
