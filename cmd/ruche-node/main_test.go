package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
)

// ruche runs the program in this process.
func ruche(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	app := newApp()
	app.Reader = strings.NewReader(stdin)
	code = cli.Run(context.Background(), app, append([]string{"ruche-node"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const twoUsers = `{"user":"amelie","text":"Le miel est prêt."}
{"user":"ben","text":"The honey is ready."}
{"user":"ben","text":"The hive is quiet."}
`

func TestTheFirstCommandOfTheReadmeMakesADevice(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	if before, ok := os.LookupEnv("RUCHE_DIR"); ok { // even an empty one is an answer to --dir
		must(t, os.Unsetenv("RUCHE_DIR"))
		t.Cleanup(func() { os.Setenv("RUCHE_DIR", before) })
	}
	code, out, errs := ruche(t, "", "init")
	if code != cli.OK || !strings.Contains(out, "ruche-node/base") || !strings.Contains(errs, "next: `ruche-node data import FILE`") {
		t.Fatalf("exit %d, printed %q and %q", code, out, errs)
	}
	if code, _, errs = ruche(t, "", "init"); code != cli.Failed || !strings.Contains(errs, "holds a device already") || !strings.Contains(errs, "hint: ") {
		t.Fatalf("again: exit %d, %q", code, errs)
	}
	// The model that came with the program answers, offline.
	code, out, errs = ruche(t, "", "ask", "--tokens", "5", "--temperature", "0", "Bonjour")
	if code != cli.OK || strings.TrimSpace(out) == "" {
		t.Fatalf("ask: exit %d, printed %q and %q", code, out, errs)
	}
	if code, out, _ = ruche(t, "", "--format", "json", "ask", "Bonjour"); code != cli.OK || !strings.Contains(out, `"answer": "`) {
		t.Fatalf("ask: exit %d, printed %q", code, out)
	}
}

func TestAJournalIsFilledFromAFileOrAPipe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "device")
	if code, _, errs := ruche(t, "", "--dir", dir, "init"); code != cli.OK {
		t.Fatal(errs)
	}
	file := filepath.Join(t.TempDir(), "two.jsonl")
	must(t, os.WriteFile(file, []byte(twoUsers), 0o600))
	code, _, errs := ruche(t, "", "--dir", dir, "data", "import", file)
	if code != cli.Usage || !strings.Contains(errs, "records of 2 users") || !strings.Contains(errs, "--user NAME") || strings.Contains(errs, "honey") {
		t.Fatalf("whose: exit %d, %q", code, errs)
	}
	code, out, errs := ruche(t, "", "--dir", dir, "data", "import", file, "--user", "ben")
	if code != cli.OK || out != "2 records added, 0 known already, 1 of other users left out; the journal has 2\n" {
		t.Fatalf("exit %d, printed %q and %q", code, out, errs)
	}
	code, out, _ = ruche(t, twoUsers, "--dir", dir, "--format", "json", "data", "import", "-", "--user", "amelie")
	var e struct {
		Data struct{ Added, Records int }
	}
	must(t, json.Unmarshal([]byte(out), &e))
	if code != cli.OK || e.Data.Added != 1 || e.Data.Records != 3 {
		t.Fatalf("exit %d, printed %s", code, out)
	}
	code, _, errs = ruche(t, "{\"user\":\"ben\",\"text\":\"x\"}\n{\"user\":\"ben\",\"txet\":\"secret\"}\n", "--dir", dir, "data", "import", "-")
	if code != cli.Usage || !strings.Contains(errs, "line 2: ") || strings.Contains(errs, "secret") || !strings.Contains(errs, "nothing was imported") {
		t.Fatalf("a bad line: exit %d, %q", code, errs)
	}
}

// TestEveryErrorSaysWhatToDoNext: the exit status, a stable word, and a hint.
func TestEveryErrorSaysWhatToDoNext(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "device")
	if code, _, errs := ruche(t, "", "--dir", dir, "init"); code != cli.OK {
		t.Fatal(errs)
	}
	garbage := filepath.Join(t.TempDir(), "garbage.json")
	must(t, os.WriteFile(garbage, []byte("{}"), 0o600))
	for _, c := range []struct {
		args string
		dir  string
		code int
		word string
	}{
		{"run", t.TempDir(), cli.Failed, "no_device"},
		{"status", t.TempDir(), cli.Failed, "no_device"},
		{"data import " + garbage, t.TempDir(), cli.Failed, "no_device"},
		{"ask hello", t.TempDir(), cli.Failed, "no_device"},
		{"ledger show", t.TempDir(), cli.Failed, "no_device"},
		{"run", dir, cli.Failed, "not_joined"},
		{"contribute --vector x.safetensors", dir, cli.Failed, "not_joined"},
		{"contribute", dir, cli.Usage, "bad_arguments"},
		{"status", dir, cli.Failed, "never_ran"},
		{"join", dir, cli.Usage, "bad_arguments"},
		{"join " + garbage, dir, cli.Usage, "bad_arguments"},
		{"join nowhere.json --member org --token t", dir, cli.Failed, "not_found"},
		{"data import nowhere.jsonl", dir, cli.Failed, "not_found"},
		{"data import", dir, cli.Usage, "bad_arguments"},
		{"data import " + garbage, dir, cli.Usage, "bad_line"},
		{"init --tokenizer x", t.TempDir(), cli.Usage, "bad_arguments"},
		{"init --base nowhere", t.TempDir(), cli.Failed, "not_found"},
		{"ask", dir, cli.Usage, "bad_arguments"},
		{"run --log-level loud", dir, cli.Usage, "bad_arguments"},
		{"dance", dir, cli.Usage, "bad_arguments"},
	} {
		code, out, errs := ruche(t, "", append([]string{"--dir", c.dir, "--format", "json"}, strings.Fields(c.args)...)...)
		var e struct {
			Status  string `json:"status"`
			Word    string `json:"error_code"`
			Message string `json:"message"`
			Hint    string `json:"hint"`
		}
		if err := json.Unmarshal([]byte(out), &e); err != nil {
			t.Errorf("ruche-node %s printed %q (%q): %v", c.args, out, errs, err)
			continue
		}
		if code != c.code || e.Word != c.word || e.Status != "error" || e.Message == "" || e.Hint == "" {
			t.Errorf("ruche-node %s: exit %d, %+v; want exit %d, %s, and a hint", c.args, code, e, c.code, c.word)
		}
	}
	// A charter that nobody signed is refused without a word to anybody.
	if code, _, errs := ruche(t, "", "--dir", dir, "join", garbage, "--member", "127.0.0.1:1", "--token", "aaaa"); code != cli.Failed || !strings.Contains(errs, "charter") {
		t.Errorf("exit %d, %q", code, errs)
	}
	// An empty ledger is no error.
	if code, out, errs := ruche(t, "", "--dir", dir, "ledger", "show", "--format", "jsonl"); code != cli.OK || out != "" {
		t.Errorf("exit %d, printed %q and %q", code, out, errs)
	}
}
