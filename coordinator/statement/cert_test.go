package statement

import (
	"bytes"
	"slices"
	"testing"

	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

// TestRoundCert: a device believes q listed members, and only the config that its charter prescribes.
func TestRoundCert(t *testing.T) {
	c := newConsortium(t, 4, 1)
	rc := c.config(t)
	good := rc.Bytes()
	if _, err := VerifyRoundCert(c.ch, good, c.roundCert(good, 0, 2, 3)); err != nil {
		t.Fatal(err)
	}
	if rc.ID() != RoundID(good) || rc.Listed() != 0b1111 || rc.ContributionSize(c.ch) == 0 {
		t.Errorf("id %v, listed %v", rc.ID(), rc.Listed())
	}
	if err := rc.Committee(c.ch).Validate(); err != nil {
		t.Error(err)
	}
	if p := rc.Params(&c.ch.Tasks[0]); p.Validate() != nil || p.Gamma() != rc.Gamma || p.Len() != int(rc.Len) {
		t.Error("the encoder's parameters are not the config's")
	}
	forged := c.roundCert(good, 0, 2, 3)
	forged[1].Signature = forged[0].Signature
	for name, sigs := range map[string][]MemberSignature{
		"two of three":     c.roundCert(good, 0, 2),
		"one twice":        c.roundCert(good, 0, 2, 2),
		"a forged one":     forged,
		"a stranger's":     append(c.roundCert(good, 0, 2), MemberSignature{4, nil}),
		"another document": c.roundCert(append(bytes.Clone(good), 0), 0, 2, 3),
	} {
		if _, err := VerifyRoundCert(c.ch, good, sigs); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestLeaderHasNoChoice alters one field of a proposed config at a time and has all members sign it: no device runs it.
func TestLeaderHasNoChoice(t *testing.T) {
	c := newConsortium(t, 4, 1)
	for name, alter := range map[string]func(rc *RoundConfig){
		"another consortium":       func(rc *RoundConfig) { rc.Consortium = "Other" },
		"another charter":          func(rc *RoundConfig) { rc.Charter[0] ^= 1 },
		"another task":             func(rc *RoundConfig) { rc.Task = "other" },
		"another base":             func(rc *RoundConfig) { rc.Base[0] ^= 1 },
		"another layout":           func(rc *RoundConfig) { rc.Layout[0] ^= 1 },
		"fewer lanes":              func(rc *RoundConfig) { rc.Len-- },
		"another step":             func(rc *RoundConfig) { rc.Gamma *= 2 },
		"another clip":             func(rc *RoundConfig) { rc.CReal *= 2 },
		"another bound":            func(rc *RoundConfig) { rc.B++ },
		"a lower floor":            func(rc *RoundConfig) { rc.NMin-- },
		"a larger cohort":          func(rc *RoundConfig) { rc.NMax++ },
		"an earlier close":         func(rc *RoundConfig) { rc.CloseMs-- },
		"a later ack deadline":     func(rc *RoundConfig) { rc.AckMs++ },
		"a later reveal":           func(rc *RoundConfig) { rc.RevealMs++ },
		"an earlier not_after":     func(rc *RoundConfig) { rc.NotAfterMs-- },
		"too few members":          func(rc *RoundConfig) { rc.KeyPackages = rc.KeyPackages[:2] },
		"a window of the leader's": func(rc *RoundConfig) { rc.Start.Part = "my window" },
		"a window to come":         func(rc *RoundConfig) { rc.Start.Part = c.ch.Tasks[0].WindowPart(unixMs(rc.ProposedMs + 2*hour)) },
		"an earlier result":        func(rc *RoundConfig) { rc.Start.Results = []label.Hash{{1}} },
		"no start model":           func(rc *RoundConfig) { rc.Start.Model = label.Hash{} },
		"a forged key package":     func(rc *RoundConfig) { rc.KeyPackages[1].Signature[5] ^= 1 },
		"a package of another charter": func(rc *RoundConfig) {
			rc.KeyPackages[1] = c.keyPackage(1, func(k *KeyPackage) { k.Charter[0] ^= 1 })
		},
		"a package signed by another": func(rc *RoundConfig) {
			k, _ := rc.Package(1)
			rc.KeyPackages[1] = SignMember(c.identities[0], label.StmtKeyPackage, k.Bytes())
		},
		"a package too old": func(rc *RoundConfig) {
			rc.KeyPackages[1] = c.keyPackage(1, func(k *KeyPackage) { k.NotBeforeMs -= 22 * hour; k.NotAfterMs -= 22 * hour })
		},
		"two members with one vote key": func(rc *RoundConfig) {
			rc.KeyPackages[1] = c.keyPackage(1, func(k *KeyPackage) { k.VoteKey = c.votes[0].Public() })
		},
	} {
		rc := c.config(t)
		rc.KeyPackages = slices.Clone(rc.KeyPackages)
		for i := range rc.KeyPackages {
			rc.KeyPackages[i].Signature = bytes.Clone(rc.KeyPackages[i].Signature)
		}
		alter(rc)
		body := rc.Bytes()
		if _, err := VerifyRoundCert(c.ch, body, c.roundCert(body, 0, 1, 2, 3)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestSetAndDeadCerts: q votes of one value; a death also by the word of every listed member that it never revealed.
func TestSetAndDeadCerts(t *testing.T) {
	c := newConsortium(t, 4, 1)
	rc := c.config(t)
	id := rc.ID()
	set := HashSet(id, []Contributor{{label.Hash{1}, label.Hash{2}}})
	vote := func(value label.Hash, members ...int) []MemberStatement {
		return c.said(label.StmtVote, (&Vote{id, value}).Bytes(), members...)
	}
	check := func(name string, err error, ok bool) {
		t.Helper()
		if (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	check("three votes", VerifySetCert(c.ch, rc, set, vote(set, 0, 1, 3)), true)
	check("two votes", VerifySetCert(c.ch, rc, set, vote(set, 0, 1)), false)
	check("one vote thrice", VerifySetCert(c.ch, rc, set, vote(set, 1, 1, 1)), false)
	check("votes for two values", VerifySetCert(c.ch, rc, set, append(vote(set, 0, 1), vote(Dead(), 2, 3)...)), false)
	check("DEAD is no set", VerifySetCert(c.ch, rc, Dead(), vote(Dead(), 0, 1, 2)), false)
	check("votes of another round", VerifySetCert(c.ch, rc, set, c.said(label.StmtVote, (&Vote{label.Hash{9}, set}).Bytes(), 0, 1, 2)), false)
	check("votes under another type", VerifySetCert(c.ch, rc, set, c.said(label.StmtAck, (&Vote{id, set}).Bytes(), 0, 1, 2)), false)
	stolen := vote(set, 0, 1, 2)
	stolen[2].Member = 3
	check("a vote under another name", VerifySetCert(c.ch, rc, set, stolen), false)

	expired := func(members ...int) []MemberStatement {
		return c.said(label.StmtExpired, (&Expired{id}).Bytes(), members...)
	}
	check("three DEAD votes", VerifyDeadCert(c.ch, rc, vote(Dead(), 0, 1, 2), nil), true)
	check("two DEAD votes", VerifyDeadCert(c.ch, rc, vote(Dead(), 0, 1), nil), false)
	check("all expired", VerifyDeadCert(c.ch, rc, nil, expired(0, 1, 2, 3)), true)
	check("all expired beside two DEAD votes", VerifyDeadCert(c.ch, rc, vote(Dead(), 0, 1), expired(3, 2, 1, 0)), true)
	check("three of four expired", VerifyDeadCert(c.ch, rc, nil, expired(0, 1, 2)), false)
	check("nothing", VerifyDeadCert(c.ch, rc, nil, nil), false)
}

// TestResultCert: f+1 identities over one body.
func TestResultCert(t *testing.T) {
	c := newConsortium(t, 4, 1)
	r := (&Result{Round: label.Hash{1}, Set: label.Hash{2}, X: label.Hash{3}, Model: label.Hash{4}}).Bytes()
	sign := func(members ...int) (out []MemberSignature) {
		for _, j := range members {
			out = append(out, MemberSignature{j, c.identities[j].Sign(label.StmtResult, r)})
		}
		return out
	}
	if _, err := VerifyResultCert(c.ch, r, sign(1, 3)); err != nil {
		t.Error(err)
	}
	if _, err := VerifyResultCert(c.ch, r, sign(1)); err == nil {
		t.Error("one signature published a result")
	}
	if _, err := VerifyResultCert(c.ch, r, sign(1, 1)); err == nil {
		t.Error("one member published a result")
	}
	other := bytes.Clone(r)
	other[len(other)-1] ^= 1
	if _, err := VerifyResultCert(c.ch, other, sign(1, 3)); err == nil {
		t.Error("signatures of one result published another")
	}
}

// TestAckCert: n-f receipts for one record are what a device may rely on.
func TestAckCert(t *testing.T) {
	c := newConsortium(t, 4, 1)
	rc := c.config(t)
	header := label.Hash{5}
	receipt := func(index uint64, members ...int) []MemberStatement {
		return c.said(label.StmtReceipt, (&Receipt{rc.ID(), header, index}).Bytes(), members...)
	}
	if index, err := VerifyAckCert(c.ch, rc, header, receipt(9, 0, 1, 3)); err != nil || index != 9 {
		t.Errorf("index %d, error %v", index, err)
	}
	for name, r := range map[string][]MemberStatement{
		"two":               receipt(9, 0, 1),
		"one thrice":        receipt(9, 0, 0, 0),
		"one twice of four": receipt(9, 0, 1, 0, 2),
		"of two logs":       append(receipt(9, 0, 1), receipt(10, 2)...),
		"of another device": c.said(label.StmtReceipt, (&Receipt{rc.ID(), label.Hash{6}, 9}).Bytes(), 0, 1, 2),
	} {
		if _, err := VerifyAckCert(c.ch, rc, header, r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestDevice: an enrolment, a contribution, and what must not pass for either.
func TestDevice(t *testing.T) {
	c := newConsortium(t, 4, 1)
	key := c.key(t)
	cert := &DeviceCert{Charter: c.ch.Hash(), Device: identity.DeviceID(key.Public()), Public: key.Public(), Authority: 2, Quota: 10,
		ExpiresMs: epoch0 + 100*hour, Token: HashToken([]byte("token"))}
	if _, err := VerifyDeviceCert(c.ch, SignKey(c.authorities[2], label.StmtDeviceCert, cert.Bytes())); err != nil {
		t.Error(err)
	}
	if _, err := VerifyDeviceCert(c.ch, SignKey(c.authorities[1], label.StmtDeviceCert, cert.Bytes())); err == nil {
		t.Error("another authority certified the device")
	}
	cert.Charter[0] ^= 1
	if _, err := VerifyDeviceCert(c.ch, SignKey(c.authorities[2], label.StmtDeviceCert, cert.Bytes())); err == nil {
		t.Error("a certificate of another charter was accepted")
	}
	h := statements(t)["header"].value.(*Header)
	sig := SignContribution(key, h.Round, h.Hash())
	if err := VerifyContribution(key.Public(), h.Round, h.Hash(), sig); err != nil {
		t.Error(err)
	}
	if err := VerifyContribution(key.Public(), label.Hash{1}, h.Hash(), sig); err == nil {
		t.Error("a contribution moved to another round")
	}
}

// TestHeaderAAD: boxes are bound to every field but their own hash.
func TestHeaderAAD(t *testing.T) {
	get := func(alter func(h *Header)) string {
		h := statements(t)["header"].value.(*Header)
		alter(h)
		return string(h.AAD())
	}
	same := get(func(*Header) {})
	if get(func(h *Header) { h.Boxes[0] ^= 1 }) != same {
		t.Error("the AAD hangs on the boxes' hash, which no device knows before it seals")
	}
	for i, alter := range []func(h *Header){
		func(h *Header) { h.Round[0] ^= 1 }, func(h *Header) { h.Device[0] ^= 1 }, func(h *Header) { h.Cert[0] ^= 1 },
		func(h *Header) { h.Kind++ }, func(h *Header) { h.Nonce[0] ^= 1 }, func(h *Header) { h.Len++ }, func(h *Header) { h.Y[0] ^= 1 },
		func(h *Header) { h.Commitments[3][0] ^= 1 }, func(h *Header) { h.Commitments = h.Commitments[:3] }, func(h *Header) { h.Bits[0] ^= 1 },
	} {
		if get(alter) == same {
			t.Errorf("field %d is not in the AAD", i)
		}
	}
	if HashBoxes([][]byte{{1, 2}, {3}}) == HashBoxes([][]byte{{1}, {2, 3}}) {
		t.Error("boxes are not framed")
	}
}

// TestSets: the hash of a set is of the set, that of a candidate list of the list, and no set is DEAD.
func TestSets(t *testing.T) {
	a, b := Contributor{label.Hash{1}, label.Hash{9}}, Contributor{label.Hash{2}, label.Hash{8}}
	round := label.Hash{7}
	if HashSet(round, []Contributor{a, b}) != HashSet(round, []Contributor{b, a}) {
		t.Error("a set has an order")
	}
	if HashCandidates(round, []Contributor{a, b}) == HashCandidates(round, []Contributor{b, a}) {
		t.Error("a candidate list has none")
	}
	if HashSet(round, []Contributor{a, b}) == HashSet(label.Hash{6}, []Contributor{a, b}) || HashSet(round, nil) == Dead() {
		t.Error("two things have one hash")
	}
}
