package node

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

// FuzzEnrollResponse gives a device whatever a member may answer to its token: it takes the certificate that an authority
// signed for it, and no other.
func FuzzEnrollResponse(f *testing.F) {
	c := newConsortium(f, someBase(), someModules, nil)
	now := time.UnixMilli(1_800_000_000_000)
	key, err := identity.NewKey(rand.Reader)
	must(f, err)
	other, err := identity.NewKey(rand.Reader)
	must(f, err)
	h := &Home{Key: key}
	certify := func(public identity.Public, until time.Time) *coordpb.Signed {
		cert := &statement.DeviceCert{Charter: c.ch.Hash(), Device: identity.DeviceID(public), Public: public, Authority: 1, Quota: 10,
			ExpiresMs: until.UnixMilli(), Token: statement.HashToken(c.token)}
		s := statement.SignKey(c.authorities[1], label.StmtDeviceCert, cert.Bytes())
		return &coordpb.Signed{Body: s.Body, Signature: s.Signature}
	}
	own := certify(key.Public(), now.Add(time.Hour))
	for _, s := range []*coordpb.Signed{own, certify(other.Public(), now.Add(time.Hour)), certify(key.Public(), now), {Body: own.GetBody()}, nil} {
		b, err := proto.Marshal(&coordpb.EnrollResponse{DeviceCert: s})
		must(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		answer := new(coordpb.EnrollResponse)
		if proto.Unmarshal(b, answer) != nil {
			return
		}
		signed := statement.Signed{Body: answer.GetDeviceCert().GetBody(), Signature: answer.GetDeviceCert().GetSignature()}
		if _, err := h.certified(c.ch, signed, now); err == nil && (!bytes.Equal(signed.Body, own.GetBody()) || !bytes.Equal(signed.Signature, own.GetSignature())) {
			t.Errorf("%x is taken for this device's certificate", signed.Body)
		}
	})
}

// FuzzParseToken: what an owner was given and types has one meaning.
func FuzzParseToken(f *testing.F) {
	f.Add("abcdefghijklmnopqrstuvwxyz234567")
	f.Add(" ABCD efgh\n")
	f.Add("123456789")
	f.Fuzz(func(t *testing.T, s string) {
		b, err := parseToken(s)
		if err != nil {
			return
		}
		if again, err := parseToken(tokenEncoding.EncodeToString(b)); err != nil || !bytes.Equal(b, again) || len(b) > tokenBytesMax {
			t.Fatalf("%q: %x, %x, %v", s, b, again, err)
		}
	})
}

// FuzzReadVector: a file that is read as a contribution is what the task asks for.
func FuzzReadVector(f *testing.F) {
	task := meanTask(f)
	for _, metadata := range []map[string]string{nil, {"examples": "12"}, {"examples": "NaN"}, {"examples": "-0x1p-2"}} {
		b, err := os.ReadFile(writeVector(f, metadata, meanValues(1, 2, 3, 4, 5, 6)))
		must(f, err)
		f.Add(b)
	}
	path := filepath.Join(f.TempDir(), "v.safetensors")
	f.Fuzz(func(t *testing.T, b []byte) {
		must(t, os.WriteFile(path, b, 0o600))
		u, err := ReadVector(path, &task)
		if err != nil {
			return
		}
		if len(u.Body) != task.Layout.D() || len(u.Tail) != 1 || !(u.Tail[0] >= 0 && u.Tail[0] <= task.Layout.Tail[0].Max) {
			t.Fatalf("it is read as %+v", u)
		}
		for _, x := range u.Body {
			if x-x != 0 {
				t.Fatalf("it holds %v", x)
			}
		}
	})
}
