package lab

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
)

// TestLostKeys: a member loses its epoch keys and votes while a round is open, as when its disk is restored from a
// backup. It says nothing more in that round, which the others end; it is back with new keys in a later one.
func TestLostKeys(t *testing.T) {
	for _, p := range []round.Phase{round.Open, round.Acked, round.Sealed} {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			f := story(t, Options{N: 4, F: 1, Devices: 5, Window: "1h"})
			f.Begin()
			until(t, f, round.Open)
			if p > round.Open {
				everybody(t, f, f.Devices...)
				until(t, f, p)
			}
			lost := f.Seats[2]
			lost.Crash()
			must(t, lost.LoseEpochs())
			v, _ := f.Round()
			before := len(f.saidBy(v, 2))
			must(t, lost.Restart(false))
			if p == round.Open {
				everybody(t, f, f.Devices...)
			}
			v = until(t, f, round.Published)
			if v.Contributors != 5 {
				t.Errorf("%d contributors", v.Contributors)
			}
			if after := len(f.saidBy(v, 2)); after != before {
				t.Errorf("the member said %d things under the lost key", after-before)
			}
			f.Advance(time.Hour)
			listed := func() bool {
				v, _ := f.Round()
				k, ok := v.Config.Package(2)
				return v.Config.Seq > 1 && v.Phase == round.Open && ok && k.Epoch == 2
			}
			must(t, f.RunUntil("the member is listed with new keys", listed, 30))
			everybody(t, f, f.Devices...)
			until(t, f, round.Published)
			must(t, f.Finish())
		})
	}
}

// saidBy lists what a member's vote key said of a round: votes, reveals, expiries.
func (f *Federation) saidBy(v round.View, member int) (out []statement.MemberStatement) {
	v, _ = f.observerRound(v.ID)
	for _, list := range [][]statement.MemberStatement{v.Votes, v.Reveals, v.Expired} {
		for _, s := range list {
			if s.Member == member {
				out = append(out, s)
			}
		}
	}
	return out
}

// TestLostBlobs: a member loses every contribution it held. It pulls them again before it acks.
func TestLostBlobs(t *testing.T) {
	f := story(t, Options{N: 3, F: 1, Devices: 4})
	f.Begin()
	until(t, f, round.Open)
	everybody(t, f, f.Devices...)
	f.mu.Lock()
	f.receipts = nil // this member's word is broken by the test
	f.mu.Unlock()
	lost := f.Seats[1]
	lost.Crash()
	must(t, os.RemoveAll(filepath.Join(lost.Dir, "blobs")))
	must(t, lost.Restart(true))
	v := until(t, f, round.Published)
	if v.Contributors != 4 {
		t.Errorf("%d contributors", v.Contributors)
	}
	must(t, f.Finish())
}

// TestBitRot: a byte of a held contribution changes on one member's disk after its Ack. It is found when y is folded,
// the copy dropped and pulled again.
func TestBitRot(t *testing.T) {
	f := story(t, Options{N: 3, F: 1, Devices: 4})
	f.Begin()
	until(t, f, round.Open)
	everybody(t, f, f.Devices...)
	v := until(t, f, round.Acked)
	f.mu.Lock()
	f.receipts = nil
	f.mu.Unlock()
	files, err := filepath.Glob(filepath.Join(f.Seats[0].Dir, "blobs", "y", v.ID.String(), "*"))
	must(t, err)
	b, err := os.ReadFile(files[0])
	must(t, err)
	b[100] ^= 4
	must(t, os.Chmod(files[0], 0o600))
	must(t, os.WriteFile(files[0], b, 0o600))
	until(t, f, round.Published)
	must(t, f.Finish())
}

// TestLaggingMember: a member hears nothing for a whole round. The others end it without its word, and it catches up.
func TestLaggingMember(t *testing.T) {
	f := story(t, Options{N: 4, F: 1, Devices: 4, Window: "1h"})
	f.Begin()
	until(t, f, round.Open)
	everybody(t, f, f.Devices[0])
	f.Seats[3].Held = true
	everybody(t, f, f.Devices[1:]...)
	v := until(t, f, round.Published)
	if v.Contributors != 4 {
		t.Errorf("%d contributors", v.Contributors)
	}
	f.Seats[3].Held = false
	f.Advance(time.Hour)
	must(t, f.RunUntil("the next round is open", func() bool { v, _ := f.Round(); return v.Config.Seq == 2 && v.Phase == round.Open }, 30))
	everybody(t, f, f.Devices...)
	f.Seats[0].Crash() // now the one that lagged is needed
	until(t, f, round.Published)
	adopted(t, f, f.Devices...)
	must(t, f.Finish())
}

// TestEnrolment: a device enrols over the wire with a token that its organisation gave it, once; the certificate is the
// log's.
func TestEnrolment(t *testing.T) {
	f := story(t, Options{N: 4, F: 1, Devices: 3, NMax: 4})
	f.Begin()
	seat := f.Seats[2]
	token, err := coordinator.NewToken(seat.Dir, seat.rand)
	must(t, err)
	raw, err := coordinator.ParseToken(token)
	must(t, err)
	f.secrets.add(raw)
	d, err := f.AddDevice()
	must(t, err)
	charter := f.Charter.Hash()
	enrol := func(public identity.Public) (*coordpb.EnrollResponse, error) {
		var answer *coordpb.EnrollResponse
		err := f.during(func() (err error) {
			answer, err = coordpb.NewDeviceClient(seat.live().device.conn).Enroll(context.Background(),
				&coordpb.EnrollRequest{Token: raw, DevicePublic: public, CharterHash: charter[:]})
			return err
		})
		return answer, err
	}
	answer, err := enrol(d.key.Public())
	must(t, err)
	signed := round.FromSigned(answer.GetDeviceCert())
	cert, err := statement.VerifyDeviceCert(f.Charter, signed)
	must(t, err)
	d.certify(cert, signed)
	again, err := enrol(d.key.Public())
	must(t, err)
	if string(again.GetDeviceCert().GetBody()) != string(signed.Body) {
		t.Error("the second answer is another certificate")
	}
	other, err := identity.NewKey(seat.rand)
	must(t, err)
	if _, err := enrol(other.Public()); err == nil {
		t.Error("a token enrolled two devices")
	}
	until(t, f, round.Open)
	everybody(t, f, f.Devices...)
	if v := until(t, f, round.Published); v.Contributors != 4 {
		t.Errorf("%d contributors", v.Contributors)
	}
	must(t, f.Finish())
}
