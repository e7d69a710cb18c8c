package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator"
	"github.com/ruche-federation/ruche/storage/durable"
)

// listen is listen.json: the addresses to bind where they are not those of the card. A member behind a proxy or a port
// forward has such.
type listen struct {
	Device string `json:"device,omitempty"`
	Mesh   string `json:"mesh,omitempty"`
}

const listenFile = "listen.json"

func initCommand() *urfave.Command {
	return &urfave.Command{
		Name: "init", Usage: "draw this member's keys and write its signed card",
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "name", Usage: "the `ORGANISATION`, as it will stand in the charter"},
			&urfave.StringFlag{Name: "device-url", Usage: "`https://HOST:PORT` where devices reach this member"},
			&urfave.StringFlag{Name: "mesh-addr", Usage: "`HOST:PORT` where the other members reach this member"},
			&urfave.StringFlag{Name: "listen-device", Usage: "`ADDR` to bind for devices, if not the URL's"},
			&urfave.StringFlag{Name: "listen-mesh", Usage: "`ADDR` to bind for members, if not the mesh address"},
		},
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c, 0, 0, "--name ORG --device-url https://HOST:PORT --mesh-addr HOST:PORT"); err != nil {
				return err
			}
			dir, err := cli.Dir(c)
			if err != nil {
				return err
			}
			for _, name := range []string{"name", "device-url", "mesh-addr"} {
				if c.String(name) == "" {
					return cli.BadUsage("give --"+name, "--%s is missing", name)
				}
			}
			home, err := coordinator.InitHome(dir, coordinator.HomeOptions{Name: c.String("name"), DeviceURL: c.String("device-url"), MeshAddr: c.String("mesh-addr")}, rand.Reader)
			if err != nil {
				return cli.WithHint(err, "correct the arguments, or choose an empty --dir")
			}
			if l := (listen{c.String("listen-device"), c.String("listen-mesh")}); l != (listen{}) {
				b, err := json.MarshalIndent(l, "", "  ")
				if err != nil {
					return err
				}
				if err := durable.WriteFile(filepath.Join(dir, listenFile), append(b, '\n'), 0o600); err != nil {
					return err
				}
			}
			card := filepath.Join(dir, "card.json")
			return cli.Out(c).Value(map[string]string{"card": card, "name": home.Card.Name, "store_id": home.Card.StoreID}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s\n", card)
				cli.Out(c).Notef("keys are in %s; they stay there. Send the card to whoever drafts the charter.", filepath.Join(dir, "keys"))
				return err
			})
		},
	}
}

// readListen reads listen.json; without one nothing is overridden.
func readListen(dir string) (listen, error) {
	var l listen
	b, err := os.ReadFile(filepath.Join(dir, listenFile))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return l, fmt.Errorf("%s: %w", filepath.Join(dir, listenFile), err)
	}
	return l, nil
}
