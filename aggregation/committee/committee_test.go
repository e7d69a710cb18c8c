package committee

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/prg"
	"github.com/ruche-federation/ruche/crypto/seal"
)

// table is SA 2.2: how many members may be missing while a round still opens.
var table = []struct{ n, f, missing int }{
	{1, 0, 0}, {2, 1, 0}, {3, 1, 0}, {4, 1, 1}, {5, 1, 1}, {5, 2, 0}, {7, 2, 2}, {7, 3, 0},
}

// seeded is a reproducible io.Reader; nothing here depends on its quality.
func seeded(seed uint64) io.Reader {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	return mathrand.NewChaCha8(key)
}

// committee is n members with their epoch keys, and a round that lists some of them.
type committee struct {
	keys  []*seal.PrivateKey
	round Round
}

func newCommittee(t testing.TB, n, f, lanes int, absent ...int) committee {
	t.Helper()
	rnd := seeded(uint64(100*n + f))
	c := committee{round: Round{ID: label.Sum(label.TagRoundConfig, []byte{byte(n), byte(f)}), N: n, F: f, Len: lanes}}
	for j := range n {
		k, err := seal.GenerateKey(rnd)
		if err != nil {
			t.Fatal(err)
		}
		c.keys = append(c.keys, k)
		if !slices.Contains(absent, j) {
			c.round.Listed = append(c.round.Listed, Recipient{Member: j, Epoch: uint64(10 + j), SealKey: k.Public()})
		}
	}
	if err := c.round.Validate(); err != nil {
		t.Fatal(err)
	}
	return c
}

// upload is one contribution as a member sees it.
type upload struct {
	device label.Hash
	nonce  Nonce
	sealed Sealed
	x      []uint32
}

// header stands in for the hash of the header fields except the boxes.
func header(device label.Hash, nonce Nonce, commitments []label.Hash, yHash label.Hash) []byte {
	h := label.New(label.TagHeader)
	h.Write(device[:])
	h.Write(nonce[:])
	for _, c := range commitments {
		h.Write(c[:])
	}
	h.Write(yHash[:])
	return h.Sum(nil)
}

func (u upload) aad() []byte { return header(u.device, u.nonce, u.sealed.Commitments, u.sealed.YHash) }

func (c committee) upload(t testing.TB, i int) upload {
	t.Helper()
	rnd := seeded(uint64(5000 + i))
	u := upload{device: label.Sum(label.TagDevice, []byte{byte(i), byte(i >> 8)}), x: make([]uint32, c.round.Len)}
	u.nonce[0] = byte(i)
	raw := make([]byte, 4*c.round.Len)
	rnd.Read(raw)
	x, err := ParseVector(raw, c.round.Len)
	if err != nil {
		t.Fatal(err)
	}
	u.x = x
	before := slices.Clone(x)
	u.sealed, err = Contribute(c.round, u.device, u.nonce, x, func(com []label.Hash, y label.Hash) []byte {
		return header(u.device, u.nonce, com, y)
	}, rnd)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(x, before) {
		t.Fatal("Contribute changed its input")
	}
	return u
}

func (c committee) open(u upload, member int) (Shares, error) {
	b := c.round.BoxIndex(member)
	if b < 0 {
		return Shares{}, fmt.Errorf("no box for member %d", member)
	}
	return OpenBox(c.round, member, c.round.Listed[b].Epoch, c.keys[member], u.device, u.nonce, u.sealed.Commitments, u.sealed.Boxes[b], u.aad())
}

// sums is one member's work on a set.
func (c committee) sums(t testing.TB, member int, set []upload) TSums {
	t.Helper()
	sums := TSums{}
	for _, u := range set {
		s, err := c.open(u, member)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.AddTo(sums); err != nil {
			t.Fatal(err)
		}
	}
	return sums
}

// choose lists the subsets of size k of 0 … n−1.
func choose(n, k int) [][]int {
	var out [][]int
	for m := Mask(0); m < 1<<uint(n); m++ {
		if m.Size() == k {
			out = append(out, m.Members())
		}
	}
	return out
}

// TestSumOpensWithoutAnyMembersThatMayBeMissing is the central property: for every committee, every crash set within
// what may be missing and random drop-outs of devices, the unmasked sum is the plain sum, bit for bit.
func TestSumOpensWithoutAnyMembersThatMayBeMissing(t *testing.T) {
	for _, row := range table {
		t.Run(fmt.Sprintf("%d,%d", row.n, row.f), func(t *testing.T) {
			c := newCommittee(t, row.n, row.f, 37)
			var all []upload
			for i := range 9 {
				all = append(all, c.upload(t, i))
			}
			pick := mathrand.New(mathrand.NewPCG(uint64(row.n), uint64(row.f)))
			for missing := 0; missing <= row.missing; missing++ {
				for _, crashed := range choose(row.n, missing) {
					var set []upload
					for _, u := range all {
						if pick.IntN(3) > 0 || len(set) == 0 {
							set = append(set, u)
						}
					}
					c.checkSum(t, set, crashed)
				}
			}
		})
	}
}

func (c committee) checkSum(t *testing.T, set []upload, crashed []int) {
	t.Helper()
	sumY, plain := make([]uint32, c.round.Len), make([]uint32, c.round.Len)
	for _, u := range set {
		if err := AddBytes(sumY, u.sealed.Y); err != nil {
			t.Fatal(err)
		}
		if err := AddVector(plain, u.x); err != nil {
			t.Fatal(err)
		}
	}
	fetched := TSums{}
	for j := range c.round.N {
		if slices.Contains(crashed, j) || c.round.BoxIndex(j) < 0 {
			continue
		}
		for m, v := range c.sums(t, j, set) {
			if have, ok := fetched[m]; ok && !slices.Equal(have, v) {
				t.Fatalf("two holders of subset %v have different sums", m)
			}
			fetched[m] = v
		}
	}
	x, err := Unmask(c.round, sumY, fetched)
	if err != nil {
		t.Fatalf("without %v: %v", crashed, err)
	}
	if !slices.Equal(x, plain) {
		t.Fatalf("without %v: the unmasked sum is not the plain sum", crashed)
	}
	if slices.Equal(sumY, plain) {
		t.Fatal("the vectors were not masked")
	}
}

// TestUnlistedMembersGetNoBoxAndAreNotNeeded: a round may list fewer members than the charter has.
func TestUnlistedMembersGetNoBoxAndAreNotNeeded(t *testing.T) {
	c := newCommittee(t, 4, 1, 8, 2)
	u := c.upload(t, 1)
	if len(u.sealed.Boxes) != 3 || len(u.sealed.Commitments) != 4 {
		t.Fatalf("%d boxes, %d commitments", len(u.sealed.Boxes), len(u.sealed.Commitments))
	}
	for _, b := range u.sealed.Boxes {
		if len(b) != BoxSize(4, 1) {
			t.Errorf("box of %d bytes, want %d", len(b), BoxSize(4, 1))
		}
	}
	c.checkSum(t, []upload{u, c.upload(t, 2)}, nil)
	if _, err := OpenBox(c.round, 2, 12, c.keys[2], u.device, u.nonce, u.sealed.Commitments, u.sealed.Boxes[1], u.aad()); err == nil {
		t.Error("a member that is not listed opened a box")
	}
}

// TestFewerThanFPlusOneMembersCannotUnmask names the subsets that nobody present holds.
func TestFewerThanFPlusOneMembersCannotUnmask(t *testing.T) {
	for _, row := range table {
		c := newCommittee(t, row.n, row.f, 5)
		set := []upload{c.upload(t, 1), c.upload(t, 2)}
		for _, present := range choose(row.n, row.f) {
			fetched, here := TSums{}, Mask(0)
			for _, j := range present {
				here |= 1 << uint(j)
				for m, v := range c.sums(t, j, set) {
					fetched[m] = v
				}
			}
			_, err := Unmask(c.round, make([]uint32, 5), fetched)
			var missing *MissingError
			if !errors.As(err, &missing) {
				t.Fatalf("(%d,%d) with %v: %v", row.n, row.f, present, err)
			}
			// Exactly one subset of size n−f has no member among f others: all the rest of the committee.
			if rest := Mask(1<<uint(row.n)-1) &^ here; len(missing.Subsets) != 1 || missing.Subsets[0] != rest || !strings.Contains(err.Error(), rest.String()) {
				t.Errorf("(%d,%d) with %v: %v, want %v", row.n, row.f, present, err, rest)
			}
		}
	}
}

// TestFMembersSeeOnlyNoise: what the subset of the others hides is as good as the PRG: y minus all that f members can
// compute is x plus a mask that none of them holds.
func TestFMembersSeeOnlyNoise(t *testing.T) {
	c := newCommittee(t, 4, 1, 1<<16)
	u := c.upload(t, 1)
	left, err := ParseVector(u.sealed.Y, c.round.Len)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range c.sums(t, 0, []upload{u}) {
		subLanes(left, v)
	}
	subLanes(left, u.x) // what remains is the mask of {1,2,3}
	ones := 0
	for _, w := range left {
		ones += int(w & 1)
	}
	if d := ones - len(left)/2; d < -640 || d > 640 { // five deviations of 128
		t.Errorf("%d of %d low bits are set", ones, len(left))
	}
}

// TestContributionsOpenOnlyWhereTheyWereMadeFor: swapped, garbled and replayed boxes are refused, each with its flaw.
func TestContributionsOpenOnlyWhereTheyWereMadeFor(t *testing.T) {
	c := newCommittee(t, 4, 1, 16)
	u, other := c.upload(t, 1), c.upload(t, 2)
	if _, err := c.open(u, 1); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		change func(c *committee, u *upload)
		flaw   Flaw
	}{
		{"another round", func(c *committee, u *upload) { c.round.ID = label.Sum(label.TagRoundConfig, []byte("other")) }, FlawBox},
		{"another device id", func(c *committee, u *upload) { u.device = other.device }, FlawBox},
		{"another nonce", func(c *committee, u *upload) { u.nonce[15] ^= 1 }, FlawBox},
		{"another device's box", func(c *committee, u *upload) { u.sealed.Boxes = other.sealed.Boxes }, FlawBox},
		{"the next member's box", func(c *committee, u *upload) { u.sealed.Boxes[1] = u.sealed.Boxes[2] }, FlawBox},
		{"a flipped bit", func(c *committee, u *upload) { u.sealed.Boxes[1][seal.EncSize+5] ^= 1 }, FlawBox},
		{"an empty box", func(c *committee, u *upload) { u.sealed.Boxes[1] = nil }, FlawBox},
		{"another y", func(c *committee, u *upload) { u.sealed.YHash = other.sealed.YHash }, FlawBox},
		{"another commitment", func(c *committee, u *upload) { u.sealed.Commitments[3] = other.sealed.Commitments[3] }, FlawBox},
		{"a commitment too few", func(c *committee, u *upload) { u.sealed.Commitments = u.sealed.Commitments[:3] }, FlawCommitments},
		{"a commitment too many", func(c *committee, u *upload) {
			u.sealed.Commitments = append(u.sealed.Commitments, label.Hash{})
		}, FlawCommitments},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c2, u2 := c, u
			u2.sealed.Commitments = slices.Clone(u.sealed.Commitments)
			u2.sealed.Boxes = nil
			for _, b := range u.sealed.Boxes {
				u2.sealed.Boxes = append(u2.sealed.Boxes, slices.Clone(b))
			}
			tc.change(&c2, &u2)
			_, err := c2.open(u2, 1)
			var invalid *InvalidError
			if !errors.As(err, &invalid) || invalid.Flaw != tc.flaw || invalid.Member != 1 {
				t.Errorf("error %v, want flaw %d of member 1", err, tc.flaw)
			}
		})
	}
}

// TestReplayUnderTheSameHeaderMeetsTheCommitments: even a device that binds its boxes to nothing cannot move seeds from
// one round, device or nonce to another, since commitments name all three.
func TestReplayUnderTheSameHeaderMeetsTheCommitments(t *testing.T) {
	c := newCommittee(t, 4, 1, 4)
	u := c.upload(t, 1)
	plain := make([]byte, 32*3)
	rand.Read(plain)
	sealAs := func(plain []byte) []byte {
		box, err := seal.Seal(c.keys[1].Public(), boxInfo(c.round.ID, 1, 11), u.aad(), plain)
		if err != nil {
			t.Fatal(err)
		}
		return box
	}
	try := func(device label.Hash, nonce Nonce, box []byte) error {
		_, err := OpenBox(c.round, 1, 11, c.keys[1], device, nonce, u.sealed.Commitments, box, u.aad())
		return err
	}
	var invalid *InvalidError
	if err := try(u.device, u.nonce, sealAs(plain)); !errors.As(err, &invalid) || invalid.Flaw != FlawCommitment || invalid.Subset != 0b0111 {
		t.Errorf("other seeds: %v", err)
	}
	good, err := c.keys[1].Open(u.sealed.Boxes[1], boxInfo(c.round.ID, 1, 11), u.aad())
	if err != nil {
		t.Fatal(err)
	}
	if err := try(u.device, u.nonce, sealAs(good)); err != nil {
		t.Fatal(err)
	}
	if err := try(label.Hash{1}, u.nonce, sealAs(good)); !errors.As(err, &invalid) || invalid.Flaw != FlawCommitment {
		t.Errorf("another device: %v", err)
	}
	if err := try(u.device, Nonce{9}, sealAs(good)); !errors.As(err, &invalid) || invalid.Flaw != FlawCommitment {
		t.Errorf("another nonce: %v", err)
	}
	// The last seed alone differs: the commitment named is that of the last subset of member 1.
	bent := slices.Clone(good)
	bent[len(bent)-1] ^= 1
	if err := try(u.device, u.nonce, sealAs(bent)); !errors.As(err, &invalid) || invalid.Subset != 0b1110 {
		t.Errorf("last seed changed: %v", err)
	}
	for _, n := range []int{0, 1, 64, 95, 97, 128} {
		err := try(u.device, u.nonce, sealAs(make([]byte, n)))
		if !errors.As(err, &invalid) || invalid.Flaw != FlawSeeds || invalid.Got != n || invalid.Want != 96 {
			t.Errorf("%d bytes of seeds: %v", n, err)
		}
	}
}

// TestOwnMistakesAreNotTheDevices: a wrong key or epoch must never become a nack of an honest device.
func TestOwnMistakesAreNotTheDevices(t *testing.T) {
	c := newCommittee(t, 4, 1, 4)
	u := c.upload(t, 1)
	for name, try := range map[string]func() error{
		"another member's key": func() error {
			_, err := OpenBox(c.round, 1, 11, c.keys[2], u.device, u.nonce, u.sealed.Commitments, u.sealed.Boxes[1], u.aad())
			return err
		},
		"another epoch": func() error {
			_, err := OpenBox(c.round, 1, 12, c.keys[1], u.device, u.nonce, u.sealed.Commitments, u.sealed.Boxes[1], u.aad())
			return err
		},
		"no such member": func() error {
			_, err := OpenBox(c.round, 4, 14, c.keys[1], u.device, u.nonce, u.sealed.Commitments, u.sealed.Boxes[1], u.aad())
			return err
		},
		"a key erased meanwhile": func() error {
			k, err := seal.ParsePrivateKey(c.keys[1].Bytes())
			if err != nil {
				t.Fatal(err)
			}
			k.Erase()
			_, err = OpenBox(c.round, 1, 11, k, u.device, u.nonce, u.sealed.Commitments, u.sealed.Boxes[1], u.aad())
			return err
		},
	} {
		var invalid *InvalidError
		if err := try(); err == nil || errors.As(err, &invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMaskedVectorIsTheDefinition recomputes y from the seeds in the boxes, one word after the other.
func TestMaskedVectorIsTheDefinition(t *testing.T) {
	c := newCommittee(t, 5, 2, chunkLanes+77)
	u := c.upload(t, 3)
	want := slices.Clone(u.x)
	seen := map[Mask]bool{}
	for j := range 5 {
		plain, err := c.keys[j].Open(u.sealed.Boxes[j], boxInfo(c.round.ID, j, uint64(10+j)), u.aad())
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range SubsetsOf(5, 2, j) {
			if seen[m] {
				continue
			}
			seen[m] = true
			s, err := prg.SeedFromBytes(plain[32*i : 32*i+32])
			if err != nil {
				t.Fatal(err)
			}
			context := append(append(append([]byte(nil), c.round.ID[:]...), u.device[:]...), u.nonce[:]...)
			context = append(context, 0, 0, 0, byte(m))
			words := make([]uint32, len(want))
			prg.Fill(words, s, "mask", context)
			for k := range want {
				want[k] += words[k]
			}
		}
	}
	if len(seen) != 10 || !bytes.Equal(VectorBytes(want), u.sealed.Y) {
		t.Errorf("y is not x plus the masks of all %d subsets", len(seen))
	}
	if u.sealed.YHash != label.Sum(label.TagContribution, u.sealed.Y) {
		t.Error("hash of y differs from the hash of its bytes")
	}
}

// TestOnlyBoxesDependOnOtherRandomness: the same reader gives the same y and commitments.
func TestOnlyBoxesDependOnOtherRandomness(t *testing.T) {
	c := newCommittee(t, 4, 1, 9)
	a, b := c.upload(t, 1), c.upload(t, 1)
	if !bytes.Equal(a.sealed.Y, b.sealed.Y) || !slices.Equal(a.sealed.Commitments, b.sealed.Commitments) {
		t.Error("one reader gave two contributions")
	}
	if bytes.Equal(a.sealed.Boxes[0], b.sealed.Boxes[0]) {
		t.Error("sealing is deterministic")
	}
	o := c.upload(t, 2)
	for i := range o.sealed.Commitments {
		if o.sealed.Commitments[i] == a.sealed.Commitments[i] {
			t.Error("two devices made one commitment")
		}
	}
}

func TestContributeRefusesBadRounds(t *testing.T) {
	c := newCommittee(t, 4, 1, 4)
	aad := func([]label.Hash, label.Hash) []byte { return nil }
	for name, change := range map[string]func(r *Round){
		"no members":        func(r *Round) { r.N = 0 },
		"too many members":  func(r *Round) { r.N = MembersMax + 1 },
		"nobody honest":     func(r *Round) { r.F = 4 },
		"negative f":        func(r *Round) { r.F = -1 },
		"no lanes":          func(r *Round) { r.Len = 0 },
		"too many lanes":    func(r *Round) { r.Len = LenMax + 1 },
		"no id":             func(r *Round) { r.ID = label.Hash{} },
		"too few listed":    func(r *Round) { r.Listed = r.Listed[:1] },
		"listed twice":      func(r *Round) { r.Listed[1] = r.Listed[0] },
		"listed descending": func(r *Round) { r.Listed[0], r.Listed[1] = r.Listed[1], r.Listed[0] },
		"listed outside":    func(r *Round) { r.Listed[3].Member = 4 },
		"short key":         func(r *Round) { r.Listed[2].SealKey = r.Listed[2].SealKey[1:] },
	} {
		r := c.round
		r.Listed = slices.Clone(r.Listed)
		change(&r)
		if _, err := Contribute(r, label.Hash{}, Nonce{}, make([]uint32, 4), aad, rand.Reader); err == nil {
			t.Errorf("a round with %s was served", name)
		}
	}
	if _, err := Contribute(c.round, label.Hash{}, Nonce{}, make([]uint32, 5), aad, rand.Reader); err == nil {
		t.Error("a longer vector was masked")
	}
	if _, err := Contribute(c.round, label.Hash{}, Nonce{}, make([]uint32, 4), nil, rand.Reader); err == nil {
		t.Error("boxes were bound to no header")
	}
	if _, err := Contribute(c.round, label.Hash{}, Nonce{}, make([]uint32, 4), aad, bytes.NewReader(make([]byte, 100))); err == nil {
		t.Error("masks from exhausted randomness")
	}
}

func TestSubsets(t *testing.T) {
	for n := 1; n <= MembersMax; n++ {
		for f := 0; f < n; f++ {
			all := Subsets(n, f)
			if len(all) != Count(n, f) || !slices.IsSorted(all) || len(slices.Compact(slices.Clone(all))) != len(all) {
				t.Fatalf("(%d,%d): %v", n, f, all)
			}
			for j := range n {
				mine := SubsetsOf(n, f, j)
				if len(mine) != Count(n-1, f) || !slices.IsSorted(mine) {
					t.Fatalf("(%d,%d) member %d: %v", n, f, j, mine)
				}
				for _, m := range mine {
					if !m.Has(j) || m.Size() != n-f {
						t.Fatalf("(%d,%d) member %d holds %v", n, f, j, m)
					}
				}
			}
		}
	}
	for _, bad := range [][2]int{{0, 0}, {MembersMax + 1, 1}, {3, 3}, {3, -1}, {-1, -2}} {
		if got := Subsets(bad[0], bad[1]); got != nil {
			t.Errorf("Subsets(%d, %d) = %v", bad[0], bad[1], got)
		}
	}
	if SubsetsOf(4, 1, 4) != nil || SubsetsOf(4, 1, -1) != nil {
		t.Error("a member outside the committee holds subsets")
	}
	if got := fmt.Sprint(Subsets(4, 1)); got != "[{0,1,2} {0,1,3} {0,2,3} {1,2,3}]" {
		t.Error(got)
	}
	if Mask(1).Has(-1) || Mask(1).Has(32) {
		t.Error("bits outside the mask are set")
	}
}

func TestUnmaskRefusesWhatDoesNotFit(t *testing.T) {
	c := newCommittee(t, 2, 1, 3)
	full := func() TSums { return TSums{1: make([]uint32, 3), 2: make([]uint32, 3)} }
	if _, err := Unmask(c.round, make([]uint32, 3), full()); err != nil {
		t.Fatal(err)
	}
	if _, err := Unmask(c.round, make([]uint32, 4), full()); err == nil {
		t.Error("a longer sum was unmasked")
	}
	short := full()
	short[2] = short[2][:2]
	if _, err := Unmask(c.round, make([]uint32, 3), short); err == nil {
		t.Error("a shorter sum of masks was used")
	}
	extra := full()
	extra[3] = make([]uint32, 3)
	if _, err := Unmask(c.round, make([]uint32, 3), extra); err == nil {
		t.Error("the sum of a subset that does not exist was ignored")
	}
	if err := full().Add(short); err == nil {
		t.Error("sums of different lengths were added")
	}
	if got := Lift([]uint32{0, 1, 1<<31 - 1, 1 << 31, 1<<32 - 1}); !slices.Equal(got, []int64{0, 1, 1<<31 - 1, -1 << 31, -1}) {
		t.Error(got)
	}
}

// TestWorkersSumsJoin: contributions folded by two workers apart give what one would have.
func TestWorkersSumsJoin(t *testing.T) {
	c := newCommittee(t, 3, 1, 6)
	set := []upload{c.upload(t, 1), c.upload(t, 2), c.upload(t, 3)}
	one := c.sums(t, 0, set)
	joined := c.sums(t, 0, set[:1])
	if err := joined.Add(c.sums(t, 0, set[1:])); err != nil {
		t.Fatal(err)
	}
	empty := TSums{}
	if err := empty.Add(joined); err != nil {
		t.Fatal(err)
	}
	for m, v := range one {
		if !slices.Equal(empty[m], v) {
			t.Errorf("subset %v differs", m)
		}
	}
	shares, err := c.open(set[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := shares.AddTo(TSums{shares.Subsets()[1]: make([]uint32, 5)}); err == nil {
		t.Error("masks were added to a shorter sum")
	}
	shares.Erase()
}

// TestMasksOfSeveralContributions: added together, a subset at a time, they are what they are one by one.
func TestMasksOfSeveralContributions(t *testing.T) {
	c := newCommittee(t, 4, 1, 2*chunkLanes+5)
	want := TSums{}
	var of []Shares
	for i := range 3 {
		s, err := c.open(c.upload(t, i), 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.AddTo(want); err != nil {
			t.Fatal(err)
		}
		of = append(of, s)
	}
	for _, m := range slices.Backward(of[0].Subsets()) {
		sum := make([]uint32, c.round.Len)
		if err := AddMasks(m, sum); err != nil {
			t.Fatal(err)
		}
		if err := AddMasks(m, sum, of...); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(sum, want[m]) {
			t.Errorf("the masks of subset %v differ", m)
		}
		if err := AddMasks(m, make([]uint32, 5), of...); err == nil {
			t.Error("masks were added to a shorter sum")
		}
	}
	if err := AddMasks(Mask(0b1110), make([]uint32, c.round.Len), of...); err == nil {
		t.Error("masks of another member's subset were added")
	}
}

func TestVectorsHaveOneForm(t *testing.T) {
	v := make([]uint32, tileLanes+3)
	for i := range v {
		v[i] = uint32(i) * 2654435761
	}
	b := VectorBytes(v)
	for n := range 40 { // around the eight words that are written at once
		var want []byte
		for _, w := range v[:n] {
			want = binary.LittleEndian.AppendUint32(want, w)
		}
		if got := AppendVector([]byte{9}, v[:n]); !bytes.Equal(got[1:], want) || got[0] != 9 {
			t.Errorf("%d lanes are written wrongly", n)
		}
	}
	back, err := ParseVector(b, len(v))
	if err != nil || !slices.Equal(back, v) {
		t.Fatal(err)
	}
	if HashVector(label.TagSum, v) != label.Sum(label.TagSum, b) {
		t.Error("HashVector is not the hash of the bytes")
	}
	for _, bad := range [][]byte{nil, b[:len(b)-1], append(slices.Clone(b), 0)} {
		if _, err := ParseVector(bad, len(v)); err == nil {
			t.Errorf("%d bytes were read as %d lanes", len(bad), len(v))
		}
		if err := AddBytes(back, bad); err == nil {
			t.Errorf("%d bytes were added to %d lanes", len(bad), len(v))
		}
	}
	if _, err := ParseVector(nil, -1); err == nil {
		t.Error("a vector of negative length")
	}
	if err := AddVector(back, v[1:]); err == nil {
		t.Error("a shorter vector was added")
	}
}

func TestSharesDoNotPrint(t *testing.T) {
	c := newCommittee(t, 3, 1, 2)
	u := c.upload(t, 1)
	s, err := c.open(u, 1)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := c.keys[1].Open(u.sealed.Boxes[1], boxInfo(c.round.ID, 1, 11), u.aad())
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		Public Shares
		hidden Shares
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "shares", s, "holder", holder{s, s})
	out := log.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		out += fmt.Sprintf(verb, s) + fmt.Sprintf(verb, holder{s, s}) + fmt.Sprintf(verb, &holder{s, s})
	}
	if _, err := json.Marshal(s); err == nil {
		t.Error("shares were marshalled to JSON")
	}
	for _, secret := range []string{hex.EncodeToString(plain[:6]), strings.Trim(fmt.Sprint(plain[:6]), "[]"), string(plain[:6])} {
		if strings.Contains(out, secret) {
			t.Errorf("a seed shows as %q", secret)
		}
	}
}

// FuzzOpenBox: whatever a device puts into a box and beside it is accepted only as n−f seeds that match.
func FuzzOpenBox(f *testing.F) {
	c := newCommittee(f, 4, 1, 2)
	u := c.upload(f, 1)
	plain, err := c.keys[1].Open(u.sealed.Boxes[1], boxInfo(c.round.ID, 1, 11), u.aad())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain, []byte("aad"), 0)
	f.Add(plain[:64], []byte{}, 1)
	f.Add([]byte{}, []byte{}, 4)
	f.Fuzz(func(t *testing.T, seeds, aad []byte, drop int) {
		box, err := seal.Seal(c.keys[1].Public(), boxInfo(c.round.ID, 1, 11), aad, seeds)
		if err != nil {
			t.Fatal(err)
		}
		com := u.sealed.Commitments[:4-min(max(drop, 0), 4)]
		s, err := OpenBox(c.round, 1, 11, c.keys[1], u.device, u.nonce, com, box, aad)
		if ok := err == nil; ok != (len(com) == 4 && bytes.Equal(seeds, plain)) {
			t.Errorf("%d bytes of seeds, %d commitments: %v", len(seeds), len(com), err)
		}
		if err == nil && len(s.Subsets()) != 3 {
			t.Error("wrong number of shares")
		}
	})
}

// FuzzParseVector: whatever a member serves as a sum is as many lanes as were asked for, and the same bytes again.
func FuzzParseVector(f *testing.F) {
	f.Add(VectorBytes([]uint32{0, 1, 1 << 31, 1<<32 - 1}), 4)
	f.Add(make([]byte, 39), 10)
	f.Add([]byte{}, 0)
	f.Add([]byte{1, 2, 3, 4}, -1)
	f.Add([]byte{1, 2, 3, 4}, 1<<62+1)
	f.Fuzz(func(t *testing.T, b []byte, lanes int) {
		v, err := ParseVector(b, lanes)
		if ok := err == nil; ok != (len(b)%LaneBytes == 0 && lanes == len(b)/LaneBytes) {
			t.Fatalf("%d bytes for %d lanes: %v", len(b), lanes, err)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(VectorBytes(v), b) || HashVector(label.TagSum, v) != label.Sum(label.TagSum, b) {
			t.Error("a vector is read as another")
		}
		sum := make([]uint32, lanes)
		if err := AddBytes(sum, b); err != nil || !slices.Equal(sum, v) {
			t.Errorf("bytes add up to another vector: %v", err)
		}
	})
}

func BenchmarkContribute(b *testing.B) {
	for _, row := range table[2:] {
		b.Run(fmt.Sprintf("n=%d,f=%d", row.n, row.f), func(b *testing.B) {
			c := newCommittee(b, row.n, row.f, 1<<20)
			x := make([]uint32, 1<<20)
			aad := func([]label.Hash, label.Hash) []byte { return nil }
			b.SetBytes(4 << 20)
			for b.Loop() {
				if _, err := Contribute(c.round, label.Hash{}, Nonce{}, x, aad, rand.Reader); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAddTo(b *testing.B) {
	for _, row := range table[2:] {
		b.Run(fmt.Sprintf("n=%d,f=%d", row.n, row.f), func(b *testing.B) {
			c := newCommittee(b, row.n, row.f, 1<<20)
			s, err := c.open(c.upload(b, 1), 0)
			if err != nil {
				b.Fatal(err)
			}
			sums := TSums{}
			b.SetBytes(4 << 20)
			for b.Loop() {
				if err := s.AddTo(sums); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("n=%d,f=%d,eight", row.n, row.f), func(b *testing.B) {
			c := newCommittee(b, row.n, row.f, 1<<20)
			s, err := c.open(c.upload(b, 1), 0)
			if err != nil {
				b.Fatal(err)
			}
			sums := TSums{}
			if err := s.AddTo(sums); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(8 * 4 << 20)
			for b.Loop() {
				for t, sum := range sums {
					if err := AddMasks(t, sum, s, s, s, s, s, s, s, s); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
