package layout

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Canonical returns the one byte string of l. It is injective on all layouts, valid or not; Parse accepts the valid.
func (l Layout) Canonical() []byte {
	b := []byte{Version}
	b = appendString(b, l.Factor)
	b = appendTensors(b, l.Trained)
	b = appendTensors(b, l.Frozen)
	b = binary.BigEndian.AppendUint64(b, uint64(l.Rank))
	b = binary.BigEndian.AppendUint64(b, math.Float64bits(l.Alpha))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Tail)))
	for _, m := range l.Tail {
		b = appendString(b, m.Name)
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(m.Max))
	}
	return b
}

// Parse reads what Canonical wrote and returns a valid layout.
func Parse(data []byte) (Layout, error) {
	if len(data) > CanonicalMax {
		return Layout{}, fmt.Errorf("layout has %d bytes, limit %d", len(data), CanonicalMax)
	}
	d := decoder{rest: data}
	var l Layout
	d.version("layout")
	l.Factor = d.string("factor", NameMax)
	l.Trained = d.tensors("trained tensors")
	l.Frozen = d.tensors("frozen tensors")
	l.Rank = d.int("rank", RankMax)
	l.Alpha = math.Float64frombits(d.uint64("alpha"))
	for range d.count("metrics", TailMax) {
		name := d.string("metric name", MetricNameMax)
		l.Tail = append(l.Tail, Metric{name, math.Float64frombits(d.uint64("metric range"))})
	}
	if err := d.end("layout"); err != nil {
		return Layout{}, err
	}
	if err := l.Validate(); err != nil {
		return Layout{}, err
	}
	return l, nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

func appendTensors(b []byte, ts []Tensor) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(ts)))
	for _, t := range ts {
		b = appendString(b, t.Name)
		b = binary.BigEndian.AppendUint32(b, uint32(len(t.Shape)))
		for _, d := range t.Shape {
			b = binary.BigEndian.AppendUint64(b, uint64(d))
		}
	}
	return b
}

// decoder reads canonical bytes. The first failure sticks; after it every read returns a zero value, and count returns
// zero, so that a loop over a list ends at once.
type decoder struct {
	rest []byte
	err  error
}

var errShort = errors.New("bytes end early")

func (d *decoder) take(what string, n int) []byte {
	if d.err != nil {
		return nil
	}
	if n > len(d.rest) {
		d.err = fmt.Errorf("%s: %w: %d left of %d", what, errShort, len(d.rest), n)
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) version(what string) {
	if b := d.take(what+" version", 1); b != nil && b[0] != Version {
		d.err = fmt.Errorf("%s has version %d, this program reads version %d", what, b[0], Version)
	}
}

func (d *decoder) uint32(what string) uint32 {
	if b := d.take(what, 4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) uint64(what string) uint64 {
	if b := d.take(what, 8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) int(what string, max int) int {
	v := d.uint64(what)
	if d.err == nil && v > uint64(max) {
		d.err = fmt.Errorf("%s is %d, limit %d", what, v, max)
	}
	if d.err != nil {
		return 0
	}
	return int(v)
}

func (d *decoder) count(what string, max int) int {
	v := d.uint32(what)
	if d.err == nil && uint64(v) > uint64(max) {
		d.err = fmt.Errorf("%s: %d, limit %d", what, v, max)
	}
	if d.err != nil {
		return 0
	}
	return int(v)
}

func (d *decoder) string(what string, max int) string {
	return string(d.take(what, d.count(what+" length", max)))
}

// tensors keeps reading only while there are bytes: a list cannot claim more entries than the input holds.
func (d *decoder) tensors(what string) []Tensor {
	var ts []Tensor
	for n := d.count(what, TensorsMax); n > 0 && d.err == nil; n-- {
		t := Tensor{Name: d.string(what+": name", NameMax)}
		for range d.count(what+": dimensions", DimsMax) {
			t.Shape = append(t.Shape, d.int(what+": dimension", FrozenMax))
		}
		ts = append(ts, t)
	}
	return ts
}

func (d *decoder) end(what string) error {
	if d.err != nil {
		return fmt.Errorf("%s: %w", what, d.err)
	}
	if len(d.rest) != 0 {
		return fmt.Errorf("%s has %d trailing bytes", what, len(d.rest))
	}
	return nil
}
