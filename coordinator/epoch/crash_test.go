package epoch

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
)

var errInjected = errors.New("injected")

// breaker fails one durable step, the at-th, either before it has happened or after. What failed once stays broken, as
// it does for a process that is about to be killed.
type breaker struct {
	at    int
	after bool
	calls int
	dead  bool
	opens []votes // to give their locks back when the process "dies"
	names []string
}

func (b *breaker) step(name string, do func() error) error {
	if b.dead {
		return errInjected
	}
	b.calls++
	b.names = append(b.names, name)
	if b.calls != b.at {
		return do()
	}
	b.dead = true
	if b.after {
		if err := do(); err != nil {
			return err
		}
	}
	return errInjected
}

type brokenVotes struct {
	votes
	b *breaker
}

func (v brokenVotes) Append(rec []byte) error {
	return v.b.step("append", func() error { return v.votes.Append(rec) })
}

func (b *breaker) disk() disk {
	real := hostDisk()
	return disk{
		mkdirAll: func(path string, perm fs.FileMode) error {
			return b.step("mkdir", func() error { return real.mkdirAll(path, perm) })
		},
		writeFile: func(path string, data []byte, perm fs.FileMode) error {
			return b.step("write", func() error { return real.writeFile(path, data, perm) })
		},
		openRecords: func(path string, opts durable.RecordsOptions) (v votes, recs [][]byte, err error) {
			err = b.step("open", func() (err error) {
				v, recs, err = real.openRecords(path, opts)
				if err == nil {
					b.opens = append(b.opens, v)
				}
				return err
			})
			if err != nil {
				return nil, nil, err
			}
			return brokenVotes{v, b}, recs, nil
		},
		rename:    func(from, to string) error { return b.step("rename", func() error { return real.rename(from, to) }) },
		overwrite: func(path string) error { return b.step("overwrite", func() error { return real.overwrite(path) }) },
		remove:    func(path string) error { return b.step("remove", func() error { return real.remove(path) }) },
	}
}

// said is what left the member before it died.
type said struct {
	created   bool
	public    []byte
	votes     map[label.Hash]label.Hash
	reveals   map[label.Hash]label.Hash
	expired   map[label.Hash]bool
	destroyed bool
}

// live is one life of an epoch; it goes as far as the disk lets it.
func live(d disk, root string) said {
	s := said{votes: map[label.Hash]label.Hash{}, reveals: map[label.Hash]label.Hash{}, expired: map[label.Hash]bool{}}
	e, err := d.create(root, 4, rand.Reader)
	if err != nil {
		return s
	}
	s.created, s.public = true, e.VotePublic()
	r1, r2, r3, v := hash("r1"), hash("r2"), hash("r3"), hash("v")
	if _, err := e.Vote(r1, v, body(r1, v)); err == nil {
		s.votes[r1] = v
	}
	if _, err := e.Reveal(r1, v, body(r1, v)); err == nil {
		s.reveals[r1] = v
	}
	if _, err := e.Vote(r2, v, body(r2, v)); err == nil {
		s.votes[r2] = v
	}
	if _, err := e.Expire(r3, body(r3, v)); err == nil {
		s.expired[r3] = true
	}
	if e.Destroy() == nil {
		s.destroyed = true
	}
	return s
}

// TestDeathAtEveryDurableStep kills the process before and after each step, restarts it with a sound disk and compares
// what it finds with what the dead one has said (SA 8.1, 8.2, 8.9).
func TestDeathAtEveryDurableStep(t *testing.T) {
	count := &breaker{}
	if s := live(count.disk(), t.TempDir()); !s.destroyed || len(s.votes) != 2 {
		t.Fatal("the undisturbed life did not end well")
	}
	t.Logf("steps: %v", count.names)
	for at := 1; at <= count.calls; at++ {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%02d %s after=%v", at, count.names[at-1], after), func(t *testing.T) {
				root := t.TempDir()
				b := &breaker{at: at, after: after}
				s := live(b.disk(), root)
				if !b.dead {
					t.Fatal("nothing was broken")
				}
				for _, v := range b.opens {
					v.Close()
				}
				checkAfterDeath(t, root, s)
			})
		}
	}
}

func checkAfterDeath(t *testing.T, root string, s said) {
	t.Helper()
	epochs, alarms, err := Load(root)
	if err != nil || len(alarms) != 0 {
		t.Fatalf("a crash looks like damage: %v, %v", alarms, err)
	}
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() != "4" && entry.Name() != "erased-4" {
			t.Errorf("left behind: %s", entry.Name())
		}
	}
	erased, err := Erased(root)
	if err != nil || len(erased) > 0 && len(epochs) > 0 || s.destroyed && len(erased) != 1 {
		t.Errorf("erased are %v beside %d epochs: %v", erased, len(epochs), err)
	}
	if left, err := os.ReadDir(filepath.Join(root, "erased-4")); len(left) != 0 {
		t.Errorf("of an erased epoch is left %v, %v", left, err)
	}
	if s.destroyed && len(epochs) != 0 {
		t.Fatal("a destroyed epoch came back")
	}
	if len(epochs) == 0 {
		return // the key is gone and with it its authority: always safe
	}
	e := epochs[0]
	defer e.Close()
	if s.created && !bytes.Equal(e.VotePublic(), s.public) {
		t.Error("the epoch came back with another key")
	}
	other := hash("other")
	var conflict *ConflictError
	for round, value := range s.votes {
		if _, err := e.Vote(round, other, body(round, other)); !errors.As(err, &conflict) {
			t.Errorf("a second vote of one round can be signed: %v", err)
		}
		if _, err := e.Vote(round, value, body(round, value)); err != nil {
			t.Errorf("the vote cannot be sent again: %v", err)
		}
	}
	for round := range s.reveals {
		if _, err := e.Reveal(round, other, body(round, other)); !errors.As(err, &conflict) {
			t.Errorf("a second reveal of one round can be signed: %v", err)
		}
		if _, err := e.Expire(round, body(round, other)); !errors.As(err, &conflict) {
			t.Errorf("an expiry after a reveal can be signed: %v", err)
		}
	}
	for round := range s.expired {
		if _, err := e.Reveal(round, other, body(round, other)); !errors.As(err, &conflict) {
			t.Errorf("a reveal after an expiry can be signed: %v", err)
		}
	}
	if err := e.RecordVote(hash("a new round"), other); err != nil {
		t.Errorf("the epoch cannot go on: %v", err)
	}
}

// TestNothingIsSignedThroughAFailedAppend: neither on the failing disk, nor later in the same life.
func TestNothingIsSignedThroughAFailedAppend(t *testing.T) {
	for _, after := range []bool{false, true} {
		count := &breaker{}
		d := count.disk()
		e, err := d.create(t.TempDir(), 1, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		count.at, count.after = count.calls+1, after
		round, v := hash("r"), hash("v")
		for range 2 {
			if sig, err := e.Vote(round, v, body(round, v)); err == nil || sig != nil {
				t.Errorf("after=%v: signed without a durable record", after)
			}
		}
		if _, ok := e.Voted(round); ok {
			t.Errorf("after=%v: a failed record counts", after)
		}
		e.Close()
	}
}

// TestAlarmThatCannotErase says so, and the next start finishes it.
func TestAlarmThatCannotErase(t *testing.T) {
	p := newPattern(t)
	count := &breaker{}
	root := lay(t, p.keys, p.votes[:48])
	if _, err := count.disk().open(root, 8); err == nil {
		t.Fatal("a damaged epoch opened")
	}
	for at := 2; at <= count.calls; at++ { // the first step opens the vote file
		for _, after := range []bool{false, true} {
			root := lay(t, p.keys, p.votes[:48])
			b := &breaker{at: at, after: after}
			_, err := b.disk().open(root, 8)
			for _, v := range b.opens {
				v.Close()
			}
			var alarm *AlarmError
			if !errors.As(err, &alarm) || alarm.Erase == nil || !errors.Is(err, errInjected) {
				t.Fatalf("step %d %s: %v", at, count.names[at-1], err)
			}
			if epochs, _, err := Load(root); err != nil || len(epochs) != 0 {
				t.Fatalf("step %d: %v, %v", at, epochs, err)
			}
			checkDestroyed(t, root, 8)
			if _, err := os.Stat(filepath.Join(folder(root, damagedPrefix, 8), keysName)); err == nil {
				t.Errorf("step %d: keys survived", at)
			}
		}
	}
}
