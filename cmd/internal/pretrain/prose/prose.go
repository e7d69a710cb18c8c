package prose

import (
	"embed"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/ruche-federation/ruche/testdata/users"
	"github.com/ruche-federation/ruche/testdata/users/phrase"
)

//go:embed text/*.txt
var texts embed.FS

// Seed and Size gave the text of testdata/models/tiny.
const (
	Seed = 1
	Size = 2_600_000
)

// Sentences between the opening and the closing of one text.
const (
	middleMin = 1
	middleMax = 8
)

// Words of a scrap or a page of the primer.
const (
	scrapMin = 3
	scrapMax = 25
)

// language is one language's kinds of text.
type language struct {
	french bool
	words  phrase.Lexicon // ours
	daily  phrase.Lexicon // of the users, for what we do not list
	kinds  []kind

	vocabulary []string // every word that an entry can put into a text, sorted
}

type kind struct {
	name                     string
	opening, middle, closing []string
}

// Generate writes texts of about size bytes in all, in both languages in turn.
func Generate(seed uint64, size int) ([]string, error) {
	var languages []*language
	for _, name := range []string{"fr", "en"} {
		l, err := read(name)
		if err != nil {
			return nil, err
		}
		languages = append(languages, l)
	}
	rng := rand.New(rand.NewPCG(seed, 0x70726f7365)) // "prose": a stream apart from the users'
	var out []string
	for n := 0; n < size; {
		text, err := languages[len(out)%len(languages)].write(rng)
		if err != nil {
			return nil, err
		}
		switch rng.IntN(10) {
		case 0, 1, 2:
			text = scrap(rng, text)
		case 3:
			text = languages[len(out)%len(languages)].primer(rng)
		}
		out = append(out, text)
		n += len(text)
	}
	return out, nil
}

// scrap tears a few words out of a text, so that a text may begin with anything.
func scrap(rng *rand.Rand, text string) string {
	words := strings.Fields(text)
	n := min(len(words), scrapMin+rng.IntN(scrapMax-scrapMin+1))
	from := rng.IntN(len(words) - n + 1)
	return strings.Join(words[from:from+n], " ")
}

// primer is a page of a spelling book: words in no order.
func (l *language) primer(rng *rand.Rand) string {
	var words []string
	between := []string{" ", ", "}[rng.IntN(2)]
	for range scrapMin + rng.IntN(scrapMax) {
		words = append(words, l.vocabulary[rng.IntN(len(l.vocabulary))])
	}
	return strings.Join(words, between)
}

func read(name string) (*language, error) {
	data, err := texts.ReadFile("text/" + name + ".txt")
	if err != nil {
		return nil, err
	}
	daily, err := users.Vocabulary(name)
	if err != nil {
		return nil, err
	}
	l := &language{french: name == "fr", words: phrase.Lexicon{}, daily: daily}
	for i, line := range strings.Split(string(data), "\n") {
		part, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case part == "" || part == "//":
			continue
		case part == "=":
			err = l.words.Add(rest)
		case part == "#":
			l.kinds = append(l.kinds, kind{name: rest})
		case len(l.kinds) == 0:
			err = fmt.Errorf("%q stands under no kind", line)
		case part == "opening":
			k := &l.kinds[len(l.kinds)-1]
			k.opening = append(k.opening, rest)
		case part == "middle":
			k := &l.kinds[len(l.kinds)-1]
			k.middle = append(k.middle, rest)
		case part == "closing":
			k := &l.kinds[len(l.kinds)-1]
			k.closing = append(k.closing, rest)
		default:
			err = fmt.Errorf("unknown line %q", line)
		}
		if err != nil {
			return nil, fmt.Errorf("%s.txt:%d: %w", name, i+1, err)
		}
	}
	l.vocabulary = spell(l.words, l.daily)
	return l, nil
}

// spell lists the words of all entries, without marks and tags.
func spell(lexicons ...phrase.Lexicon) []string {
	seen := map[string]bool{}
	for _, lexicon := range lexicons {
		for _, entries := range lexicon {
			for _, e := range entries {
				text, _, _ := strings.Cut(e, "/")
				for w := range strings.FieldsSeq(strings.TrimPrefix(text, "*")) {
					if !strings.ContainsAny(w, "{}[]|:") {
						seen[strings.Trim(w, ".,;!?")] = true
					}
				}
			}
		}
	}
	delete(seen, "")
	return slices.Sorted(maps.Keys(seen))
}

// often weighs the kinds that vary most; every other kind counts once.
var often = map[string]int{"clauses": 4, "talk": 2, "words": 2, "story": 2, "rules": 3}

func (l *language) kind(rng *rand.Rand) kind {
	total := 0
	for _, k := range l.kinds {
		total += max(1, often[k.name])
	}
	n := rng.IntN(total)
	for _, k := range l.kinds {
		if n -= max(1, often[k.name]); n < 0 {
			return k
		}
	}
	return l.kinds[0]
}

// write gives one text: an opening, some sentences in the middle, a closing.
func (l *language) write(rng *rand.Rand) (string, error) {
	k := l.kind(rng)
	s := scene{language: l, rng: rng, fixed: map[string]string{}}
	s.cast()
	w := phrase.Writer{Rand: rng, Draw: s.draw}
	templates := []string{k.opening[rng.IntN(len(k.opening))]}
	order := rng.Perm(len(k.middle))
	for _, i := range order[:min(len(order), middleMin+rng.IntN(middleMax-middleMin+1))] {
		templates = append(templates, k.middle[i])
	}
	templates = append(templates, k.closing[rng.IntN(len(k.closing))])
	var b strings.Builder
	for i, t := range templates {
		sentence, err := w.Expand(t)
		if err != nil {
			return "", fmt.Errorf("%s: %w", k.name, err)
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(capitals(sentence))
	}
	return b.String(), nil
}

// scene keeps what stays the same within one text: who it is about, and where.
type scene struct {
	*language
	rng   *rand.Rand
	fixed map[string]string
}

func (s *scene) cast() {
	heroes := s.words["heroes"]
	order := s.rng.Perm(len(heroes))
	hero, gender, _ := strings.Cut(heroes[order[0]], "/")
	other, _, _ := strings.Cut(heroes[order[1]], "/")
	he, his, him := "he", "his", "him"
	switch {
	case s.french && gender == "f":
		he = "elle"
	case s.french:
		he = "il"
	case gender == "f":
		he, his, him = "she", "her", "her"
	}
	s.fixed["hero"], s.fixed["other"] = hero, other
	s.fixed["he"], s.fixed["He"], s.fixed["his"], s.fixed["him"] = he, phrase.Capital(he), his, him
	s.fixed["topic"] = s.words["animal2"][s.rng.IntN(len(s.words["animal2"]))]
	s.fixed["city0"] = s.words["city"][s.rng.IntN(len(s.words["city"]))]
}

func (s *scene) draw(slot string) (string, error) {
	if v, ok := s.fixed[slot]; ok {
		return v, nil
	}
	if len(s.words[slot]) > 0 {
		entry, err := s.words.Pick(s.rng, slot)
		if slot == "act" && err == nil {
			entry = s.act(entry)
		}
		return entry, err
	}
	return s.daily.Pick(s.rng, slot)
}

// capitals begins every sentence with a capital letter.
func capitals(text string) string {
	for _, end := range []string{". ", "? "} {
		parts := strings.SplitAfter(text, end)
		for i, p := range parts {
			if p != "" {
				parts[i] = phrase.Capital(p)
			}
		}
		text = strings.Join(parts, "")
	}
	return text
}
