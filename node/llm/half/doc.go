// Package half converts rows of float16 and bfloat16, as weight files store them, to float32 and back.
//
// Decoding is exact: every 16-bit value is a float32. Encoding rounds to nearest, ties to even, as
// IEEE 754 asks and as every other writer of these files does, so that a file read and written again
// keeps its bytes. Words are little-endian, the order of both safetensors and GGUF.
package half
