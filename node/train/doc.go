// Package train teaches an adapter: Run takes windows of tokens and a Recipe and changes the adapter's factors. It also
// cuts records into windows and measures loss, so that training and evaluation mean the same by a token.
//
// Everything is deterministic: the order of the data follows from a seed, and the engine's sums have one order.
package train
