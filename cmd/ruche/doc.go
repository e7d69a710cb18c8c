// Command ruche is the operators' and analysts' view of a consortium: charter (the key ceremony and its file), rounds,
// members, adapters.
//
// It trusts the charter file and nothing else. Connections are pinned to the keys in it; what a member serves is what
// that member says, until `ruche rounds verify` has recomputed it. `charter sign` is the only command that reads a
// private key, and it runs where the key lies.
//
// Exit statuses and output formats are those of cmd/internal/cli.
package main
