package coordpb

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/proto"
)

func chunksOf(t *testing.T, b []byte, offset uint64) (out []*Chunk) {
	t.Helper()
	// One byte at a time, so that chunks are filled by many reads.
	if err := SendChunks(iotest.HalfReader(bytes.NewReader(b)), offset, func(c *Chunk) error { out = append(out, proto.CloneOf(c)); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func feed(list []*Chunk) func() (*Chunk, error) {
	return func() (*Chunk, error) {
		if len(list) == 0 {
			return nil, io.EOF
		}
		c := list[0]
		list = list[1:]
		return c, nil
	}
}

// TestChunksRoundTrip: what is cut is put together again, at every size around a chunk's.
func TestChunksRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, ChunkBytesMax - 1, ChunkBytesMax, ChunkBytesMax + 1, 3*ChunkBytesMax + 7} {
		b := bytes.Repeat([]byte("ruche"), n/5+1)[:n]
		list := chunksOf(t, b, 0)
		if want := (n + ChunkBytesMax - 1) / ChunkBytesMax; len(list) != want {
			t.Errorf("%d bytes in %d chunks, want %d", n, len(list), want)
		}
		got, err := ReceiveChunks(n, feed(list))
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("%d bytes: %d, %v", n, len(got), err)
		}
		if n > 0 {
			if _, err := ReceiveChunks(n-1, feed(list)); err == nil {
				t.Errorf("%d bytes pass a limit of %d", n, n-1)
			}
		}
	}
}

func TestChunksRefused(t *testing.T) {
	good := func() []*Chunk { return chunksOf(t, bytes.Repeat([]byte{7}, ChunkBytesMax+9), 0) }
	broken := errors.New("cut")
	for name, next := range map[string]func() (*Chunk, error){
		"gap":     func() func() (*Chunk, error) { l := good(); return feed(l[1:]) }(),
		"repeat":  func() func() (*Chunk, error) { l := good(); return feed([]*Chunk{l[0], l[0]}) }(),
		"crc":     func() func() (*Chunk, error) { l := good(); l[0].Crc32C++; return feed(l) }(),
		"nil":     feed([]*Chunk{nil}),
		"empty":   feed([]*Chunk{{}}),
		"too big": feed([]*Chunk{{Data: make([]byte, ChunkBytesMax+1)}}),
		"error":   func() (*Chunk, error) { return nil, broken },
	} {
		if b, err := ReceiveChunks(1<<30, next); err == nil {
			t.Errorf("%s: %d bytes", name, len(b))
		}
	}
	if err := SendChunks(iotest.ErrReader(broken), 0, func(*Chunk) error { return nil }); !errors.Is(err, broken) {
		t.Error(err)
	}
	if err := SendChunks(bytes.NewReader([]byte{1}), 0, func(*Chunk) error { return broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// FuzzReceiveChunks puts together whatever arrives: never more than the limit, and only what the checksums cover.
func FuzzReceiveChunks(f *testing.F) {
	f.Add([]byte("a stream of a few chunks"), uint8(5), uint16(100))
	f.Add([]byte{}, uint8(0), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, size uint8, limit uint16) {
		var list []*Chunk
		for at := 0; at < len(b); {
			n := min(int(size)+1, len(b)-at)
			c := &Chunk{Offset: uint64(at), Data: b[at : at+n], Crc32C: crc32.Checksum(b[at:at+n], castagnoli)}
			if b[at]%11 == 7 { // some are damaged on the way
				c.Crc32C++
			}
			list, at = append(list, c), at+n
		}
		damaged := false
		for _, c := range list {
			damaged = damaged || c.Verify() != nil
		}
		got, err := ReceiveChunks(int(limit), feed(list))
		if (err == nil) != (!damaged && len(b) <= int(limit)) {
			t.Fatalf("%d bytes, limit %d, damaged %v: %v", len(b), limit, damaged, err)
		}
		if err == nil && !bytes.Equal(got, b) {
			t.Fatal("other bytes arrived than were sent")
		}
	})
}
