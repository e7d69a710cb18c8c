package statement

import (
	"errors"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

const deviceCertVersion = 1

// DeviceCert is an enrolment authority's word for one device, signed by the authority's key (SA 2.1).
type DeviceCert struct {
	Charter   label.Hash
	Device    label.Hash // H("device", Public)
	Public    identity.Public
	Authority int    // the member that operates the authority
	Quota     uint32 // contributions that may be accepted under this certificate, over its life
	ExpiresMs int64
	Token     label.Hash // H("token", the single-use token it was given for)
}

// Bytes is the canonical encoding, which is what is signed.
func (c *DeviceCert) Bytes() []byte {
	e := encodeHead(typeDeviceCert, deviceCertVersion)
	e.hash(c.Charter)
	e.hash(c.Device)
	e.bytes(c.Public)
	e.u32(uint32(c.Authority))
	e.u32(c.Quota)
	e.i64(c.ExpiresMs)
	e.hash(c.Token)
	return e.b
}

// ParseDeviceCert reads what Bytes wrote and checks what holds for every DeviceCert.
func ParseDeviceCert(b []byte) (*DeviceCert, error) {
	d := decode("device certificate", b, typeDeviceCert, deviceCertVersion)
	c := &DeviceCert{Charter: d.hash(), Device: d.hash(), Public: d.bytes("public key", identity.PublicSize),
		Authority: d.member(), Quota: d.u32(), ExpiresMs: d.time("expiry"), Token: d.hash()}
	if err := d.end(); err != nil {
		return nil, err
	}
	if err := c.Public.Check(); err != nil {
		return nil, err
	}
	if c.Device != identity.DeviceID(c.Public) {
		return nil, errors.New("device certificate names another device than its key's")
	}
	if c.Quota == 0 {
		return nil, errors.New("device certificate has quota 0")
	}
	return c, nonzero("device certificate", c.Token)
}

// Hash names the exact signed body.
func (c *DeviceCert) Hash() label.Hash { return HashDeviceCert(c.Bytes()) }

// HashDeviceCert names the exact bytes of a DeviceCert.
func HashDeviceCert(body []byte) label.Hash { return label.Sum(label.TagDeviceCert, body) }

// HashToken is what a DeviceCert carries of a single-use enrolment token.
func HashToken(token []byte) label.Hash { return label.Sum(label.TagToken, token) }

// VerifyDeviceCert parses s and checks that the authority it names signed it under this charter. Expiry is the caller's.
func VerifyDeviceCert(ch *charter.Charter, s Signed) (*DeviceCert, error) {
	c, err := ParseDeviceCert(s.Body)
	if err != nil {
		return nil, err
	}
	switch {
	case c.Charter != ch.Hash():
		return nil, errors.New("device certificate is of another charter")
	case c.Authority >= ch.N:
		return nil, errors.New("device certificate is of no authority")
	}
	if err := ch.Members[c.Authority].Authority.Verify(label.StmtDeviceCert, s.Body, s.Signature); err != nil {
		return nil, err
	}
	return c, nil
}
