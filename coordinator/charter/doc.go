// Package charter holds the Charter: the consortium's signed rules, which every member runs by and every device pins.
//
// A charter names the n members with their keys and addresses, the number f of members that may fail or lie, the
// quorum, the tasks and the timings. It is signed by all n (SA 2.1); its exact body bytes are what is signed, hashed
// and stored, and they are never marshalled again before they are verified.
//
// Two files carry it. card.json is one organisation's entry, signed by itself. charter.json holds the body and n
// signatures. Load refuses a charter that lacks one of them, that has a field it does not know, or a value that this
// version does not implement, naming the field.
//
// # Assumptions
//
// Whoever signs a charter has compared the identity keys in it with their owners. Nothing here can check that.
package charter
