// Package safetensors reads and writes the File that holds a model's or an adapter's tensors: safetensors, the
// format of Hugging Face weights and of PEFT adapters.
//
// A file is the length of its header (u64), the header (JSON: name to dtype, shape and place) and the tensors' bytes,
// without a hole or an overlap. Open checks all of it before it returns; after that a read of a tensor cannot leave
// the file. OpenIndexed reads a folder whose tensors are spread over several files. Write gives the same bytes for
// the same tensors, in the order of the reference implementation.
//
// # Assumptions
//
// The file does not change while it is open. Who changes it can change the values that are read, no more.
//
// # Limitations
//
// Values are read from F32, F16 and BF16. Tensors of other known types may lie in a file; their values are refused.
package safetensors
