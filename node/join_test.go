package node

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/pin"
)

var someModules = []layout.Module{{Name: "m", In: 8, Out: 8}}

func someBase() string { return label.Sum(label.TagBase).String() }

func join(t testing.TB, c *consortium, dir, address, token string) (*Joined, error) {
	t.Helper()
	return Join(t.Context(), dir, c.path, address, token, time.Now)
}

func TestADeviceJoinsAtWhicheverAddressAMemberAnswers(t *testing.T) {
	base := writeModel(t, 1)
	c := newConsortium(t, someBase(), someModules, nil)
	for name, address := range map[string]string{
		"its URL":              c.ch.Members[2].DeviceURL,
		"host and port":        strings.TrimPrefix(c.ch.Members[2].DeviceURL, "https://"),
		"its name":             "org-2",
		"another name for it ": strings.Replace(c.ch.Members[2].DeviceURL, "127.0.0.1", "localhost", 1),
	} {
		t.Run(name, func(t *testing.T) {
			dir, h := device(t, base, nil)
			j, err := join(t, c, dir, address, "  "+strings.ToUpper(c.tokenText())+" ")
			must(t, err)
			if j.Consortium != "Essaim" || !j.Demo || j.Label != DemoLabel || j.Authority != "org-2" || j.Device != h.Device() || j.Already {
				t.Fatalf("joined as %+v", j)
			}
			if len(j.Tasks) != 2 || j.Tasks[0].Ready || !strings.Contains(j.Tasks[0].Reason, h.Info.Base.SHA256) || !j.Tasks[1].Ready {
				t.Fatalf("tasks are %+v", j.Tasks)
			}
			ch, cert, err := h.Charter()
			must(t, err)
			if parsed, err := statement.VerifyDeviceCert(ch, cert); err != nil || ch.Hash() != c.ch.Hash() || parsed.Authority != 2 {
				t.Fatal("another charter or certificate was kept")
			}
			// Again: nothing is asked, and the token is not used.
			j, err = join(t, c, dir, "nowhere.example:1", "")
			must(t, err)
			if !j.Already {
				t.Fatal("enrolled twice")
			}
		})
	}
}

func TestWhoeverHoldsNoMembersKeyIsNobody(t *testing.T) {
	base := writeModel(t, 1)
	c := newConsortium(t, someBase(), someModules, nil)
	stranger, err := identity.NewKey(rand.Reader)
	must(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	c.serve(listener, stranger, 0)
	dir, _ := device(t, base, nil)
	_, err = join(t, c, dir, listener.Addr().String(), c.tokenText())
	var peer *pin.PeerError
	if !errors.As(err, &peer) || !strings.Contains(err.Error(), "is no member's in the charter") {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, charterFile)); err == nil {
		t.Fatal("a charter is pinned by a join that failed")
	}
}

func TestAJoinThatIsRefusedPinsNothing(t *testing.T) {
	base := writeModel(t, 1)
	other, err := identity.NewKey(rand.Reader)
	must(t, err)
	for _, s := range []struct {
		name  string
		token func(c *consortium) string
		cert  func(*statement.DeviceCert)
		file  func(t *testing.T, c *consortium)
		want  string
	}{
		{name: "no token", token: func(*consortium) string { return "123" }, want: "not an enrolment token"},
		{name: "a used token", token: func(*consortium) string { return tokenEncoding.EncodeToString(make([]byte, 20)) }, want: "issued no such token"},
		{name: "a certificate of another device", cert: func(d *statement.DeviceCert) { d.Public, d.Device = other.Public(), identity.DeviceID(other.Public()) }, want: "of another device"},
		{name: "a certificate that ended", cert: func(d *statement.DeviceCert) { d.ExpiresMs = 1 }, want: "ended at 1970"},
		{name: "a certificate of another authority", cert: func(d *statement.DeviceCert) { d.Authority = 3 }, want: "does not verify"},
		{name: "a certificate of another charter", cert: func(d *statement.DeviceCert) { d.Charter[0] ^= 1 }, want: "of another charter"},
		{name: "a charter that one member did not sign", want: "does not verify", file: func(t *testing.T, c *consortium) {
			var signatures []charter.Signature
			for _, id := range c.identities {
				s, err := charter.Sign(c.ch.Body(), id)
				must(t, err)
				signatures = append(signatures, s)
			}
			file, err := charter.Assemble(c.ch.Body(), signatures)
			must(t, err)
			at := strings.LastIndex(string(file), `"signature": "`) + len(`"signature": "`)
			if file[at] = 'A'; string(file[at:at+1]) == string(file[at+1:at+2]) {
				file[at] = 'B'
			}
			must(t, os.WriteFile(c.path, file, 0o600))
		}},
	} {
		t.Run(s.name, func(t *testing.T) {
			c := newConsortium(t, someBase(), someModules, nil)
			c.certify = s.cert
			token := c.tokenText()
			if s.token != nil {
				token = s.token(c)
			}
			if s.file != nil {
				s.file(t, c)
			}
			dir, h := device(t, base, nil)
			_, err := join(t, c, dir, "org-1", token)
			if s.file != nil {
				_, err = join(t, c, dir, c.ch.Members[1].DeviceURL, token)
			}
			if err == nil || !strings.Contains(err.Error(), s.want) {
				t.Fatalf("got %v, want ...%s...", err, s.want)
			}
			if strings.Contains(err.Error(), token) {
				t.Fatal("the error quotes the token")
			}
			if _, _, err := h.Charter(); !errors.Is(err, ErrNotJoined) {
				t.Fatalf("afterwards: %v", err)
			}
		})
	}
}

func TestAPinnedDeviceRefusesAnotherCharter(t *testing.T) {
	base := writeModel(t, 1)
	one, two := newConsortium(t, someBase(), someModules, nil), newConsortium(t, someBase(), someModules, nil)
	dir, _ := device(t, base, nil)
	_, err := join(t, one, dir, "org-0", one.tokenText())
	must(t, err)
	_, err = join(t, two, dir, "org-0", two.tokenText())
	var pinned *PinnedError
	if !errors.As(err, &pinned) || pinned.Pinned != one.ch.Hash() || pinned.Offered != two.ch.Hash() {
		t.Fatalf("got %v", err)
	}
}

func TestConnectionsArePinnedAndKept(t *testing.T) {
	c := newConsortium(t, someBase(), someModules, nil)
	m := NewMembers(c.ch)
	defer m.Close()
	ask := func(member int) error {
		client, err := m.Device(member)
		must(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		_, err = client.CheckIn(ctx, &coordpb.CheckInRequest{})
		return err
	}
	for i := range 4 {
		must(t, ask(i))
	}
	first := m.conns[0]
	must(t, ask(0))
	if m.conns[0] != first {
		t.Fatal("a second connection to one member")
	}
	if _, err := m.Device(4); err == nil {
		t.Fatal("a fifth of four members")
	}

	// A member's address that another member answers at: the pin decides.
	swapped := *c.ch
	swapped.Members = append([]charter.Card(nil), c.ch.Members...)
	swapped.Members[0].DeviceURL = c.ch.Members[1].DeviceURL
	m = NewMembers(&swapped)
	defer m.Close()
	if err := ask(0); err == nil || !strings.Contains(err.Error(), "is not pinned here") {
		t.Fatalf("got %v", err)
	}
	m.Close()
	if _, err := m.Device(2); err == nil {
		t.Fatal("a connection after Close")
	}
}
