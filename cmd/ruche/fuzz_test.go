package main

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
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
		var out bytes.Buffer
		if r, err := reportRound(h.ch, p.id, rec, "org-0"); err == nil {
			must(t, r.print(&out, new(cli.Output)))
		}
		wantPrintable(t, &out)
	})
}

// FuzzLists shows whatever a member may say of members and of rounds.
func FuzzLists(f *testing.F) {
	h := newHive(f, nil)
	p := h.publish(1, nil)
	standing := &coordpb.Standing{AgeMs: 9, ReadsTo: 7, Waits: []*coordpb.Wait{{What: "members up\x1b[2J", Have: 1, Need: 2, Lacks: []uint32{0, 3, math.MaxUint32}}}}
	members, err := proto.Marshal(&coordpb.ListMembersResponse{Members: []*coordpb.MemberStatus{
		{Index: 1, Leader: true, Reachable: true, Role: "voter\n", Term: 3, Standing: standing}, {Index: math.MaxUint32, Self: true}}})
	must(f, err)
	rounds, err := proto.Marshal(&coordpb.ListRoundsResponse{Standing: standing, Rounds: []*coordpb.RoundSummary{
		{RoundId: p.id[:], TaskId: "commons", Seq: 1, Phase: "published", Death: "\u009b2J", OpenedMs: math.MinInt64, EndedMs: math.MaxInt64}, {RoundId: []byte{1}}}})
	must(f, err)
	f.Add(members, rounds, "commons/latest")
	f.Add([]byte{}, rounds, p.id.String()[:8])
	f.Fuzz(func(t *testing.T, members, rounds []byte, name string) {
		all, list := new(coordpb.ListMembersResponse), new(coordpb.ListRoundsResponse)
		if proto.Unmarshal(members, all) != nil || proto.Unmarshal(rounds, list) != nil {
			return
		}
		var out bytes.Buffer
		seen := seenBy(h.ch, all)
		for _, l := range seen {
			out.WriteString(l.note)
		}
		must(t, membersTable(seen).Write(&out, true))
		out.WriteString(standingNote(h.ch, 0, list.GetStanding()))
		lines := make([]roundLine, len(list.GetRounds()))
		for i, r := range list.GetRounds() {
			lines[i] = toLine(r, h.ch.Demo)
		}
		now := time.UnixMilli(epoch0)
		must(t, roundsTable(lines, now).Write(&out, true))
		must(t, adaptersTable(adapterLines(h.ch, list.GetRounds()), now).Write(&out, true))
		wantPrintable(t, &out)
		for _, want := range []wanted{anyRound, anAdapter} {
			_, _ = roundNamed(h.ch, list.GetRounds(), name, want)
		}
	})
}

// wantPrintable: nothing that came from another machine moves the cursor. Two colours are ours.
func wantPrintable(t *testing.T, out *bytes.Buffer) {
	t.Helper()
	text := strings.NewReplacer("\x1b[31m", "", "\x1b[32m", "", "\x1b[0m", "", "\n", "").Replace(out.String())
	if strings.ContainsFunc(text, unicode.IsControl) || !utf8.ValidString(text) {
		t.Fatalf("%q goes to the terminal", text)
	}
}
