// Command generate writes testdata/users/users.jsonl.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/ruche-federation/ruche/testdata/users"
)

func main() {
	out := flag.String("out", "testdata/users/users.jsonl", "file to write")
	seed := flag.Uint64("seed", users.Seed, "seed of the generator")
	flag.Parse()
	if err := run(*out, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(out string, seed uint64) error {
	records, err := users.Generate(seed)
	if err != nil {
		return err
	}
	data, err := users.JSONL(records)
	if err != nil {
		return err
	}
	return os.WriteFile(out, data, 0o644)
}
