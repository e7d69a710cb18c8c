package charter

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

// organisation is one member with its keys.
type organisation struct {
	card      Card
	identity  *identity.Member
	authority *identity.Key
}

func organisations(t testing.TB, n int) []organisation {
	t.Helper()
	random := rand.NewChaCha8([32]byte{7})
	out := make([]organisation, n)
	for i := range out {
		id, err := identity.NewMember(random)
		must(t, err)
		authority, err := identity.NewKey(random)
		must(t, err)
		tls, err := identity.NewKey(random)
		must(t, err)
		out[i] = organisation{Card{
			Name: fmt.Sprintf("org-%d", i), StoreID: fmt.Sprintf("00000000-0000-4000-8000-%012d", i), Identity: id.Public(),
			Authority: authority.Public(), TLSKey: tls.Public(),
			DeviceURL: fmt.Sprintf("https://org-%d.example:7420", i), MeshAddr: fmt.Sprintf("org-%d.example:7421", i),
		}, id, authority}
	}
	return out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func vectorTask(t testing.TB) Task {
	t.Helper()
	l, err := layout.Vector("mean", 10, []layout.Metric{{Name: "examples", Max: 64}})
	must(t, err)
	task := NewTask("steps", KindVector)
	task.Layout, task.Window, task.InitSeed = l, "24h", label.Sum(label.TagTask, []byte("seed"))
	task.Encoding = Encoding{CReal: 4, C: 2253}
	task.Cohort = Cohort{NMin: 3, NMax: 100}
	task.Timings = Timings{Every: Duration(time.Minute), CloseAfter: Duration(10 * time.Minute), AckTimeout: Duration(30 * time.Second),
		AckAfter: Duration(5 * time.Minute), RevealAfter: Duration(time.Hour)}
	return task
}

func loraTask(t testing.TB) Task {
	t.Helper()
	l, err := layout.LoRA([]layout.Module{{Name: "model.q", In: 16, Out: 8}}, 4, 4, layout.StandardTail())
	must(t, err)
	task := vectorTask(t)
	task.ID, task.Kind, task.Window, task.Layout = "commons", KindLoRA, "", l
	task.Base = strings.Repeat("ab", 32)
	task.Recipe = Recipe{Rank: 4, Alpha: 4, Steps: 8, Batch: 4, Window: 64, LR: 1e-2, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Clip: 1}
	return task
}

func demoOptions(t testing.TB) Options {
	t.Helper()
	return Options{Consortium: "Essaim", Demo: true, F: 1, AuthoritiesFaulty: 0, MinContributors: 3, Tasks: []Task{vectorTask(t), loraTask(t)},
		Timing: Timing{EpochLife: Duration(24 * time.Hour), Slack: Duration(5 * time.Minute), Tick: Duration(time.Second)}}
}

func cards(orgs []organisation) (out []Card) {
	for _, o := range orgs {
		out = append(out, o.card)
	}
	return out
}

// TestFourOrganisationsFound tells how a consortium is founded: cards, a draft, four signatures, one file.
func TestFourOrganisationsFound(t *testing.T) {
	orgs := organisations(t, 4)
	var exchanged []Card
	for _, o := range orgs {
		file, err := SignCard(o.card, o.identity)
		must(t, err)
		c, err := ParseCard(file)
		must(t, err)
		exchanged = append(exchanged, c)
	}
	body, err := Draft(exchanged, demoOptions(t))
	must(t, err)
	var signatures []Signature
	for i := len(orgs) - 1; i >= 0; i-- { // in any order
		s, err := Sign(body, orgs[i].identity)
		must(t, err)
		file, err := MarshalSignature(s)
		must(t, err)
		if s, err = ParseSignature(file); err != nil {
			t.Fatal(err)
		}
		signatures = append(signatures, s)
	}
	if _, err := Assemble(body, signatures[1:]); err == nil {
		t.Error("three of four signatures made a charter")
	}
	file, err := Assemble(body, signatures)
	must(t, err)
	path := filepath.Join(t.TempDir(), "charter.json")
	must(t, os.WriteFile(path, file, 0o600))
	c, err := Load(path)
	must(t, err)
	if c.Hash() != label.Sum(label.TagCharter, body) || !bytes.Equal(c.Body(), body) {
		t.Error("the loaded charter has other bytes than the signed ones")
	}
	if c.Q != 3 || c.Needed() != 3 || c.ActiveMin() != 3 || c.AckReceipts() != 3 || c.Believe() != 2 {
		t.Errorf("(4,1): q %d, needed %d, M %d, receipts %d, believe %d", c.Q, c.Needed(), c.ActiveMin(), c.AckReceipts(), c.Believe())
	}
	if i, ok := c.Member(orgs[2].identity.Public()); !ok || i != 2 {
		t.Errorf("organisation 2 is member %d (%v)", i, ok)
	}
	if task, ok := c.Task("commons"); !ok || task.Init().Hash().IsZero() {
		t.Error("task commons has no init")
	}
	stranger := organisations(t, 5)[4]
	if _, err := Sign(body, stranger.identity); err == nil {
		t.Error("a stranger signed")
	}
}

// TestFileIsRefused alters a good charter file in ways that a signature or the strict reader must catch.
func TestFileIsRefused(t *testing.T) {
	orgs := organisations(t, 4)
	body, err := Draft(cards(orgs), demoOptions(t))
	must(t, err)
	var good charterFile
	good.Charter = body
	for _, o := range orgs {
		s, err := Sign(body, o.identity)
		must(t, err)
		good.Signatures = append(good.Signatures, s)
	}
	marshal := func(f charterFile) []byte {
		b, err := marshalFile(f)
		must(t, err)
		return b
	}
	if _, err := ParseFile(marshal(good)); err != nil {
		t.Fatal(err)
	}
	for name, alter := range map[string]func(f *charterFile){
		"one byte of the body": func(f *charterFile) { f.Charter = append(bytes.Clone(f.Charter), ' ') },
		"one byte of a sig": func(f *charterFile) {
			f.Signatures[3].Signature = append(bytes.Clone(f.Signatures[3].Signature[:3372]), 1)
		},
		"a signature missing":    func(f *charterFile) { f.Signatures = f.Signatures[:3] },
		"a signature twice":      func(f *charterFile) { f.Signatures[2] = f.Signatures[1] },
		"a signature too many":   func(f *charterFile) { f.Signatures = append(f.Signatures, f.Signatures[3]) },
		"two signatures swapped": func(f *charterFile) { f.Signatures[0], f.Signatures[1] = f.Signatures[1], f.Signatures[0] },
	} {
		f := charterFile{Charter: good.Charter, Signatures: append([]Signature(nil), good.Signatures...)}
		alter(&f)
		if _, err := ParseFile(marshal(f)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestStrictJSON holds the reader to one meaning per body.
func TestStrictJSON(t *testing.T) {
	body, err := Draft(cards(organisations(t, 4)), demoOptions(t))
	must(t, err)
	for _, c := range []struct{ name, old, new, want string }{
		{"unknown field", `"demo": true`, `"demo": true, "extra": 1`, "extra"},
		{"key in other case", `"demo": true`, `"Demo": true`, "Demo"},
		{"key twice", `"demo": true`, `"demo": true, "demo": false`, "twice"},
		{"wrong type", `"n": 4`, `"n": "4"`, "n"},
		{"fraction", `"f": 1`, `"f": 1.5`, "f"},
		{"field of a later version: noise", `"noise": null`, `"noise": {"sigma": 1}`, "noise"},
		{"field of a later version: norm_check", `"norm_check": null`, `"norm_check": {}`, "norm_check"},
		{"field of a later version: cells", `"cells": 1`, `"cells": 2`, "cells"},
		{"field of a later version: participants", `"participants": "device"`, `"participants": "site"`, "participants"},
		{"field of a later version: privacy_unit", `"privacy_unit": "device"`, `"privacy_unit": "record"`, "privacy_unit"},
		{"field of a later version: consent", `"consent_text_hash": ""`, `"consent_text_hash": "ab"`, "consent_text_hash"},
		{"missing field", `"participants": "device",`, ``, "participants"},
		{"duration without unit", `"every": "1m0s"`, `"every": "60"`, "duration"},
		{"other protocol", label.Version, "ruche/secagg/v2", "protocol"},
		{"later version", `"version": 1`, `"version": 2`, "version"},
	} {
		altered := strings.Replace(string(body), c.old, c.new, 1)
		if altered == string(body) {
			t.Fatalf("%s: %q is not in the body", c.name, c.old)
		}
		if _, err := Parse([]byte(altered)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v does not name %q", c.name, err, c.want)
		}
	}
	for _, s := range []string{"", "{}", "[]", "null", string(body) + "{}", "{\"a\":", strings.Repeat("[", 100)} {
		if _, err := Parse([]byte(s)); err == nil {
			t.Errorf("%.20q: accepted", s)
		}
	}
}

// TestRules breaks one rule at a time; the error names the field.
func TestRules(t *testing.T) {
	orgs := organisations(t, 4)
	for _, c := range []struct {
		field string
		alter func(*Charter)
	}{
		{"n 4 with f 2", func(c *Charter) { c.F = 2 }},
		{"q is", func(c *Charter) { c.Q = 2 }},
		{"members has", func(c *Charter) { c.Members = c.Members[:3] }},
		{"authorities_faulty", func(c *Charter) { c.AuthoritiesFaulty = 2 }},
		{"authorities_faulty", func(c *Charter) { c.Demo = false }},
		{"min_contributors", func(c *Charter) { c.MinContributors = 2 }},
		{"min_contributors", func(c *Charter) { c.Demo, c.AuthoritiesFaulty = false, 1 }},
		{"consortium", func(c *Charter) { c.Consortium = "a/b" }},
		{"timing.epoch_life", func(c *Charter) { c.Timing.EpochLife = Duration(25 * time.Hour) }},
		{"timing.slack", func(c *Charter) { c.Timing.Slack = Duration(12 * time.Hour) }},
		{"timing.tick", func(c *Charter) { c.Timing.Tick = 0 }},
		{"timing.profile", func(c *Charter) { c.Timing.Profile = "moon" }},
		{"timing.profile", func(c *Charter) {
			c.Timing.Profile, c.Demo, c.AuthoritiesFaulty, c.MinContributors = ProfileLoopback, false, c.F, CohortFloor
		}},
		{"tasks has", func(c *Charter) { c.Tasks = nil }},
		{"named", func(c *Charter) { c.Tasks[1].ID = c.Tasks[0].ID }},
		{"kind", func(c *Charter) { c.Tasks[0].Kind = "median" }},
		{"window", func(c *Charter) { c.Tasks[0].Window = "" }},
		{"window", func(c *Charter) { c.Tasks[0].Window = "1500ms" }},
		{"window", func(c *Charter) { c.Tasks[1].Window = "24h" }},
		{"base", func(c *Charter) { c.Tasks[1].Base = strings.Repeat("AB", 32) }},
		{"base", func(c *Charter) { c.Tasks[0].Base = strings.Repeat("ab", 32) }},
		{"recipe.steps", func(c *Charter) { c.Tasks[1].Recipe.Steps = 0 }},
		{"recipe.rank", func(c *Charter) { c.Tasks[1].Recipe.Rank = 8 }},
		{"recipe", func(c *Charter) { c.Tasks[0].Recipe.Steps = 1 }},
		{"layout", func(c *Charter) { c.Tasks[0].Layout.Trained = nil }},
		{"cohort.n_min", func(c *Charter) { c.Tasks[0].Cohort.NMin = 2 }},
		{"cohort.n_max", func(c *Charter) { c.Tasks[0].Cohort.NMax = 2 }},
		{"encoding", func(c *Charter) { c.Tasks[0].Encoding.C = 1 << 20 }},
		{"encoding.c_real", func(c *Charter) { c.Tasks[0].Encoding.CReal = 0 }},
		{"timings.close_after", func(c *Charter) { c.Tasks[0].Timings.CloseAfter = 0 }},
		{"ack_timeout", func(c *Charter) { c.Tasks[0].Timings.AckTimeout = Duration(time.Hour) }},
		{"half of epoch_life", func(c *Charter) { c.Tasks[0].Timings.RevealAfter = Duration(12 * time.Hour) }},
		{"same identity", func(c *Charter) { c.Members[1].Identity = c.Members[0].Identity }},
		{"same authority", func(c *Charter) { c.Members[1].Authority = c.Members[0].Authority }},
		{"same mesh_addr", func(c *Charter) { c.Members[1].MeshAddr = c.Members[0].MeshAddr }},
		{"device_url", func(c *Charter) { c.Members[1].DeviceURL = "http://org-1.example:7420" }},
		{"device_url", func(c *Charter) { c.Members[1].DeviceURL = "https://org-1.example:7420/path" }},
		{"mesh_addr", func(c *Charter) { c.Members[1].MeshAddr = "org-1.example" }},
		{"store_id", func(c *Charter) { c.Members[1].StoreID = "x" }},
	} {
		body, err := Draft(cards(orgs), demoOptions(t))
		must(t, err)
		var ch Charter
		must(t, json.Unmarshal(body, &ch))
		c.alter(&ch)
		if err := ch.Check(); err == nil || !strings.Contains(err.Error(), c.field) {
			t.Errorf("error %v does not name %q", err, c.field)
		}
	}
}

// TestTableOfSizes repeats the table of SA 2.2.
func TestTableOfSizes(t *testing.T) {
	for _, row := range []struct{ n, f, q, needed int }{
		{1, 0, 1, 1}, {2, 1, 2, 2}, {3, 1, 3, 3}, {4, 1, 3, 3}, {5, 1, 4, 4}, {5, 2, 4, 5}, {7, 2, 5, 5}, {7, 3, 6, 7},
	} {
		c := &Charter{N: row.n, F: row.f, Q: Quorum(row.n, row.f)}
		if err := CheckSize(row.n, row.f); err != nil {
			t.Error(err)
		}
		if c.Q != row.q || c.Needed() != row.needed {
			t.Errorf("(%d,%d): q %d, needed %d; the table says %d, %d", row.n, row.f, c.Q, c.Needed(), row.q, row.needed)
		}
		if row.n > 2*row.f && 2*c.Q-row.n <= row.f {
			t.Errorf("(%d,%d): two quorums share only %d members", row.n, row.f, 2*c.Q-row.n)
		}
	}
	for n := range 10 {
		for f := range 10 {
			known := false
			for _, s := range sizes {
				known = known || s == [2]int{n, f}
			}
			if (CheckSize(n, f) == nil) != known {
				t.Errorf("(%d,%d)", n, f)
			}
		}
	}
}

// TestWindows: a device is summed once per data window, so a window has one name and a known end.
func TestWindows(t *testing.T) {
	task := vectorTask(t)
	now := time.Date(2026, 11, 21, 10, 30, 0, 0, time.UTC)
	part := task.WindowPart(now)
	if part != "2026-11-20T00:00:00Z/24h" {
		t.Errorf("the last complete day is %q", part)
	}
	end, err := task.ParseWindowPart(part)
	must(t, err)
	if !end.Equal(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("it ends at %v", end)
	}
	for _, bad := range []string{"", "24h", "2026-11-20T00:00:01Z/24h", "2026-11-20T00:00:00Z/12h", "2026-11-20T00:00:00+00:00/24h", "2026-11-20T00:00:00Z/24h "} {
		if _, err := task.ParseWindowPart(bad); err == nil {
			t.Errorf("%q is a window", bad)
		}
	}
	task.Window = "winter 2026"
	if part := task.WindowPart(now); part != "winter 2026" {
		t.Errorf("the window is %q", part)
	}
	if end, err := task.ParseWindowPart("winter 2026"); err != nil || !end.IsZero() {
		t.Errorf("end %v, error %v", end, err)
	}
}

func FuzzParse(f *testing.F) {
	body, err := Draft(cards(organisations(f, 4)), demoOptions(f))
	must(f, err)
	f.Add(body)
	f.Add([]byte(`{"protocol":"ruche/secagg/v1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := Parse(b); err == nil && !bytes.Equal(c.Body(), b) {
			t.Error("the body is not what was read")
		}
	})
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte(`{"charter":"` + base64.StdEncoding.EncodeToString([]byte("{}")) + `","signatures":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ParseFile(b); err == nil {
			t.Error("a charter without signatures was accepted")
		}
	})
}

func FuzzParseCard(f *testing.F) {
	o := organisations(f, 1)[0]
	b, err := SignCard(o.card, o.identity)
	must(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseCard(b); err == nil && c.Check() != nil {
			t.Error("an invalid card was accepted")
		}
	})
}

// FuzzParseSignature: whatever an organisation sends as its signature is read back as it was written, and makes no charter.
func FuzzParseSignature(f *testing.F) {
	of := organisations(f, 4)
	body, err := Draft(cards(of), demoOptions(f))
	must(f, err)
	var rest []Signature
	for _, o := range of[1:] {
		s, err := Sign(body, o.identity)
		must(f, err)
		rest = append(rest, s)
	}
	good, err := Sign(body, of[0].identity)
	must(f, err)
	b, err := MarshalSignature(good)
	must(f, err)
	f.Add(b)
	f.Add([]byte(`{"member":-9223372036854775808,"signature":""}`))
	f.Add([]byte(`{"member":1,"signature":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSignature(b)
		if err != nil {
			return
		}
		again, err := MarshalSignature(s)
		must(t, err)
		if back, err := ParseSignature(again); err != nil || back.Member != s.Member || !bytes.Equal(back.Signature, s.Signature) {
			t.Fatalf("%+v is read back as %+v, %v", s, back, err)
		}
		if _, err := Assemble(body, append([]Signature{s}, rest...)); err == nil && (s.Member != good.Member || !bytes.Equal(s.Signature, good.Signature)) {
			t.Error("a charter with another signature")
		}
	})
}

// FuzzParseWindowPart: a part that a round may start from names one window, which ends when the part says.
func FuzzParseWindowPart(f *testing.F) {
	task := vectorTask(f)
	f.Add("2026-11-20T00:00:00Z/24h")
	f.Add("0000-01-01T00:00:00Z/24h")
	f.Add("9999-12-31T00:00:00Z/24h")
	f.Fuzz(func(t *testing.T, part string) {
		end, err := task.ParseWindowPart(part)
		if err != nil {
			return
		}
		if got := task.WindowPart(end); got != part {
			t.Errorf("%q ends at %v, when %q has ended", part, end, got)
		}
		if got := task.WindowPart(end.Add(-time.Nanosecond)); got == part {
			t.Errorf("%q has ended before its end", part)
		}
	})
}
