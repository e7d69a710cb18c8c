package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ruche-federation/ruche/coordinator/round"
)

// TestRotBeforeTheAck: a byte of a contribution changes on disks while its round is open. As long as one copy is whole,
// those that rotted are found before an Ack calls them ok, and pulled again; where none is, the Acks say so, and the
// round goes on without that device.
func TestRotBeforeTheAck(t *testing.T) {
	for rotten := 1; rotten <= 4; rotten++ {
		t.Run(fmt.Sprintf("%d of 4 copies", rotten), func(t *testing.T) {
			t.Parallel()
			f := story(t, Options{N: 4, F: 1, Devices: 4, NMax: 5})
			f.Begin()
			until(t, f, round.Open)
			everybody(t, f, f.Devices...)
			for range 5 { // whoever was left out of the upload pulls nothing before the Close
				must(t, f.Step())
			}
			v, _ := f.Round()
			f.mu.Lock()
			f.receipts = nil // members' word is broken by the test
			for key, header := range f.uploads {
				if key.device != f.Devices[0].ID {
					continue
				}
				for _, s := range f.Seats[:rotten] {
					if y, ok := f.holds(s, v.ID, header); ok {
						rot(t, filepath.Join(s.Dir, "blobs", "y", v.ID.String(), y.String()))
					}
				}
			}
			f.mu.Unlock()
			f.Advance(CloseAfter)
			want := 4
			if rotten == 4 {
				want = 3
			}
			if v := until(t, f, round.Published); v.Contributors != want {
				t.Errorf("%d contributors, want %d", v.Contributors, want)
			}
			must(t, f.Finish())
		})
	}
}

// rot flips a bit of a file.
func rot(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	b[len(b)/2] ^= 4
	must(t, os.WriteFile(path, b, 0o600))
}
