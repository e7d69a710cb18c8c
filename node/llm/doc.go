// Package llm is the engine: a Model is a LLaMA-family decoder (RMSNorm, rotary embeddings, grouped-query attention,
// SwiGLU; Mistral's window, Qwen2's biases and Qwen3's norms of heads with it), run by a Session with a KV cache and trained by a Tape with LoRA adapters. It knows no federation.
//
// It is portable Go over goroutines, written to be read: forward.go and backward.go mirror each other, and matmul.go is
// the definition that faster kernels are tested against. Every sum has one order, so results do not depend on the
// number of threads; they may differ in the last bits between processors, and nothing in the protocol hangs on that.
//
// Shapes: n positions, dim the residual stream, hd a head's width, hid the feed-forward layer, V the vocabulary; all
// matrices row-major, a weight [out, in]. Query and key rows are in rotate_half order in memory, whatever the file.
//
// # Limitations
//
// Weights are float32 in memory. Other biases, mixtures of experts and quantised files are refused by name. Of GGUF only
// the LLaMA architecture is read. Full gradients, for pre-training, are for models without biases and norms of heads.
package llm
