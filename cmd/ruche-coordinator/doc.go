// Command ruche-coordinator runs one organisation's member of a consortium: init draws its keys and writes its card,
// run takes part in the rounds that its charter describes, token lets one more device enrol, status says how it fares,
// doctor looks at its folder while it is stopped.
//
// Its keys are made in its folder and never leave it. Exit statuses and output formats are those of cmd/internal/cli.
package main
