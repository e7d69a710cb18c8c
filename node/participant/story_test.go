package participant

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

func kinds(p *Participant) string {
	var out []string
	for _, e := range p.Ledger().Entries() {
		if out = append(out, e.Kind); e.End != "" {
			out[len(out)-1] += ":" + e.End
		}
	}
	return strings.Join(out, " ")
}

func TestADeviceContributesOnce(t *testing.T) {
	for _, task := range []string{taskCommons, taskMean} {
		t.Run(task, func(t *testing.T) {
			c := newConsortium(t, nil)
			d := c.device(task)
			d.cfg.KeepEncoded = true
			p := d.start()
			step(t, p)
			if len(d.learner.updates) != 0 {
				t.Fatal("trained without a round")
			}
			rc := c.show(c.config(task, 1, nil))
			for range 3 {
				step(t, p)
			}
			got := c.uploads(rc)
			if len(got) != 1 || len(d.learner.updates) != 1 {
				t.Fatalf("%d uploads and %d trainings, want one of each", len(got), len(d.learner.updates))
			}
			if kinds(p) != "contribution ack" {
				t.Fatalf("the ledger says %s", kinds(p))
			}
			// What arrived opens, with the keys of everybody, to what was encoded.
			id := rc.ID()
			kept, err := os.ReadFile(filepath.Join(d.cfg.Dir, "encoded", id.String()))
			must(t, err)
			var opened []byte
			for _, lane := range c.unmask(rc, got[0]) {
				opened = binary.LittleEndian.AppendUint32(opened, lane)
			}
			if !bytes.Equal(opened, kept) {
				t.Fatal("the masked upload does not open to the encoded vector")
			}
			if bytes.Contains(got[0].y, kept[:64]) {
				t.Fatal("the upload holds the encoded vector in clear")
			}
			e := p.Ledger().Entries()[0]
			size := len(got[0].y) + len(got[0].open.GetHeader().GetBody()) + len(got[0].open.GetHeader().GetSignature())
			for _, b := range got[0].open.GetBoxes() {
				size += len(b)
			}
			if e.Bytes != size || len(e.To) != 4 || !strings.Contains(e.What, "at least 3 devices") {
				t.Fatalf("the ledger's entry is %d bytes to %v: %s; %d bytes left", e.Bytes, e.To, e.What, size)
			}
		})
	}
}

// TestACrashSendsTheSameBytes: at each point between the finished contribution and its ack.
func TestACrashSendsTheSameBytes(t *testing.T) {
	for _, c := range []struct {
		name  string
		crash func(t *testing.T, c *consortium, p *Participant, s *staged)
	}{
		{"staged, not debited", func(t *testing.T, _ *consortium, p *Participant, s *staged) { must(t, p.stage(s)) }},
		{"debited, not sent", func(t *testing.T, _ *consortium, p *Participant, s *staged) {
			must(t, p.stage(s))
			must(t, p.debit(s))
		}},
		{"sent, not acked", func(t *testing.T, c *consortium, p *Participant, s *staged) {
			must(t, p.stage(s))
			must(t, p.debit(s))
			ctx, cancel := context.WithCancel(t.Context())
			c.decide(func(received) (*coordpb.UploadResponse, error) {
				cancel()
				return nil, status.Error(codes.Unavailable, "the line is cut")
			})
			if err := p.send(ctx, s); err == nil {
				t.Fatal("no ack, and no error")
			}
			c.decide(nil)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cons := newConsortium(t, nil)
			d := cons.device(taskCommons)
			p := d.start()
			rc := cons.show(cons.config(taskCommons, 1, nil))
			checked, err := p.check(cons.open)
			must(t, err)
			s, err := p.prepare(checked, cons.open, d.learner.update)
			must(t, err)
			c.crash(t, cons, p, s)
			must(t, p.Close())

			p = d.start()
			step(t, p)
			step(t, p)
			got := cons.uploads(rc)
			if len(got) == 0 || len(d.learner.updates) != 0 {
				t.Fatalf("%d uploads after the restart, %d trainings", len(got), len(d.learner.updates))
			}
			for i, r := range got {
				r.open.Offset = 0
				if !bytes.Equal(r.y, s.y) || !proto.Equal(r.open, s.open) {
					t.Fatalf("upload %d has other bytes than were staged", i)
				}
			}
			if kinds(p) != "contribution ack" {
				t.Fatalf("the ledger says %s", kinds(p))
			}
		})
	}
}

// TestNothingLeavesBeforeItIsOnTheDisk: when a contribution arrives at the first member, the debit is in the ledger and
// what is staged are exactly the bytes that arrived (SA 8.6).
func TestNothingLeavesBeforeItIsOnTheDisk(t *testing.T) {
	c := newConsortium(t, nil)
	d := c.device(taskCommons)
	p := d.start()
	rc := c.show(c.config(taskCommons, 1, nil))
	arrived := 0
	c.decide(func(r received) (*coordpb.UploadResponse, error) {
		arrived++
		header := statement.HashHeader(r.open.GetHeader().GetBody())
		entries, err := ReadLedger(filepath.Join(d.cfg.Dir, "ledger"))
		if err != nil || len(entries) != 1 || entries[0].Kind != KindContribution || entries[0].Header != header {
			t.Errorf("upload %d: the ledger says %+v, %v", arrived, entries, err)
		}
		b, err := os.ReadFile(filepath.Join(d.cfg.Dir, "staged", rc.ID().String()))
		if err != nil {
			t.Errorf("upload %d: %v", arrived, err)
		} else if s, err := parseStaged(b); err != nil || s.hash != header || !bytes.Equal(s.y, r.y) {
			t.Errorf("upload %d: other bytes are staged, %v", arrived, err)
		}
		if arrived == 1 {
			return nil, status.Error(codes.Unavailable, "the line is cut")
		}
		return c.receipts(r.open, 0, 1, 2), nil
	})
	step(t, p)
	if arrived != 2 || kinds(p) != "contribution ack" {
		t.Fatalf("%d uploads, the ledger says %s", arrived, kinds(p))
	}
}

func TestACrashBeforeStagingLeavesNothingBehind(t *testing.T) {
	c := newConsortium(t, nil)
	d := c.device(taskCommons)
	p := d.start()
	rc := c.show(c.config(taskCommons, 1, nil))
	// A write that was cut off leaves a temporary file, which is nobody's contribution.
	half := filepath.Join(d.cfg.Dir, "staged", ".x.tmp-1")
	writeFile(t, half, []byte("half"))
	must(t, p.Close())
	step(t, d.start())
	if len(c.uploads(rc)) != 1 {
		t.Fatal("the device did not contribute after the restart")
	}
	if _, err := os.Stat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("what was half written stays: %v", err)
	}
}

// TestOnlyTheAdaptersThatAreNamedStay: a process died between two writes, and the next removes what it left: nothing
// that a task's file names, and nothing at all while such a file cannot be read.
func TestOnlyTheAdaptersThatAreNamedStay(t *testing.T) {
	c := newConsortium(t, nil)
	d := c.device(taskCommons)
	p := d.start()
	var hashes []string // of both tasks' states
	for _, task := range []string{taskCommons, taskMean} {
		rc := c.config(task, 1, nil)
		record, m := c.publish(rc, make([]float32, rc.Values), 0, 1)
		c.alter(func() { c.latest = record })
		if task == taskMean {
			must(t, p.Close())
			d.cfg.Task, d.cfg.Base = taskMean, label.Hash{}
			p = d.start()
		}
		step(t, p)
		hashes = append(hashes, m.Hash().String())
	}
	must(t, p.Close())
	in := func(name string) string { return filepath.Join(d.cfg.Dir, "adapters", name) }
	orphan := label.Sum(label.TagModel, []byte("orphan")).String()
	must(t, os.MkdirAll(in("current-peft"), 0o700))
	for _, damaged := range []bool{true, false} {
		for _, name := range []string{orphan, "." + orphan + ".tmp-7"} {
			writeFile(t, in(name), []byte("an adapter"))
		}
		whole, err := os.ReadFile(in(taskCommons + ".json"))
		must(t, err)
		if damaged {
			writeFile(t, in(taskCommons+".json"), whole[1:])
		}
		p = d.start()
		must(t, p.Close())
		must(t, os.WriteFile(in(taskCommons+".json"), whole, 0o600))
		var names []string
		entries, err := os.ReadDir(in(""))
		must(t, err)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		want := append(slices.Clone(hashes), taskCommons+".json", taskMean+".json", "current-peft")
		if damaged {
			want = append(want, orphan)
		}
		slices.Sort(want)
		if !slices.Equal(names, want) {
			t.Errorf("damaged %v: there are %v, want %v", damaged, names, want)
		}
		if p.Seq() != 1 {
			t.Errorf("damaged %v: the state of round %d was loaded", damaged, p.Seq())
		}
	}
}

func TestAStagedContributionThatNeverLeftIsDroppedWhenItMayNotLeave(t *testing.T) {
	c := newConsortium(t, nil)
	d := c.device(taskCommons)
	p := d.start()
	rc := c.show(c.config(taskCommons, 1, nil))
	s, err := p.prepare(rc, c.shown(), d.learner.update)
	must(t, err)
	must(t, p.stage(s))
	must(t, p.Close())
	d.cfg.Floor = 50 // the owner asks for more before the restart
	p = d.start()
	_, _ = p.Step(t.Context())
	if left := p.staged(); len(left) != 0 || kinds(p) != "" || len(c.uploads(rc)) != 0 {
		t.Fatalf("%d staged, ledger %q, %d uploads", len(left), kinds(p), len(c.uploads(rc)))
	}
}

func TestAnUploadResumesWhereItBrokeOff(t *testing.T) {
	c := newConsortium(t, nil)
	d := c.device(taskCommons)
	c.alter(func() { c.offset = 1000 })
	rc := c.show(c.config(taskCommons, 1, nil))
	p := d.start()
	step(t, p)
	left := p.staged()
	got := c.uploads(rc)
	if len(got) != 1 || got[0].open.GetOffset() != 1000 || !bytes.Equal(got[0].y, left[0].y[1000:]) {
		t.Fatal("the upload does not go on at the member's offset")
	}
	// A member that claims more than there is gets nothing, and no panic.
	c = newConsortium(t, nil)
	d = c.device(taskCommons)
	c.alter(func() { c.offset = 1 << 60 })
	rc = c.show(c.config(taskCommons, 1, nil))
	step(t, d.start())
	if got := c.uploads(rc); len(got) != 1 || len(got[0].y) != 0 {
		t.Fatal("an offset beyond the end was not taken as the end")
	}
}

func TestOneStartOneUploadUnlessItsDeathIsCertified(t *testing.T) {
	type story struct {
		name   string
		record func(c *consortium, rc *statement.RoundConfig) *coordpb.RoundRecord
		late   bool // the reveal deadline is over
		end    string
		again  bool
	}
	record := func(c *consortium, rc *statement.RoundConfig, death string) *coordpb.RoundRecord {
		return &coordpb.RoundRecord{Config: c.roundCert(rc), Phase: "dead", Death: death}
	}
	votes := func(c *consortium, rc *statement.RoundConfig, value label.Hash, members ...int) []*coordpb.MemberStatement {
		return c.said(label.StmtVote, (&statement.Vote{Round: rc.ID(), Value: value}).Bytes(), members...)
	}
	for _, s := range []story{
		{name: "a member's word for death", record: func(c *consortium, rc *statement.RoundConfig) *coordpb.RoundRecord {
			return record(c, rc, "certified")
		}},
		{name: "q-1 votes for death", record: func(c *consortium, rc *statement.RoundConfig) *coordpb.RoundRecord {
			r := record(c, rc, "certified")
			r.Votes = votes(c, rc, statement.Dead(), 0, 1)
			return r
		}},
		{name: "one vote thrice", record: func(c *consortium, rc *statement.RoundConfig) *coordpb.RoundRecord {
			r := record(c, rc, "certified")
			r.Votes = votes(c, rc, statement.Dead(), 2, 2, 2)
			return r
		}},
		{name: "q votes for a set", record: func(c *consortium, rc *statement.RoundConfig) *coordpb.RoundRecord {
			r := record(c, rc, "certified")
			r.Votes = votes(c, rc, label.Sum(label.TagSet), 0, 1, 2)
			return r
		}},
		{name: "expired, no proof", late: true, end: " end:expired", record: func(c *consortium, rc *statement.RoundConfig) *coordpb.RoundRecord {
			return record(c, rc, "expired")
		}},
		{name: "expired before its time", record: func(c *consortium, rc *statement.RoundConfig) *coordpb.RoundRecord {
			return record(c, rc, "expired")
		}},
		{name: "Expired of all but one", record: func(c *consortium, rc *statement.RoundConfig) *coordpb.RoundRecord {
			r := record(c, rc, "certified")
			r.Expired = c.said(label.StmtExpired, (&statement.Expired{Round: rc.ID()}).Bytes(), 0, 1, 2)
			return r
		}},
		{name: "Expired of everybody", end: " end:dead", again: true, record: func(c *consortium, rc *statement.RoundConfig) *coordpb.RoundRecord {
			r := record(c, rc, "expired")
			r.Expired = c.said(label.StmtExpired, (&statement.Expired{Round: rc.ID()}).Bytes(), 0, 1, 2, 3)
			return r
		}},
		{name: "q votes for death", end: " end:dead", again: true, record: func(c *consortium, rc *statement.RoundConfig) *coordpb.RoundRecord {
			r := record(c, rc, "certified")
			r.Votes = votes(c, rc, statement.Dead(), 3, 1, 0)
			return r
		}},
	} {
		t.Run(s.name, func(t *testing.T) {
			c := newConsortium(t, nil)
			d := c.device(taskCommons)
			p := d.start()
			first := c.show(c.config(taskCommons, 1, nil))
			step(t, p)

			c.wait(11 * time.Minute)
			if s.late {
				c.wait(2 * time.Hour)
			}
			earlier := []*coordpb.RoundRecord{s.record(c, first)}
			c.alter(func() { c.earlier = earlier })
			second := c.show(c.config(taskCommons, 2, nil)) // the same start
			_, err := p.Step(t.Context())
			ack := ""
			if s.again {
				must(t, err)
				ack = " contribution ack"
			} else if err == nil || !strings.Contains(err.Error(), "already uploaded from the same start") {
				t.Fatalf("got %v", err)
			}
			if want := "contribution ack" + s.end + ack; kinds(p) != want {
				t.Fatalf("the ledger says %q, want %q", kinds(p), want)
			}
			// A restart knows no more and no less.
			must(t, p.Close())
			_, _ = d.start().Step(t.Context())
			uploads := c.uploads(second)
			if s.again != (len(uploads) == 1) {
				t.Fatalf("%d uploads to the second round", len(uploads))
			}
			if !s.again {
				return
			}
			a, b := c.uploads(first)[0], uploads[0]
			ha, err := statement.ParseHeader(a.open.GetHeader().GetBody())
			must(t, err)
			hb, err := statement.ParseHeader(b.open.GetHeader().GetBody())
			must(t, err)
			if bytes.Equal(a.y, b.y) || ha.Nonce == hb.Nonce || slices.Equal(ha.Commitments, hb.Commitments) {
				t.Fatal("the second contribution repeats bytes of the first")
			}
			for i, com := range ha.Commitments {
				if hb.Commitments[i] == com {
					t.Fatal("a seed is used twice")
				}
			}
		})
	}
}

func TestThePublishedRoundEndsTheUploadAndItsStateIsAdopted(t *testing.T) {
	c := newConsortium(t, nil)
	d := c.device(taskCommons)
	p := d.start()
	rc := c.show(c.config(taskCommons, 1, nil))
	step(t, p)
	values := make([]float32, len(d.learner.update.Body))
	values[3] = 0.5
	record, m := c.publish(rc, values, 2, 3)
	c.alter(func() { c.open, c.latest, c.earlier = nil, record, []*coordpb.RoundRecord{record} })
	step(t, p)
	if kinds(p) != "contribution ack end:published" || p.Seq() != 1 {
		t.Fatalf("the ledger says %q, seq %d", kinds(p), p.Seq())
	}
	if left := p.staged(); len(left) != 0 {
		t.Fatal("the staged bytes are still there")
	}
	if n := len(d.learner.adopted); n != 2 || d.learner.adopted[0].Seq != 0 || d.learner.adopted[1].Hash() != m.Hash() {
		t.Fatalf("adopted %d states", n)
	}
	// The next round starts there, after a restart too.
	must(t, p.Close())
	p = d.start()
	c.show(c.config(taskCommons, 2, nil))
	step(t, p)
	if n := len(d.learner.updates); n != 2 || d.learner.updates[1].Hash() != m.Hash() {
		t.Fatal("the second update is not from the published state")
	}
}

func TestAnAdoptionThatFailedIsTriedAgain(t *testing.T) {
	c := newConsortium(t, nil)
	d := c.device(taskCommons)
	d.learner.failing = 2
	p := d.start()
	rc := c.config(taskCommons, 1, nil)
	record, _ := c.publish(rc, make([]float32, len(d.learner.update.Body)), 0, 1)
	c.alter(func() { c.latest = record })
	c.show(c.config(taskCommons, 2, nil))
	for range 2 {
		if _, err := p.Step(t.Context()); err == nil {
			t.Fatal("no word of the failed adoption")
		}
	}
	step(t, p)
	if n := len(d.learner.adopted); n != 2 || len(d.learner.updates) != 1 {
		t.Fatalf("%d adoptions, %d updates", n, len(d.learner.updates))
	}
}

func TestAnObserverNeverContributes(t *testing.T) {
	c := newConsortium(t, nil)
	d := c.device(taskCommons)
	p := d.start()
	rc := c.show(c.config(taskCommons, 1, nil))
	s, err := p.prepare(rc, c.shown(), d.learner.update)
	must(t, err)
	must(t, p.stage(s)) // from the time when it was no observer
	must(t, p.Close())
	d.cfg.Observe = true
	record, _ := c.publish(rc, make([]float32, len(d.learner.update.Body)), 0, 1)
	c.alter(func() { c.latest = record })
	p = d.start()
	step(t, p)
	if c.count() != 0 || len(d.learner.updates) != 0 || kinds(p) != "" {
		t.Fatal("an observer did more than observe")
	}
	if p.Seq() != 1 {
		t.Fatal("the observer did not follow the commons")
	}
}

func TestNothingToContributeIsNoError(t *testing.T) {
	c := newConsortium(t, nil)
	d := c.device(taskCommons)
	d.learner.err = errors.Join(errors.New("an empty journal"), ErrNothing)
	p := d.start()
	rc := c.show(c.config(taskCommons, 1, nil))
	step(t, p)
	step(t, p)
	if len(c.uploads(rc)) != 0 || len(d.learner.updates) != 1 {
		t.Fatalf("%d uploads, asked the learner %d times", len(c.uploads(rc)), len(d.learner.updates))
	}
}

func TestAnUpdateThatCannotBeEncodedIsMadeOnce(t *testing.T) {
	c := newConsortium(t, nil)
	d := c.device(taskCommons)
	d.learner.update.Body = d.learner.update.Body[1:]
	p := d.start()
	c.show(c.config(taskCommons, 1, nil))
	if _, err := p.Step(t.Context()); err == nil || !strings.Contains(err.Error(), "body has 31 values, want 32") {
		t.Fatalf("got %v", err)
	}
	step(t, p)
	if len(d.learner.updates) != 1 || kinds(p) != "" {
		t.Fatal("the device trains again and again for what it cannot encode")
	}
}

func TestOneLyingMemberCannotHoldADeviceUp(t *testing.T) {
	for name, lie := range map[string]func(c *consortium, r *coordpb.CheckInResponse) error{
		"it shows garbage as a result": func(c *consortium, r *coordpb.CheckInResponse) error {
			r.Latest = &coordpb.RoundRecord{Config: &coordpb.Certificate{Body: []byte("x")}}
			return nil
		},
		"it shows garbage as an end": func(c *consortium, r *coordpb.CheckInResponse) error {
			r.Earlier = []*coordpb.RoundRecord{{Config: &coordpb.Certificate{Body: []byte("x")}}}
			return nil
		},
		"it hides the round": func(c *consortium, r *coordpb.CheckInResponse) error { r.Round = nil; return nil },
		"it tells of another charter": func(*consortium, *coordpb.CheckInResponse) error {
			return status.Error(codes.FailedPrecondition, "another charter")
		},
		"it is down": func(*consortium, *coordpb.CheckInResponse) error { return status.Error(codes.Unavailable, "down") },
	} {
		t.Run(name, func(t *testing.T) {
			c := newConsortium(t, nil)
			d := c.device(taskCommons)
			c.bend(func(member int, r *coordpb.CheckInResponse) error {
				if member == 1 { // the one that the device asks first
					return lie(c, r)
				}
				return nil
			})
			rc := c.show(c.config(taskCommons, 1, nil))
			p := d.start()
			for range 2 {
				_, _ = p.Step(t.Context())
			}
			if c.order()[0] != 1 || len(c.uploads(rc)) != 1 {
				t.Fatalf("asked %v, %d uploads", c.order(), len(c.uploads(rc)))
			}
		})
	}
}

func TestAnUploadIsGivenUpOnTheWordOfMoreMembersThanMayLie(t *testing.T) {
	c := newConsortium(t, nil)
	d := c.device(taskCommons)
	liar := -1
	c.decide(func(r received) (*coordpb.UploadResponse, error) {
		if liar == -1 || liar == r.member {
			liar = r.member
			return nil, status.Error(codes.InvalidArgument, "these bytes never")
		}
		return c.receipts(r.open, 1, 2, 3), nil
	})
	rc := c.show(c.config(taskCommons, 1, nil))
	p := d.start()
	step(t, p)
	if len(c.uploads(rc)) != 2 || kinds(p) != "contribution ack" {
		t.Fatalf("%d tries, ledger %q", len(c.uploads(rc)), kinds(p))
	}

	c = newConsortium(t, nil)
	d = c.device(taskCommons)
	c.decide(func(received) (*coordpb.UploadResponse, error) { return nil, status.Error(codes.Aborted, "full") })
	rc = c.show(c.config(taskCommons, 1, nil))
	p = d.start()
	if _, err := p.Step(t.Context()); err == nil || !strings.Contains(err.Error(), "full") {
		t.Fatalf("got %v", err)
	}
	step(t, p)
	if len(c.uploads(rc)) != 2 || kinds(p) != "contribution" {
		t.Fatalf("%d tries, ledger %q", len(c.uploads(rc)), kinds(p))
	}
}

func TestAReceiptCountsOnceAndOnlyForWhatWasSent(t *testing.T) {
	for name, answer := range map[string]func(c *consortium, r received) *coordpb.UploadResponse{
		"too few":   func(c *consortium, r received) *coordpb.UploadResponse { return c.receipts(r.open, 0, 1) },
		"one twice": func(c *consortium, r received) *coordpb.UploadResponse { return c.receipts(r.open, 0, 1, 1) },
		"of another contribution": func(c *consortium, r received) *coordpb.UploadResponse {
			other := proto.Clone(r.open).(*coordpb.UploadOpen)
			other.Header.Body[40] ^= 1
			return c.receipts(other, 0, 1, 2)
		},
		"by a stranger's key": func(c *consortium, r received) *coordpb.UploadResponse {
			a := c.receipts(r.open, 0, 1, 2)
			a.Receipts[2].Statement.Signature[0] ^= 1
			return a
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newConsortium(t, nil)
			d := c.device(taskCommons)
			lies := 0
			c.decide(func(r received) (*coordpb.UploadResponse, error) {
				if lies++; lies == 1 {
					return answer(c, r), nil
				}
				return c.receipts(r.open, 0, 2, 3), nil
			})
			rc := c.show(c.config(taskCommons, 1, nil))
			p := d.start()
			step(t, p)
			if len(c.uploads(rc)) != 2 || kinds(p) != "contribution ack" {
				t.Fatalf("%d tries, ledger %q", len(c.uploads(rc)), kinds(p))
			}
		})
	}
}

func TestADeviceAsksAboutABoundedNumberOfRounds(t *testing.T) {
	c := newConsortium(t, nil)
	p := c.device(taskCommons).start()
	var last label.Hash
	for i := range 20 {
		round := label.Sum(label.TagRoundConfig, []byte{byte(i)})
		must(t, p.ledger.Append(Entry{Kind: KindContribution, Round: round, Start: round}))
		if i%2 == 0 {
			must(t, p.ledger.Append(Entry{Kind: KindEnd, Round: round, End: EndExpired}))
		} else {
			last = round
		}
	}
	step(t, p)
	if asked := c.lastAsked(); len(asked) != askedRoundsMax || !bytes.Equal(asked[0], last[:]) {
		t.Fatalf("asked about %d rounds", len(asked))
	}
}

func TestTheOwnerDecidesAboutTheFloor(t *testing.T) {
	for _, s := range []struct {
		name  string
		demo  bool
		floor uint32
		want  string
	}{
		{"demo default", true, 0, ""},
		{"demo, two devices", true, 2, ""}, // the charter's own floor is above it anyway
		{"no demo, default", false, 0, ""},
		{"no demo, under twenty", false, 19, "which only a demo charter allows"},
	} {
		t.Run(s.name, func(t *testing.T) {
			c := newConsortium(t, func(o *charter.Options) {
				if o.Demo = s.demo; !s.demo {
					o.AuthoritiesFaulty, o.MinContributors = 1, 20
					for i := range o.Tasks {
						o.Tasks[i].Cohort.NMin = 20
					}
				}
			})
			d := c.device(taskCommons)
			d.cfg.Floor = s.floor
			p, err := New(t.Context(), d.cfg)
			if s.want == "" {
				must(t, err)
				must(t, p.Close())
			} else if err == nil || !strings.Contains(err.Error(), s.want) {
				t.Fatalf("got %v, want %s", err, s.want)
			}
			d.cfg.Floor, d.cfg.KeepEncoded = 0, true
			if p, err := New(t.Context(), d.cfg); s.demo != (err == nil) {
				t.Fatalf("keeping encoded vectors: %v", err)
			} else if err == nil {
				must(t, p.Close())
			}
		})
	}
}
