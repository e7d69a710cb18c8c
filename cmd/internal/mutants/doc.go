// Command mutants takes one check at a time out of the product and demands that a test notices. A promise whose check can
// be removed without a test failing is not held by the tests.
//
// A Mutant is one or more edits of source text, the promise that it breaks, and the test that must fail. The edited files
// are laid over the repository with `go test -overlay`; nothing in the repository is touched. A survivor, code that does
// not compile, a test that fails by itself, and an old text that does not stand exactly once in its file are errors.
//
//	go run ./cmd/internal/mutants                 every mutant, a line each
//	go run ./cmd/internal/mutants -only reveal    those whose name contains a word
//	go run ./cmd/internal/mutants -format json    one JSON document at the end, progress on stderr
//
// Where two checks cover each other, either of them alone is removed without harm: Mutant.Pair says so, and the mutant
// removes both.
package main
