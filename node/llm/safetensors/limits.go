package safetensors

const (
	// maxHeader bounds the JSON header, and with it what Open allocates. The reference implementation has the same bound.
	maxHeader = 100_000_000

	// maxTensors bounds the tensors of one file. The largest published files hold some ten thousand.
	maxTensors = 1 << 20

	// maxDims bounds a tensor's rank; chosen arbitrarily, well above what a language model uses.
	maxDims = 16

	// maxName bounds a tensor's name in bytes; chosen arbitrarily, published names stay below 200.
	maxName = 4096

	// maxShards bounds the files of one folder, all of which are open at once. The largest published models have under 200.
	maxShards = 1024

	// readChunk is the part of a tensor that is held as raw bytes while it is converted.
	readChunk = 1 << 18
)
