package durable

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/ruche-federation/ruche/crypto/label"
)

// The stored form of a Records file, all integers big-endian, every part a multiple of 8 bytes so that no frame header
// lies across a sector border:
//
//	header  magic[8] version[2] tagLen[2] tag[32] crc32c[4]                       48 bytes
//	frame   length[4] crc32c(previous head, length)[4] record, zeros to 8, head[32]
//
// head = H_tag(previous head, record); the first previous head is H_tag(header). The CRC belongs to the length alone,
// since the head already covers the record: a flipped length must not look like a record that was cut short.
const (
	magic         = "ruchrecs"
	formatVersion = 1
	headerSize    = 48
	frameHeader   = 8
	headSize      = 32
)

// CorruptError is damage that is not a torn last record: acknowledged records may be lost or altered. Of a checked file it
// is any damage.
type CorruptError struct {
	Path   string
	Offset int64
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("file %s: damaged at offset %d: %s", e.Path, e.Offset, e.Reason)
}

// VersionError is a file of another format version: written by a later release, and not touched.
type VersionError struct {
	Path      string
	Got, Want uint16
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("records %s: format version %d, this program reads version %d", e.Path, e.Got, e.Want)
}

func castagnoli(p []byte) uint32 { return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) }

func encodeHeader(tag string) []byte {
	b := make([]byte, headerSize)
	copy(b, magic)
	binary.BigEndian.PutUint16(b[8:], formatVersion)
	binary.BigEndian.PutUint16(b[10:], uint16(len(tag)))
	copy(b[12:12+maxTag], tag)
	binary.BigEndian.PutUint32(b[44:], castagnoli(b[:44]))
	return b
}

func frameSize(length int) int { return frameHeader + (length+7)/8*8 + headSize }

func lengthCRC(prev label.Hash, length []byte) uint32 {
	return castagnoli(append(append(make([]byte, 0, headSize+4), prev[:]...), length...))
}

// encodeFrame gives the frame of a record and the head after it.
func encodeFrame(tag string, prev label.Hash, rec []byte) ([]byte, label.Hash) {
	head := label.Sum(tag, prev[:], rec)
	b := make([]byte, frameSize(len(rec)))
	binary.BigEndian.PutUint32(b, uint32(len(rec)))
	binary.BigEndian.PutUint32(b[4:], lengthCRC(prev, b[:4]))
	copy(b[frameHeader:], rec)
	copy(b[len(b)-headSize:], head[:])
	return b, head
}

// scan is what a Records file holds.
type scan struct {
	tag     string
	records [][]byte // parts of the scanned bytes
	head    label.Hash
	end     int // where the next frame goes
	last    int // where the last frame begins; end when there is none
	torn    int // bytes behind end: a last record that was never acknowledged
}

// parse reads a Records file from its bytes. It fails with *CorruptError or *VersionError, whose paths the caller sets.
func parse(b []byte, maxRecord int) (scan, error) {
	var s scan
	if len(b) < headerSize || string(b[:8]) != magic {
		return s, &CorruptError{Offset: 0, Reason: "no header of a records file"}
	}
	if v := binary.BigEndian.Uint16(b[8:]); v != formatVersion {
		return s, &VersionError{Got: v, Want: formatVersion}
	}
	n := int(binary.BigEndian.Uint16(b[10:]))
	if castagnoli(b[:44]) != binary.BigEndian.Uint32(b[44:]) || n == 0 || n > maxTag || !allZero(b[12+n:12+maxTag]) {
		return s, &CorruptError{Offset: 0, Reason: "header checksum"}
	}
	s.tag = string(b[12 : 12+n])
	s.head = label.Sum(s.tag, b[:headerSize])
	s.end, s.last = headerSize, headerSize
	for s.end < len(b) {
		rest := b[s.end:]
		rec, head, missing, err := parseFrame(s.tag, s.head, rest, s.end, maxRecord)
		if err != nil {
			return s, err
		}
		if missing {
			s.torn = len(rest)
			return s, nil
		}
		s.records = append(s.records, rec)
		s.head, s.last = head, s.end
		s.end += frameSize(len(rec))
	}
	return s, nil
}

// parseFrame reads the frame at the start of rest, which lies at offset off of the file. missing says that a part of
// it never reached the disk, which can be true of the last frame only: it is cut short, or it ends with the file and
// one of its sectors reads as zeros. A flipped bit gives neither, so an acknowledged record is never dropped for one.
func parseFrame(tag string, prev label.Hash, rest []byte, off, maxRecord int) (rec []byte, head label.Hash, missing bool, err error) {
	if len(rest) < frameHeader {
		return nil, head, true, nil
	}
	if lengthCRC(prev, rest[:4]) != binary.BigEndian.Uint32(rest[4:]) {
		if len(rest) <= frameSize(MaxRecord) && allZero(rest[:min(len(rest), sector-off%sector)]) {
			return nil, head, true, nil
		}
		return nil, head, false, &CorruptError{Offset: int64(off), Reason: "length checksum"}
	}
	n := binary.BigEndian.Uint32(rest)
	if n == 0 || n > uint32(maxRecord) {
		return nil, head, false, &CorruptError{Offset: int64(off), Reason: fmt.Sprintf("record of %d bytes, limit %d", n, maxRecord)}
	}
	size := frameSize(int(n))
	if len(rest) < size {
		return nil, head, true, nil
	}
	rec = rest[frameHeader : frameHeader+n : frameHeader+n]
	head = label.Sum(tag, prev[:], rec)
	if bytes.Equal(head[:], rest[size-headSize:size]) && allZero(rest[frameHeader+n:size-headSize]) {
		return rec, head, false, nil
	}
	if len(rest) == size && hasMissingSector(rest, off) {
		return nil, head, true, nil
	}
	return nil, head, false, &CorruptError{Offset: int64(off), Reason: "record does not match its hash"}
}

// hasMissingSector tells whether some sector's part of the frame is all zeros.
func hasMissingSector(frame []byte, off int) bool {
	for len(frame) > 0 {
		n := min(len(frame), sector-off%sector)
		if allZero(frame[:n]) {
			return true
		}
		frame, off = frame[n:], off+n
	}
	return false
}

func allZero(p []byte) bool {
	for _, x := range p {
		if x != 0 {
			return false
		}
	}
	return true
}
