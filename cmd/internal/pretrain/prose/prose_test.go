package prose

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"index/suffixarray"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/testdata/shared"
	"github.com/ruche-federation/ruche/testdata/users"
	"github.com/ruche-federation/ruche/testdata/users/phrase"
)

// sample is a tenth of what the base model reads; the whole is held apart from the users by TestTheBaseNeverReadsTheUsers.
const sample = 250_000

func generateUsers(t *testing.T) []users.Record {
	t.Helper()
	records, err := users.Generate(users.Seed)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// TestUsersAreRegeneratedBitForBit holds users.jsonl and the hash in testdata/README.md to the generator.
func TestUsersAreRegeneratedBitForBit(t *testing.T) {
	data, err := users.JSONL(generateUsers(t))
	if err != nil {
		t.Fatal(err)
	}
	root := shared.Root(t)
	kept, err := os.ReadFile(filepath.Join(root, "testdata", "users", "users.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, kept) {
		t.Error("users.jsonl is not what the generator writes; run go run ./testdata/users/generate")
	}
	readme, err := os.ReadFile(filepath.Join(root, "testdata", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(kept)
	if !strings.Contains(string(readme), hex.EncodeToString(sum[:])) {
		t.Errorf("testdata/README.md does not record users.jsonl's hash %x", sum)
	}
	if len(kept) > 600_000 {
		t.Errorf("users.jsonl has %d bytes, limit 600000", len(kept))
	}
}

// TestUsersAreManyAndTheirOwn: at least 24 people, two languages among those who say most, words of their own, no text twice.
func TestUsersAreManyAndTheirOwn(t *testing.T) {
	texts := map[string][]string{}
	owner := map[string]string{}
	for _, r := range generateUsers(t) {
		if first, twice := owner[strings.ToLower(r.Text)]; twice {
			t.Fatalf("%q is said by %s and by %s", r.Text, first, r.User)
		}
		owner[strings.ToLower(r.Text)] = r.User
		texts[r.User] = append(texts[r.User], r.Text)
	}
	if len(texts) < 24 {
		t.Fatalf("%d people, at least 24 are needed", len(texts))
	}
	vocabulary := map[string]map[string]bool{} // word -> people who use it
	for user, said := range texts {
		for _, text := range said {
			for w := range strings.FieldsSeq(text) {
				if vocabulary[w] == nil {
					vocabulary[w] = map[string]bool{}
				}
				vocabulary[w][user] = true
			}
		}
	}
	own := map[string]int{}
	for _, by := range vocabulary {
		if len(by) == 1 {
			for user := range by {
				own[user]++
			}
		}
	}
	for user, said := range texts {
		length := len(strings.Join(said, ""))
		if length < 8_000 || length > 15_000 {
			t.Errorf("%s says %d bytes", user, length)
		}
		if own[user] < 20 {
			t.Errorf("%s has only %d words of their own", user, own[user])
		}
	}
}

// TestTheDemonstrationsCohortIsMixed takes the sixteen with most text, every fourth a newcomer, and wants both languages on both sides.
func TestTheDemonstrationsCohortIsMixed(t *testing.T) {
	length, accents := map[string]int{}, map[string]int{}
	for _, r := range generateUsers(t) {
		length[r.User] += len(r.Text)
		if strings.ContainsAny(r.Text, "éèàêçù") {
			accents[r.User]++
		}
	}
	names := make([]string, 0, len(length))
	for name := range length {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if length[a] != length[b] {
			return length[b] - length[a]
		}
		return strings.Compare(a, b)
	})
	french := [4]int{} // by place in the row of four
	for i, name := range names[:16] {
		if accents[name] > 60 {
			french[i%4]++
		}
	}
	for place, n := range french {
		if n == 0 || n == 4 {
			t.Errorf("of those in place %d of four, %d speak French: no mixture", place, n)
		}
	}
}

// TestSameSeedSameProse and another seed other prose.
func TestSameSeedSameProse(t *testing.T) {
	a, err := Generate(1, sample)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Generate(1, sample)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Generate(2, sample)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a, b) || slices.Equal(a, c) {
		t.Error("the seed alone does not decide the text")
	}
	for _, text := range a {
		if strings.ContainsAny(text, "{}[]|") || strings.Contains(text, "  ") {
			t.Errorf("marks are left in %q", text)
		}
	}
}

// TestTheBaseNeverReadsTheUsers: no record stands in the text the base reads, and of the users' runs of eight words hardly any does.
func TestTheBaseNeverReadsTheUsers(t *testing.T) {
	texts, err := Generate(Seed, Size)
	if err != nil {
		t.Fatal(err)
	}
	const run = 8
	read := map[string]bool{}
	all := suffixarray.New([]byte(strings.ToLower(strings.Join(texts, "\n"))))
	for _, text := range texts {
		words := strings.FieldsFunc(strings.ToLower(text), apart)
		for i := 0; i+run <= len(words); i++ {
			read[strings.Join(words[i:i+run], " ")] = true
		}
	}
	runs, shared := 0, 0
	for _, r := range generateUsers(t) {
		if len(r.Text) >= 12 && len(all.Lookup([]byte(strings.ToLower(r.Text)), 1)) > 0 {
			t.Errorf("%s's %q is in the text of the base", r.User, r.Text)
		}
		words := strings.FieldsFunc(strings.ToLower(r.Text), apart)
		for i := 0; i+run <= len(words); i++ {
			runs++
			if read[strings.Join(words[i:i+run], " ")] {
				shared++
			}
		}
	}
	t.Logf("%d of the users' %d runs of %d words are in the text of the base", shared, runs, run)
	if shared*1000 > runs {
		t.Errorf("%d of %d runs of %d words are shared, limit one in a thousand", shared, runs, run)
	}
}

func apart(r rune) bool { return strings.ContainsRune(" .,;:?!«»\"", r) }

// TestFrenchArticlesAgree is the grammar of package phrase, by example.
func TestFrenchArticlesAgree(t *testing.T) {
	for _, c := range []struct{ form, entry, want string }{
		{"le", "lait/m", "le lait"}, {"le", "ail/m", "l'ail"}, {"le", "*haricot/m", "le haricot"}, {"le", "œufs/mp", "les œufs"},
		{"du", "farine/f", "de la farine"}, {"du", "huile/f", "de l'huile"}, {"du", "épices/fp", "des épices"}, {"du", "pain/m", "du pain"},
		{"au", "école/f", "à l'école"}, {"au", "marché/m", "au marché"}, {"au", "*halles/fp", "aux halles"},
		{"mon", "écharpe/f", "mon écharpe"}, {"mon", "lampe/f", "ma lampe"}, {"ce", "ami/m", "cet ami"}, {"quel", "notes/fp", "quelles notes"},
		{"de", "Anna", "d'Anna"}, {"de", "Paul", "de Paul"}, {"de", "le client", "du client"}, {"à", "les voisins", "aux voisins"}, {"que", "on bâille", "qu'on bâille"},
		{"a", "onion", "an onion"}, {"a", "milk/u", "some milk"}, {"the", "Byres Road/n", "Byres Road"}, {"", "eggs/p", "eggs"},
	} {
		if got, err := phrase.Form(c.form, c.entry); err != nil || got != c.want {
			t.Errorf("{%s:%s} gives %q, %v, want %q", c.form, c.entry, got, err, c.want)
		}
	}
	for _, bad := range [][2]string{{"le", "Anna"}, {"nobody", "lait/m"}} {
		if got, err := phrase.Form(bad[0], bad[1]); err == nil {
			t.Errorf("{%s:%s} gave %q", bad[0], bad[1], got)
		}
	}
}

// TestRecordsAreJSONLines: one object a line with the two names, accents as they are.
func TestRecordsAreJSONLines(t *testing.T) {
	data, err := users.JSONL([]users.Record{{User: "élise", Text: "l'été & \"<moi>\""}})
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]string
	if err := json.Unmarshal(data, &back); err != nil || len(back) != 2 || back["user"] != "élise" || !bytes.HasSuffix(data, []byte("}\n")) {
		t.Errorf("wrote %q: %v", data, err)
	}
}
