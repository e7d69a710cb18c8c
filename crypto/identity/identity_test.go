package identity

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/ruche-federation/ruche/crypto/label"
)

func TestBothHalvesOfAMemberSignatureMustVerify(t *testing.T) {
	m, err := NewMember(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewMember(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	body := []byte("the rules of the round")
	sig := m.Sign(label.StmtRoundConfig, body)
	pub := m.Public()
	if len(sig) != 64+3309 || len(pub) != 32+1952 || len(m.Bytes()) != 64 {
		t.Fatalf("sizes: signature %d, public %d, private %d", len(sig), len(pub), len(m.Bytes()))
	}
	if err := pub.Verify(label.StmtRoundConfig, body, sig); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(sig, m.Sign(label.StmtRoundConfig, body)) {
		t.Fatal("signing twice gave two signatures")
	}
	splice := func(a, b []byte, at int) []byte { return append(append([]byte(nil), a[:at]...), b[at:]...) }
	foreign := other.Sign(label.StmtRoundConfig, body)
	for _, c := range []struct {
		name, half string
		pub        MemberPublic
		stmt       string
		body, sig  []byte
	}{
		{"the other member's Ed25519 half", "Ed25519", pub, label.StmtRoundConfig, body, splice(foreign, sig, 64)},
		{"the other member's ML-DSA half", "ML-DSA-65", pub, label.StmtRoundConfig, body, splice(sig, foreign, 64)},
		{"the other member's signature", "Ed25519 and ML-DSA-65", pub, label.StmtRoundConfig, body, foreign},
		{"another body", "Ed25519 and ML-DSA-65", pub, label.StmtRoundConfig, []byte("other rules"), sig},
		{"another type of statement", "Ed25519 and ML-DSA-65", pub, label.StmtResult, body, sig},
		{"a key with the other's ML-DSA half", "ML-DSA-65", splice(pub, other.Public(), 32), label.StmtRoundConfig, body, sig},
	} {
		var failed *SignatureError
		if err := c.pub.Verify(c.stmt, c.body, c.sig); !errors.As(err, &failed) || failed.Half != c.half {
			t.Errorf("%s: error %v, want the %s half", c.name, err, c.half)
		}
	}
	for name, err := range map[string]error{
		"short signature":  pub.Verify(label.StmtRoundConfig, body, sig[:len(sig)-1]),
		"long signature":   pub.Verify(label.StmtRoundConfig, body, append(sig, 0)),
		"short public key": pub[:len(pub)-1].Verify(label.StmtRoundConfig, body, sig),
		"no public key":    MemberPublic(nil).Verify(label.StmtRoundConfig, body, sig),
	} {
		if err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestKeySignatureBelongsToOneStatementType(t *testing.T) {
	k, err := NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	body := []byte("round 7, set 9")
	sig := k.Sign(label.StmtVote, body)
	if err := k.Public().Verify(label.StmtVote, body, sig); err != nil {
		t.Fatal(err)
	}
	var failed *SignatureError
	if err := k.Public().Verify(label.StmtReveal, body, sig); !errors.As(err, &failed) || failed.Half != "Ed25519" {
		t.Fatalf("a vote passed as a reveal: %v", err)
	}
	if err := k.Public().Verify(label.StmtVote, append(body, 0), sig); err == nil {
		t.Fatal("a longer body was accepted")
	}
	for _, bad := range [][]byte{nil, sig[:63], append(append([]byte(nil), sig...), 0)} {
		if err := k.Public().Verify(label.StmtVote, body, bad); err == nil {
			t.Fatalf("a signature of %d bytes was accepted", len(bad))
		}
	}
	if err := Public(nil).Verify(label.StmtVote, body, sig); err == nil {
		t.Fatal("no key verified a signature")
	}
}

func TestKeysAreMadeFromTheirSeedsAlone(t *testing.T) {
	seed := make([]byte, MemberSize)
	for i := range seed {
		seed[i] = byte(i)
	}
	m, err := NewMember(bytes.NewReader(seed))
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseMember(m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !m.Equal(again) || !m.Public().Equal(again.Public()) || !bytes.Equal(m.Bytes(), seed) {
		t.Fatal("one seed gave two members")
	}
	k, err := NewKey(bytes.NewReader(seed))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(k.Public(), m.Public()[:PublicSize]) || !bytes.Equal(k.Bytes(), seed[:KeySize]) {
		t.Fatal("the Ed25519 half is not the key of the first 32 bytes")
	}
	if DeviceID(k.Public()) != label.Sum("device", k.Public()) {
		t.Fatal("device id is not H(device, public key)")
	}
	for _, n := range []int{0, 31, 63, 65} {
		if _, err := ParseMember(make([]byte, n)); err == nil {
			t.Errorf("a member key of %d bytes was accepted", n)
		}
		if _, err := ParseKey(make([]byte, n)); err == nil {
			t.Errorf("a key of %d bytes was accepted", n)
		}
	}
	if _, err := NewMember(bytes.NewReader(seed[:63])); err == nil {
		t.Error("a member key from 63 bytes of randomness")
	}
	if _, err := NewKey(bytes.NewReader(seed[:31])); err == nil {
		t.Error("a key from 31 bytes of randomness")
	}
	k.Erase()
	if !bytes.Equal(k.Bytes(), make([]byte, KeySize)) {
		t.Error("an erased key still holds its seed")
	}
}
