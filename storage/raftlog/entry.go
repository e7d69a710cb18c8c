package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"
)

// The stored form of an entry, big-endian:
//
//	version[1] type[1] index[8] term[8] appended[8] extLen[4] dataLen[4] extensions data crc32c[4]
//
// appended is in nanoseconds since 1970, and 0 for no time.
const (
	entryVersion = 1
	entryHeader  = 1 + 1 + 8 + 8 + 8 + 4 + 4
	entryExtra   = entryHeader + 4
)

func castagnoli(p []byte) uint32 { return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) }

func encodeEntry(l *raft.Log) []byte {
	b := make([]byte, 0, entryExtra+len(l.Extensions)+len(l.Data))
	b = append(b, entryVersion, byte(l.Type))
	b = binary.BigEndian.AppendUint64(b, l.Index)
	b = binary.BigEndian.AppendUint64(b, l.Term)
	var appended int64
	if !l.AppendedAt.IsZero() {
		appended = l.AppendedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(appended))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Extensions)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Data)))
	b = append(b, l.Extensions...)
	b = append(b, l.Data...)
	return binary.BigEndian.AppendUint32(b, castagnoli(b))
}

// decodeEntry reads an entry; extensions and data are parts of b.
func decodeEntry(b []byte) (raft.Log, error) {
	var l raft.Log
	if len(b) < entryExtra {
		return l, fmt.Errorf("%d bytes, at least %d", len(b), entryExtra)
	}
	if b[0] != entryVersion {
		return l, fmt.Errorf("format version %d, this program reads version %d", b[0], entryVersion)
	}
	n := len(b) - 4
	if castagnoli(b[:n]) != binary.BigEndian.Uint32(b[n:]) {
		return l, errors.New("checksum")
	}
	ext, data := uint64(binary.BigEndian.Uint32(b[26:])), uint64(binary.BigEndian.Uint32(b[30:]))
	if ext+data > MaxEntry || ext+data != uint64(n-entryHeader) {
		return l, fmt.Errorf("lengths %d and %d in %d bytes", ext, data, len(b))
	}
	l.Type = raft.LogType(b[1])
	l.Index = binary.BigEndian.Uint64(b[2:])
	l.Term = binary.BigEndian.Uint64(b[10:])
	if at := int64(binary.BigEndian.Uint64(b[18:])); at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	if ext > 0 {
		l.Extensions = b[entryHeader : entryHeader+ext]
	}
	if data > 0 {
		l.Data = b[entryHeader+ext : n]
	}
	return l, nil
}

// bounds says which entries the log has: first to last, none when last is 0. Entries from sweepFrom to sweepTo are
// dead and waiting for their deletion.
type bounds struct {
	first, last, commit uint64
	sweepFrom, sweepTo  uint64 // none when sweepTo is 0
}

// The stored form of the bounds: version[1], the five numbers in 8 bytes each, crc32c[4], big-endian.
const (
	boundsVersion = 1
	boundsSize    = 1 + 5*8 + 4
)

func (w bounds) encode() []byte {
	b := append(make([]byte, 0, boundsSize), boundsVersion)
	for _, x := range []uint64{w.first, w.last, w.commit, w.sweepFrom, w.sweepTo} {
		b = binary.BigEndian.AppendUint64(b, x)
	}
	return binary.BigEndian.AppendUint32(b, castagnoli(b))
}

func decodeBounds(b []byte) (bounds, error) {
	var w bounds
	if len(b) > 0 && b[0] != boundsVersion {
		return w, fmt.Errorf("bounds: format version %d, this program reads version %d", b[0], boundsVersion)
	}
	if len(b) != boundsSize {
		return w, fmt.Errorf("bounds: %d bytes, want %d", len(b), boundsSize)
	}
	if n := boundsSize - 4; castagnoli(b[:n]) != binary.BigEndian.Uint32(b[n:]) {
		return w, errors.New("bounds: checksum")
	}
	for i, x := range []*uint64{&w.first, &w.last, &w.commit, &w.sweepFrom, &w.sweepTo} {
		*x = binary.BigEndian.Uint64(b[1+8*i:])
	}
	empty := w.last == 0
	if empty != (w.first == 0) || w.first > w.last || w.commit > w.last || w.sweepFrom > w.sweepTo || (!empty && w.sweepTo >= w.first) {
		return w, fmt.Errorf("bounds: %d to %d, commit %d, sweep %d to %d", w.first, w.last, w.commit, w.sweepFrom, w.sweepTo)
	}
	return w, nil
}
