package cli

import (
	"strings"
	"testing"
)

func TestTablesObeyNobodysEscapeSequences(t *testing.T) {
	table := &Table{Columns: []string{"NAME", "STATE"}}
	o := &Output{colour: true}
	table.Add("evil\x1b[2Jname\nnext", o.Bad("down\a"))
	var b strings.Builder
	if err := table.Write(&b, false); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), "evil\ufffd[2Jname\ufffdnext   \x1b[31mdown\ufffd\x1b[0m\n"; got != want {
		t.Fatalf("%q, want %q", got, want)
	}
}

func TestColourTakesNoWidth(t *testing.T) {
	o := &Output{colour: true}
	table := &Table{Columns: []string{"STATE", "NAME"}}
	table.Add(o.Good("up"), "maja")
	table.Add("unknown", "willi")
	var b strings.Builder
	if err := table.Write(&b, false); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), "\x1b[32mup\x1b[0m        maja\nunknown   willi\n"; got != want {
		t.Fatalf("%q, want %q", got, want)
	}
}
