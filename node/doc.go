// Package node wires one person's device together and runs it: Init makes its folder, Join enrols it with a consortium,
// Run takes part in rounds until told to stop.
//
// The folder is the device. It holds
//
//	device.json           which base model the device has, written last by Init: a folder with it is complete
//	keys/                 the device key and the storage key, 0600
//	base/                 the base model, where Init wrote it
//	charter.json          the pinned charter, byte for byte
//	device.cert           the certificate from enrolment
//	journal/              the owner's interactions, encrypted (package journal)
//	staged/ adapters/     see package participant
//	ledger                what left, when, to whom (package participant)
//	adapters/current-peft the commons as a PEFT directory, for every other program
//	status.json           what Run last said of itself; the file's time is when it said last that it lives
//	status.TASK.json      the same of Contribute
//
// Clock and randomness enter here: everything below takes them as arguments.
//
// # Assumptions
//
// One process runs a folder: Run and Contribute hold its lock. What only reads (Ask, the status, the ledger) needs none;
// the journal is opened for the moments in which it is read, so that an import works while the device runs.
package node
