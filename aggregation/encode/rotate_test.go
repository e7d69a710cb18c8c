package encode

import (
	"math"
	"math/bits"
	"testing"

	"pgregory.net/rapid"

	"github.com/ruche-federation/ruche/crypto/label"
)

// dumbHadamard multiplies one block by H, by the definition: O(n²).
func dumbHadamard[T word](v []T) []T {
	out := make([]T, len(v))
	for i := range out {
		for j, x := range v {
			if bits.OnesCount(uint(i&j))%2 == 0 {
				out[i] += x
			} else {
				out[i] -= x
			}
		}
	}
	return out
}

// dumbRotation deals v round-robin into blocks, multiplies each, and gathers them again.
func dumbRotation[T word](v []T) []T {
	nb := len(v) / Block
	blocks := make([][]T, nb)
	for i, x := range v {
		blocks[i%nb] = append(blocks[i%nb], x)
	}
	for b := range blocks {
		blocks[b] = dumbHadamard(blocks[b])
	}
	out := make([]T, len(v))
	for i := range out {
		out[i] = blocks[i%nb][i/nb]
	}
	return out
}

func TestFastHadamardEqualsTheDefinition(t *testing.T) {
	var ints tile[int64]
	var floats tile[float64]
	columns := make([][]int64, lanes)
	for p := range Block {
		for b := range lanes {
			v := int64((p*2654435761+b*40503)%4507) - 2253
			ints[p*lanes+b], floats[p*lanes+b] = v, float64(v)
			columns[b] = append(columns[b], v)
		}
	}
	hadamard(&ints)
	hadamard(&floats)
	for b := range lanes {
		for p, want := range dumbHadamard(columns[b]) {
			if got := ints[p*lanes+b]; got != want {
				t.Fatalf("block %d element %d is %d, want %d", b, p, got, want)
			}
			if got := floats[p*lanes+b]; got != float64(want) { // integers this small are exact in floats too
				t.Fatalf("block %d element %d is %v, want %d", b, p, got, want)
			}
		}
	}
}

func TestRotationDealsRoundRobinAndInvertsExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.IntRange(1, 20*Block).Draw(t, "D") // up to 20 blocks: whole tiles, and a narrow last one
		n := PaddedLen(d)
		s := signsFor(label.Hash{1}, n)
		body := make([]float32, d)
		x := uint64(d)
		for i := range body {
			x = x*6364136223846793005 + 1442695040888963407
			body[i] = float32(int64(x>>52) - 2048)
		}
		rotated := make([]float64, n)
		rotateBody(rotated, body, 1, s)
		signed := make([]float64, n)
		for i, v := range body {
			signed[i] = float64(v)
			if s.bit(i) == 1 {
				signed[i] = -signed[i]
			}
		}
		for i, want := range dumbRotation(signed) {
			if rotated[i] != want {
				t.Fatalf("lane %d is %v, want %v", i, rotated[i], want)
			}
		}
		ints := make([]int64, n)
		for i, v := range rotated {
			ints[i] = int64(v)
		}
		back := make([]int64, d)
		unrotateSum(back, ints, s)
		for i, v := range back {
			if v != Block*int64(body[i]) {
				t.Fatalf("value %d came back as %d, want %d", i, v, Block*int64(body[i]))
			}
		}
	})
}

func TestTheInverseIsExactAtTheLargestSum(t *testing.T) {
	// Every lane at −2^31, which no accepted sum reaches: 1024 of them add up to −2^41, far inside int64.
	x := make([]int64, Block)
	for i := range x {
		x[i] = math.MinInt32
	}
	out := make([]int64, Block)
	unrotateSum(out, x, make(signs, Block/64))
	if out[0] != math.MinInt32*Block {
		t.Errorf("first value is %d, want %d", out[0], int64(math.MinInt32*Block))
	}
	for i, v := range out[1:] {
		if v != 0 {
			t.Fatalf("value %d is %d, want 0", i+1, v)
		}
	}
}

// TestRotationIsPublicAndFixed holds the signs to golden words: every device and member must derive the same.
func TestRotationIsPublicAndFixed(t *testing.T) {
	s := signsFor(label.Sum(label.TagRotation, []byte("golden")), 128)
	if want := (signs{0x8be30156466ff36e, 0x400908bd6a15407b}); s[0] != want[0] || s[1] != want[1] {
		t.Errorf("signs are %#x, want %#x", s, want)
	}
	n := 0
	for _, w := range signsFor(label.Hash{9}, 1<<16) {
		n += bits.OnesCount64(w)
	}
	if n < 1<<15-1000 || n > 1<<15+1000 { // eight standard deviations
		t.Errorf("%d of 65536 signs are negative", n)
	}
	if a, b := signsFor(label.Hash{9}, 64), signsFor(label.Hash{8}, 64); a[0] == b[0] {
		t.Error("two seeds give the same signs")
	}
}
