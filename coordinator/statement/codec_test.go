package statement

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

var update = flag.Bool("update", false, "rewrite the golden encodings; commit the change only with a new version byte")

// body is any statement's canonical encoding.
type body interface{ Bytes() []byte }

// statements is one of each type, with every field set, and its parser.
func statements(t testing.TB) map[string]struct {
	value body
	parse func([]byte) (body, error)
} {
	t.Helper()
	type entry = struct {
		value body
		parse func([]byte) (body, error)
	}
	h := func(s string) label.Hash { return label.Sum(label.TagTask, []byte(s)) }
	key, err := identity.ParseKey(bytes.Repeat([]byte{9}, identity.KeySize))
	must(t, err)
	k := &KeyPackage{Charter: h("charter"), Member: 2, Epoch: 7, SealKey: bytes.Repeat([]byte{3}, SealPublicSize), VoteKey: key.Public(),
		NotBeforeMs: 1000, NotAfterMs: 9000}
	rc := &RoundConfig{Consortium: "Essaim", Charter: h("charter"), Task: "steps", Seq: 5, ProposedMs: 2000,
		Start: Start{Results: []label.Hash{h("result")}, Model: h("model"), Part: "B"}, Base: h("base"), Layout: h("layout"),
		Values: 10, Tail: 1, Len: 1025, RingBits: 32, Gamma: 0.5, CReal: 4, C: 2253, B: 6345011, Participant: "device", PrivacyUnit: "device",
		NotAfterMs: 9000, NMin: 20, NMax: 100, CloseMs: 3000, AckMs: 4000, RevealMs: 5000,
		KeyPackages: []Signed{{Body: k.Bytes(), Signature: []byte("signature")}}}
	return map[string]entry{
		"key_package":  {k, func(b []byte) (body, error) { return ParseKeyPackage(b) }},
		"round_config": {rc, func(b []byte) (body, error) { return ParseRoundConfig(b) }},
		"device_cert": {&DeviceCert{Charter: h("charter"), Device: identity.DeviceID(key.Public()), Public: key.Public(), Authority: 1,
			Quota: 40, ExpiresMs: 12345, Token: h("token")}, func(b []byte) (body, error) { return ParseDeviceCert(b) }},
		"header": {&Header{Round: h("round"), Device: h("device"), Cert: h("cert"), Kind: KindDevice, Nonce: [16]byte{1, 2, 3}, Len: 1025,
			Y: h("y"), Commitments: []label.Hash{h("c1"), h("c2"), h("c3"), h("c4")}, Boxes: h("boxes")}, func(b []byte) (body, error) { return ParseHeader(b) }},
		"accept": {&Accept{Round: h("round"), Header: h("header"), Device: h("device"), Authority: 3, Size: 4100, Holders: 7,
			Signature: bytes.Repeat([]byte{8}, identity.KeySignatureSize)}, func(b []byte) (body, error) { return ParseAccept(b) }},
		"receipt": {&Receipt{Round: h("round"), Header: h("header"), Index: 77}, func(b []byte) (body, error) { return ParseReceipt(b) }},
		"close":   {&Close{Round: h("round"), Active: 0b1011, Candidates: h("candidates")}, func(b []byte) (body, error) { return ParseClose(b) }},
		"ack": {&Ack{Round: h("round"), Close: h("close"), Verdicts: []Verdict{OK, Missing, OK, OK, BadBox, OK, OK, OK, BadLength, OK}},
			func(b []byte) (body, error) { return ParseAck(b) }},
		"vote":    {&Vote{Round: h("round"), Value: Dead()}, func(b []byte) (body, error) { return ParseVote(b) }},
		"expired": {&Expired{Round: h("round")}, func(b []byte) (body, error) { return ParseExpired(b) }},
		"reveal": {&Reveal{Round: h("round"), Set: h("set"), SumY: h("sum"), TSums: []TSum{{7, h("t7")}, {11, h("t11")}}},
			func(b []byte) (body, error) { return ParseReveal(b) }},
		"result":  {&Result{Round: h("round"), Set: h("set"), X: h("x"), Model: h("model")}, func(b []byte) (body, error) { return ParseResult(b) }},
		"abort":   {&Abort{Round: h("round"), Reason: "wrong base model"}, func(b []byte) (body, error) { return ParseAbort(b) }},
		"erasure": {&Erasure{Charter: h("charter"), Member: 1, Epoch: 3, AtMs: 4444}, func(b []byte) (body, error) { return ParseErasure(b) }},
		"rejoin": {&Rejoin{Charter: h("charter"), Member: 1, Store: "123e4567-e89b-42d3-a456-426614174000", AtMs: 5555},
			func(b []byte) (body, error) { return ParseRejoin(b) }},
		"signed": {Signed{Body: []byte("body"), Signature: []byte("signature")}, func(b []byte) (body, error) { return ParseSigned(b) }},
	}
}

// TestGolden holds every encoding to its file: what members signed last year must be read next year. Then it holds
// every parser to exactly that: no other version, no other type, no byte more or less.
func TestGolden(t *testing.T) {
	all := statements(t)
	for name, s := range all {
		t.Run(name, func(t *testing.T) {
			got := s.value.Bytes()
			path := filepath.Join("testdata", name+".hex")
			if *update {
				must(t, os.MkdirAll("testdata", 0o755))
				must(t, os.WriteFile(path, []byte(hex.EncodeToString(got)+"\n"), 0o644))
			}
			file, err := os.ReadFile(path)
			must(t, err)
			want, err := hex.DecodeString(strings.TrimSpace(string(file)))
			must(t, err)
			if !bytes.Equal(got, want) {
				t.Fatalf("encodes to %x, the golden file has %x", got, want)
			}
			back, err := s.parse(want)
			must(t, err)
			if !bytes.Equal(back.Bytes(), want) {
				t.Error("does not encode to what it was parsed from")
			}
			later := bytes.Clone(want)
			later[1]++
			if _, err := s.parse(later); err == nil || !strings.Contains(err.Error(), "version 2") {
				t.Errorf("version 2: %v", err)
			}
			if _, err := s.parse(append(bytes.Clone(want), 0)); err == nil || !strings.Contains(err.Error(), "after its end") {
				t.Errorf("a trailing byte: %v", err)
			}
			for n := range len(want) {
				if n > 64 && n < len(want)-64 && n%37 != 0 {
					continue
				}
				if _, err := s.parse(want[:n]); err == nil {
					t.Fatalf("%d of %d bytes were accepted", n, len(want))
				}
			}
			for other, o := range all {
				if _, err := o.parse(want); other != name && err == nil {
					t.Errorf("is read as %s too", other)
				}
			}
		})
	}
}

// TestRefused sets one field of each type to what no honest sender writes.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		alter func(b body)
		want  string
	}{
		{"key_package", func(b body) { b.(*KeyPackage).Epoch = 0 }, "epoch 0"},
		{"key_package", func(b body) { b.(*KeyPackage).Member = 7 }, "member 7"},
		{"key_package", func(b body) { b.(*KeyPackage).SealKey = []byte{1} }, "seal key"},
		{"key_package", func(b body) { b.(*KeyPackage).NotAfterMs = 1000 }, "ends before"},
		{"key_package", func(b body) { b.(*KeyPackage).NotAfterMs = 1001 + 24*hour }, "24 h"},
		{"key_package", func(b body) { b.(*KeyPackage).NotAfterMs = -1 }, "naf"},
		{"round_config", func(b body) { b.(*RoundConfig).NormCheck = 1 }, "norm_check"},
		{"round_config", func(b body) { b.(*RoundConfig).Noise = 1 }, "noise"},
		{"round_config", func(b body) { b.(*RoundConfig).Participant = "site" }, "participants"},
		{"round_config", func(b body) { b.(*RoundConfig).PrivacyUnit = "record" }, "privacy_unit"},
		{"round_config", func(b body) { b.(*RoundConfig).Consent[0] = 1 }, "consent"},
		{"round_config", func(b body) { b.(*RoundConfig).Cell = 1 }, "cell_id"},
		{"round_config", func(b body) { b.(*RoundConfig).RingBits = 31 }, "31 bits"},
		{"round_config", func(b body) { b.(*RoundConfig).Seq = 0 }, "seq"},
		{"round_config", func(b body) { b.(*RoundConfig).AckMs = 3000 }, "deadlines"},
		{"round_config", func(b body) { b.(*RoundConfig).NotAfterMs = 9001 }, "naf"},
		{"round_config", func(b body) { b.(*RoundConfig).ProposedMs = 999 }, "first half"},
		{"round_config", func(b body) { rc := b.(*RoundConfig); rc.KeyPackages = append(rc.KeyPackages, rc.KeyPackages[0]) }, "ascending"},
		{"round_config", func(b body) { b.(*RoundConfig).Task = strings.Repeat("x", 65) }, "limit 64"},
		{"device_cert", func(b body) { b.(*DeviceCert).Device[0] ^= 1 }, "another device"},
		{"device_cert", func(b body) { b.(*DeviceCert).Quota = 0 }, "quota"},
		{"device_cert", func(b body) { b.(*DeviceCert).Token = label.Hash{} }, "zero"},
		{"header", func(b body) { b.(*Header).Kind = 2 }, "kind 2"},
		{"header", func(b body) { b.(*Header).Bits[0] = 1 }, "norm check"},
		{"header", func(b body) { b.(*Header).Len = 0 }, "length 0"},
		{"header", func(b body) { b.(*Header).Commitments = nil }, "commitments"},
		{"header", func(b body) { b.(*Header).Commitments = make([]label.Hash, 36) }, "limit 35"},
		{"accept", func(b body) { b.(*Accept).Holders = 1 << 7 }, "holders"},
		{"accept", func(b body) { b.(*Accept).Signature = []byte{1} }, "signature"},
		{"close", func(b body) { b.(*Close).Active = 1 << 20 }, "active"},
		{"ack", func(b body) { b.(*Ack).Verdicts[1] = 99 }, "verdict 99"},
		{"reveal", func(b body) { r := b.(*Reveal); r.TSums[0], r.TSums[1] = r.TSums[1], r.TSums[0] }, "order"},
		{"reveal", func(b body) { b.(*Reveal).TSums = make([]TSum, 36) }, "limit 35"},
		{"result", func(b body) { b.(*Result).Model = label.Hash{} }, "zero"},
		{"abort", func(b body) { b.(*Abort).Reason = "a\nb" }, "control"},
		{"abort", func(b body) { b.(*Abort).Reason = strings.Repeat("a", 201) }, "limit 200"},
		{"erasure", func(b body) { b.(*Erasure).Epoch = 0 }, "epoch 0"},
		{"rejoin", func(b body) { b.(*Rejoin).Store = "a/b" }, "UUID"},
		{"rejoin", func(b body) { b.(*Rejoin).Store = strings.Repeat("a", 37) }, "limit 36"},
		{"rejoin", func(b body) { b.(*Rejoin).AtMs = -1 }, "time"},
	} {
		s := statements(t)[c.name]
		c.alter(s.value)
		if _, err := s.parse(s.value.Bytes()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v does not say %q", c.name, err, c.want)
		}
	}
}

// TestAckIsCanonical: spare bits would give one list of verdicts two encodings.
func TestAckIsCanonical(t *testing.T) {
	a := &Ack{Verdicts: []Verdict{OK, OK, OK}}
	b := a.Bytes()
	b[len(b)-1] |= 1 << 3
	if _, err := ParseAck(b); err == nil {
		t.Error("a bit beyond the candidates was accepted")
	}
	full := &Ack{Verdicts: make([]Verdict, CandidatesMax)}
	for i := range full.Verdicts {
		full.Verdicts[i] = Missing
	}
	if n := len(full.Bytes()); n > AckBytesMax {
		t.Errorf("an ack that refuses %d candidates has %d bytes, limit %d", CandidatesMax, n, AckBytesMax)
	}
	if _, err := ParseAck(full.Bytes()); err != nil {
		t.Error(err)
	}
}

func fuzz(f *testing.F, name string) {
	s := statements(f)[name]
	f.Add(s.value.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := s.parse(b); err == nil && !bytes.Equal(v.Bytes(), b) {
			t.Errorf("%x is read as %x", b, v.Bytes())
		}
	})
}

func FuzzKeyPackage(f *testing.F)  { fuzz(f, "key_package") }
func FuzzRoundConfig(f *testing.F) { fuzz(f, "round_config") }
func FuzzDeviceCert(f *testing.F)  { fuzz(f, "device_cert") }
func FuzzHeader(f *testing.F)      { fuzz(f, "header") }
func FuzzAccept(f *testing.F)      { fuzz(f, "accept") }
func FuzzReceipt(f *testing.F)     { fuzz(f, "receipt") }
func FuzzClose(f *testing.F)       { fuzz(f, "close") }
func FuzzAck(f *testing.F)         { fuzz(f, "ack") }
func FuzzVote(f *testing.F)        { fuzz(f, "vote") }
func FuzzExpired(f *testing.F)     { fuzz(f, "expired") }
func FuzzReveal(f *testing.F)      { fuzz(f, "reveal") }
func FuzzResult(f *testing.F)      { fuzz(f, "result") }
func FuzzAbort(f *testing.F)       { fuzz(f, "abort") }
func FuzzErasure(f *testing.F)     { fuzz(f, "erasure") }
func FuzzRejoin(f *testing.F)      { fuzz(f, "rejoin") }
func FuzzSigned(f *testing.F)      { fuzz(f, "signed") }
