package coordpb

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// ChunkBytesMax is the most data that one Chunk carries: best of 64, 256 and 1024 KiB as measured for the design.
const ChunkBytesMax = 256 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Verify refuses a chunk of another size or with another checksum than it says.
func (c *Chunk) Verify() error {
	if n := len(c.GetData()); n == 0 || n > ChunkBytesMax {
		return fmt.Errorf("a chunk has %d bytes, it must have 1 to %d", n, ChunkBytesMax)
	}
	if crc32.Checksum(c.GetData(), castagnoli) != c.GetCrc32C() {
		return fmt.Errorf("the chunk at %d does not match its CRC", c.GetOffset())
	}
	return nil
}

// SendChunks cuts a stream into chunks; offset is where the stream begins in the whole. A chunk is the callee's until
// send returns: its bytes are written over then.
func SendChunks(r io.Reader, offset uint64, send func(*Chunk) error) error {
	buf := make([]byte, ChunkBytesMax)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			c := &Chunk{Offset: offset, Data: buf[:n:n]}
			c.Crc32C = crc32.Checksum(c.Data, castagnoli)
			if err := send(c); err != nil {
				return err
			}
			offset += uint64(n)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// ReceiveChunks gathers a stream of at most limit bytes, from offset 0 to its end.
func ReceiveChunks(limit int, next func() (*Chunk, error)) ([]byte, error) {
	var out []byte
	for {
		c, err := next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if err := c.Verify(); err != nil {
			return nil, err
		}
		if c.GetOffset() != uint64(len(out)) {
			return nil, fmt.Errorf("a chunk begins at %d, expected %d", c.GetOffset(), len(out))
		}
		if len(c.GetData()) > limit-len(out) {
			return nil, fmt.Errorf("the stream is longer than %d bytes", limit)
		}
		out = append(out, c.GetData()...)
	}
}
