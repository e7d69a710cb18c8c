package phrase

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Draw returns one entry for a slot, with its grammar tag.
type Draw func(slot string) (string, error)

// Writer expands templates. It is not safe for concurrent use.
type Writer struct {
	Rand *rand.Rand
	Draw Draw

	last map[string]string   // slot -> entry last drawn, for {=slot}
	used map[string]struct{} // entries of this sentence: none comes twice
}

// Expand writes one sentence; entries do not repeat within it.
func (w *Writer) Expand(template string) (string, error) {
	w.last, w.used = map[string]string{}, map[string]struct{}{}
	out, rest, err := w.expand(template, false)
	if err == nil && rest != "" {
		err = fmt.Errorf("unbalanced %q", rest)
	}
	if err != nil {
		return "", fmt.Errorf("template %q: %w", template, err)
	}
	return tidy(out), nil
}

// expand reads until the end of the template or, inside brackets, until the bracket that closes.
// It returns what it did not read.
func (w *Writer) expand(t string, inside bool) (string, string, error) {
	var choices []string
	var b strings.Builder
	for t != "" {
		switch c := t[0]; {
		case c == '[':
			s, rest, err := w.expand(t[1:], true)
			if err != nil {
				return "", "", err
			}
			b.WriteString(s)
			t = rest
		case c == '|' && inside:
			choices = append(choices, b.String())
			b.Reset()
			t = t[1:]
		case c == ']':
			if !inside {
				return "", t, nil
			}
			choices = append(choices, b.String())
			return choices[w.Rand.IntN(len(choices))], t[1:], nil
		case c == '{':
			end := strings.IndexByte(t, '}')
			if end < 0 {
				return "", "", fmt.Errorf("unclosed slot %q", t)
			}
			s, err := w.slot(t[1:end])
			if err != nil {
				return "", "", err
			}
			b.WriteString(s)
			t = t[end+1:]
		default:
			b.WriteByte(c)
			t = t[1:]
		}
	}
	if inside {
		return "", "", fmt.Errorf("a bracket is not closed")
	}
	return b.String(), "", nil
}

func (w *Writer) slot(s string) (string, error) {
	form, name, ok := strings.Cut(s, ":")
	if !ok {
		form, name = "", s
	}
	if form == "n" {
		lo, hi, _ := strings.Cut(name, "-")
		a, errA := strconv.Atoi(lo)
		b, errB := strconv.Atoi(hi)
		if errA != nil || errB != nil || b < a {
			return "", fmt.Errorf("range %q is not low-high", name)
		}
		return strconv.Itoa(a + w.Rand.IntN(b-a+1)), nil
	}
	var entry string
	if again, ok := strings.CutPrefix(name, "="); ok {
		if entry, ok = w.last[again]; !ok {
			return "", fmt.Errorf("slot {%s} comes before {%s}", s, again)
		}
	} else {
		for try := 0; ; try++ {
			e, err := w.Draw(name)
			if err != nil {
				return "", err
			}
			if _, twice := w.used[e]; !twice || try == 8 {
				entry = e
				break
			}
		}
		w.used[entry] = struct{}{}
		w.last[name] = entry
	}
	text, err := Form(form, entry)
	if err != nil {
		return "", fmt.Errorf("slot {%s}: %w", s, err)
	}
	// An entry may hold marks of its own.
	if strings.ContainsAny(text, "[{") {
		inner, rest, err := w.expand(text, false)
		if err != nil || rest != "" {
			return "", fmt.Errorf("entry %q: %v", entry, err)
		}
		text = inner
	}
	return text, nil
}

// Form sets an entry's article or preposition before it.
func Form(form, entry string) (string, error) {
	text, tag, _ := strings.Cut(entry, "/")
	text, hard := strings.CutPrefix(text, "*")
	vowel := !hard && elides(text)
	pick := func(m, f, v, p string) (string, error) {
		switch {
		case strings.HasSuffix(tag, "p"):
			return p + text, nil
		case vowel && (tag == "m" || tag == "f") && v != "":
			return v + text, nil
		case tag == "m":
			return m + text, nil
		case tag == "f":
			return f + text, nil
		}
		return "", fmt.Errorf("entry %q has no gender for %q", entry, form)
	}
	elide := func(word string) string {
		// "de le client" and "à les clients" contract; "de la" and "de l'" stay.
		article, noun, _ := strings.Cut(text, " ")
		if short, ok := map[string]string{"de le": "du", "de les": "des", "à le": "au", "à les": "aux"}[word+" "+article]; ok {
			return short + " " + noun
		}
		if vowel && word != "à" {
			return word[:len(word)-1] + "'" + text
		}
		return word + " " + text
	}
	switch form {
	case "":
		return text, nil
	case "le":
		return pick("le ", "la ", "l'", "les ")
	case "un":
		return pick("un ", "une ", "", "des ")
	case "du":
		return pick("du ", "de la ", "de l'", "des ")
	case "au":
		return pick("au ", "à la ", "à l'", "aux ")
	case "mon":
		return pick("mon ", "ma ", "mon ", "mes ")
	case "ton":
		return pick("ton ", "ta ", "ton ", "tes ")
	case "son":
		return pick("son ", "sa ", "son ", "ses ")
	case "ce":
		if tag == "m" && vowel {
			return "cet " + text, nil
		}
		return pick("ce ", "cette ", "", "ces ")
	case "quel":
		if tag == "fp" {
			return "quelles " + text, nil
		}
		return pick("quel ", "quelle ", "", "quels ")
	case "de", "que", "à":
		return elide(form), nil
	case "the", "my":
		if tag == "n" {
			return text, nil
		}
		return form + " " + text, nil
	case "a", "some":
		switch {
		case tag == "n":
			return text, nil
		case tag == "u" || tag == "p" || form == "some":
			return "some " + text, nil
		case strings.ContainsAny(text[:1], "aeiouAEIO"):
			return "an " + text, nil
		}
		return "a " + text, nil
	}
	return "", fmt.Errorf("unknown form %q", form)
}

// elides says whether a French word loses the vowel before it. Aspirated h is marked with a star by the entry.
func elides(s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return strings.ContainsRune("aeiouhâàéèêëîïôûœ", unicode.ToLower(r))
}

// tidy removes what empty alternatives leave behind.
func tidy(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	for _, p := range []string{".", ","} {
		s = strings.ReplaceAll(s, " "+p, p)
	}
	return s
}

// Capital returns s with its first letter in upper case.
func Capital(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + s[n:]
}
