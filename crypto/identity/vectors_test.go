package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"

	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/testdata/vectors"
	"github.com/ruche-federation/ruche/testdata/shared"
)

func records(t testing.TB, name string) []vectors.Record {
	t.Helper()
	recs, err := vectors.Read("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return recs
}

// TestCompositeSignaturesOfAnotherImplementation: keys, labels and both halves as a second program computes them.
func TestCompositeSignaturesOfAnotherImplementation(t *testing.T) {
	for _, r := range records(t, "composite.txt") {
		m, err := ParseMember(r.Bytes("seeds"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(m.Public(), r.Bytes("public")) {
			t.Errorf("%s: public key differs", r["name"])
		}
		body := r.Bytes("body")
		if err := m.Public().Verify(r["stmt"], body, append(r.Bytes("ed25519"), r.Bytes("mldsa65")...)); err != nil {
			t.Errorf("%s: %v", r["name"], err)
		}
		if !bytes.Equal(m.Sign(r["stmt"], body)[:KeySignatureSize], r.Bytes("ed25519")) {
			t.Errorf("%s: our Ed25519 half differs", r["name"])
		}
	}
}

func TestEd25519KnownAnswers(t *testing.T) {
	for _, r := range records(t, "ed25519.txt") {
		k, err := ParseKey(r.Bytes("seed"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(k.Public(), r.Bytes("public")) {
			t.Errorf("%s: public key differs", r["name"])
		}
		if got := ed25519.Sign(k.Ed25519(), r.Bytes("message")); !bytes.Equal(got, r.Bytes("signature")) {
			t.Errorf("%s: signature %x", r["name"], got)
		}
	}
}

func TestMldsaKeysKnownAnswers(t *testing.T) {
	for _, r := range records(t, "mldsa65-keygen.txt") {
		m, err := ParseMember(append(make([]byte, KeySize), r.Bytes("seed")...))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(m.Public()[PublicSize:], r.Bytes("public")) {
			t.Errorf("%s: public key differs", r["name"])
		}
	}
}

// TestEd25519Wycheproof judges the verification that Public rests on.
func TestEd25519Wycheproof(t *testing.T) {
	data, err := os.ReadFile(shared.Path(t, "vectors", "wycheproof", "ed25519_test.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		TestGroups []struct {
			PublicKey struct{ Pk string }
			Tests     []struct {
				TcID             int
				Msg, Sig, Result string
			}
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range file.TestGroups {
		pk, err := hex.DecodeString(g.PublicKey.Pk)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range g.Tests {
			n++
			msg, err := hex.DecodeString(c.Msg)
			if err != nil {
				t.Fatal(err)
			}
			sig, err := hex.DecodeString(c.Sig)
			if err != nil {
				t.Fatal(err)
			}
			if got := ed25519.Verify(pk, msg, sig); got != (c.Result == "valid") {
				t.Errorf("case %d is %s, verified: %v", c.TcID, c.Result, got)
			}
		}
	}
	if n < 150 {
		t.Errorf("only %d cases", n)
	}
}

// TestMldsaHalfIsBoundToItsTypeTwice: the type stands in the message and in FIPS 204's context string.
func TestMldsaHalfIsBoundToItsTypeTwice(t *testing.T) {
	m, err := NewMember(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	body := []byte("body")
	sig := m.Sign(label.StmtResult, body)[KeySignatureSize:]
	var pk mldsa65.PublicKey
	if err := pk.UnmarshalBinary(m.Public()[PublicSize:]); err != nil {
		t.Fatal(err)
	}
	msg := label.Signing(label.StmtResult, body)
	if !mldsa65.Verify(&pk, msg, []byte("ruche/secagg/v1/result"), sig) {
		t.Error("the half does not verify under the context that the protocol names")
	}
	if mldsa65.Verify(&pk, msg, nil, sig) || mldsa65.Verify(&pk, msg, []byte("ruche/secagg/v1/abort"), sig) {
		t.Error("the half verifies under another context")
	}
}

func TestPrivateKeysDoNotPrint(t *testing.T) {
	raw := bytes.Repeat([]byte("0123456789abcdef"), 4)
	m, err := ParseMember(raw)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseKey(raw[:KeySize])
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		Member *Member
		Key    *Key
		member *Member
		key    *Key
		plainM Member
		plainK Key
	}
	h := holder{m, k, m, k, *m, *k}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "member", m, "key", k, "holder", h)
	out := log.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		out += fmt.Sprintf(verb+verb+"\n", m, k) + fmt.Sprintf(verb+"\n", h) + fmt.Sprintf(verb+"\n", &h)
	}
	if _, err := json.Marshal(m); err == nil {
		t.Error("a member key was marshalled to JSON")
	}
	if _, err := json.Marshal(k); err == nil {
		t.Error("a key was marshalled to JSON")
	}
	for _, secret := range []string{"0123456789", hex.EncodeToString(raw[:6]), "48 49 50 51", "0x30, 0x31"} {
		if strings.Contains(out, secret) {
			t.Errorf("a key shows as %q", secret)
		}
	}
}

// FuzzVerify: no bytes but the signature itself verify, and none do harm.
func FuzzVerify(f *testing.F) {
	m, err := ParseMember(bytes.Repeat([]byte{1}, MemberSize))
	if err != nil {
		f.Fatal(err)
	}
	body := []byte("body")
	good := m.Sign(label.StmtVote, body)
	f.Add([]byte(m.Public()), good)
	f.Add([]byte(m.Public())[:40], good[:100])
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, pub, sig []byte) {
		err := MemberPublic(pub).Verify(label.StmtVote, body, sig)
		if err == nil && bytes.Equal(pub, m.Public()) && !bytes.Equal(sig, good) {
			t.Error("another signature verifies under a known key")
		}
	})
}

func BenchmarkMemberSign(b *testing.B) {
	m, err := NewMember(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		m.Sign(label.StmtVote, nil)
	}
}

func BenchmarkMemberVerify(b *testing.B) {
	m, err := NewMember(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	sig, pub := m.Sign(label.StmtVote, nil), m.Public()
	for b.Loop() {
		if err := pub.Verify(label.StmtVote, nil, sig); err != nil {
			b.Fatal(err)
		}
	}
}
