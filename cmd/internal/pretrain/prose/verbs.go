package prose

import (
	"strings"

	"github.com/ruche-federation/ruche/testdata/users/phrase"
)

// subject is who acts: the words and the grammatical person, 0 to 5 (I, you, he, we, you, they).
type subject struct {
	words  string
	person int
}

var (
	frenchSubjects = []subject{{"je", 0}, {"tu", 1}, {"il", 2}, {"elle", 2}, {"on", 2}, {"nous", 3}, {"vous", 4}, {"ils", 5}, {"elles", 5},
		{"{who}", 2}, {"{they}", 5}, {"{friend}", 2}, {"{friend} et {friend}", 5}, {"mon père", 2}, {"ma mère", 2}, {"leur fille", 2}, {"ses amis", 5}}
	englishSubjects = []subject{{"I", 0}, {"you", 1}, {"he", 2}, {"she", 2}, {"we", 3}, {"they", 5},
		{"{who}", 2}, {"{they}", 5}, {"{friend}", 2}, {"{friend} and {friend}", 5}, {"my father", 2}, {"my mother", 2}, {"their daughter", 2}, {"his friends", 5}}

	frenchPresent   = [6]string{"e", "es", "e", "ons", "ez", "ent"}
	frenchImperfect = [6]string{"ais", "ais", "ait", "ions", "iez", "aient"}
	frenchFuture    = [6]string{"ai", "as", "a", "ons", "ez", "ont"}
	frenchHave      = [6]string{"ai", "as", "a", "avons", "avez", "ont"}
)

// withBe lists the verbs whose perfect takes être, and so agrees: they stay in the imperfect.
var withBe = map[string]bool{"arriver": true, "entrer": true, "monter": true, "passer": true, "rester": true, "tomber": true}

// act gives a clause with a subject, its verb and what follows; the marks in it are still to be expanded.
func (s *scene) act(entry string) string {
	verb, object, _ := strings.Cut(entry, " ")
	if s.french {
		who := frenchSubjects[s.rng.IntN(len(frenchSubjects))]
		return frenchClause(who, verb, s.rng.IntN(5), s.rng.IntN(8) == 0, object)
	}
	who := englishSubjects[s.rng.IntN(len(englishSubjects))]
	return englishClause(who, verb, s.rng.IntN(6), s.rng.IntN(8) == 0, object)
}

// frenchClause conjugates a regular verb in -er: present (twice as often), imperfect, future, perfect.
func frenchClause(who subject, infinitive string, tense int, not bool, object string) string {
	stem := strings.TrimSuffix(infinitive, "er")
	join := func(ending string) string {
		switch last := stem[len(stem)-1]; {
		case last == 'g' && strings.ContainsAny(ending[:1], "ao"):
			return stem + "e" + ending
		case last == 'c' && strings.ContainsAny(ending[:1], "ao"):
			return stem[:len(stem)-1] + "ç" + ending
		}
		return stem + ending
	}
	verb, after := "", ""
	switch tense {
	case 0, 1:
		verb = join(frenchPresent[who.person])
	case 2:
		verb = join(frenchImperfect[who.person])
	case 3:
		verb = infinitive + frenchFuture[who.person]
	default:
		verb, after = frenchHave[who.person], stem+"é "
		if withBe[infinitive] {
			verb, after = join(frenchImperfect[who.person]), ""
		}
	}
	if not {
		verb = elide("ne", verb) + " pas"
	}
	words := who.words + " " + verb
	if who.words == "je" {
		words = elide("je", verb)
	}
	return words + " " + after + object
}

// elide puts a word in -e before another: j'ai, n'aimait; je porte.
func elide(word, next string) string {
	if que, err := phrase.Form("que", next); err == nil && strings.HasPrefix(que, "qu'") {
		return word[:len(word)-1] + "'" + next
	}
	return word + " " + next
}

// englishClause puts a verb, base/past where it is irregular, in the present, the past, the future, the progressive or after a modal.
func englishClause(who subject, forms string, tense int, not bool, object string) string {
	base, past, irregular := strings.Cut(forms, "/")
	if !irregular {
		past = suffix(base, "ed")
	}
	third := who.person == 2
	verb := ""
	switch tense {
	case 0:
		verb = base
		if third {
			verb = suffix(base, "s")
		}
		if base == "have" && third {
			verb = "has"
		}
		if not && third {
			verb = "doesn't " + base
		} else if not {
			verb = "don't " + base
		}
	case 1, 2:
		verb = past
		if not {
			verb = "didn't " + base
		}
	case 3:
		verb = "will " + base
		if not {
			verb = "won't " + base
		}
	case 4:
		verb = map[bool]string{true: "was ", false: "were "}[third || who.person == 0]
		if not {
			verb += "not "
		}
		verb += suffix(base, "ing")
	default:
		verb = "would " + base
		if not {
			verb = "could not " + base
		}
	}
	return who.words + " " + verb + " " + object
}

// suffix adds s, ed or ing as English spells it.
func suffix(base, end string) string {
	last := base[len(base)-1]
	vowel := func(c byte) bool { return strings.IndexByte("aeiou", c) >= 0 }
	switch {
	case end == "s" && (strings.HasSuffix(base, "sh") || strings.HasSuffix(base, "ch") || strings.HasSuffix(base, "ss") || last == 'x'):
		return base + "es"
	case last == 'y' && !vowel(base[len(base)-2]) && end != "ing":
		return base[:len(base)-1] + map[string]string{"s": "ies", "ed": "ied"}[end]
	case last == 'e' && end == "ed":
		return base + "d"
	case last == 'e' && end == "ing" && base != "see":
		return base[:len(base)-1] + "ing"
	case end != "s" && doubles[base]:
		return base + string(last) + end
	}
	return base + end
}

// doubles lists the verbs that double their last letter.
var doubles = map[string]bool{"cut": true, "forget": true, "put": true, "knit": true, "dig": true, "swim": true, "run": true}
