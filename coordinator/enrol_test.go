package coordinator

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/intake"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
)

func (r *rig) token() []byte {
	r.t.Helper()
	s, err := NewToken(r.home.Dir, rand.Reader)
	must(r.t, err)
	b, err := ParseToken(s)
	must(r.t, err)
	return b
}

func wantWord(t testing.TB, err error, code round.Code) {
	t.Helper()
	var r *intake.Refusal
	if !errors.As(err, &r) || r.Code != string(code) {
		t.Errorf("got %v, want %s", err, code)
	}
}

// TestEnrol: a token enrols one device, as often as that asks, and nobody else.
func TestEnrol(t *testing.T) {
	r := newRig(t)
	r.until(round.Open)
	a, b := newTestDevice(t), newTestDevice(t)
	token := r.token()
	first, err := r.m.enrol(t.Context(), token, a.key.Public())
	must(t, err)
	cert, err := statement.VerifyDeviceCert(r.ch, first)
	must(t, err)
	if cert.Device != a.id() || cert.Authority != 0 || cert.Token != statement.HashToken(token) {
		t.Errorf("%+v", cert)
	}
	if _, err := os.Stat(tokenPath(r.home.Dir, cert.Token)); !os.IsNotExist(err) {
		t.Error("a used token lies there")
	}
	again, err := r.m.enrol(t.Context(), token, a.key.Public()) // its answer was lost
	must(t, err)
	if !bytes.Equal(again.Body, first.Body) || !bytes.Equal(again.Signature, first.Signature) {
		t.Error("another certificate for the same token")
	}
	_, err = r.m.enrol(t.Context(), token, b.key.Public())
	wantWord(t, err, round.TokenUsed)
	_, err = r.m.enrol(t.Context(), make([]byte, tokenBytes), b.key.Public())
	wantWord(t, err, round.TokenUsed)
	_, err = r.m.enrol(t.Context(), token[1:], b.key.Public())
	wantWord(t, err, round.Malformed)
	_, err = r.m.enrol(t.Context(), r.token(), identity.Public("short"))
	wantWord(t, err, round.Malformed)

	// The same device with a fresh token has its certificate renewed.
	r.now = r.now.Add(time.Minute)
	renewed, err := r.m.enrol(t.Context(), r.token(), a.key.Public())
	must(t, err)
	if bytes.Equal(renewed.Body, first.Body) {
		t.Error("the certificate is the old one")
	}
}

// TestEnrolAnswers: what a device hears, and that a token survives what did not reach the log.
func TestEnrolAnswers(t *testing.T) {
	r := newRig(t)
	r.until(round.Open)
	d := newTestDevice(t)
	hash := r.ch.Hash()
	token := r.token()
	ask := func(change func(*coordpb.EnrollRequest)) codes.Code {
		q := &coordpb.EnrollRequest{Token: token, DevicePublic: d.key.Public(), CharterHash: hash[:]}
		change(q)
		_, err := r.m.DeviceServer().Enroll(t.Context(), q)
		if err != nil && strings.Contains(err.Error(), r.home.Dir) {
			t.Errorf("a path: %v", err)
		}
		return status.Code(err)
	}
	for name, c := range map[string]struct {
		change func(*coordpb.EnrollRequest)
		want   codes.Code
	}{
		"other charter": {func(q *coordpb.EnrollRequest) { q.CharterHash = make([]byte, 32) }, codes.FailedPrecondition},
		"no token":      {func(q *coordpb.EnrollRequest) { q.Token = nil }, codes.InvalidArgument},
		"unknown token": {func(q *coordpb.EnrollRequest) { q.Token = make([]byte, tokenBytes) }, codes.PermissionDenied},
		"no key":        {func(q *coordpb.EnrollRequest) { q.DevicePublic = nil }, codes.InvalidArgument},
	} {
		if got := ask(c.change); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	r.log.refuse(errors.New("no leader"))
	if got := ask(func(*coordpb.EnrollRequest) {}); got != codes.Unavailable {
		t.Errorf("no leader: %v", got)
	}
	r.log.refuse(nil)
	if got := ask(func(*coordpb.EnrollRequest) {}); got != codes.OK {
		t.Errorf("later: %v", got)
	}
	// The log says no to a token that this member still has on its disk.
	r.log.answer(&coordpb.Outcome{Code: string(round.DeviceLimit), Detail: "full"})
	token = r.token()
	d = newTestDevice(t)
	if got := ask(func(*coordpb.EnrollRequest) {}); got != codes.ResourceExhausted {
		t.Errorf("full: %v", got)
	}
	// The leader says yes, and the entry never arrives here: the call ends with its caller.
	r.log.answer(&coordpb.Outcome{Code: string(round.OK)})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.m.enrol(ctx, token, d.key.Public()); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	r.log.answer(nil)
}

// TestEnrolAtOnce: of many devices with one token one is enrolled.
func TestEnrolAtOnce(t *testing.T) {
	r := newRig(t)
	r.until(round.Open)
	token := r.token()
	var wg sync.WaitGroup
	var mu sync.Mutex
	enrolled := 0
	for range 8 {
		wg.Go(func() {
			d := newTestDevice(t)
			_, err := r.m.enrol(t.Context(), token, d.key.Public())
			if err == nil {
				mu.Lock()
				enrolled++
				mu.Unlock()
				return
			}
			wantWord(t, err, round.TokenUsed)
		})
	}
	wg.Wait()
	if enrolled != 1 {
		t.Errorf("%d devices with one token", enrolled)
	}
}

func TestTokens(t *testing.T) {
	dir := t.TempDir()
	a, err := NewToken(dir, rand.Reader)
	must(t, err)
	b, err := NewToken(dir, rand.Reader)
	must(t, err)
	if a == b {
		t.Error("one token twice")
	}
	raw, err := ParseToken(a)
	must(t, err)
	for _, s := range []string{strings.ToUpper(a), " " + a + "\n", a[:8] + " " + a[8:16] + " " + a[16:]} {
		if got, err := ParseToken(s); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", a[1:], a + "a", strings.Repeat("1", len(a)), a[:len(a)-1] + "é"} {
		if _, err := ParseToken(s); err == nil {
			t.Errorf("%q is a token", s)
		} else if strings.Contains(err.Error(), a[1:]) {
			t.Errorf("the error shows the token: %v", err)
		}
	}
	// What lies on the disk is not the token.
	files, err := filepath.Glob(filepath.Join(dir, "tokens", "*"))
	must(t, err)
	if len(files) != 2 || strings.Contains(strings.Join(files, " "), a) {
		t.Errorf("%v", files)
	}
	for _, f := range files {
		if content, err := os.ReadFile(f); err != nil || len(content) != 0 {
			t.Errorf("%s holds %q, %v", f, content, err)
		}
	}
	if _, err := NewToken(dir, bytes.NewReader(nil)); err == nil {
		t.Error("a token of nothing")
	}
}

// FuzzParseToken: what is a token has one meaning, however it is typed.
func FuzzParseToken(f *testing.F) {
	f.Add("abcdefghijklmnopqrstuvwxyz234567")
	f.Add(" ABCD efgh\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		b, err := ParseToken(s)
		if err != nil {
			return
		}
		again, err := ParseToken(tokenEncoding.EncodeToString(b))
		if err != nil || !bytes.Equal(b, again) || len(b) != tokenBytes {
			t.Fatalf("%q: %x, %x, %v", s, b, again, err)
		}
	})
}
