package phrase

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Lexicon lists the entries of each slot.
type Lexicon map[string][]string

// Add reads a line "slot: entry; entry; entry". A slot named again grows.
func (l Lexicon) Add(line string) error {
	slot, list, ok := strings.Cut(line, ":")
	if !ok {
		return fmt.Errorf("lexicon line %q has no colon", line)
	}
	for e := range strings.SplitSeq(list, ";") {
		if e = strings.TrimSpace(e); e != "" {
			l[slot] = append(l[slot], e)
		}
	}
	if len(l[slot]) == 0 {
		return fmt.Errorf("lexicon slot %q is empty", slot)
	}
	return nil
}

// Pick returns one entry of a slot.
func (l Lexicon) Pick(rng *rand.Rand, slot string) (string, error) {
	entries := l[slot]
	if len(entries) == 0 {
		return "", fmt.Errorf("no entries for slot %q", slot)
	}
	return entries[rng.IntN(len(entries))], nil
}
