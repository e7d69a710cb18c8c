package coordinator

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/coordinator/charter"
)

func initHome(t *testing.T, name string) *Home {
	t.Helper()
	h, err := InitHome(filepath.Join(t.TempDir(), name), HomeOptions{Name: name, DeviceURL: "https://127.0.0.1:7420", MeshAddr: "127.0.0.1:7421"}, rand.Reader)
	must(t, err)
	return h
}

func wantError(t *testing.T, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("got %v, want something about %q", err, part)
	}
}

// TestHome: keys are drawn once and never overwritten.
func TestHome(t *testing.T) {
	h := initHome(t, "alpha")
	back, err := OpenHome(h.Dir, rand.Reader)
	must(t, err)
	if string(back.Identity.Public()) != string(h.Identity.Public()) || back.Card.StoreID != h.Card.StoreID {
		t.Error("another member came back")
	}
	for _, name := range []string{"identity.key", "authority.key", "tls.key", "storage.key"} {
		info, err := os.Stat(filepath.Join(h.Dir, "keys", name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	_, err = InitHome(h.Dir, HomeOptions{Name: "alpha"}, rand.Reader)
	wantError(t, err, "already holds a member")
	must(t, os.Remove(filepath.Join(h.Dir, cardFile)))
	_, err = InitHome(h.Dir, HomeOptions{Name: "alpha", DeviceURL: "https://127.0.0.1:7420", MeshAddr: "127.0.0.1:7421"}, rand.Reader)
	wantError(t, err, "never overwritten")
	_, err = OpenHome(h.Dir, rand.Reader)
	wantError(t, err, "init")
}

// TestWrongKeys: a folder whose parts do not belong together is refused, whichever part it is.
func TestWrongKeys(t *testing.T) {
	for name, part := range map[string]string{"identity.key": "card's keys", "authority.key": "card's keys", "tls.key": "card's keys"} {
		h, other := initHome(t, "alpha"), initHome(t, "beta")
		raw, err := os.ReadFile(filepath.Join(other.Dir, "keys", name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(h.Dir, "keys", name), raw, 0o600))
		_, err = OpenHome(h.Dir, rand.Reader)
		wantError(t, err, part)
		must(t, os.WriteFile(filepath.Join(h.Dir, "keys", name), raw[:5], 0o600))
		if _, err = OpenHome(h.Dir, rand.Reader); err == nil {
			t.Errorf("%s of 5 bytes", name)
		}
		must(t, os.Remove(filepath.Join(h.Dir, "keys", name)))
		if _, err = OpenHome(h.Dir, rand.Reader); err == nil {
			t.Errorf("no %s", name)
		}
	}
}

// TestKeysThatOthersMayRead: no member opens with a key that another user of the machine can read.
func TestKeysThatOthersMayRead(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes are those of Unix")
	}
	h := initHome(t, "alpha")
	for _, name := range []string{"identity.key", "authority.key", "tls.key", "storage.key"} {
		path := filepath.Join(h.Dir, "keys", name)
		must(t, os.Chmod(path, 0o640))
		_, err := OpenHome(h.Dir, rand.Reader)
		wantError(t, err, name+": mode 0640 lets others read it")
		must(t, os.Chmod(path, 0o600))
	}
	_, err := OpenHome(h.Dir, rand.Reader)
	must(t, err)
}

// TestCharterOfThisHome: the charter must list this member, with the card that it has.
func TestCharterOfThisHome(t *testing.T) {
	h := initHome(t, "alpha")
	_, _, err := h.Charter()
	wantError(t, err, "no charter")
	of := newHomes(t, 1, 0, 0)[0]
	raw, err := os.ReadFile(filepath.Join(of.Dir, charterFile))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(h.Dir, charterFile), raw, 0o600))
	_, _, err = h.Charter()
	wantError(t, err, "does not list")
	_, me, err := of.Charter()
	if err != nil || me != 0 {
		t.Error(me, err)
	}
	// The same identity with another card: the one in the charter is the one that the others know.
	card := of.Card
	card.StoreID = h.Card.StoreID
	signed, err := charter.SignCard(card, of.Identity)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(of.Dir, cardFile), signed, 0o644))
	again, err := OpenHome(of.Dir, rand.Reader)
	must(t, err)
	_, _, err = again.Charter()
	wantError(t, err, "another card")
}
