// Command ruche-node is one person's device: init makes its folder, data import fills its journal, join enrols it with a
// consortium, run takes part in the commons, ask talks to the model, ledger show tells what left.
//
// Exit statuses and output formats are those of cmd/internal/cli. Logs go to stderr and name neither the device nor
// anything the owner said.
package main
