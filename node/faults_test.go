//go:build faults

package node

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ruche-federation/ruche/storage/fault"
)

// TestFaultInInit: init fails at its writes and is called again: the device is there, with the key that was drawn first
// if that had reached the disk.
func TestFaultInInit(t *testing.T) {
	cases := 0
	base := writeModel(t, 1)
	for _, name := range (fault.Points{"device-key", "device"}) {
		for _, moment := range []fault.Moment{fault.Before, fault.After} {
			dir := filepath.Join(t.TempDir(), "device")
			plan := &fault.Plan{At: fault.Passing{Name: name, Moment: moment}}
			remove := fault.Install(dir, plan.Handle)
			_, err := Init(dir, InitOptions{BasePath: base}, rand.Reader)
			remove()
			if !errors.Is(err, fault.ErrInjected) {
				t.Fatalf("%s %s: %v", moment, name, err)
			}
			drawn, none := os.ReadFile(filepath.Join(dir, "keys", "device.key"))
			_, err = Init(dir, InitOptions{BasePath: base}, rand.Reader)
			if whole := name == "device" && moment == fault.After; whole != errors.Is(err, ErrIsDevice) || !whole && err != nil {
				t.Fatalf("%s %s: again: %v", moment, name, err)
			}
			_, err = OpenHome(dir)
			must(t, err)
			if now, err := os.ReadFile(filepath.Join(dir, "keys", "device.key")); err != nil || none == nil && !bytes.Equal(now, drawn) {
				t.Errorf("%s %s: another key was drawn (%v)", moment, name, err)
			}
			cases++
		}
	}
	t.Logf("2 points, %d cases", cases)
}

// TestFaultInJoin: a join fails at its writes. The device has not joined, or has; with the same token it joins.
func TestFaultInJoin(t *testing.T) {
	cases := 0
	base := writeModel(t, 1)
	c := newConsortium(t, someBase(), someModules, nil)
	for _, name := range (fault.Points{"charter", "certificate"}) {
		for _, moment := range []fault.Moment{fault.Before, fault.After} {
			dir, h := device(t, base, nil)
			plan := &fault.Plan{At: fault.Passing{Name: name, Moment: moment}}
			remove := fault.Install(dir, plan.Handle)
			_, err := join(t, c, dir, "org-1", c.tokenText())
			remove()
			if !errors.Is(err, fault.ErrInjected) {
				t.Fatalf("%s %s: %v", moment, name, err)
			}
			whole := name == "certificate" && moment == fault.After
			if _, _, err := h.Charter(); whole != (err == nil) || !whole && !errors.Is(err, ErrNotJoined) {
				t.Fatalf("%s %s: the device has joined: %v", moment, name, err)
			}
			j, err := join(t, c, dir, "org-1", c.tokenText())
			must(t, err)
			if _, _, err := h.Charter(); err != nil || j.Already != whole {
				t.Errorf("%s %s: joined as %+v (%v)", moment, name, j, err)
			}
			cases++
		}
	}
	t.Logf("2 points, %d cases", cases)
}
