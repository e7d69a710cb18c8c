package coordinator

import (
	"context"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/intake"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/fault"
)

// Tokens are written without padding in lower case: they are read aloud and typed.
var tokenEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewToken issues a single-use enrolment token of the member in dir. Only its hash is kept; the running process sees it
// at once.
func NewToken(dir string, rand io.Reader) (string, error) {
	token := make([]byte, tokenBytes)
	if _, err := io.ReadFull(rand, token); err != nil {
		return "", fmt.Errorf("drawing a token: %w", err)
	}
	folder := filepath.Join(dir, "tokens")
	if err := durable.MkdirAll(folder, 0o700); err != nil {
		return "", err
	}
	path := tokenPath(dir, statement.HashToken(token))
	if err := fault.Step("token", path, func() error { return durable.WriteFile(path, nil, 0o600) }); err != nil {
		return "", err
	}
	return tokenEncoding.EncodeToString(token), nil
}

// ParseToken reads what NewToken returned, forgiving case and spaces.
func ParseToken(s string) ([]byte, error) {
	s = strings.ToLower(strings.ReplaceAll(strings.TrimSpace(s), " ", ""))
	b, err := tokenEncoding.DecodeString(s)
	if err != nil || len(b) != tokenBytes || len(s) != tokenEncoding.EncodedLen(tokenBytes) { // the decoder takes a letter too many
		return nil, fmt.Errorf("not an enrolment token: want %d letters and digits", tokenEncoding.EncodedLen(tokenBytes))
	}
	return b, nil
}

func tokenPath(dir string, hash label.Hash) string {
	return filepath.Join(dir, "tokens", hash.String())
}

// enrol gives a device its certificate for a token of this member's authority. The log makes the token single-use: it
// refuses a second device; for the same device the same certificate is given again.
func (m *Member) enrol(ctx context.Context, token []byte, public identity.Public) (statement.Signed, error) {
	if err := public.Check(); err != nil {
		return statement.Signed{}, &intake.Refusal{Code: string(round.Malformed), Detail: err.Error()}
	}
	if len(token) != tokenBytes {
		return statement.Signed{}, &intake.Refusal{Code: string(round.Malformed), Detail: fmt.Sprintf("token has %d bytes, want %d", len(token), tokenBytes)}
	}
	hash, device := statement.HashToken(token), identity.DeviceID(public)
	if s, ok, err := m.enrolled(hash, device); ok || err != nil {
		return s, err
	}
	path := tokenPath(m.cfg.Home.Dir, hash)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return statement.Signed{}, &intake.Refusal{Code: string(round.TokenUsed), Detail: "this member issued no such token, or it is used"}
	} else if err != nil {
		return statement.Signed{}, err
	}
	cert := &statement.DeviceCert{Charter: m.ch.Hash(), Device: device, Public: public, Authority: m.me, Quota: deviceQuota,
		ExpiresMs: m.cfg.Now().Add(deviceCertFor).UnixMilli(), Token: hash}
	signed := statement.SignKey(m.cfg.Home.Authority, label.StmtDeviceCert, cert.Bytes())
	if err := m.propose(ctx, round.DeviceCertCommand(signed)); err != nil {
		return statement.Signed{}, err
	}
	// Two calls with one token may have raced: the log's certificate is the one that counts.
	if err := m.waitToken(ctx, hash); err != nil {
		return statement.Signed{}, err
	}
	s, ok, err := m.enrolled(hash, device)
	if err != nil || !ok {
		return statement.Signed{}, errors.Join(err, errors.New("the certificate is not in the log"))
	}
	if err := durable.Remove(path); err != nil { // the log makes it single-use, with the file or without
		m.cfg.Logger.Warn("a used token was not removed", "error", err)
	}
	return s, nil
}

// enrolled gives the certificate that the log holds for this token and device.
func (m *Member) enrolled(token, device label.Hash) (statement.Signed, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	owner, used := m.machine.TokenDevice(m.me, token)
	if !used {
		return statement.Signed{}, false, nil
	}
	if owner != device {
		return statement.Signed{}, false, &intake.Refusal{Code: string(round.TokenUsed), Detail: "the token enrolled another device"}
	}
	s, _, ok := m.machine.Device(device)
	return s, ok, nil
}

// waitToken waits until the certificate for a token is applied here. The device may have had another before.
func (m *Member) waitToken(ctx context.Context, token label.Hash) error {
	for {
		m.mu.Lock()
		_, ok := m.machine.TokenDevice(m.me, token)
		applied := m.applied
		m.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-applied:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// enrolRequest checks what a device sends.
func (m *Member) enrolRequest(ctx context.Context, r *coordpb.EnrollRequest) (*coordpb.EnrollResponse, error) {
	if h := m.ch.Hash(); string(r.GetCharterHash()) != string(h[:]) {
		return nil, errOtherCharter
	}
	s, err := m.enrol(ctx, r.GetToken(), identity.Public(r.GetDevicePublic()))
	if err != nil {
		return nil, m.statusOf(err)
	}
	return &coordpb.EnrollResponse{DeviceCert: round.ToSigned(s)}, nil
}
