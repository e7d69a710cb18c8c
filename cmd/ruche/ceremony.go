package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/storage/durable"
)

func signCommand() *urfave.Command {
	return &urfave.Command{
		Name: "sign", Usage: "sign a draft with this member's identity key", ArgsUsage: "DRAFT",
		Description: "Runs where the member's folder lies. Compare the charter hash and the fingerprints with the other organisations first: `ruche charter show DRAFT`.",
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "member-dir", Usage: "the member's `FOLDER`"},
			&urfave.StringFlag{Name: "out", Aliases: []string{"o"}, Value: "signature.json", Usage: "the signature's `FILE`"},
		},
		Action: func(c *urfave.Context) error {
			args, err := cli.Args(c, 1, 1, "DRAFT --member-dir DIR -o FILE")
			if err != nil {
				return err
			}
			if c.String("member-dir") == "" {
				return cli.BadUsage("give --member-dir, the folder that `ruche-coordinator init` made", "--member-dir is missing")
			}
			body, ch, err := readDraft(args[0])
			if err != nil {
				return err
			}
			home, err := coordinator.OpenHome(c.String("member-dir"), rand.Reader)
			if err != nil {
				return cli.WithHint(err, "run this on the member's machine, on the folder that `ruche-coordinator init` made")
			}
			i, ok := ch.Member(home.Identity.Public())
			if !ok {
				return cli.Fail("not_a_member", "send card.json of this folder to whoever drafts the charter", "draft %s does not list %s's identity key", args[0], home.Card.Name)
			}
			if field := cardDifference(ch.Members[i], home.Card); field != "" {
				return cli.Fail("other_card", "do not sign; ask for a draft with the card.json of this folder", "draft %s has another %s for %s than its card", args[0], field, home.Card.Name)
			}
			sig, err := charter.Sign(body, home.Identity)
			if err != nil {
				return err
			}
			data, err := charter.MarshalSignature(sig)
			if err != nil {
				return err
			}
			if err := writeNew(c.String("out"), data); err != nil {
				return err
			}
			out := map[string]any{"charter": ch.Hash(), "member": i, "name": home.Card.Name, "signature": c.String("out"), "demo": ch.Demo}
			return cli.Out(c).Value(out, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s signed charter %s as member %d: %s\n", home.Card.Name, ch.Hash(), i, c.String("out"))
				demoLine(cli.Out(c), ch)
				return err
			})
		},
	}
}

// cardDifference names the first field in which two cards differ: an entry with the right identity and another TLS key
// or address would send devices elsewhere.
func cardDifference(a, b charter.Card) string {
	for _, f := range []struct {
		name string
		same bool
	}{
		{"name", a.Name == b.Name}, {"store_id", a.StoreID == b.StoreID}, {"identity", bytes.Equal(a.Identity, b.Identity)},
		{"authority", bytes.Equal(a.Authority, b.Authority)}, {"tls_key", bytes.Equal(a.TLSKey, b.TLSKey)},
		{"device_url", a.DeviceURL == b.DeviceURL}, {"mesh_addr", a.MeshAddr == b.MeshAddr},
	} {
		if !f.same {
			return f.name
		}
	}
	return ""
}

func assembleCommand() *urfave.Command {
	return &urfave.Command{
		Name: "assemble", Usage: "join a draft and the signatures of all members into charter.json", ArgsUsage: "DRAFT SIGNATURE…",
		Flags: []urfave.Flag{&urfave.StringFlag{Name: "out", Aliases: []string{"o"}, Value: "charter.json", Usage: "the charter's `FILE`"}},
		Action: func(c *urfave.Context) error {
			args, err := cli.Args(c, 2, 1+charter.MembersMax, "DRAFT SIGNATURE… -o FILE")
			if err != nil {
				return err
			}
			body, ch, err := readDraft(args[0])
			if err != nil {
				return err
			}
			var sigs []charter.Signature
			for _, path := range args[1:] {
				data, err := readBounded(path, charter.CardBytesMax)
				if err != nil {
					return err
				}
				s, err := charter.ParseSignature(data)
				if err != nil {
					return cli.WithHint(fmt.Errorf("%s: %w", path, err), "pass the files that `ruche charter sign` wrote")
				}
				sigs = append(sigs, s)
			}
			data, err := charter.Assemble(body, sigs)
			if err != nil {
				return cli.WithHint(err, fmt.Sprintf("all %d members must have signed exactly this draft, each once", ch.N))
			}
			if err := writeNew(c.String("out"), data); err != nil {
				return err
			}
			out := map[string]any{"charter": ch.Hash(), "file": c.String("out"), "members": ch.N, "demo": ch.Demo}
			return cli.Out(c).Value(out, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "charter %s of %s, signed by all %d members: %s\n", ch.Hash(), ch.Consortium, ch.N, c.String("out"))
				demoLine(cli.Out(c), ch)
				return err
			})
		},
	}
}

func demoLine(o *cli.Output, ch *charter.Charter) {
	if ch.Demo {
		o.Notef("%s: this charter allows cohorts of %d devices", cli.DemoLabel, ch.MinContributors)
	}
}

// readDraft reads a charter's body that is not signed yet.
func readDraft(path string) ([]byte, *charter.Charter, error) {
	body, err := readBounded(path, charter.BodyBytesMax)
	if err != nil {
		return nil, nil, err
	}
	ch, err := charter.Parse(body)
	if err != nil {
		return nil, nil, cli.WithHint(fmt.Errorf("%s: %w", path, err), "pass the draft that `ruche charter new` wrote, byte for byte")
	}
	return body, ch, nil
}

func readBounded(path string, max int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(max)+1))
	if err != nil {
		return nil, err
	}
	if len(data) > max {
		return nil, fmt.Errorf("%s has more than %d bytes", path, max)
	}
	return data, nil
}

// writeNew writes a file that others will rely on. It never replaces another one; the same bytes again are fine.
func writeNew(path string, data []byte) error {
	old, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return durable.WriteFile(path, data, 0o644)
	case err != nil:
		return err
	case bytes.Equal(old, data):
		return nil
	}
	return cli.Fail("exists", "choose another -o, or remove the file yourself", "%s exists and is another", path)
}
