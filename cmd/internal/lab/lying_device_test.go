package lab

import (
	"slices"
	"testing"

	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// TestLyingDevice: one device of six sends what no honest one does, to one member after another. What can be seen before
// an Accept is refused, what only the owner of a box can see its Ack excludes, with the reason; the sum is that of the
// honest five, and of the liar's where it lied about nothing that counts.
func TestLyingDevice(t *testing.T) {
	plain := func(d *Device) (*Contribution, error) { return d.Forge(nil) }
	bent := func(bend func(h *statement.Header)) func(d *Device) (*Contribution, error) {
		return func(d *Device) (*Contribution, error) { return d.forge(bend, nil) }
	}
	for _, c := range []struct {
		name     string
		make     func(d *Device) (*Contribution, error)
		again    func(d *Device, first *Contribution) (*Contribution, error)
		accepted int
		sum      int
		verdict  statement.Verdict // of somebody in the deciding Acks, where it is accepted and not in the sum
	}{
		{name: "a wrong commitment", make: bent(func(h *statement.Header) { h.Commitments[1][3] ^= 1 }), accepted: 5, sum: 5},
		{name: "commitments of other subsets", make: bent(func(h *statement.Header) { slices.Reverse(h.Commitments) }), accepted: 5, sum: 5},
		{name: "a commitment too few", make: bent(func(h *statement.Header) { h.Commitments = h.Commitments[1:] }), accepted: 5, sum: 5},
		{name: "a longer vector", make: bent(func(h *statement.Header) { h.Len++ }), accepted: 5, sum: 5},
		{name: "another vector than it signed", make: bent(func(h *statement.Header) { h.Y[0] ^= 1 }), accepted: 5, sum: 5},
		{name: "a vector with more behind it", make: func(d *Device) (*Contribution, error) {
			c, err := d.Forge(nil)
			if err == nil {
				c.Y = append(c.Y, make([]byte, 4096)...)
			}
			return c, err
		}, accepted: 5, sum: 5},
		{name: "to another round", make: bent(func(h *statement.Header) { h.Round = label.Sum(label.TagRoundConfig, []byte("another")) }), accepted: 5, sum: 5},
		{name: "under another certificate", make: bent(func(h *statement.Header) { h.Cert[0] ^= 1 }), accepted: 5, sum: 5},
		{name: "in another device's name", make: plain, again: func(d *Device, first *Contribution) (*Contribution, error) {
			return d.forge(func(h *statement.Header) { h.Device = d.f.Devices[1].ID }, nil)
		}, accepted: 6, sum: 6},
		{name: "boxes in another order", make: func(d *Device) (*Contribution, error) { return d.Forge(slices.Reverse[[][]byte]) }, accepted: 5, sum: 5},
		{name: "one garbled box", make: func(d *Device) (*Contribution, error) {
			return d.Forge(func(boxes [][]byte) { boxes[2][1190] ^= 1 })
		}, accepted: 6, sum: 5, verdict: statement.BadBox},
		{name: "two contributions", make: plain, again: func(d *Device, _ *Contribution) (*Contribution, error) { return d.Forge(nil) }, accepted: 6, sum: 6},
		{name: "boxes that are another device's", make: func(d *Device) (*Contribution, error) {
			other, err := d.f.Devices[1].Forge(nil)
			if err != nil {
				return nil, err
			}
			d.f.Devices[1].Lies.Store(false) // none of it is sent by that one
			return d.Forge(func(boxes [][]byte) { copy(boxes, other.Open.GetBoxes()) })
		}, accepted: 5, sum: 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := story(t, Options{N: 4, F: 1, Devices: 6, NMax: 7})
			f.Begin()
			until(t, f, round.Open)
			d := f.Devices[0]
			first, err := c.make(d)
			must(t, err)
			for member := range f.Seats {
				_, _ = f.Upload(first, member) // what is refused is told apart below
			}
			if c.again != nil {
				second, err := c.again(d, first)
				must(t, err)
				for member := range f.Seats {
					if _, errs := f.Upload(second, member); errs[0] == nil {
						t.Errorf("member %d takes the second", member)
					}
				}
			}
			must(t, f.Check())
			everybody(t, f, f.Devices[1:]...)
			f.Advance(CloseAfter)
			v := until(t, f, round.Published)
			if v.Accepted != c.accepted || v.Contributors != c.sum {
				t.Errorf("%d accepted, %d in the sum, want %d and %d", v.Accepted, v.Contributors, c.accepted, c.sum)
			}
			if c.sum < c.accepted {
				f.mu.Lock()
				r := f.views[0].trace.rounds[v.ID]
				said := false
				for _, a := range r.decided.acks {
					said = said || a.Verdicts[0] == c.verdict
				}
				f.mu.Unlock()
				if !said {
					t.Errorf("no Ack says %v", c.verdict)
				}
			}
			must(t, f.Finish())
		})
	}
}
