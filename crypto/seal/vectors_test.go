package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/cloudflare/circl/hpke"
	"github.com/cloudflare/circl/kem/xwing"

	"github.com/ruche-federation/ruche/crypto/testdata/vectors"
	"github.com/ruche-federation/ruche/testdata/shared"
)

// dumbSeal is RFC 9180's base mode for one message, from the encapsulated secret on: sections 5.1 and 5.2 for the suite
// X-Wing (0x647a), HKDF-SHA256 (1), AES-256-GCM (2), written down without any library's HPKE.
func dumbSeal(t *testing.T, shared, info, aad, plaintext []byte) []byte {
	t.Helper()
	suite := []byte{'H', 'P', 'K', 'E', 0x64, 0x7a, 0, 1, 0, 2}
	extract := func(salt []byte, name string, ikm []byte) []byte {
		labeled := append(append([]byte("HPKE-v1"), suite...), name...)
		prk, err := hkdf.Extract(sha256.New, append(labeled, ikm...), salt)
		if err != nil {
			t.Fatal(err)
		}
		return prk
	}
	expand := func(prk []byte, name string, context []byte, n int) []byte {
		labeled := append([]byte{0, byte(n)}, "HPKE-v1"...)
		labeled = append(append(append(labeled, suite...), name...), context...)
		out, err := hkdf.Expand(sha256.New, prk, string(labeled), n)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	context := append([]byte{0}, extract(nil, "psk_id_hash", nil)...)
	context = append(context, extract(nil, "info_hash", info)...)
	secret := extract(shared, "secret", nil)
	block, err := aes.NewCipher(expand(secret, "key", context, 32))
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return gcm.Seal(nil, expand(secret, "base_nonce", context, 12), plaintext, aad)
}

// checkXWing: the key comes from the seed, circl encapsulates to the given bytes, and a box written by hand around the
// given secret opens.
func checkXWing(t *testing.T, name string, sk, pk, eseed, ct, ss []byte) {
	t.Helper()
	k, err := ParsePrivateKey(sk)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if !bytes.Equal(k.Public(), pk) {
		t.Errorf("%s: public key differs", name)
	}
	gotSS, gotCT, err := xwing.Encapsulate(pk, eseed)
	if err != nil || !bytes.Equal(gotSS, ss) || !bytes.Equal(gotCT, ct) {
		t.Errorf("%s: circl encapsulates otherwise: %v", name, err)
	}
	info, aad, pt := []byte("info"), []byte("aad"), []byte("the seeds of one member")
	got, err := k.Open(append(append([]byte(nil), ct...), dumbSeal(t, ss, info, aad, pt)...), info, aad)
	if err != nil || !bytes.Equal(got, pt) {
		t.Errorf("%s: box written by hand: %q, %v", name, got, err)
	}
}

func TestXWingKnownAnswer(t *testing.T) {
	recs, err := vectors.Read("testdata/xwing.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range recs {
		checkXWing(t, r["name"], r.Bytes("sk"), r.Bytes("pk"), r.Bytes("eseed"), r.Bytes("ct"), r.Bytes("ss"))
	}
}

func readJSON(t *testing.T, v any, elem ...string) {
	t.Helper()
	data, err := os.ReadFile(shared.Path(t, elem...))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestXWingDraftVectors(t *testing.T) {
	var cases []struct{ Sk, Pk, Eseed, Ct, Ss string }
	readJSON(t, &cases, "vectors", "xwing", "test-vectors.json")
	for i, c := range cases {
		checkXWing(t, fmt.Sprint(i), unhex(t, c.Sk), unhex(t, c.Pk), unhex(t, c.Eseed), unhex(t, c.Ct), unhex(t, c.Ss))
	}
}

// TestMlkemWycheproof judges the post-quantum half that the standard library builds X-Wing from.
func TestMlkemWycheproof(t *testing.T) {
	var file struct {
		TestGroups []struct {
			ParameterSet string
			Tests        []struct {
				TcID           int
				Seed, Ek, C, K string
				Result         string
			}
		}
	}
	readJSON(t, &file, "vectors", "wycheproof", "mlkem_768_test.json")
	n := 0
	for _, g := range file.TestGroups {
		for _, c := range g.Tests {
			n++
			dk, err := mlkem.NewDecapsulationKey768(unhex(t, c.Seed))
			if err == nil {
				if c.Ek != "" && !bytes.Equal(dk.EncapsulationKey().Bytes(), unhex(t, c.Ek)) {
					t.Errorf("case %d: encapsulation key differs", c.TcID)
				}
				var k []byte
				k, err = dk.Decapsulate(unhex(t, c.C))
				if err == nil && c.Result == "valid" && !bytes.Equal(k, unhex(t, c.K)) {
					t.Errorf("case %d: secret differs", c.TcID)
				}
			}
			if (err == nil) != (c.Result == "valid") {
				t.Errorf("case %d is %s, got error %v", c.TcID, c.Result, err)
			}
		}
	}
	if n < 190 {
		t.Errorf("only %d cases", n)
	}
}

// TestX25519Wycheproof judges the classical half. Low-order points give a zero secret, which Go refuses.
func TestX25519Wycheproof(t *testing.T) {
	var file struct {
		TestGroups []struct {
			Tests []struct {
				TcID                            int
				Public, Private, Shared, Result string
				Flags                           []string
			}
		}
	}
	readJSON(t, &file, "vectors", "wycheproof", "x25519_test.json")
	n := 0
	for _, g := range file.TestGroups {
		for _, c := range g.Tests {
			n++
			sk, err := ecdh.X25519().NewPrivateKey(unhex(t, c.Private))
			if err != nil {
				t.Fatal(err)
			}
			var got []byte
			pk, err := ecdh.X25519().NewPublicKey(unhex(t, c.Public))
			if err == nil {
				got, err = sk.ECDH(pk)
			}
			want := unhex(t, c.Shared)
			switch {
			case err == nil && !bytes.Equal(got, want):
				t.Errorf("case %d: secret differs", c.TcID)
			case err == nil && c.Result == "invalid":
				t.Errorf("case %d is invalid and was accepted", c.TcID)
			case err != nil && !bytes.Equal(want, make([]byte, 32)):
				t.Errorf("case %d: %v", c.TcID, err)
			}
		}
	}
	if n < 500 {
		t.Errorf("only %d cases", n)
	}
}

// TestCirclAndTheStandardLibraryReadEachOther: two implementations, one format, both ways.
func TestCirclAndTheStandardLibraryReadEachOther(t *testing.T) {
	suite := hpke.NewSuite(hpke.KEM_XWING, hpke.KDF_HKDF_SHA256, hpke.AEAD_AES256GCM)
	scheme := hpke.KEM_XWING.Scheme()
	for i := range 8 {
		k, err := GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		info, aad := []byte(fmt.Sprint("info ", i)), bytes.Repeat([]byte{byte(i)}, i)
		pt := make([]byte, 32*i)
		rand.Read(pt)

		box, err := Seal(k.Public(), info, aad, pt)
		if err != nil {
			t.Fatal(err)
		}
		sk, err := scheme.UnmarshalBinaryPrivateKey(k.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		receiver, err := suite.NewReceiver(sk, info)
		if err != nil {
			t.Fatal(err)
		}
		opener, err := receiver.Setup(box[:EncSize])
		if err != nil {
			t.Fatal(err)
		}
		if got, err := opener.Open(box[EncSize:], aad); err != nil || !bytes.Equal(got, pt) {
			t.Fatalf("circl does not open our box: %v", err)
		}

		pk, err := scheme.UnmarshalBinaryPublicKey(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		sender, err := suite.NewSender(pk, info)
		if err != nil {
			t.Fatal(err)
		}
		enc, sealer, err := sender.Setup(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		ct, err := sealer.Seal(pt, aad)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.Open(append(enc, ct...), info, aad); err != nil || !bytes.Equal(got, pt) {
			t.Fatalf("we do not open circl's box: %v", err)
		}
	}
}

func TestBadPublicKeysAreRefused(t *testing.T) {
	k, err := GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tooLarge := k.Public()
	for i := range tooLarge[:1152] { // coefficients of ML-KEM are below 3329; 0xfff is not
		tooLarge[i] = 0xff
	}
	for name, pk := range map[string][]byte{"none": nil, "short": k.Public()[:PublicSize-1], "long": append(k.Public(), 0), "unreduced": tooLarge} {
		if err := CheckPublic(pk); err == nil {
			t.Errorf("%s public key was accepted", name)
		}
		if _, err := Seal(pk, nil, nil, nil); err == nil {
			t.Errorf("a box was sealed to a %s public key", name)
		}
	}
	if err := CheckPublic(k.Public()); err != nil {
		t.Error(err)
	}
}

func TestPrivateKeysDoNotPrint(t *testing.T) {
	raw := []byte("0123456789abcdefghijklmnopqrstuv")
	k, err := ParsePrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		Public *PrivateKey
		hidden *PrivateKey
		plain  PrivateKey
	}
	h := holder{k, k, *k}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", k, "holder", h)
	out := log.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		out += fmt.Sprintf(verb+"\n", k) + fmt.Sprintf(verb+"\n", h) + fmt.Sprintf(verb+"\n", &h)
	}
	if _, err := json.Marshal(h); err == nil {
		t.Error("a seal key was marshalled to JSON")
	}
	for _, secret := range []string{"0123456789", hex.EncodeToString(raw[:6]), "48 49 50 51", "0x30, 0x31"} {
		if strings.Contains(out, secret) {
			t.Errorf("the key shows as %q", secret)
		}
	}
}

// FuzzOpen: whatever is not a box of ours is refused without harm.
func FuzzOpen(f *testing.F) {
	k, err := ParsePrivateKey(bytes.Repeat([]byte{1}, PrivateSize))
	if err != nil {
		f.Fatal(err)
	}
	box, err := Seal(k.Public(), []byte("i"), []byte("a"), []byte("text"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(box)
	f.Add(box[:EncSize])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		pt, err := k.Open(b, []byte("i"), []byte("a"))
		if err == nil && len(pt) != len(b)-Overhead {
			t.Errorf("a box of %d bytes opened to %d", len(b), len(pt))
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	k, err := GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	pk, pt := k.Public(), make([]byte, 96)
	for b.Loop() {
		if _, err := Seal(pk, nil, nil, pt); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	k, err := GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	box, err := Seal(k.Public(), nil, nil, make([]byte, 96))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := k.Open(box, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
}
