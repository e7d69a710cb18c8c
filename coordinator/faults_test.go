//go:build faults

package coordinator

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/storage/fault"
)

// TestFaultInInit: init fails at any of its writes. Either the member is there, or init refuses keys that have no card,
// or it starts anew: it never replaces a card, nor the identity that a card may have been made of.
func TestFaultInInit(t *testing.T) {
	cases := 0
	for _, at := range []struct {
		fault.Passing
		nth int
	}{{fault.Passing{Name: "member-key"}, 1}, {fault.Passing{Name: "member-key"}, 2}, {fault.Passing{Name: "member-key"}, 3}, {fault.Passing{Name: "store"}, 1}, {fault.Passing{Name: "card"}, 1}} {
		for _, moment := range []fault.Moment{fault.Before, fault.After} {
			dir := filepath.Join(t.TempDir(), "alpha")
			opts := HomeOptions{Name: "alpha", DeviceURL: "https://127.0.0.1:7420", MeshAddr: "127.0.0.1:7421"}
			plan := &fault.Plan{At: fault.Passing{Name: at.Name, Moment: moment}, Nth: at.nth}
			remove := fault.Install(dir, plan.Handle)
			_, err := InitHome(dir, opts, rand.Reader)
			remove()
			if !errors.Is(err, fault.ErrInjected) {
				t.Fatalf("%s %s %d: %v", moment, at.Name, at.nth, err)
			}
			identity, none := os.ReadFile(filepath.Join(dir, "keys", "identity.key"))
			h, err := OpenHome(dir, rand.Reader)
			whole := at.Name == "card" && moment == fault.After
			if whole != (err == nil) {
				t.Fatalf("%s %s %d: the folder opens: %v", moment, at.Name, at.nth, err)
			}
			again, err := InitHome(dir, opts, rand.Reader)
			switch {
			case whole:
				wantError(t, err, "already holds a member")
				if string(h.Card.Identity) != string(h.Identity.Public()) {
					t.Error("the card is of other keys")
				}
			case none == nil:
				wantError(t, err, "never overwritten")
				if now, err := os.ReadFile(filepath.Join(dir, "keys", "identity.key")); err != nil || string(now) != string(identity) {
					t.Errorf("%s %s %d: the identity was replaced (%v)", moment, at.Name, at.nth, err)
				}
			default:
				must(t, err)
				if string(again.Card.Identity) != string(again.Identity.Public()) {
					t.Error("the card is of other keys")
				}
			}
			cases++
		}
	}
	t.Logf("3 points, %d cases", cases)
}

// TestFaultInANoteThatIsThere: what a member signed stands in its note, by an earlier try that may have ended before the
// note's name was on the disk. Nothing is signed again until it is.
func TestFaultInANoteThatIsThere(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	plan := &fault.Plan{At: fault.Passing{Name: "config", Moment: fault.Before}}
	defer fault.Install(r.home.Dir, plan.Handle)()
	if cmd, err := r.m.signRound(v); !errors.Is(err, fault.ErrInjected) || cmd != nil {
		t.Errorf("signed on a note that is not known to be durable: %v", err)
	}
	cmd, err := r.m.signRound(v)
	must(t, err)
	if cmd == nil || plan.Count(plan.At) != 2 {
		t.Errorf("signed %v after the folder was synced %d times", cmd != nil, plan.Count(plan.At))
	}
	t.Log("1 cases") // the point is cmd/internal/lab's
}

// TestFaultInNewToken: a token that was not written was not told to anybody; one that was written and not told enrols
// nobody, for nobody knows it.
func TestFaultInNewToken(t *testing.T) {
	for _, moment := range []fault.Moment{fault.Before, fault.After} {
		h := initHome(t, "alpha")
		plan := &fault.Plan{At: fault.Passing{Name: "token", Moment: moment}}
		remove := fault.Install(h.Dir, plan.Handle)
		if token, err := NewToken(h.Dir, rand.Reader); !errors.Is(err, fault.ErrInjected) || token != "" {
			t.Fatalf("%s: %q, %v", moment, token, err)
		}
		token, err := NewToken(h.Dir, rand.Reader)
		remove()
		must(t, err)
		_, err = ParseToken(token)
		must(t, err)
		entries, err := os.ReadDir(filepath.Join(h.Dir, "tokens"))
		must(t, err)
		if want := map[fault.Moment]int{fault.Before: 1, fault.After: 2}[moment]; len(entries) != want {
			t.Errorf("%s: %d tokens are there, want %d", moment, len(entries), want)
		}
	}
	t.Log("1 points, 2 cases")
}

// TestFaultInFounding: the first start fails while it takes the fresh mark away. Raft has said nothing by then, so the next
// start founds the same log, or goes on with it; a third one never founds.
func TestFaultInFounding(t *testing.T) {
	for _, moment := range []fault.Moment{fault.Before, fault.After} {
		dir := filepath.Join(t.TempDir(), "alpha")
		h, err := InitHome(dir, HomeOptions{Name: "alpha", DeviceURL: "https://127.0.0.1:7420", MeshAddr: "127.0.0.1:7421"}, rand.Reader)
		must(t, err)
		_, found, err := openStore(h, false, 4, rand.Reader)
		must(t, err)
		plan := &fault.Plan{At: fault.Passing{Name: "store", Moment: moment}, Nth: 1}
		remove := fault.Install(dir, plan.Handle)
		err = found()
		remove()
		if !errors.Is(err, fault.ErrInjected) {
			t.Fatalf("%s: %v", moment, err)
		}
		// The configuration is in the log by then.
		id, again, err := openStore(h, true, 4, rand.Reader)
		if err != nil || id != h.Card.StoreID || (again != nil) != (moment == fault.Before) {
			t.Fatalf("%s: store %s, founds %v, %v", moment, id, again != nil, err)
		}
		if again != nil {
			must(t, again())
		}
		if id, again, err = openStore(h, true, 4, rand.Reader); err != nil || id != h.Card.StoreID || again != nil {
			t.Fatalf("%s: store %s, founds %v, %v", moment, id, again != nil, err)
		}
	}
	t.Log("2 cases") // the point is counted in init
}

// TestFaultInANewStore: a member whose log is gone, with all that lay beside it or without, fails while it writes the id of its
// new store. It has said nothing under that id. The next start draws another one and founds nothing, and the id stays
// from when the log holds an entry.
func TestFaultInANewStore(t *testing.T) {
	for _, moment := range []fault.Moment{fault.Before, fault.After} {
		for _, left := range []bool{false, true} { // what says which store it was
			h := initHome(t, "alpha")
			_, found, err := openStore(h, false, 4, rand.Reader)
			must(t, err)
			must(t, found())
			if !left {
				must(t, os.RemoveAll(filepath.Join(h.Dir, raftDir)))
			}
			plan := &fault.Plan{At: fault.Passing{Name: "store", Moment: moment}}
			remove := fault.Install(h.Dir, plan.Handle)
			failed, found, err := openStore(h, false, 4, rand.Reader)
			remove()
			if !errors.Is(err, fault.ErrInjected) || found != nil {
				t.Fatalf("%s, left %v: founds %v, %v", moment, left, found != nil, err)
			}
			r, err := readStore(h.Dir)
			switch {
			case moment == fault.After && (err != nil || r.Store != failed || r.Fresh),
				moment == fault.Before && left && (err != nil || r.Store != h.Card.StoreID || r.Fresh),
				moment == fault.Before && !left && !errors.Is(err, fs.ErrNotExist):
				t.Fatalf("%s, left %v: on the disk is %+v, %v", moment, left, r, err)
			}
			id, found, err := openStore(h, false, 4, rand.Reader)
			if err != nil || id == failed || id == h.Card.StoreID || found != nil {
				t.Fatalf("%s, left %v: store %s after %s, founds %v, %v", moment, left, id, failed, found != nil, err)
			}
			if again, found, err := openStore(h, true, 4, rand.Reader); err != nil || again != id || found != nil {
				t.Fatalf("%s, left %v: store %s is %s, founds %v, %v", moment, left, id, again, found != nil, err)
			}
		}
	}
	t.Log("4 cases") // the point is counted in init
}
