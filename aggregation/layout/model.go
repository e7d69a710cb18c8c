package layout

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/ruche-federation/ruche/crypto/label"
)

// Model is a published result: the state that devices load and that the next round starts from. Its canonical bytes are
// the state, not a rendering of it: members sign their hash, and every later computation begins from these values
// (learning.md 3.3).
type Model struct {
	TaskID     string
	LayoutHash label.Hash
	Seq        uint64    // the round that made it; 0 is the public start
	Values     []float32 // the trained vector, in layout order; finite
}

// Validate says whether m is a model: a task, at least one value, every value finite.
func (m Model) Validate() error {
	if err := validName("task", m.TaskID, TaskIDMax); err != nil {
		return err
	}
	if len(m.Values) == 0 || len(m.Values) > ValuesMax {
		return fmt.Errorf("model has %d values, limits 1 and %d", len(m.Values), ValuesMax)
	}
	for i, v := range m.Values {
		if !finite(v) {
			return fmt.Errorf("model value %d is %v", i, v)
		}
	}
	return nil
}

// Canonical returns the one byte string of m: version, task id, layout hash, seq, count, values little-endian.
func (m Model) Canonical() []byte {
	b := make([]byte, 0, 1+4+len(m.TaskID)+label.Size+8+4+4*len(m.Values))
	b = append(b, Version)
	b = appendString(b, m.TaskID)
	b = append(b, m.LayoutHash[:]...)
	b = binary.BigEndian.AppendUint64(b, m.Seq)
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.Values)))
	for _, v := range m.Values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

// CanonicalSizeMax is the most bytes that the canonical form of a model with d values has.
func CanonicalSizeMax(d int) int { return 1 + 4 + TaskIDMax + label.Size + 8 + 4 + 4*d }

// ParseModel reads what Canonical wrote, with at most maxValues values.
func ParseModel(data []byte, maxValues int) (Model, error) {
	d := decoder{rest: data}
	var m Model
	d.version("model")
	m.TaskID = d.string("task", TaskIDMax)
	copy(m.LayoutHash[:], d.take("layout hash", label.Size))
	m.Seq = d.uint64("seq")
	n := d.count("values", max(0, min(maxValues, ValuesMax)))
	// Taken before anything is allocated for it: a claimed count costs an attacker the bytes.
	raw := d.take("values", 4*n)
	if err := d.end("model"); err != nil {
		return Model{}, err
	}
	m.Values = make([]float32, n)
	for i := range m.Values {
		m.Values[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	if err := m.Validate(); err != nil {
		return Model{}, err
	}
	return m, nil
}

// Hash is the model's name everywhere: label.Sum(TagModel, Canonical()).
func (m Model) Hash() label.Hash { return label.Sum(label.TagModel, m.Canonical()) }

// finite: an all-ones exponent is NaN or an infinity.
func finite(v float32) bool { return math.Float32bits(v)&0x7f800000 != 0x7f800000 }
