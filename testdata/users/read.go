package users

import (
	"embed"
	"fmt"
	"strconv"
	"strings"

	"github.com/ruche-federation/ruche/testdata/users/phrase"
)

//go:embed text/*.txt
var texts embed.FS

// language is one language's topics and vocabulary.
type language struct {
	words  phrase.Lexicon
	topics map[string][]string
	order  []string // topics as listed
}

// person is one entry of people.txt.
type person struct {
	name         string
	french       int // percent
	size         int // bytes
	strong, some map[string]bool
	asks         []weighted
	opens, ends  flavour
	marks        map[string]bool
	words        map[string]phrase.Lexicon // by language
	habits       []habit
}

type weighted struct {
	word   string
	weight int
}

// flavour is a word or two that a person likes to add.
type flavour struct {
	percent int
	words   []string
}

// habit is a request that comes back, on one day of the week or, with day < 0, any day.
type habit struct {
	day      int
	template string
}

var weekdays = map[string]int{
	"lundi": 0, "mardi": 1, "mercredi": 2, "jeudi": 3, "vendredi": 4, "samedi": 5, "dimanche": 6,
	"Monday": 0, "Tuesday": 1, "Wednesday": 2, "Thursday": 3, "Friday": 4, "Saturday": 5, "Sunday": 6,
}

// lines calls each with every line that says something, and its number.
func lines(name string, each func(line string) error) error {
	data, err := texts.ReadFile("text/" + name)
	if err != nil {
		return err
	}
	for i, line := range strings.Split(string(data), "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "//") {
			continue
		}
		if err := each(line); err != nil {
			return fmt.Errorf("%s:%d: %w", name, i+1, err)
		}
	}
	return nil
}

func readLanguage(name string) (language, error) {
	l := language{words: phrase.Lexicon{}, topics: map[string][]string{}}
	topic := ""
	err := lines(name, func(line string) error {
		if entry, ok := strings.CutPrefix(line, "= "); ok {
			return l.words.Add(entry)
		}
		if t, ok := strings.CutPrefix(line, "# "); ok {
			topic = t
			l.order = append(l.order, t)
			return nil
		}
		if topic == "" {
			return fmt.Errorf("%q stands under no topic", line)
		}
		l.topics[topic] = append(l.topics[topic], line)
		return nil
	})
	return l, err
}

func readPeople() ([]*person, error) {
	var people []*person
	err := lines("people.txt", func(line string) error {
		if name, ok := strings.CutPrefix(line, "@ "); ok {
			people = append(people, &person{name: name, strong: map[string]bool{}, some: map[string]bool{}, marks: map[string]bool{},
				words: map[string]phrase.Lexicon{"fr": {}, "en": {}}})
			return nil
		}
		if len(people) == 0 {
			return fmt.Errorf("%q belongs to nobody", line)
		}
		return people[len(people)-1].read(line)
	})
	return people, err
}

func (p *person) read(line string) error {
	main := "en"
	if p.french > 50 {
		main = "fr"
	}
	for prefix, lang := range map[string]string{"= ": main, "en= ": "en", "fr= ": "fr"} {
		if entry, ok := strings.CutPrefix(line, prefix); ok {
			return p.words[lang].Add(entry)
		}
	}
	key, value, ok := strings.Cut(line, ": ")
	if !ok {
		return fmt.Errorf("%q has no colon", line)
	}
	var err error
	switch word, arg, _ := strings.Cut(key, " "); word {
	case "lang":
		p.french, err = strconv.Atoi(value)
	case "size":
		p.size, err = strconv.Atoi(value)
	case "strong", "some":
		for topic := range strings.FieldsSeq(value) {
			map[string]map[string]bool{"strong": p.strong, "some": p.some}[word][topic] = true
		}
	case "marks":
		for mark := range strings.FieldsSeq(value) {
			p.marks[mark] = true
		}
	case "asks":
		for way := range strings.SplitSeq(value, ";") {
			f := strings.Fields(way)
			n, err := strconv.Atoi(f[1])
			if err != nil {
				return err
			}
			p.asks = append(p.asks, weighted{f[0], n})
		}
	case "opens", "ends":
		f := flavour{}
		if f.percent, err = strconv.Atoi(arg); err != nil {
			return err
		}
		for w := range strings.SplitSeq(value, ";") {
			f.words = append(f.words, strings.TrimSpace(w))
		}
		if word == "opens" {
			p.opens = f
		} else {
			p.ends = f
		}
	case "habit":
		h := habit{day: -1, template: value}
		if arg != "" {
			if h.day, ok = weekdays[arg]; !ok {
				return fmt.Errorf("no day %q", arg)
			}
		}
		p.habits = append(p.habits, h)
	default:
		return fmt.Errorf("unknown line %q", key)
	}
	return err
}
