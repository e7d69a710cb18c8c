package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/replica"
	"github.com/ruche-federation/ruche/storage/durable"
)

func runCommand() *urfave.Command {
	return &urfave.Command{
		Name: "run", Usage: "take part in the consortium until interrupted",
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "charter", Usage: "the charter `FILE`; kept in the folder at the first start, and no other is taken later"},
			&urfave.StringFlag{Name: "listen-device", EnvVars: []string{"RUCHE_LISTEN_DEVICE"}, Usage: "`ADDR` to bind for devices"},
			&urfave.StringFlag{Name: "listen-mesh", EnvVars: []string{"RUCHE_LISTEN_MESH"}, Usage: "`ADDR` to bind for members"},
			&urfave.StringFlag{Name: "timing", Usage: "demo charters only: `wan|lan|loopback` instead of the charter's profile"},
		},
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c, 0, 0, "[--charter FILE]"); err != nil {
				return err
			}
			dir, err := cli.Dir(c)
			if err != nil {
				return err
			}
			logger, err := cli.Logger(c)
			if err != nil {
				return err
			}
			timing := replica.Profile(c.String("timing"))
			if timing != "" && timing != replica.WAN && timing != replica.LAN && timing != replica.Loopback {
				return cli.BadUsage("use --timing wan, lan or loopback", "timing %q is unknown", timing)
			}
			l, err := readListen(dir)
			if err != nil {
				return err
			}
			ch, err := pinCharter(dir, c.String("charter"))
			if err != nil {
				return err
			}
			if timing != "" && !ch.Demo {
				return cli.BadUsage("leave --timing away: all members wait for each other as the charter says", "--timing is for demo charters")
			}
			if ch.Demo {
				cli.Out(c).Notef("%s: cohorts of this charter hide nobody", cli.DemoLabel)
			}
			err = coordinator.Run(c.Context, coordinator.RunOptions{Dir: dir, Logger: logger, Timing: timing,
				ListenDevice: firstOf(c.String("listen-device"), l.Device), ListenMesh: firstOf(c.String("listen-mesh"), l.Mesh)})
			return explain(err, ch.N)
		},
	}
}

// explain gives an error of a member of so many its stable word and what to do next.
func explain(err error, members int) error {
	cause := coordinator.CauseOf(err, members)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, durable.ErrLocked):
		return cli.WithHint(err, "this member runs already: see `ruche-coordinator status`")
	case cause.Means == "":
		return cli.WithHint(err, cause.Do)
	}
	return cli.Fail(cause.Word, cause.Do+"; `ruche-coordinator doctor` looks at the folder", "%w: %s", err, cause.Means)
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// pinCharter keeps the charter at path in the member's folder, verified by all n members and naming this one, or checks
// that it is the one kept before. An empty path means the one kept before.
func pinCharter(dir, path string) (*charter.Charter, error) {
	home, err := coordinator.OpenHome(dir, rand.Reader)
	if err != nil {
		return nil, cli.WithHint(err, "run `ruche-coordinator init` in this folder first")
	}
	kept := filepath.Join(dir, "charter.json")
	old, err := charter.Load(kept)
	switch {
	case errors.Is(err, fs.ErrNotExist) && path == "":
		return nil, cli.Fail("no_charter", "give --charter FILE, the file that `ruche charter assemble` wrote", "folder %s holds no charter yet", dir)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case path == "":
		return old, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	next, err := charter.ParseFile(data)
	if err != nil {
		return nil, cli.WithHint(fmt.Errorf("%s: %w", path, err), "ask the other members for the file with all signatures")
	}
	if old != nil {
		if old.Hash() != next.Hash() {
			return nil, cli.Fail("other_charter", "leave --charter away to run by the pinned one; another consortium needs a folder of its own",
				"this member is pinned to charter %s, %s is %s", old.Hash(), path, next.Hash())
		}
		return old, nil
	}
	i, ok := next.Member(home.Identity.Public())
	if !ok {
		return nil, cli.Fail("not_a_member", "send this folder's card.json to whoever drafts the charter", "charter %s does not list this member's identity", path)
	}
	if !sameCard(next.Members[i], home.Card) {
		return nil, cli.Fail("other_card", "the charter must carry the card.json of this folder", "charter %s has another card for %s than this folder", path, home.Card.Name)
	}
	if err := durable.WriteFile(kept, data, 0o644); err != nil {
		return nil, err
	}
	return next, nil
}

// sameCard compares every field: an entry with this identity but another TLS key or address would send devices elsewhere.
func sameCard(a, b charter.Card) bool {
	return a.Name == b.Name && a.StoreID == b.StoreID && bytes.Equal(a.Identity, b.Identity) && bytes.Equal(a.Authority, b.Authority) &&
		bytes.Equal(a.TLSKey, b.TLSKey) && a.DeviceURL == b.DeviceURL && a.MeshAddr == b.MeshAddr
}
