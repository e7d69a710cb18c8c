package bpe

import (
	"slices"
	"strings"
	"testing"
)

// TestMergesTheMostFrequentPairFirst works the example by hand: "ab" comes 4 times, "aab" twice; then ties go by id.
func TestMergesTheMostFrequentPairFirst(t *testing.T) {
	texts := []string{"abab", "aab", "aab", "xy", "xy", "zw", "zw"}
	tok, err := Train(slices.Values(texts), Smallest+4)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for id := Smallest; id < Smallest+4; id++ {
		got = append(got, tok.Piece(int32(id)))
	}
	// ab: 2+2; then aab twice, xy twice, zw twice: a(97)+ab before x(120), x before z(122).
	if want := []string{"ab", "xy", "zw", "aab"}; !slices.Equal(sorted(got), sorted(want)) || got[0] != "ab" {
		t.Fatalf("pieces %q, want ab first and %q in all", got, want)
	}
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

// TestSameTextsSameVocabulary: map order must not show, and what was trained decodes what it encodes.
func TestSameTextsSameVocabulary(t *testing.T) {
	text := strings.Repeat("La pluie tombait sans bruit. The rain fell without a sound, à l'école. 1234 ", 3)
	var first []int32
	for range 5 {
		tok, err := Train(slices.Values([]string{text}), 300)
		if err != nil {
			t.Fatal(err)
		}
		ids := tok.Encode("the rain à Paris 🐝")
		if back := tok.Decode(ids); back != "the rain à Paris 🐝" {
			t.Fatalf("decoded %q", back)
		}
		if first == nil {
			first = ids
		} else if !slices.Equal(first, ids) {
			t.Fatal("two trainings differ")
		}
	}
}

func TestRefusesSizesItCannotReach(t *testing.T) {
	if _, err := Train(slices.Values([]string{"ab"}), Smallest-1); err == nil {
		t.Error("a vocabulary smaller than the bytes was made")
	}
	if _, err := Train(slices.Values([]string{"ab"}), Smallest+2); err == nil {
		t.Error("one pair gave two merges")
	}
}
