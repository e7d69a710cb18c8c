package participant

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

func writeFile(t testing.TB, path string, b []byte) {
	t.Helper()
	must(t, os.WriteFile(path, b, 0o600))
}

// TestADamagedStagedFileIsNotSent: what is damaged before anything left is made anew; what is damaged afterwards is
// neither sent nor made again, and holds up nothing that comes later.
func TestADamagedStagedFileIsNotSent(t *testing.T) {
	for name, damage := range map[string]func(whole []byte) []byte{
		"empty":         func([]byte) []byte { return nil },
		"cut off":       func(b []byte) []byte { return b[:len(b)-1] },
		"too long":      func(b []byte) []byte { return append(b, 0) },
		"other version": func(b []byte) []byte { return bytes.Replace(b, []byte("staged 1"), []byte("staged 2"), 1) },
		"of a flipped y": func(b []byte) []byte {
			b[len(b)-1] ^= 1
			return b
		},
	} {
		for _, debited := range []bool{false, true} {
			c := newConsortium(t, nil)
			p := c.device(taskCommons).start()
			rc := c.show(c.config(taskCommons, 1, nil))
			s, err := p.prepare(rc, c.shown(), p.cfg.Learner.(*learner).update)
			must(t, err)
			whole, err := s.marshal()
			must(t, err)
			if debited {
				must(t, p.debit(s))
			}
			writeFile(t, p.stagedPath(rc.ID()), damage(whole))
			step(t, p)
			got, uploads := c.count(), p.ledger.uploads()
			if want := map[bool]int{false: 1, true: 0}[debited]; got != want || len(uploads) != 1 {
				t.Errorf("%s, debited %v: %d sent, want %d; %d in the ledger", name, debited, got, want, len(uploads))
			}
			if sent := uploads[0].entry.Header; (sent == s.hash) != debited {
				t.Errorf("%s, debited %v: the ledger names %s", name, debited, sent)
			}
		}
	}
}

// TestNoFlippedByteLeavesTheDevice: whichever byte of a staged file flips, it is refused, or what the ledger names is
// as it was.
func TestNoFlippedByteLeavesTheDevice(t *testing.T) {
	c := newConsortium(t, nil)
	p := c.device(taskCommons).start()
	rc := c.show(c.config(taskCommons, 1, nil))
	s, err := p.prepare(rc, c.shown(), p.cfg.Learner.(*learner).update)
	must(t, err)
	whole, err := s.marshal()
	must(t, err)
	refused := 0
	for at := range whole {
		bad := bytes.Clone(whole)
		bad[at] ^= 1 << (at % 8)
		got, err := parseStaged(bad)
		if err != nil {
			refused++
			continue
		}
		if got.header.Round != rc.ID() || !bytes.Equal(got.y, s.y) || statement.HashBoxes(got.open.GetBoxes()) != s.header.Boxes ||
			statement.HashBoxes(got.open.GetBoxes()) != got.header.Boxes {
			t.Fatalf("flipped at %d: other bytes would leave", at)
		}
		if got.hash != s.hash { // the header itself: the ledger knows the right one
			must(t, p.stage(s))
			must(t, p.debit(s))
			if kept, err := p.confirm(got); kept || err != nil {
				t.Fatalf("flipped at %d: another header than the ledger's would leave (%v)", at, err)
			}
			refused++
		}
	}
	if refused < len(s.y) {
		t.Errorf("%d of %d flips are refused", refused, len(whole))
	}
}

func TestADamagedLedgerStopsTheDevice(t *testing.T) {
	c := newConsortium(t, nil)
	d := c.device(taskCommons)
	p := d.start()
	c.show(c.config(taskCommons, 1, nil))
	step(t, p)
	must(t, p.Close())
	path := d.cfg.Dir + "/ledger"
	b, err := os.ReadFile(path)
	must(t, err)
	b[len(b)/2] ^= 1
	writeFile(t, path, b)
	if _, err := New(t.Context(), d.cfg); err == nil || !strings.Contains(err.Error(), "ledger") {
		t.Fatalf("got %v", err)
	}
}

func TestTheLedgerCanBeReadWhileItIsWritten(t *testing.T) {
	c := newConsortium(t, nil)
	d := c.device(taskCommons)
	p := d.start()
	c.show(c.config(taskCommons, 1, nil))
	step(t, p)
	entries, err := ReadLedger(d.cfg.Dir + "/ledger")
	must(t, err)
	if len(entries) != 2 || entries[1].Kind != KindAck || len(entries[1].Receipts) != 3 {
		t.Fatalf("%d entries", len(entries))
	}
}

func FuzzParseStaged(f *testing.F) {
	c := newConsortium(f, nil)
	d := c.device(taskCommons)
	p := d.start()
	rc := c.show(c.config(taskCommons, 1, nil))
	s, err := p.prepare(rc, c.shown(), d.learner.update)
	must(f, err)
	whole, err := s.marshal()
	must(f, err)
	f.Add(whole)
	f.Add(whole[:100])
	f.Add([]byte(stagedMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStaged(b)
		if err != nil {
			return
		}
		if s.config == nil || s.header == nil || s.hash == (label.Hash{}) {
			t.Fatal("a staged contribution without its parts")
		}
		if _, err := s.marshal(); err != nil {
			t.Fatal(err)
		}
	})
}
