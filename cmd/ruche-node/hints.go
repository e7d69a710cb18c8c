package main

import (
	"errors"
	"io/fs"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/node"
	"github.com/ruche-federation/ruche/node/journal"
	"github.com/ruche-federation/ruche/node/participant"
	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/vault"
)

// advise gives an error of package node its word and what to do next. What it does not know, cli.Classify judges.
func advise(err error) error {
	if err == nil {
		return nil
	}
	fail := func(code int, word, hint string) error {
		return &cli.Error{Code: code, Word: word, Hint: hint, Err: err}
	}
	var (
		pinned  *node.PinnedError
		base    *node.BaseError
		task    *node.TaskError
		token   *node.TokenError
		line    *journal.LineError
		user    *journal.UserError
		refusal *participant.RefusalError
		full    *vault.FullError
	)
	switch {
	case errors.Is(err, node.ErrNoDevice):
		return fail(cli.Failed, "no_device", "run `ruche-node init` first, or give the device's --dir")
	case errors.Is(err, node.ErrIsDevice):
		return fail(cli.Failed, "is_device", "give another --dir, or go on with `ruche-node join`")
	case errors.Is(err, node.ErrNotJoined):
		return fail(cli.Failed, "not_joined", "run `ruche-node join CHARTER --member URL --token TOKEN`; a member's operator issues tokens")
	case errors.Is(err, node.ErrNoBase):
		return fail(cli.Usage, "no_base", "give --base PATH: a Hugging Face folder, a .gguf file or a llama2.c .bin")
	case errors.Is(err, node.ErrContributed):
		return fail(cli.Failed, "contributed", "see `ruche-node ledger show`; a task with a time window can be contributed to once per window")
	case errors.Is(err, journal.ErrEmpty):
		return fail(cli.Failed, "empty_journal", "run `ruche-node data import FILE`")
	case errors.As(err, &pinned):
		return fail(cli.Failed, "other_charter", "another consortium, or another version of its charter, needs a device folder of its own: `ruche-node --dir NEW init`")
	case errors.As(err, &base):
		return fail(cli.Failed, "base_changed", "put the original model back, or make a new device with `ruche-node --dir NEW init --base PATH`")
	case errors.As(err, &task):
		return fail(cli.Usage, "wrong_task", "choose with --task; a task for another base model needs a device with that model (`ruche-node --dir NEW init --base PATH`)")
	case errors.As(err, &token):
		return fail(cli.Connect, "bad_token", "ask the member's operator for a new token (`ruche-coordinator token`)")
	case errors.As(err, &line):
		return fail(cli.Usage, "bad_line", `every line must be {"user": "...", "text": "..."}; nothing was imported`)
	case errors.As(err, &user):
		return fail(cli.Usage, "which_user", "say whose records they are with --user NAME; nothing was imported")
	case errors.As(err, &refusal):
		return fail(cli.Failed, "refused", "the reason names what differs; the next round may be another")
	case errors.As(err, &full):
		return fail(cli.Failed, "disk_full", "make room on the disk and try again")
	case errors.Is(err, vault.ErrWrongKey):
		return fail(cli.Failed, "wrong_key", "keys/storage.key is not the one that the journal was written with: put it back")
	case errors.Is(err, durable.ErrLocked):
		return fail(cli.Failed, "busy", "another ruche-node works in this folder: see `ruche-node status`, and stop it first")
	case errors.Is(err, fs.ErrNotExist):
		return fail(cli.Failed, "not_found", "check the path")
	}
	return err
}
