// Package gguf reads and writes the File that llama.cpp and its relatives keep a model, a vocabulary or an adapter
// in: GGUF, versions 2 and 3, little-endian.
//
// A file is a list of typed keys and values, a list of tensors, and the tensors' bytes, each at a multiple of the
// alignment. Open reads and checks everything but the bytes. Keys are read with typed getters whose errors name the
// key; shapes are row-major, outermost first, the reverse of the order in the file.
//
// # Assumptions
//
// The file does not change while it is open. Who changes it can change the values that are read, no more.
//
// # Limitations
//
// Values are read from F32, F16 and BF16. Block-quantised tensors may lie in a file; their values are refused by the
// name of their type. Version 1 and big-endian files are refused.
package gguf
