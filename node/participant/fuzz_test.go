package participant

import (
	"encoding/json"
	"math"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// FuzzCheckIn gives a device whatever a member may answer. It takes no part in anything but the round that q members
// certified, adopts nothing but the state that f+1 signed, and its ledger still reads.
func FuzzCheckIn(f *testing.F) {
	c := newConsortium(f, nil)
	d := c.device(taskCommons)
	p := d.start()
	rc := c.config(taskCommons, 2, nil)
	published, _ := c.publish(c.config(taskCommons, 1, nil), make([]float32, len(d.learner.update.Body)), 0, 1)
	for _, answer := range []*coordpb.CheckInResponse{
		{Round: c.roundCert(rc)},
		{Latest: published},
		{Earlier: []*coordpb.RoundRecord{published}, Retry: &coordpb.RetryWindow{DelayMinMs: 1, DelayMaxMs: 2}},
		{Round: &coordpb.Certificate{}, Latest: &coordpb.RoundRecord{}, Earlier: []*coordpb.RoundRecord{{}, nil}},
	} {
		b, err := proto.Marshal(answer)
		must(f, err)
		f.Add(b)
	}
	good := rc.ID()
	f.Fuzz(func(t *testing.T, b []byte) {
		answer := new(coordpb.CheckInResponse)
		if proto.Unmarshal(b, answer) != nil {
			return
		}
		c.bend(func(_ int, r *coordpb.CheckInResponse) error {
			proto.Reset(r)
			proto.Merge(r, answer)
			return nil
		})
		_, _ = p.Step(t.Context())
		for _, e := range p.Ledger().Entries() {
			if e.Round != good {
				t.Fatalf("the ledger names round %v, which nobody certified", e.Round)
			}
		}
		if p.Seq() > 1 {
			t.Fatalf("adopted round %d, which nobody published", p.Seq())
		}
	})
}

// FuzzUploadResponse gives a device whatever a member may answer to its upload. The ledger calls it acknowledged only by
// receipts of n-f members, as they signed them, each once.
func FuzzUploadResponse(f *testing.F) {
	c := newConsortium(f, nil)
	d := c.device(taskCommons)
	p := d.start()
	rc := c.show(c.config(taskCommons, 1, nil))
	s, err := p.prepare(rc, c.shown(), d.learner.update)
	must(f, err)
	must(f, p.debit(s))
	signed := map[string]bool{}
	for _, r := range statements(c.receipts(s.open, 0, 1, 2, 3).GetReceipts()) {
		signed[c.ch.Members[r.Member].Name+string(r.Statement.Bytes())] = true
	}
	later := (&statement.Receipt{Round: rc.ID(), Header: s.hash, Index: 8}).Bytes()
	for _, answer := range []*coordpb.UploadResponse{
		c.receipts(s.open, 0, 1, 2), c.receipts(s.open, 3, 2, 1, 0), c.receipts(s.open, 0, 1), c.receipts(s.open, 0, 1, 0, 2),
		{Receipts: append(c.receipts(s.open, 0, 1).GetReceipts(), c.said(label.StmtReceipt, later, 2)...)},
		{Outcome: "duplicate", Receipts: []*coordpb.MemberStatement{{Member: 1 << 31}, {}}},
	} {
		b, err := proto.Marshal(answer)
		must(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		answer := new(coordpb.UploadResponse)
		if proto.Unmarshal(b, answer) != nil {
			return
		}
		if p.ack(s, answer) != nil {
			return
		}
		entries := p.Ledger().Entries()
		e := entries[len(entries)-1]
		seen := map[string]bool{}
		for i, name := range e.To {
			if seen[name] || !signed[name+string(e.Receipts[i])] {
				t.Errorf("the receipts of %v are not each its member's, or there twice", e.To)
			}
			seen[name] = true
		}
		if e.Kind != KindAck || len(seen) < c.ch.AckReceipts() || len(e.Receipts) != len(e.To) {
			t.Errorf("%s by %v", e.Kind, e.To)
		}
		p.ledger.entries = entries[:1] // not acknowledged, for the next
	})
}

// FuzzAskedToWait: no error of a member's has a device wait for longer than it is willing to.
func FuzzAskedToWait(f *testing.F) {
	for _, d := range []*durationpb.Duration{{Seconds: 7}, {Seconds: -7}, {Seconds: math.MaxInt64, Nanos: math.MaxInt32}, {}} {
		s, err := status.New(codes.ResourceExhausted, "busy").WithDetails(&errdetails.RetryInfo{RetryDelay: d})
		must(f, err)
		b, err := proto.Marshal(s.Proto())
		must(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := new(spb.Status)
		if proto.Unmarshal(b, s) != nil {
			return
		}
		if wait := askedToWait(status.ErrorProto(s)); wait < 0 || wait > waitMax {
			t.Errorf("it waits for %s", wait)
		}
	})
}

// FuzzParseEntries: an entry that reads is written the same way again.
func FuzzParseEntries(f *testing.F) {
	f.Add([]byte(`{"kind":"contribution","task":"commons","seq":1,"to":["a"],"bytes":7}`))
	f.Add([]byte(`{"kind":"end","end":"expired","round":"00"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := parseEntries([][]byte{b})
		if err != nil {
			return
		}
		again, err := json.Marshal(entries[0])
		if err != nil {
			return // a time that JSON has no form for
		}
		if _, err := parseEntries([][]byte{again}); err != nil {
			t.Fatalf("%s was read and is written as %s: %v", b, again, err)
		}
	})
}
