package lab

import (
	"bytes"
	"fmt"
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

// TestGarbledSeeds (SA 7, 4): a device seals some members other seeds than it commits to, and is honest to all others. A
// victim refuses it and is no holder of it in the log; n-f members are, and that is an ack. In its Ack each victim says
// what is wrong, and nobody else says anything. By the set rule the contribution is left out of the sum, unless the word
// of a victim alone would cost more than a fifth of the candidates: then the next Close is without the victim, the
// contribution counts, and the victim reveals nothing, as it cannot open the whole set.
func TestGarbledSeeds(t *testing.T) {
	for _, c := range []struct {
		n, f    int
		victims statement.Mask
		devices int
		sum     int
	}{
		{4, 1, 1 << 0, 6, 5}, // the leader
		{4, 1, 1 << 3, 6, 5},
		{4, 1, 1 << 2, 5, 4}, // a fifth of the candidates, and no more
		{4, 1, 1 << 2, 4, 4},
		{4, 1, 1 << 0, 4, 4},
		{7, 2, 1<<1 | 1<<5, 4, 3}, // nobody's word alone
	} {
		t.Run(fmt.Sprintf("(%d,%d) to %v, %d devices", c.n, c.f, c.victims, c.devices), func(t *testing.T) {
			t.Parallel()
			f := story(t, Options{N: c.n, F: c.f, Devices: c.devices})
			must(t, f.Lead(0))
			f.Begin()
			v := until(t, f, round.Open)
			forged, err := f.Devices[0].ForgeSeeds(c.victims.Members()...)
			must(t, err)
			for _, j := range c.victims.Members() {
				if _, errs := f.Upload(forged, j); status.Code(errs[0]) != codes.InvalidArgument {
					t.Errorf("member %d answers the device: %v", j, errs[0])
				}
			}
			others := (v.Config.Listed() &^ c.victims).Members()
			answers, errs := f.Upload(forged, others[0])
			must(t, errs[0])
			var receipts []statement.MemberStatement
			for _, r := range answers[0].GetReceipts() {
				receipts = append(receipts, round.FromMemberStatement(r))
			}
			if _, err := statement.VerifyAckCert(f.Charter, v.Config, forged.Header, receipts); err != nil {
				t.Errorf("the device has no ack: %v", err)
			}
			everybody(t, f, f.Devices[1:]...)
			v = until(t, f, round.Published)
			if v.Accepted != c.devices || v.Contributors != c.sum {
				t.Errorf("%d accepted, %d in the sum, want %d and %d", v.Accepted, v.Contributors, c.devices, c.sum)
			}
			f.mu.Lock()
			r := f.views[0].trace.rounds[v.ID]
			if got := r.accepts[0].Holders; got != v.Config.Listed()&^c.victims {
				t.Errorf("the log names the holders %v", got)
			}
			for j, a := range r.closes[0].acks {
				want := statement.OK
				if c.victims.Has(j) {
					want = statement.BadCommitment
				}
				if got := a.Verdicts[0]; got != want {
					t.Errorf("member %d's verdict is %v, want %v", j, got, want)
				}
			}
			counted := c.sum == c.devices
			switch first := r.closes[0]; {
			case len(first.acks) != c.n:
				t.Errorf("%d members ack the first close", len(first.acks))
			case !counted && r.decided != first:
				t.Errorf("of %d closes the one of %v decides", len(r.closes), r.decided.Active)
			case counted && r.decided.Active&c.victims != 0:
				t.Errorf("the Close of %v decides", r.decided.Active)
			}
			for _, j := range c.victims.Members() {
				if counted && f.of(v.ID).reveals[j] != nil {
					t.Errorf("member %d reveals a set that it cannot open", j)
				}
			}
			f.mu.Unlock()
			if end := everywhere(t, f, v.ID); end != "published" {
				t.Errorf("the round is %s", end)
			}
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
