package users

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"

	"github.com/ruche-federation/ruche/testdata/users/phrase"
)

// Seed gave the committed users.jsonl.
const Seed = 7

// Record is one thing said by one person.
type Record struct {
	User string `json:"user"`
	Text string `json:"text"`
}

// How a person's records spread over topics, in weights per topic, and days.
const (
	weightStrong = 12
	weightSome   = 4
	weightOther  = 1
	ownWords     = 0.85 // share of slots filled from the speaker's own vocabulary where there is one
	habitOnDay   = 0.75 // a weekly habit is kept
	habitAnyDay  = 0.10 // a habit without a day comes up
	perDayMax    = 4
)

// Generate writes everybody's records, person by person, each in the order of time. No text comes twice.
func Generate(seed uint64) ([]Record, error) {
	languages := map[string]language{}
	for _, lang := range []string{"fr", "en"} {
		l, err := readLanguage(lang + ".txt")
		if err != nil {
			return nil, err
		}
		languages[lang] = l
	}
	people, err := readPeople()
	if err != nil {
		return nil, err
	}
	verbs := readVerbs()
	said := map[string]bool{}
	var out []Record
	for _, p := range people {
		// Each person has a stream of their own: a change to one leaves the others' words alone, but for texts said twice.
		h := fnv.New64a()
		h.Write([]byte(p.name))
		s := &speaker{person: p, languages: languages, verbs: verbs, rng: rand.New(rand.NewPCG(seed, h.Sum64())), favourites: map[string][]string{}, said: said}
		s.writer = phrase.Writer{Rand: s.rng, Draw: s.draw}
		records, err := s.live()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		out = append(out, records...)
	}
	return out, nil
}

// Vocabulary lists the common words of one language, "fr" or "en", by slot: what things are called, not what is said of them.
func Vocabulary(lang string) (phrase.Lexicon, error) {
	l, err := readLanguage(lang + ".txt")
	return l.words, err
}

// JSONL returns one JSON object a line.
func JSONL(records []Record) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, r := range records {
		if err := enc.Encode(r); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// speaker is a person at work.
type speaker struct {
	*person
	languages  map[string]language
	verbs      map[string]imperative
	rng        *rand.Rand
	writer     phrase.Writer
	lang       string              // of the record being written
	favourites map[string][]string // language and slot -> entries, the dearest first
	said       map[string]bool     // by anybody
}

// live lets days pass until the person has said enough.
func (s *speaker) live() ([]Record, error) {
	var out []Record
	length := 0
	say := func(template, lang string) error {
		for range 8 {
			s.lang = lang
			text, err := s.sentence(template)
			if err != nil {
				return err
			}
			if key := strings.ToLower(text); !s.said[key] {
				s.said[key] = true
				out = append(out, Record{s.name, text})
				length += len(text)
				return nil
			}
		}
		return nil
	}
	for day := 0; length < s.size; day++ {
		if day > 2000 {
			return nil, fmt.Errorf("has only %d bytes to say, wanted %d", length, s.size)
		}
		for _, h := range s.habits {
			if (h.day == day%7 && s.rng.Float64() < habitOnDay) || (h.day < 0 && s.rng.Float64() < habitAnyDay) {
				if err := say(h.template, s.mainLanguage()); err != nil {
					return nil, err
				}
			}
		}
		for range s.rng.IntN(perDayMax + 1) {
			lang := "en"
			if s.rng.IntN(100) < s.french {
				lang = "fr"
			}
			templates := s.languages[lang].topics[s.topic(lang)]
			if err := say(templates[s.rng.IntN(len(templates))], lang); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func (s *speaker) mainLanguage() string {
	if s.french > 50 {
		return "fr"
	}
	return "en"
}

func (s *speaker) topic(lang string) string {
	order := s.languages[lang].order
	weight := func(t string) int {
		switch {
		case s.strong[t]:
			return weightStrong
		case s.some[t]:
			return weightSome
		}
		return weightOther
	}
	total := 0
	for _, t := range order {
		total += weight(t)
	}
	n := s.rng.IntN(total)
	for _, t := range order {
		if n -= weight(t); n < 0 {
			return t
		}
	}
	return order[0]
}

// sentence writes one record: the request in the speaker's way, then what follows it, then the speaker's punctuation.
func (s *speaker) sentence(template string) (string, error) {
	text, err := s.writer.Expand(template)
	if err != nil {
		return "", err
	}
	text, after, _ := strings.Cut(text, "||")
	text, after = strings.TrimSpace(text), strings.TrimSpace(after)
	question, request := false, false
	if head, rest, ok := strings.Cut(text, "!!"); ok {
		request = true
		rest, question, err = ask(s.verbs, s.lang, s.way(), rest)
		text = head + rest
	} else if rest, ok := strings.CutPrefix(text, "!"); ok {
		request = true
		text, question, err = ask(s.verbs, s.lang, s.way(), rest)
	}
	if err != nil {
		return "", err
	}
	french := s.lang == "fr"
	if request && s.lang == s.mainLanguage() {
		if e := s.flavour(s.ends); e != "" && !strings.Contains(text, e) {
			text += ", " + e
		}
	}
	switch {
	case question && french:
		text += " ?"
	case question:
		text += "?"
	case request && after != "":
		if !strings.HasSuffix(text, ".") {
			text += ","
		}
	case request:
		text += "."
	}
	if request && after != "" {
		if question {
			after = phrase.Capital(after)
		}
		text += " " + after + "."
	}
	if o := s.flavour(s.opens); o != "" && request && s.lang == s.mainLanguage() {
		text = o + ", " + text
	}
	return s.punctuate(phrase.Capital(text)), nil
}

func (s *speaker) punctuate(text string) string {
	last := text[len(text)-1]
	if last != '.' && last != '?' && last != '!' {
		text += "."
	}
	if s.marks["nostop"] {
		text = strings.TrimSuffix(text, ".")
	}
	if s.marks["tight"] || s.lang == "en" {
		text = strings.ReplaceAll(strings.ReplaceAll(text, " ?", "?"), " :", ":")
	}
	if s.marks["lower"] {
		text = strings.ToLower(text)
	}
	return text
}

func (s *speaker) flavour(f flavour) string {
	if s.rng.IntN(100) >= f.percent || len(f.words) == 0 {
		return ""
	}
	return f.words[s.rng.IntN(len(f.words))]
}

func (s *speaker) way() string {
	total := 0
	for _, a := range s.asks {
		total += a.weight
	}
	n := s.rng.IntN(total)
	for _, a := range s.asks {
		if n -= a.weight; n < 0 {
			return a.word
		}
	}
	return "imp"
}

// draw fills a slot: times in the speaker's clock, else own words, else a favourite of the language.
func (s *speaker) draw(slot string) (string, error) {
	switch slot {
	case "time":
		return s.clock(6, 22), nil
	case "early":
		return s.clock(5, 9), nil
	}
	if own := s.words[s.lang]; len(own[slot]) > 0 && s.rng.Float64() < ownWords {
		return own.Pick(s.rng, slot)
	}
	key := s.lang + " " + slot
	list, ok := s.favourites[key]
	if !ok {
		list = append(list, s.languages[s.lang].words[slot]...)
		if len(list) == 0 {
			return s.words[s.lang].Pick(s.rng, slot)
		}
		s.rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		if slot == "kid" || slot == "petname" { // nobody has six children
			list = list[:2]
		}
		s.favourites[key] = list
	}
	u := s.rng.Float64()
	return list[int(u*u*float64(len(list)))], nil
}

var (
	frenchHours  = strings.Fields("minuit une deux trois quatre cinq six sept huit neuf dix onze midi")
	englishHours = strings.Fields("midnight one two three four five six seven eight nine ten eleven twelve")
)

// clock says a time of the day between two hours.
func (s *speaker) clock(first, last int) string {
	hour, minute := first+s.rng.IntN(last-first+1), []int{0, 0, 0, 15, 30, 30, 45}[s.rng.IntN(7)]
	switch {
	case s.marks["words"] && s.lang == "fr":
		return frenchTime(hour, minute)
	case s.marks["words"]:
		name := englishHours[(hour+11)%12+1]
		next := englishHours[hour%12+1]
		return map[int]string{0: name + " o'clock", 15: "quarter past " + name, 30: "half past " + name, 45: "quarter to " + next}[minute]
	case s.marks["colon"]:
		return fmt.Sprintf("%d:%02d", hour, minute)
	case s.lang == "fr" && minute == 0:
		return fmt.Sprintf("%d h", hour)
	case s.lang == "fr":
		return fmt.Sprintf("%dh%02d", hour, minute)
	}
	half := "am"
	if hour >= 12 {
		half = "pm"
	}
	if hour = (hour+11)%12 + 1; minute == 0 {
		return fmt.Sprintf("%d %s", hour, half)
	}
	return fmt.Sprintf("%d:%02d %s", hour, minute, half)
}

func frenchTime(hour, minute int) string {
	part := ""
	switch {
	case hour > 12 && hour < 18:
		hour, part = hour-12, " de l'après-midi"
	case hour >= 18:
		hour, part = hour-12, " du soir"
	}
	name := frenchHours[hour]
	if hour != 12 {
		name += " heures"
		if hour == 1 {
			name = "une heure"
		}
	}
	return name + map[int]string{0: "", 15: " et quart", 30: " et demie", 45: " trois quarts"}[minute] + part
}
