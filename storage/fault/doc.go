// Package fault names the moments at which a process may fail around a durable write. Every step of the table "Durable
// before said" in docs/PROTOCOL.md is a Step with a name; the table lists the names. A test holds both together, and
// wants every point struck by a fault test.
//
// Without the build tag `faults` a Step is its write and a Point is nothing: both are inlined, hold no state and read no
// environment. With the tag they ask the Handlers that Install was given for a folder. A Handler sees each passing,
// Before the write and After it is durable, and may answer with an error: "failed and not persisted" or "persisted, then
// failed". To play a death it marks its process dead first, and answers with errors from then on.
//
// # A process that ends itself
//
// A program built with the tag ends at a passing that its environment names, as a kill at that moment would end it:
//
//	RUCHE_FAULT=vote:before:2    exits with ExitCode before the second vote is written
//
// # Assumptions
//
// A Step's path lies in the folder of the member or the device that writes, which tells processes in one program apart.
// An error of a Step is handled like an error of its write: whether the write happened is not known.
package fault

// Moment is where in a step a process fails.
type Moment string

const (
	Before Moment = "before" // nothing of the write is durable
	After  Moment = "after"  // the write is durable, and nobody has been told
)
