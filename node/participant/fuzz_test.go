package participant

import (
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
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
