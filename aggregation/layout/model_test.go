package layout

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/crypto/label"
)

func TestModelKeepsEveryBit(t *testing.T) {
	l := plainVector(t)
	m := smallModel(l)
	data := m.Canonical()
	back, err := ParseModel(data, l.D())
	if err != nil {
		t.Fatal(err)
	}
	if back.TaskID != m.TaskID || back.LayoutHash != m.LayoutHash || back.Seq != m.Seq || len(back.Values) != len(m.Values) {
		t.Fatalf("got %+v, want %+v", back, m)
	}
	for i, v := range m.Values {
		if math.Float32bits(back.Values[i]) != math.Float32bits(v) {
			t.Errorf("value %d is %v, want %v", i, back.Values[i], v)
		}
	}
	if back.Hash() != m.Hash() {
		t.Error("hash changed")
	}
	if err := l.Check(back); err != nil {
		t.Error(err)
	}
	if len(data) > CanonicalSizeMax(l.D()) {
		t.Errorf("%d bytes, above the stated most %d", len(data), CanonicalSizeMax(l.D()))
	}
}

func TestModelRefusals(t *testing.T) {
	l := plainVector(t)
	for _, c := range []struct {
		name  string
		spoil func(*Model)
		want  string
	}{
		{"NaN", func(m *Model) { m.Values[2] = float32(math.NaN()) }, "value 2 is NaN"},
		{"infinity", func(m *Model) { m.Values[9] = float32(math.Inf(-1)) }, "value 9 is -Inf"},
		{"no values", func(m *Model) { m.Values = nil }, "0 values"},
		{"no task", func(m *Model) { m.TaskID = "" }, "task name has 0 bytes"},
		{"long task", func(m *Model) { m.TaskID = strings.Repeat("t", TaskIDMax+1) }, "limit"},
		{"more values than asked for", func(m *Model) { m.Values = append(m.Values, 1) }, "limit 10"},
	} {
		m := smallModel(l)
		c.spoil(&m)
		if _, err := ParseModel(m.Canonical(), l.D()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
	if _, err := ParseModel(smallModel(l).Canonical(), -1); err == nil {
		t.Error("a negative limit admitted values")
	}

	other := smallModel(l)
	other.LayoutHash = label.Hash{1}
	if err := l.Check(other); err == nil || !strings.Contains(err.Error(), "in layout") {
		t.Errorf("model in another layout: %v", err)
	}
	short := smallModel(l)
	short.Values = short.Values[1:]
	if err := l.Check(short); err == nil || !strings.Contains(err.Error(), "9 values, layout has 10") {
		t.Errorf("short model: %v", err)
	}
}

func FuzzParseModel(f *testing.F) {
	f.Add(smallModel(plainVector(f)).Canonical())
	f.Add([]byte{Version, 0, 0, 0, 1, 't'})
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseModel(data, 1<<16)
		if err != nil {
			return
		}
		if !bytes.Equal(m.Canonical(), data) {
			t.Fatal("two byte strings for one model")
		}
	})
}
