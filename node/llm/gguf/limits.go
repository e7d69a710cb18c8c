package gguf

const (
	// maxKeys bounds the key-value pairs; published files hold under a hundred.
	maxKeys = 1 << 16

	// maxTensors bounds the tensors of one file; the largest published files hold some thousands.
	maxTensors = 1 << 16

	// maxKey and maxName are the format's own bounds in bytes of a key, and a tensor name far above llama.cpp's 64.
	maxKey  = 65535
	maxName = 1024

	// maxText bounds one string value. The longest in use are chat templates, of some ten KiB.
	maxText = 1 << 24

	// maxArray bounds the elements of one array. The largest in use are merges and vocabularies, below 600,000.
	maxArray = 1 << 22

	// maxHeaderBytes bounds keys and tensor list together, and with it the memory that Open takes.
	maxHeaderBytes = 1 << 28

	// maxNesting bounds arrays of arrays. The format allows any depth; no published file nests at all.
	maxNesting = 2

	// maxDims is the format's bound on a tensor's rank (GGML_MAX_DIMS).
	maxDims = 4

	// defaultAlignment holds where general.alignment is absent; maxAlignment is chosen arbitrarily, above a huge page's 2 MiB.
	defaultAlignment = 32
	maxAlignment     = 1 << 22

	// readChunk is the part of a tensor that is held as raw bytes while it is converted.
	readChunk = 1 << 18

	// NoToken is how a file says that it has no token for a purpose.
	NoToken = 1<<32 - 1
)
