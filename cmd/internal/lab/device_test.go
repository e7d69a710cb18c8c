package lab

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/node/participant"
)

// TestDeviceDies: a device's process ends at each place of its contribution. Started again it contributes once, with the
// bytes of the first time if any had been staged; the ledger had them before anybody else.
func TestDeviceDies(t *testing.T) {
	for fault := BeforeStage; fault <= BeforeAck; fault++ {
		t.Run(fault.String(), func(t *testing.T) {
			t.Parallel()
			o := Options{N: 4, F: 1, Devices: 4}
			if fault == MidUpload {
				o.Values = 150_000 // three chunks
			}
			f := story(t, o)
			f.Begin()
			until(t, f, round.Open)
			v, _ := f.Round()
			d := f.Devices[0]
			d.Fault = fault
			if err := f.Contribute(d); err == nil {
				t.Fatal("the device's process was to end")
			}
			if d.Acked(v.ID) {
				t.Fatal("the device has an ack before its answer arrived")
			}
			staged, stagedErr := os.ReadFile(filepath.Join(d.Dir, "staged", v.ID.String()))
			entries, err := d.Ledger()
			if fault > BeforeStage {
				must(t, stagedErr)
				must(t, err)
			}
			if got, want := len(entries) > 0, fault > BeforeLedger; got != want {
				t.Fatalf("the ledger has %d entries", len(entries))
			}
			f.mu.Lock()
			_, left := f.uploads[uploadKey{d.ID, v.ID}]
			f.mu.Unlock()
			if left != (fault > BeforeSend) {
				t.Fatalf("something left the device: %v", left)
			}
			everybody(t, f, f.Devices...)
			again, err := os.ReadFile(filepath.Join(d.Dir, "staged", v.ID.String()))
			if fault > BeforeStage && (err != nil || !bytes.Equal(staged, again)) {
				t.Errorf("after its restart the device sent other bytes (%v)", err)
			}
			if v := until(t, f, round.Published); v.Contributors != 4 {
				t.Errorf("%d contributors", v.Contributors)
			}
			must(t, f.Finish())
		})
	}
}

// TestLostAnswer: a member dies after the Accept is in the log and before it could say so. The device asks elsewhere and
// gets its receipts for the same contribution.
func TestLostAnswer(t *testing.T) {
	f := story(t, Options{N: 4, F: 1, Devices: 4})
	f.Begin()
	until(t, f, round.Open)
	f.CrashAt(CrashPoint{Whoever, "accepts", true})
	everybody(t, f, f.Devices...)
	if f.Up().Size() != 3 {
		t.Fatalf("up are %v", f.Up())
	}
	v := until(t, f, round.Published)
	if v.Accepted != 4 || v.Contributors != 4 {
		t.Errorf("%d accepted, %d in the sum", v.Accepted, v.Contributors)
	}
	must(t, f.Finish())
}

// TestDeathByFloor: too few devices contribute, the members certify the round's death, and the devices contribute again
// from the same start with fresh bytes.
func TestDeathByFloor(t *testing.T) {
	f := story(t, Options{N: 4, F: 1, Devices: 5})
	f.Begin()
	until(t, f, round.Open)
	first, _ := f.Round()
	everybody(t, f, f.Devices[:2]...)
	f.Advance(CloseAfter)
	must(t, f.RunUntil("the death is certified", func() bool { v, _ := f.observerRound(first.ID); return v.Death == round.Certified }, 60))
	if len(f.Served()) != 0 {
		t.Error("vectors of a dead round left a member")
	}
	must(t, f.RunUntil("the next round is open", func() bool { v, _ := f.Round(); return v.Config.Seq == 2 && v.Phase == round.Open }, 90))
	second, _ := f.Round()
	if second.Config.Start.Hash(TaskID, 0) != first.Config.Start.Hash(TaskID, 0) {
		t.Fatal("the second round has another start")
	}
	everybody(t, f, f.Devices...)
	for _, d := range f.Devices[:2] {
		a, err := os.ReadFile(filepath.Join(d.Dir, "encoded", first.ID.String()))
		must(t, err)
		b, err := os.ReadFile(filepath.Join(d.Dir, "encoded", second.ID.String()))
		must(t, err)
		if bytes.Equal(a, b) {
			t.Errorf("%s sent the same vector twice", d.Name)
		}
		wantEnds(t, d, first.ID, participant.EndDead)
	}
	v := until(t, f, round.Published)
	if v.Contributors != 5 {
		t.Errorf("%d contributors", v.Contributors)
	}
	must(t, f.Finish())
}

func wantEnds(t testing.TB, d *Device, id label.Hash, ends ...string) {
	t.Helper()
	entries, err := d.Ledger()
	must(t, err)
	var got []string
	for _, e := range entries {
		if e.Kind == participant.KindEnd && e.Round == id {
			got = append(got, e.End)
		}
	}
	if len(got) != len(ends) {
		t.Fatalf("%s has ends %v of the round, want %v", d.Name, got, ends)
	}
	for i := range ends {
		if got[i] != ends[i] {
			t.Fatalf("%s has ends %v of the round, want %v", d.Name, got, ends)
		}
	}
}

// TestExpiry: two members too many are missing when the reveal deadline passes. The round expires, and its devices may
// not contribute again from its start. When the missing members are back, all that the round lists say that they never
// revealed: that is a death certificate, and the devices may.
func TestExpiry(t *testing.T) {
	f := story(t, Options{N: 5, F: 1, Devices: 4})
	f.Begin()
	until(t, f, round.Open)
	everybody(t, f, f.Devices...)
	until(t, f, round.Acked)
	first, _ := f.Round()
	f.Seats[1].Crash()
	f.Seats[3].Crash()
	for range 10 {
		must(t, f.Step())
	}
	f.Advance(CloseAfter + AckAfter + RevealAfter)
	expired := func() bool { v, _ := f.observerRound(first.ID); return v.Death == round.Expired }
	must(t, f.RunUntil("the round has expired", expired, 20))
	for range 5 {
		must(t, f.Step())
	}
	must(t, f.Contribute(f.Devices...))
	for _, d := range f.Devices {
		wantEnds(t, d, first.ID, participant.EndExpired)
	}
	must(t, f.Seats[1].Restart(true))
	for range 5 {
		must(t, f.Step())
	}
	if !expired() {
		t.Fatal("the death is certified without member 3")
	}
	must(t, f.Seats[3].Restart(false))
	must(t, f.RunUntil("the death is certified", func() bool { v, _ := f.observerRound(first.ID); return v.Death == round.Certified }, 30))
	if len(f.Served()) != 0 {
		t.Error("vectors of a dead round left a member")
	}
	f.Advance(time.Minute)
	must(t, f.RunUntil("another round is open", func() bool { v, _ := f.Round(); return v.ID != first.ID && v.Phase == round.Open }, 90))
	must(t, f.Contribute(f.Devices...)) // they learn of the certificate, and with it that they may
	for _, d := range f.Devices {
		wantEnds(t, d, first.ID, participant.EndExpired, participant.EndDead)
	}
	everybody(t, f, f.Devices...)
	until(t, f, round.Published)
	must(t, f.Finish())
}

// TestGarbledBox: a device sends one member a box that does not open. Its contribution is excluded by that member's Ack,
// with the reason; the others' sum is published.
func TestGarbledBox(t *testing.T) {
	for _, victim := range []int{0, 1, 3} {
		t.Run("member "+string(rune('0'+victim)), func(t *testing.T) {
			t.Parallel()
			f := story(t, Options{N: 4, F: 1, Devices: 6})
			f.Begin()
			until(t, f, round.Open)
			c, err := f.Devices[5].Forge(func(boxes [][]byte) { boxes[victim][1200] ^= 1 })
			must(t, err)
			_, errs := f.Upload(c, (victim+1)%4)
			must(t, errs[0])
			everybody(t, f, f.Devices[:5]...)
			v := until(t, f, round.Published)
			if v.Accepted != 6 || v.Contributors != 5 {
				t.Errorf("%d accepted, %d in the sum", v.Accepted, v.Contributors)
			}
			f.mu.Lock()
			r := f.views[0].trace.rounds[v.ID]
			if got := r.decided.acks[victim].Verdicts[0]; got != statement.BadBox {
				t.Errorf("member %d's verdict is %v", victim, got)
			}
			f.mu.Unlock()
			must(t, f.Finish())
		})
	}
}

// TestRace: one contribution arrives at two members at the same time, and then at all of them: one Accept, and everybody
// is told the same.
func TestRace(t *testing.T) {
	f := story(t, Options{N: 4, F: 1, Devices: 4})
	f.Begin()
	until(t, f, round.Open)
	c, err := f.Devices[0].Forge(nil)
	must(t, err)
	for _, members := range [][]int{{0, 1}, {0, 1, 2, 3}, {2}} {
		answers, errs := f.Upload(c, members...)
		for i, a := range answers {
			for status.Code(errs[i]) == codes.ResourceExhausted { // busy with the same bytes: a device tries again
				again, err := f.Upload(c, members[i])
				a, errs[i] = again[0], err[0]
			}
			must(t, errs[i])
			var receipts []statement.MemberStatement
			for _, r := range a.GetReceipts() {
				receipts = append(receipts, round.FromMemberStatement(r))
			}
			v, _ := f.Round()
			if _, err := statement.VerifyAckCert(f.Charter, v.Config, c.Header, receipts); err != nil {
				t.Errorf("member %d: %v", members[i], err)
			}
		}
	}
	// Another contribution under the same key comes too late.
	other, err := f.Devices[0].Forge(nil)
	must(t, err)
	if _, errs := f.Upload(other, 1); errs[0] == nil {
		t.Error("a second contribution of one device was taken")
	}
	everybody(t, f, f.Devices[1:]...)
	v := until(t, f, round.Published)
	if v.Accepted != 4 || v.Contributors != 4 {
		t.Errorf("%d accepted, %d in the sum", v.Accepted, v.Contributors)
	}
	must(t, f.Finish())
}
