package coordinator

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/fault"
	"github.com/ruche-federation/ruche/storage/vault"
)

// Home is a member's folder: its long-lived keys, its card and, after the key ceremony, its charter.
// Secret files have mode 0600; none of them is ever read by another program.
type Home struct {
	Dir       string
	Identity  *identity.Member
	Authority *identity.Key
	TLS       ed25519.PrivateKey
	Storage   *vault.Key
	Card      charter.Card
}

// HomeOptions are what `ruche-coordinator init` is told.
type HomeOptions struct {
	Name      string // the organisation, as it stands in the charter
	DeviceURL string // https://host:port where devices reach this member
	MeshAddr  string // host:port where members reach this member
}

const (
	cardFile    = "card.json"
	charterFile = "charter.json"
)

// InitHome draws a member's keys and writes its signed card. It refuses a folder that already holds a member:
// a second identity under the same name would have to be a new charter version.
func InitHome(dir string, opts HomeOptions, rand io.Reader) (*Home, error) {
	if _, err := os.Stat(filepath.Join(dir, cardFile)); err == nil {
		return nil, fmt.Errorf("folder %s already holds a member", dir)
	}
	keys := filepath.Join(dir, "keys")
	if _, err := os.Stat(filepath.Join(keys, "identity.key")); err == nil {
		return nil, fmt.Errorf("folder %s holds keys and no card: it was being made when something stopped, or its card was lost; keys are never overwritten, use another folder or remove keys/ yourself", dir)
	}
	if err := durable.MkdirAll(keys, 0o700); err != nil {
		return nil, err
	}
	ik, err := identity.NewMember(rand)
	if err != nil {
		return nil, fmt.Errorf("drawing the identity key: %w", err)
	}
	ea, err := identity.NewKey(rand)
	if err != nil {
		return nil, fmt.Errorf("drawing the authority key: %w", err)
	}
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(rand, seed); err != nil {
		return nil, fmt.Errorf("drawing the TLS key: %w", err)
	}
	store, err := newStoreID(rand)
	if err != nil {
		return nil, err
	}
	for name, secret := range map[string][]byte{"identity.key": ik.Bytes(), "authority.key": ea.Bytes(), "tls.key": seed} {
		path := filepath.Join(keys, name)
		if err := fault.Step("member-key", path, func() error { return durable.WriteFile(path, secret, 0o600) }); err != nil {
			return nil, err
		}
	}
	tlsKey := ed25519.NewKeyFromSeed(seed)
	card := charter.Card{
		Name:      opts.Name,
		StoreID:   store,
		Identity:  ik.Public(),
		Authority: ea.Public(),
		TLSKey:    identity.Public(tlsKey.Public().(ed25519.PublicKey)),
		DeviceURL: opts.DeviceURL,
		MeshAddr:  opts.MeshAddr,
	}
	signed, err := charter.SignCard(card, ik)
	if err != nil {
		return nil, err
	}
	if err := writeStore(dir, storeRecord{Store: store, Fresh: true}); err != nil {
		return nil, err
	}
	// The card is written last: a folder with a card is complete.
	path := filepath.Join(dir, cardFile)
	if err := fault.Step("card", path, func() error { return durable.WriteFile(path, signed, 0o644) }); err != nil {
		return nil, err
	}
	return OpenHome(dir, rand)
}

// OpenHome reads a member's keys and card and checks that they belong together. Keys that others may read are refused.
func OpenHome(dir string, rand io.Reader) (*Home, error) {
	raw, err := os.ReadFile(filepath.Join(dir, cardFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("folder %s holds no member: run `ruche-coordinator init` first", dir)
	}
	if err != nil {
		return nil, err
	}
	card, err := charter.ParseCard(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, cardFile), err)
	}
	h := &Home{Dir: dir, Card: card}
	read := func(name string, size int) ([]byte, error) {
		p := filepath.Join(dir, "keys", name)
		info, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		if err := durable.CheckPrivate(p, info); err != nil {
			return nil, err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		if size > 0 && len(b) != size {
			return nil, fmt.Errorf("%s has %d bytes, want %d", p, len(b), size)
		}
		return b, nil
	}
	b, err := read("identity.key", 0)
	if err != nil {
		return nil, err
	}
	if h.Identity, err = identity.ParseMember(b); err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	if b, err = read("authority.key", 0); err != nil {
		return nil, err
	}
	if h.Authority, err = identity.ParseKey(b); err != nil {
		return nil, fmt.Errorf("authority key: %w", err)
	}
	if b, err = read("tls.key", ed25519.SeedSize); err != nil {
		return nil, err
	}
	h.TLS = ed25519.NewKeyFromSeed(b)
	if h.Storage, err = vault.LoadOrCreateKey(filepath.Join(dir, "keys", "storage.key"), rand); err != nil {
		return nil, err
	}
	if string(card.Identity) != string(h.Identity.Public()) || string(card.Authority) != string(h.Authority.Public()) ||
		string(card.TLSKey) != string(h.TLS.Public().(ed25519.PublicKey)) {
		return nil, fmt.Errorf("folder %s: the card's keys are not the keys in keys/", dir)
	}
	return h, nil
}

// removeTemps removes what writes that broke off left in a member's folder, before anything of it is opened. The shelf and
// the epochs look after theirs; in keys/ and tokens/ other programs may be writing now.
func removeTemps(dir string) error {
	for _, sub := range []string{"", "receipts", "configs", derivedDir, raftDir, filepath.Join(raftDir, "log")} {
		if _, err := durable.RemoveTemps(filepath.Join(dir, sub)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Charter reads the charter of this home, verified, and this member's index in it.
func (h *Home) Charter() (*charter.Charter, int, error) {
	p := filepath.Join(h.Dir, charterFile)
	ch, err := charter.Load(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("no charter at %s: copy the file that `ruche charter assemble` wrote there", p)
	}
	if err != nil {
		return nil, 0, err
	}
	for i, m := range ch.Members {
		if string(m.Identity) != string(h.Identity.Public()) {
			continue
		}
		if string(m.TLSKey) != string(h.Card.TLSKey) || string(m.Authority) != string(h.Card.Authority) || m.StoreID != h.Card.StoreID {
			return nil, 0, fmt.Errorf("charter %s of consortium %q lists another card of this member than the one in %s", p, ch.Consortium, h.Dir)
		}
		return ch, i, nil
	}
	return nil, 0, fmt.Errorf("charter %s of consortium %q does not list this member's identity key", p, ch.Consortium)
}
