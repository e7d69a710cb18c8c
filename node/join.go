package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/pin"
	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/fault"
)

// PinnedError says that a device is asked to take another charter than the one it has pinned.
type PinnedError struct {
	Pinned, Offered label.Hash
	Consortium      string // of the pinned one
}

func (e *PinnedError) Error() string {
	return fmt.Sprintf("this device has pinned the charter %s of consortium %s and refuses another (%s)", e.Pinned, e.Consortium, e.Offered)
}

// TokenError says that a token is not one, or that the member does not take it.
type TokenError struct{ Err error }

func (e *TokenError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *TokenError) Unwrap() error { return e.Err }

// Joined is what an enrolment gave.
type Joined struct {
	Consortium string       `json:"consortium"`
	Charter    label.Hash   `json:"charter"`
	Demo       bool         `json:"demo"`
	Label      string       `json:"label,omitempty"`
	Device     label.Hash   `json:"device_id"`
	Authority  string       `json:"authority"` // the organisation that certified the device
	Expires    time.Time    `json:"expires"`
	Already    bool         `json:"already"` // the device was enrolled before, and its certificate still holds
	Tasks      []JoinedTask `json:"tasks"`
}

// JoinedTask says of one task whether this device can take part in it.
type JoinedTask struct {
	ID     string `json:"id"`
	Kind   string `json:"kind"`
	Floor  uint32 `json:"cohort_floor"`
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
}

// Join verifies a charter file, pins it, and exchanges a token for a certificate at the member behind address, which may
// be a URL, host:port, or a member's name in the charter. Whoever answers there is the member whose key it proves; the
// address decides nothing. Nothing is written before the certificate is verified.
func Join(ctx context.Context, dir, charterPath, address, token string, now func() time.Time) (*Joined, error) {
	h, err := OpenHome(dir)
	if err != nil {
		return nil, err
	}
	raw, err := readBounded(charterPath, charter.FileBytesMax)
	if err != nil {
		return nil, err
	}
	ch, err := charter.ParseFile(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", charterPath, err)
	}
	if err := checkPin(dir, ch); err != nil {
		return nil, err
	}
	if _, cert, err := h.Charter(); err == nil {
		if c, err := statement.VerifyDeviceCert(ch, cert); err == nil && c.ExpiresMs > now().UnixMilli() {
			return h.joined(ch, c, true), nil // the token is kept for another device
		}
	}
	secret, err := parseToken(token)
	if err != nil {
		return nil, err
	}
	signed, err := enrol(ctx, ch, address, h, secret)
	if err != nil {
		return nil, err
	}
	cert, err := h.certified(ch, signed, now())
	if err != nil {
		return nil, fmt.Errorf("the member's answer: %w", err)
	}
	path := filepath.Join(dir, charterFile)
	if err := fault.Step("charter", path, func() error { return durable.WriteFile(path, raw, 0o644) }); err != nil {
		return nil, err
	}
	path = filepath.Join(dir, certFile)
	if err := fault.Step("certificate", path, func() error { return durable.WriteFile(path, signed.Bytes(), 0o600) }); err != nil {
		return nil, err
	}
	return h.joined(ch, cert, false), nil
}

// certified checks what a member answered: a certificate of this device, which holds still.
func (h *Home) certified(ch *charter.Charter, signed statement.Signed, now time.Time) (*statement.DeviceCert, error) {
	cert, err := statement.VerifyDeviceCert(ch, signed)
	switch {
	case err != nil:
		return nil, err
	case !cert.Public.Equal(h.Key.Public()):
		return nil, errors.New("a certificate of another device")
	case cert.ExpiresMs <= now.UnixMilli():
		return nil, fmt.Errorf("a certificate that ended at %s, and this device's clock says %s", time.UnixMilli(cert.ExpiresMs).UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return cert, nil
}

// checkPin refuses a charter other than the pinned one.
func checkPin(dir string, ch *charter.Charter) error {
	pinned, err := charter.Load(filepath.Join(dir, charterFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if pinned.Hash() != ch.Hash() {
		return &PinnedError{pinned.Hash(), ch.Hash(), pinned.Consortium}
	}
	return nil
}

func (h *Home) joined(ch *charter.Charter, c *statement.DeviceCert, already bool) *Joined {
	j := &Joined{Consortium: ch.Consortium, Charter: ch.Hash(), Demo: ch.Demo, Label: demoLabel(ch), Device: c.Device,
		Authority: ch.Members[c.Authority].Name, Expires: time.UnixMilli(c.ExpiresMs).UTC(), Already: already}
	for i := range ch.Tasks {
		t := &ch.Tasks[i]
		line := JoinedTask{ID: t.ID, Kind: t.Kind, Floor: t.Cohort.NMin, Ready: true}
		if t.Kind == charter.KindLoRA && t.Base != h.Info.Base.SHA256 {
			line.Ready, line.Reason = false, fmt.Sprintf("the task is for the base model %s, this device has %s", t.Base, h.Info.Base.SHA256)
		}
		j.Tasks = append(j.Tasks, line)
	}
	return j
}

// Tokens as members write them: base32 in lower case without padding, forgiving case and spaces.
var tokenEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func parseToken(s string) ([]byte, error) {
	s = strings.ToLower(strings.ReplaceAll(strings.TrimSpace(s), " ", ""))
	b, err := tokenEncoding.DecodeString(s)
	if err != nil || len(b) == 0 || len(b) > tokenBytesMax {
		return nil, &TokenError{errors.New("not an enrolment token: letters a to z and digits 2 to 7 only")} // quoting it would put a secret into a log
	}
	return b, nil
}

// enrol makes the one call, over TLS pinned to the charter's keys.
func enrol(ctx context.Context, ch *charter.Charter, address string, h *Home, token []byte) (statement.Signed, error) {
	for i := range ch.Members {
		if ch.Members[i].Name == address {
			address = ch.Members[i].DeviceURL
		}
	}
	var stranger atomic.Pointer[pin.PeerError]
	conn, err := dial(address, anyMember(ch, &stranger))
	if err != nil {
		return statement.Signed{}, fmt.Errorf("member at %s: %w", address, err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, enrolWait)
	defer cancel()
	hash := ch.Hash()
	answer, err := coordpb.NewDeviceClient(conn).Enroll(ctx, &coordpb.EnrollRequest{Token: token, DevicePublic: h.Key.Public(), CharterHash: hash[:]})
	if e := stranger.Load(); err != nil && e != nil {
		err = e // grpc keeps its text only
	}
	if status.Code(err) == codes.PermissionDenied {
		err = &TokenError{err}
	}
	if err != nil {
		return statement.Signed{}, fmt.Errorf("member at %s: %w", address, err)
	}
	return statement.Signed{Body: answer.GetDeviceCert().GetBody(), Signature: answer.GetDeviceCert().GetSignature()}, nil
}

// anyMember is TLS with the holder of any member's key in the charter. It keeps what it refused.
func anyMember(ch *charter.Charter, refused *atomic.Pointer[pin.PeerError]) *tls.Config {
	c := pin.Client(ed25519.PublicKey(ch.Members[0].TLSKey), protocol)
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if state.NegotiatedProtocol != protocol {
			return errors.New("tls: no protocol agreed")
		}
		key, err := pin.Peer(state)
		if err == nil {
			for i := range ch.Members {
				if bytes.Equal(ch.Members[i].TLSKey, key) {
					return nil
				}
			}
			err = &pin.PeerError{Reason: fmt.Sprintf("key %x is no member's in the charter of %s", []byte(key), ch.Consortium)}
		}
		var e *pin.PeerError
		if errors.As(err, &e) {
			refused.Store(e)
		}
		return err
	}
	return c
}

// DemoLabel stands wherever a demo charter shows.
const DemoLabel = "DEMO, NOT PRIVATE"

func demoLabel(ch *charter.Charter) string {
	if ch.Demo {
		return DemoLabel
	}
	return ""
}
