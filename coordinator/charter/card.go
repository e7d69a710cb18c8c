package charter

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"

	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

// Card is one organisation's entry in a charter: its keys and its addresses.
type Card struct {
	Name      string                `json:"name"`       // the organisation
	StoreID   string                `json:"store_id"`   // UUID of the member's storage; a wiped disk gets a new one
	Identity  identity.MemberPublic `json:"identity"`   // composite identity key, base64
	Authority identity.Public       `json:"authority"`  // key of its enrolment authority, base64
	TLSKey    identity.Public       `json:"tls_key"`    // the only key its mesh and device ports may present, base64
	DeviceURL string                `json:"device_url"` // https://host:port
	MeshAddr  string                `json:"mesh_addr"`  // host:port
}

// Check refuses a card that no member could run by.
func (c *Card) Check() error {
	if err := checkName("name", c.Name); err != nil {
		return err
	}
	if !IsUUID(c.StoreID) {
		return fmt.Errorf("store_id %.40q is not a lower-case UUID", c.StoreID)
	}
	if err := c.Identity.Check(); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	if err := c.Authority.Check(); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if err := c.TLSKey.Check(); err != nil {
		return fmt.Errorf("tls_key: %w", err)
	}
	if c.Authority.Equal(c.TLSKey) {
		return errors.New("authority and tls_key are the same key")
	}
	u, err := url.Parse(c.DeviceURL)
	if err != nil || len(c.DeviceURL) > AddressBytesMax || u.Scheme != "https" || u.String() != "https://"+u.Host {
		return fmt.Errorf("device_url %.80q is not of the form https://host:port", c.DeviceURL)
	}
	if err := checkAddr(u.Host); err != nil {
		return fmt.Errorf("device_url %.80q: %w", c.DeviceURL, err)
	}
	if err := checkAddr(c.MeshAddr); err != nil {
		return fmt.Errorf("mesh_addr %.80q: %w", c.MeshAddr, err)
	}
	return nil
}

func checkAddr(addr string) error {
	if len(addr) > AddressBytesMax {
		return fmt.Errorf("address has %d bytes, limit %d", len(addr), AddressBytesMax)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return errors.New("want host:port")
	}
	if p, err := strconv.ParseUint(port, 10, 16); err != nil || p == 0 {
		return errors.New("want a port from 1 to 65535")
	}
	return nil
}

// IsUUID reports whether s is a UUID as store ids are written: in lower case.
func IsUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, r := range []byte(s) {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if r != '-' {
				return false
			}
		} else if !(r >= '0' && r <= '9' || r >= 'a' && r <= 'f') {
			return false
		}
	}
	return true
}

// cardFile is card.json. Both values are base64: what is signed is the exact bytes.
type cardFile struct {
	Card      []byte `json:"card"`
	Signature []byte `json:"signature"`
}

// SignCard makes the content of card.json. The signing key must be the card's own identity.
func SignCard(c Card, key *identity.Member) ([]byte, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("card: %w", err)
	}
	if string(key.Public()) != string(c.Identity) {
		return nil, errors.New("card: the signing key is not the card's identity")
	}
	body, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("card: %w", err)
	}
	return marshalFile(cardFile{Card: body, Signature: key.Sign(label.StmtCard, body)})
}

// ParseCard reads the content of card.json and checks that its own identity signed it.
func ParseCard(data []byte) (Card, error) {
	if len(data) > CardBytesMax {
		return Card{}, fmt.Errorf("card has %d bytes, limit %d", len(data), CardBytesMax)
	}
	var f cardFile
	if err := unmarshalStrict(data, &f); err != nil {
		return Card{}, fmt.Errorf("card: %w", err)
	}
	var c Card
	if err := unmarshalStrict(f.Card, &c); err != nil {
		return Card{}, fmt.Errorf("card: %w", err)
	}
	if err := c.Check(); err != nil {
		return Card{}, fmt.Errorf("card: %w", err)
	}
	if err := c.Identity.Verify(label.StmtCard, f.Card, f.Signature); err != nil {
		return Card{}, fmt.Errorf("card of %s: %w", c.Name, err)
	}
	return c, nil
}
