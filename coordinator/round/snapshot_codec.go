package round

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// writer appends fields, big-endian, byte strings behind their length.
type writer struct{ b []byte }

func (w *writer) u8(v byte)         { w.b = append(w.b, v) }
func (w *writer) i64(v int64)       { w.u64(uint64(v)) }
func (w *writer) hash(v label.Hash) { w.b = append(w.b, v[:]...) }

func (w *writer) u32(v uint32) {
	w.b = append(w.b, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

func (w *writer) u64(v uint64) {
	w.u32(uint32(v >> 32))
	w.u32(uint32(v))
}

func (w *writer) flag(v bool) {
	if v {
		w.u8(1)
	} else {
		w.u8(0)
	}
}

func (w *writer) bytes(v []byte) {
	w.u32(uint32(len(v)))
	w.b = append(w.b, v...)
}

func (w *writer) signed(s statement.Signed) {
	w.bytes(s.Body)
	w.bytes(s.Signature)
}

func (w *writer) optional(ok bool, get func() statement.Signed) {
	w.flag(ok)
	if ok {
		w.signed(get())
	}
}

func (w *writer) hashMap(in map[label.Hash]label.Hash) {
	w.u32(uint32(len(in)))
	for _, k := range sortedHashes(in) {
		w.hash(k)
		w.hash(in[k])
	}
}

// compareHashes orders hashes as byte strings.
func compareHashes(a, b label.Hash) int { return cmp.Compare(string(a[:]), string(b[:])) }

// reader reads what writer wrote. The first error stays.
type reader struct {
	b   []byte
	err error
}

func (d *reader) take(n int) []byte {
	if d.err == nil && n > len(d.b) {
		d.err = fmt.Errorf("ends %d bytes early", n-len(d.b))
	}
	if d.err != nil {
		d.b = nil
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *reader) u8() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *reader) flag() bool {
	v := d.u8()
	if v > 1 && d.err == nil {
		d.err = fmt.Errorf("has flag %d", v)
	}
	return v == 1 && d.err == nil
}

func (d *reader) u32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *reader) u64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *reader) time() int64 {
	v := d.u64()
	if v > statement.TimeMax && d.err == nil {
		d.err = fmt.Errorf("has time %d, limit %d", v, int64(statement.TimeMax))
	}
	if d.err != nil {
		return 0
	}
	return int64(v)
}

func (d *reader) hash() (h label.Hash) {
	copy(h[:], d.take(len(h)))
	return h
}

// count reads the length of a list whose items take at least size bytes each.
func (d *reader) count(limit, size int) int {
	n := d.u32()
	if d.err == nil && (uint64(n) > uint64(limit) || uint64(n)*uint64(size) > uint64(len(d.b))) {
		d.err = fmt.Errorf("has a list of %d items, limit %d", n, limit)
	}
	if d.err != nil {
		return 0
	}
	return int(n)
}

func (d *reader) bytes(limit int) []byte { return append([]byte(nil), d.take(d.count(limit, 1))...) }

func (d *reader) signed() statement.Signed {
	return statement.Signed{Body: d.bytes(statement.BodyBytesMax), Signature: d.bytes(statement.SignatureMax)}
}

func (d *reader) hashMap(limit int) map[label.Hash]label.Hash {
	n := d.count(limit, 2*label.Size)
	out := make(map[label.Hash]label.Hash, n)
	var last label.Hash
	for i := range n {
		k := d.hash()
		if i > 0 && compareHashes(last, k) >= 0 && d.err == nil {
			d.err = errors.New("has a map out of order")
		}
		last = k
		out[k] = d.hash()
	}
	return out
}

// or prefers the reader's own error: what follows it are consequences.
func (d *reader) or(err error) error {
	if d.err != nil {
		return d.err
	}
	return err
}

func (d *reader) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.err = fmt.Errorf("has %d bytes after its end", len(d.b))
	}
	return d.err
}
