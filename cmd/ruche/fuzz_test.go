package main

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
)

// FuzzVerifyRound audits whatever a member may answer. What passes as published is the round that was published.
func FuzzVerifyRound(f *testing.F) {
	h := newHive(f, nil)
	p := h.publish(1, nil)
	whole, err := proto.Marshal(p.rec)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte{})
	want := string(p.rec.GetResult().GetBody())
	f.Fuzz(func(t *testing.T, b []byte) {
		rec := new(coordpb.RoundRecord)
		if proto.Unmarshal(b, rec) != nil {
			return
		}
		a := verifyRound(h.ch, p.id, rec, h.sources(p))
		for _, found := range a.findings {
			if found.Check == "result_certificate" && found.Result == markOK && rec.GetPhase() == "published" && string(rec.GetResult().GetBody()) != want {
				t.Fatal("another result passes as the published one")
			}
		}
		if r, err := reportRound(h.ch, p.id, rec, "org-0"); err == nil && r == nil {
			t.Fatal("no report and no error")
		}
	})
}
