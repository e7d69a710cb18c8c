package participant

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// staged is what waits to be sent, or for the end of its round.
func (p *Participant) staged() (out []*staged) {
	rounds, _ := p.stagedRounds()
	for _, round := range rounds {
		if s, _ := p.readStaged(round); s != nil {
			out = append(out, s)
		}
	}
	return out
}

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

// TestStagedBytesGoWithTheirRound: what is staged stays while its round may want it, and is gone once the ledger has its
// end, or long after every key of the round, however the process died and whoever comes back.
func TestStagedBytesGoWithTheirRound(t *testing.T) {
	for _, s := range []struct {
		name    string
		debited bool
		end     string        // written by a process that died before it removed the staged bytes
		after   time.Duration // the device is away for
		altered func(*Config)
		stays   bool
	}{
		{name: "acked, the round goes on", debited: true, stays: true},
		{name: "the reveal deadline is over", debited: true, after: 2 * time.Hour, stays: true},
		{name: "the clock is wrong by hours", debited: true, after: 36 * time.Hour, stays: true},
		{name: "another task's, never sent", altered: func(c *Config) { c.Task, c.Base = taskMean, label.Hash{} }, stays: true},
		{name: "an observer's, never sent", altered: func(c *Config) { c.Observe = true }, stays: true},

		{name: "published", debited: true, end: EndPublished},
		{name: "dead", debited: true, end: EndDead},
		{name: "expired", debited: true, end: EndExpired},
		{name: "published, now an observer", debited: true, end: EndPublished, altered: func(c *Config) { c.Observe = true }},
		{name: "no member knows the end any more", debited: true, after: 49 * time.Hour},
		{name: "another task's, never sent, long over", after: 49 * time.Hour, altered: func(c *Config) { c.Task, c.Base = taskMean, label.Hash{} }},
	} {
		c := newConsortium(t, nil)
		d := c.device(taskCommons)
		p := d.start()
		rc := c.show(c.config(taskCommons, 1, nil))
		if s.debited {
			step(t, p)
		} else {
			made, err := p.prepare(rc, c.shown(), d.learner.update)
			must(t, err)
			must(t, p.stage(made))
		}
		c.alter(func() { c.open = nil })
		if s.end != "" {
			e := p.Ledger().Entries()[0]
			must(t, p.ledger.Append(Entry{Kind: KindEnd, Task: e.Task, Round: e.Round, Seq: e.Seq, Start: e.Start, Header: e.Header, End: s.end}))
		}
		must(t, p.Close())
		c.wait(s.after)
		if s.altered != nil {
			s.altered(&d.cfg)
		}
		p = d.start()
		before := kinds(p)
		step(t, p)
		if left := p.staged(); s.stays != (len(left) == 1) || kinds(p) != before {
			t.Errorf("%s: %d staged, the ledger says %q, before %q", s.name, len(left), kinds(p), before)
		}
		if blocks := p.ledger.blocks(rc.Start.Hash(rc.Task, rc.Cell), label.Hash{}) != nil; blocks != (s.debited && s.end != EndDead) {
			t.Errorf("%s: the start is blocked: %v", s.name, blocks)
		}
	}
}

// TestARemovalThatFailedIsTriedAgain: the end is in the ledger, and the staged bytes could not be removed.
func TestARemovalThatFailedIsTriedAgain(t *testing.T) {
	c := newConsortium(t, nil)
	p := c.device(taskCommons).start()
	rc := c.show(c.config(taskCommons, 1, nil))
	step(t, p)
	record, _ := c.publish(rc, make([]float32, rc.Values), 0, 1)
	c.alter(func() { c.open, c.earlier = nil, []*coordpb.RoundRecord{record} })
	path, aside := p.stagedPath(rc.ID()), filepath.Join(p.cfg.Dir, "aside")
	must(t, os.Rename(path, aside))
	must(t, os.MkdirAll(filepath.Join(path, "full"), 0o700)) // a folder that is not empty cannot be removed
	if _, err := p.Step(t.Context()); err == nil || kinds(p) != "contribution ack end:published" {
		t.Fatalf("the ledger says %q, %v", kinds(p), err)
	}
	must(t, os.RemoveAll(path))
	must(t, os.Rename(aside, path))
	step(t, p)
	if left := p.staged(); len(left) != 0 {
		t.Fatal("the staged bytes are still there")
	}
}

// TestWhatWaitsForItsEndIsReadOnce: a contribution of many MB is not read and summed at every step.
func TestWhatWaitsForItsEndIsReadOnce(t *testing.T) {
	c := newConsortium(t, nil)
	d := c.device(taskCommons)
	p := d.start()
	rc := c.show(c.config(taskCommons, 1, nil))
	step(t, p)
	for _, restart := range []bool{false, true} {
		if restart {
			must(t, p.Close())
			p = d.start()
			step(t, p)
		}
		path, aside := p.stagedPath(rc.ID()), filepath.Join(d.cfg.Dir, "aside")
		must(t, os.Rename(path, aside))
		writeFile(t, path, []byte("whoever reads this removes it"))
		step(t, p)
		if _, err := os.Stat(path); err != nil {
			t.Errorf("read again, after a restart: %v", restart)
		}
		must(t, os.Rename(aside, path))
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
