package statement

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/ruche-federation/ruche/crypto/label"
)

// Type bytes: the first byte of every encoding, so that no encoding of one type parses as another.
const (
	typeKeyPackage byte = 1 + iota
	typeRoundConfig
	typeDeviceCert
	typeHeader
	typeHeaderAAD
	typeAccept
	typeReceipt
	typeClose
	typeAck
	typeVote
	typeExpired
	typeReveal
	typeResult
	typeAbort
	typeErasure
	typeSigned
	typeRejoin
)

// encoder appends fields. It cannot fail: bounds are the decoder's, and an encoding out of bounds parses nowhere.
type encoder struct{ b []byte }

func encodeHead(typ, version byte) *encoder { return &encoder{b: []byte{typ, version}} }

func (e *encoder) u8(v byte)         { e.b = append(e.b, v) }
func (e *encoder) u32(v uint32)      { e.b = binary.BigEndian.AppendUint32(e.b, v) }
func (e *encoder) u64(v uint64)      { e.b = binary.BigEndian.AppendUint64(e.b, v) }
func (e *encoder) i64(v int64)       { e.u64(uint64(v)) }
func (e *encoder) f64(v float64)     { e.u64(math.Float64bits(v)) }
func (e *encoder) hash(v label.Hash) { e.b = append(e.b, v[:]...) }
func (e *encoder) fixed(v []byte)    { e.b = append(e.b, v...) }
func (e *encoder) bytes(v []byte)    { e.u32(uint32(len(v))); e.b = append(e.b, v...) }
func (e *encoder) string(v string)   { e.u32(uint32(len(v))); e.b = append(e.b, v...) }
func (e *encoder) hashes(v []label.Hash) {
	e.u32(uint32(len(v)))
	for i := range v {
		e.hash(v[i])
	}
}

// decoder reads fields. The first error stays; later reads give zero values.
type decoder struct {
	what string
	b    []byte
	err  error
}

func decode(what string, b []byte, typ, version byte) *decoder {
	d := &decoder{what: what, b: b}
	if len(b) > BodyBytesMax {
		d.fail("has %d bytes, limit %d", len(b), BodyBytesMax)
		return d
	}
	if t := d.u8(); d.err == nil && t != typ {
		d.fail("has type byte %d, want %d", t, typ)
	}
	if v := d.u8(); d.err == nil && v != version {
		d.fail("has version %d, this program reads %d", v, version)
	}
	return d
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(d.what+" "+format, args...)
	}
	d.b = nil
}

// take returns the next n bytes without copying them.
func (d *decoder) take(n int) []byte {
	if d.err == nil && n > len(d.b) {
		d.fail("ends %d bytes early", n-len(d.b))
	}
	if d.err != nil {
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) u8() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// time reads milliseconds since the Unix epoch, refusing what no clock shows, so that sums of times cannot overflow.
func (d *decoder) time(field string) int64 {
	v := d.u64()
	if v > TimeMax {
		d.fail("has %s %d, limit %d", field, v, int64(TimeMax))
		return 0
	}
	return int64(v)
}

func (d *decoder) f64() float64 { return math.Float64frombits(d.u64()) }

func (d *decoder) hash() (h label.Hash) {
	copy(h[:], d.take(label.Size))
	return h
}

// fixed returns a copy of the next n bytes.
func (d *decoder) fixed(n int) []byte { return append([]byte(nil), d.take(n)...) }

func (d *decoder) length(field string, limit int) int {
	n := d.u32()
	if n > uint32(limit) {
		d.fail("has %s of length %d, limit %d", field, n, limit)
		return 0
	}
	return int(n)
}

// bytes returns a copy of a byte string; nil when it is empty.
func (d *decoder) bytes(field string, limit int) []byte {
	return append([]byte(nil), d.take(d.length(field, limit))...)
}

func (d *decoder) string(field string, limit int) string {
	return string(d.take(d.length(field, limit)))
}

func (d *decoder) hashes(field string, limit int) []label.Hash {
	n := d.length(field, limit)
	if n*label.Size > len(d.b) {
		d.fail("has %s of length %d, beyond its end", field, n)
		return nil
	}
	var out []label.Hash
	for range n {
		out = append(out, d.hash())
	}
	return out
}

// member reads a member's index.
func (d *decoder) member() int {
	v := d.u32()
	if v >= MembersMax {
		d.fail("has member %d, limit %d", v, MembersMax-1)
		return 0
	}
	return int(v)
}

// mask reads a set of members.
func (d *decoder) mask(field string) Mask {
	v := d.u32()
	if v >= 1<<MembersMax {
		d.fail("has %s %#x, limit %#x", field, v, 1<<MembersMax-1)
		return 0
	}
	return Mask(v)
}

// end refuses trailing bytes and returns the first error.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail("has %d bytes after its end", len(d.b))
	}
	return d.err
}
