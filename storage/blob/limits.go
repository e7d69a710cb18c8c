package blob

const (
	// MaxSize bounds a blob: a contribution of a large model is 40 MB, a result about the same; 1 GiB is chosen
	// arbitrarily above both.
	MaxSize = 1 << 30
	// maxGroup bounds a group's name: a round id in hex is 64 characters.
	maxGroup = 128
	// bufferSize is the piece in which a resumed part is read and hashed again, the size of an upload's chunk: the checksum
	// of such a piece is not computed twice.
	bufferSize = 256 << 10
)
