package prg

import (
	"bytes"
	"crypto/aes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/testdata/vectors"
	"github.com/ruche-federation/ruche/testdata/shared"
)

// dumbCTR encrypts one counter block after the other: the definition that the fused loop is compared with.
func dumbCTR(t testing.TB, key, counter []byte, n int) []byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	iv := append([]byte(nil), counter...)
	var out []byte
	for len(out) < n {
		var b [16]byte
		block.Encrypt(b[:], iv)
		out = append(out, b[:]...)
		for i := 15; i >= 0; i-- {
			iv[i]++
			if iv[i] != 0 {
				break
			}
		}
	}
	return out[:n]
}

// dumbWords is the expansion as SA 2.3 writes it down.
func dumbWords(t testing.TB, s Seed, purpose string, context []byte, words int) []uint32 {
	t.Helper()
	info := append(append([]byte(purpose), 0), context...)
	key, err := hkdf.Key(sha256.New, s.Bytes(), []byte("ruche/secagg/v1/prg"), string(info), 32)
	if err != nil {
		t.Fatal(err)
	}
	ks := dumbCTR(t, key, make([]byte, 16), 4*words)
	out := make([]uint32, words)
	for i := range out {
		out[i] = uint32(ks[4*i]) | uint32(ks[4*i+1])<<8 | uint32(ks[4*i+2])<<16 | uint32(ks[4*i+3])<<24
	}
	return out
}

func testSeed(t testing.TB, fill byte) Seed {
	t.Helper()
	s, err := SeedFromBytes(bytes.Repeat([]byte{fill}, SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDumbReferenceIsNistCounterMode(t *testing.T) {
	recs, err := vectors.Read("testdata/aes-256-ctr.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range recs {
		pt := r.Bytes("plaintext")
		got := dumbCTR(t, r.Bytes("key"), r.Bytes("counter"), len(pt))
		for i := range got {
			got[i] ^= pt[i]
		}
		if !bytes.Equal(got, r.Bytes("ciphertext")) {
			t.Errorf("%s: %x", r["name"], got)
		}
	}
}

func TestHkdfKnownAnswers(t *testing.T) {
	recs, err := vectors.Read("testdata/hkdf-sha256.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range recs {
		okm := r.Bytes("okm")
		got, err := hkdf.Key(sha256.New, r.Bytes("ikm"), r.Bytes("salt"), string(r.Bytes("info")), len(okm))
		if err != nil || !bytes.Equal(got, okm) {
			t.Errorf("%s: %x, %v", r["name"], got, err)
		}
	}
}

func TestHkdfWycheproof(t *testing.T) {
	data, err := os.ReadFile(shared.Path(t, "vectors", "wycheproof", "hkdf_sha256_test.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		TestGroups []struct {
			Tests []struct {
				TcID                 int
				Ikm, Salt, Info, Okm string
				Size                 int
				Result               string
			}
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	n := 0
	for _, g := range file.TestGroups {
		for _, c := range g.Tests {
			n++
			got, err := hkdf.Key(sha256.New, unhex(c.Ikm), unhex(c.Salt), string(unhex(c.Info)), c.Size)
			if c.Result == "invalid" {
				if err == nil {
					t.Errorf("case %d was accepted", c.TcID)
				}
			} else if err != nil || !bytes.Equal(got, unhex(c.Okm)) {
				t.Errorf("case %d: %v", c.TcID, err)
			}
		}
	}
	if n < 80 {
		t.Errorf("only %d cases", n)
	}
}

func TestExpansionsKnownAnswers(t *testing.T) {
	recs, err := vectors.Read("testdata/expansions.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range recs {
		s, err := SeedFromBytes(r.Bytes("seed"))
		if err != nil {
			t.Fatal(err)
		}
		words := make([]uint32, 5*1024+3)
		Fill(words, s, r["purpose"], r.Bytes("context"))
		var got []byte
		for _, w := range words {
			got = binary.LittleEndian.AppendUint32(got, w)
		}
		sum := sha256.Sum256(got)
		if !bytes.Equal(sum[:], r.Bytes("sha256")) || !bytes.HasPrefix(got, r.Bytes("head")) || !bytes.HasSuffix(got, r.Bytes("tail")) {
			t.Errorf("%s: words differ", r["name"])
		}
		read := make([]byte, len(got))
		NewStream(s, r["purpose"], r.Bytes("context")).Read(read)
		if !bytes.Equal(read, got) {
			t.Errorf("%s: stream differs from words", r["name"])
		}
	}
}

func TestFusedLoopEqualsDumbReference(t *testing.T) {
	s, context := testSeed(t, 3), []byte("some context")
	for _, n := range []int{0, 1, 3, 4, 7, 8, 9, 15, 16, 1023, 1024, 1025, 2048, 3000} {
		want := dumbWords(t, s, label.PurposeMask, context, n)
		start := make([]uint32, n)
		for i := range start {
			start[i] = uint32(i) * 0x9e3779b9
		}
		added := append([]uint32(nil), start...)
		Add(added, s, label.PurposeMask, context)
		for i := range added {
			if added[i] != start[i]+want[i] {
				t.Fatalf("%d words: Add differs at %d", n, i)
			}
		}
		Sub(added, s, label.PurposeMask, context)
		for i := range added {
			if added[i] != start[i] {
				t.Fatalf("%d words: Sub does not take back at %d what Add gave", n, i)
			}
		}
		Fill(added, s, label.PurposeMask, context)
		for i := range added {
			if added[i] != want[i] {
				t.Fatalf("%d words: Fill differs at %d", n, i)
			}
		}
	}
}

// TestFastTileEqualsPure: every length up to two tiles' beginnings, at every alignment of a word, and nothing beyond.
func TestFastTileEqualsPure(t *testing.T) {
	keystream := make([]byte, 4*1200+16)
	NewStream(testSeed(t, 6), "data", nil).Read(keystream)
	for n := range 1200 {
		shift := n % 8
		want, got := make([]uint32, 1240), make([]uint32, 1240)
		for i := range want {
			want[i] = uint32(i) * 0x9e3779b9
		}
		copy(got, want)
		addTilePure(want[shift:shift+n], keystream[n%16:n%16+4*n])
		addTile(got[shift:shift+n], keystream[n%16:n%16+4*n])
		if !slices.Equal(got, want) {
			t.Fatalf("%d lanes differ", n)
		}
	}
}

func TestExpansionCanBeReadInPieces(t *testing.T) {
	s := testSeed(t, 9)
	want := dumbWords(t, s, label.PurposeBits, nil, 5000)
	e := NewExpander(s, label.PurposeBits, nil)
	for _, piece := range []int{4, 12, 1024, 2052} {
		got := make([]uint32, len(want))
		for at := 0; at < len(got); at += piece {
			e.Add(got[at:min(at+piece, len(got))], uint64(at))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("pieces of %d words: differ at %d", piece, i)
			}
		}
		for at := 0; at < len(got); at += piece {
			e.Sub(got[at:min(at+piece, len(got))], uint64(at))
		}
		for i := range got {
			if got[i] != 0 {
				t.Fatalf("pieces of %d words: Sub leaves %d at %d", piece, got[i], i)
			}
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("reading from the middle of a block was allowed")
		}
	}()
	e.Add(make([]uint32, 4), 2)
}

func TestStreamReadsInAnyPortions(t *testing.T) {
	s := testSeed(t, 1)
	want := make([]byte, 3*tileBytes+100)
	NewStream(s, "data", nil).Read(want)
	st := NewStream(s, "data", nil)
	var got []byte
	for i := 0; len(got)+16 < len(want); i++ {
		if i%3 == 0 {
			got = binary.LittleEndian.AppendUint64(got, st.Uint64())
			continue
		}
		b := make([]byte, i%15)
		if n, err := st.Read(b); n != len(b) || err != nil {
			t.Fatal(n, err)
		}
		got = append(got, b...)
	}
	if !bytes.Equal(got, want[:len(got)]) {
		t.Error("portions differ from the whole")
	}
}

func TestUint64NIsUniformAndInRange(t *testing.T) {
	st := NewStream(testSeed(t, 2), "data", nil)
	counts := make([]int, 6)
	const draws = 60000
	for range draws {
		v := st.Uint64N(6)
		if v >= 6 {
			t.Fatalf("%d is not below 6", v)
		}
		counts[v]++
	}
	if x := chiSquared(counts, draws); x > 25.7 { // 5 degrees of freedom, one in ten thousand
		t.Errorf("chi squared %.1f: %v", x, counts)
	}
	if v := st.Uint64N(1); v != 0 {
		t.Errorf("%d is not below 1", v)
	}
}

func chiSquared(counts []int, draws int) float64 {
	want := float64(draws) / float64(len(counts))
	x := 0.0
	for _, c := range counts {
		d := float64(c) - want
		x += d * d / want
	}
	return x
}

// TestLowBitsOfMasksAreUniform: the ring may be narrower than a word, so the low bits must be as good as the high.
func TestLowBitsOfMasksAreUniform(t *testing.T) {
	words := make([]uint32, 1<<18)
	for seed := byte(0); seed < 4; seed++ {
		Fill(words, testSeed(t, seed), label.PurposeMask, []byte{seed})
		for _, shift := range []uint{0, 8, 16, 24} {
			counts := make([]int, 256)
			for _, w := range words {
				counts[w>>shift&0xff]++
			}
			// 255 degrees of freedom: mean 255, deviation 22.6; 16 fixed samples, none may be 5 deviations away.
			if x := chiSquared(counts, len(words)); math.Abs(x-255) > 5*22.6 {
				t.Errorf("seed %d, bits %d to %d: chi squared %.1f, want about 255", seed, shift, shift+7, x)
			}
		}
	}
}

func TestPurposesAndContextsGiveUnrelatedStreams(t *testing.T) {
	s := testSeed(t, 5)
	seen := map[string]string{}
	for _, purpose := range []string{label.PurposeMask, label.PurposeBits, label.PurposeZero, label.PurposeRotation, label.PurposeOrthonormal, label.PurposeData} {
		for _, context := range []string{"", "a", "b", "ab", "\x00", "\x00a"} {
			words := make([]uint32, 64)
			Fill(words, s, purpose, []byte(context))
			for at := 0; at < len(words); at += 8 {
				key := fmt.Sprint(words[at : at+8])
				where := fmt.Sprintf("%s %q word %d", purpose, context, at)
				if before, twice := seen[key]; twice {
					t.Errorf("%s repeats %s", where, before)
				}
				seen[key] = where
			}
		}
	}
}

func TestSeedsComeFromTheReaderAndAreChecked(t *testing.T) {
	raw := bytes.Repeat([]byte{0xab}, SeedSize)
	s, err := NewSeed(bytes.NewReader(raw))
	if err != nil || !bytes.Equal(s.Bytes(), raw) || !bytes.Equal(s.Append(nil), raw) {
		t.Fatal("seed is not what the reader gave", err)
	}
	if _, err := NewSeed(bytes.NewReader(raw[:31])); err == nil {
		t.Error("a seed from 31 bytes")
	}
	for _, n := range []int{0, 31, 33} {
		if _, err := SeedFromBytes(make([]byte, n)); err == nil {
			t.Errorf("a seed of %d bytes", n)
		}
	}
	same, _ := SeedFromBytes(raw)
	other, _ := NewSeed(rand.Reader)
	if !s.Equal(same) || s.Equal(other) || s.Equal(Seed{}) || !(Seed{}).Equal(Seed{}) {
		t.Error("Equal is wrong")
	}
	copied := s
	s.Erase()
	if !bytes.Equal(copied.Bytes(), make([]byte, SeedSize)) {
		t.Error("a copy survived Erase")
	}
	if !(Seed{}).IsZero() || copied.IsZero() {
		t.Error("IsZero is wrong")
	}
	defer func() {
		if recover() == nil {
			t.Error("the zero seed was expanded")
		}
	}()
	Add(make([]uint32, 1), Seed{}, label.PurposeMask, nil)
}

// TestSeedsDoNotPrint tries every way in which a value reaches a log.
func TestSeedsDoNotPrint(t *testing.T) {
	raw := []byte("0123456789abcdefghijklmnopqrstuv")
	s, _ := SeedFromBytes(raw)
	type holder struct {
		Public Seed
		hidden Seed
		many   []Seed
	}
	h := holder{s, s, []Seed{s}}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "seed", s, "holder", h)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "seed", s, "holder", &h)
	out := log.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d", "%c"} {
		out += fmt.Sprintf(verb+"\n", s) + fmt.Sprintf(verb+"\n", h) + fmt.Sprintf(verb+"\n", &h)
	}
	if _, err := json.Marshal(h); err == nil {
		t.Error("a seed was marshalled to JSON")
	}
	for _, secret := range []string{"0123456789", hex.EncodeToString(raw[:6]), "48 49 50 51", "0x30, 0x31", "'0' '1'"} {
		if strings.Contains(out, secret) {
			t.Errorf("the seed shows as %q in\n%s", secret, out)
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	for _, words := range []int{1 << 10, 1 << 20} {
		b.Run(fmt.Sprint(words), func(b *testing.B) {
			dst := make([]uint32, words)
			s := testSeed(b, 1)
			b.SetBytes(int64(4 * words))
			for b.Loop() {
				Add(dst, s, label.PurposeMask, nil)
			}
		})
	}
}
