package coordinator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/aggregation/encode"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/replica"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/raftlog"
	"github.com/ruche-federation/ruche/storage/vault"
)

// town is a consortium of real members: processes but for the process, with real disks, sockets and Raft.
type town struct {
	t       *testing.T
	ctx     context.Context
	text    strings.Builder
	logs    *locked
	homes   []*Home
	tune    func(*replica.Options)
	members []*running // nil while one is down
	clients []coordpb.DeviceClient
}

func newTown(t *testing.T, n, f int, tune func(*replica.Options)) *town {
	t.Helper()
	w := &town{t: t, tune: tune, homes: newHomes(t, n, f, time.Hour), members: make([]*running, n)}
	w.logs = &locked{w: &w.text}
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	w.ctx = ctx
	t.Cleanup(func() {
		cancel()
		for i := range w.members {
			w.end(i)
		}
		if t.Failed() {
			t.Log(w.said())
		}
	})
	for i, h := range w.homes {
		w.start(i)
		w.clients = append(w.clients, deviceClient(t, h))
	}
	return w
}

func (w *town) said() string {
	w.logs.mu.Lock()
	defer w.logs.mu.Unlock()
	return w.text.String()
}

func (w *town) start(i int) { w.members[i] = runTuned(w.t, w.homes[i], w.logs, w.tune) }

func (w *town) end(i int) {
	if p := w.members[i]; p != nil {
		w.members[i] = nil
		p.end(w.t)
	}
}

// device enrols one with an organisation, through its own member.
func (w *town) device(authority int) *testDevice {
	w.t.Helper()
	d := newTestDevice(w.t)
	token, err := NewToken(w.homes[authority].Dir, rand.Reader)
	must(w.t, err)
	secret, err := ParseToken(token)
	must(w.t, err)
	ch, _, err := w.homes[0].Charter()
	must(w.t, err)
	hash := ch.Hash()
	eventually(w.t, "a device is enrolled", func() bool {
		ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
		defer cancel()
		answer, err := w.clients[authority].Enroll(ctx, &coordpb.EnrollRequest{Token: secret, DevicePublic: d.key.Public(), CharterHash: hash[:]})
		if err == nil {
			d.cert = round.FromSigned(answer.GetDeviceCert())
		}
		return err == nil
	})
	return d
}

// open waits for a round that lists everybody.
func (w *town) open(d *testDevice) *statement.RoundConfig {
	w.t.Helper()
	ch, _, err := w.homes[0].Charter()
	must(w.t, err)
	hash, id := ch.Hash(), d.id()
	var rc *statement.RoundConfig
	eventually(w.t, "a round is open", func() bool {
		answer, err := w.clients[0].CheckIn(w.ctx, &coordpb.CheckInRequest{CharterHash: hash[:], DeviceId: id[:], TaskId: testTask})
		if err != nil || answer.GetRound() == nil {
			return false
		}
		var sigs []statement.MemberSignature
		for _, s := range answer.GetRound().GetSignatures() {
			sigs = append(sigs, statement.MemberSignature{Member: int(s.GetMember()), Signature: s.GetSignature()})
		}
		rc, err = statement.VerifyRoundCert(ch, answer.GetRound().GetBody(), sigs)
		must(w.t, err)
		return true
	})
	return rc
}

// upload sends a device's contribution to a member until it is acked.
func (w *town) upload(d *testDevice, rc *statement.RoundConfig, to int) {
	w.t.Helper()
	ch, _, err := w.homes[0].Charter()
	must(w.t, err)
	d.contribute(w.t, ch, rc)
	eventually(w.t, "a device is acked", func() bool {
		_, err := upload(w.ctx, w.clients[to], d)
		return err == nil
	})
}

// line is what member i says of itself.
func (w *town) line(i int) *coordpb.MemberStatus {
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	defer cancel()
	list, err := w.clients[i].ListMembers(ctx, &coordpb.ListMembersRequest{})
	if err != nil || len(list.GetMembers()) != len(w.homes) {
		return nil
	}
	return list.GetMembers()[i]
}

func (w *town) published(rc *statement.RoundConfig, at int, devices []*testDevice) {
	w.t.Helper()
	id := rc.ID()
	var record *coordpb.RoundRecord
	eventually(w.t, "the round is published", func() bool {
		got, err := w.clients[at].GetRound(w.ctx, &coordpb.GetRoundRequest{RoundId: id[:]})
		record = got
		return err == nil && got.GetPhase() == round.Published.String()
	})
	result, err := statement.ParseResult(record.GetResult().GetBody())
	must(w.t, err)
	var plain [][]uint32
	for _, d := range devices {
		plain = append(plain, d.x)
	}
	if want := committee.HashVector(label.TagUnmasked, encode.SumPlain(plain...)); result.X != want {
		w.t.Error("the opened sum is not the plain one")
	}
}

// A member that lost its raft folder while a round was open comes back under a new store id, gets its vote, and is then
// one of the three without whom the round would not end.
func TestAMemberThatLostItsLogIsTakenInAndNeeded(t *testing.T) {
	w := newTown(t, 4, 1, nil)
	devices := []*testDevice{w.device(0), w.device(1), w.device(2)}
	rc := w.open(devices[0])
	lost, down := 3, 2
	if !rc.Listed().Has(3) { // it was too late for this round
		lost, down = 2, 3
	}
	for _, d := range devices[:2] {
		w.upload(d, rc, 0)
	}
	before := w.line(lost).GetStoreId()
	if before != w.homes[lost].Card.StoreID {
		t.Fatalf("store %q, the card says %q", before, w.homes[lost].Card.StoreID)
	}
	w.end(lost)
	must(t, os.RemoveAll(filepath.Join(w.homes[lost].Dir, raftDir)))
	w.start(lost)
	eventually(t, "the new store has a vote", func() bool {
		l := w.line(lost)
		return l.GetRole() == roleVoter && l.GetStoreId() != before
	})
	eventually(t, "another member sees it", func() bool {
		list, err := w.clients[0].ListMembers(w.ctx, &coordpb.ListMembersRequest{})
		if err != nil {
			return false
		}
		l := list.GetMembers()[lost]
		return l.GetRole() == roleVoter && l.GetStoreId() == w.line(lost).GetStoreId()
	})
	w.end(down)
	w.upload(devices[2], rc, 0)
	w.published(rc, lost, devices)
	// Its store is the same at the next start.
	id := w.line(lost).GetStoreId()
	w.end(lost)
	w.start(lost)
	eventually(t, "it votes again", func() bool { l := w.line(lost); return l.GetRole() == roleVoter && l.GetStoreId() == id })
}

// One that has nothing left but its keys, its card and the charter comes back too: without authority over the open round,
// and with keys of a later epoch for the next.
func TestAMemberWithNothingButItsKeysIsTakenIn(t *testing.T) {
	w := newTown(t, 4, 1, nil)
	devices := []*testDevice{w.device(0), w.device(1), w.device(2)}
	rc := w.open(devices[0])
	lost := 3
	for _, d := range devices[:2] {
		w.upload(d, rc, 0)
	}
	eventually(t, "its keys are in the log", func() bool { return w.line(lost).GetEpoch() == 1 })
	w.end(lost)
	entries, err := os.ReadDir(w.homes[lost].Dir)
	must(t, err)
	for _, e := range entries {
		if n := e.Name(); n != "keys" && n != cardFile && n != charterFile {
			must(t, os.RemoveAll(filepath.Join(w.homes[lost].Dir, n)))
		}
	}
	w.start(lost)
	eventually(t, "it has a vote and keys of a later epoch", func() bool {
		l := w.line(lost)
		return l.GetRole() == roleVoter && l.GetEpoch() == 2
	})
	// The round is open still: what it lacks comes without anybody asking for it.
	eventually(t, "it has every contribution again", func() bool {
		for _, d := range devices[:2] {
			if !w.members[lost].m.shelf.Has(rc.ID(), d.header.Hash()) {
				return false
			}
		}
		return w.line(lost).GetLacking() == 0
	})
	w.upload(devices[2], rc, 0)
	w.published(rc, lost, devices)
	w.end(1)
	w.device(2) // three of four are what the log needs
}

// A member that was away for so long that the log does not reach back to it gets the state at once. It takes it for what
// it is: not if it lacks what this member signed a receipt for.
func TestAMemberFarBehindCatchesUpBySnapshotAndHoldsItAgainstItsReceipts(t *testing.T) {
	w := newTown(t, 4, 1, func(o *replica.Options) {
		o.SnapshotEvery, o.TrailingLogs, o.SnapshotInterval = 8, 1, 100*time.Millisecond
	})
	devices := []*testDevice{w.device(0), w.device(1), w.device(2)}
	rc := w.open(devices[0])
	late := 3
	w.upload(devices[0], rc, late)
	raft := func(i int) replica.Stats { return w.members[i].m.log.(*raftLog).raft.Stats() }
	last := raft(late).Last
	w.end(late)
	for _, d := range devices[1:] {
		w.upload(d, rc, 0)
	}
	w.published(rc, 0, devices)
	eventually(t, "the others' logs begin later than the late one's end", func() bool {
		return raft(0).First > last+1 && raft(1).First > last+1 && raft(2).First > last+1
	})
	w.start(late)
	w.published(rc, late, devices)
	if first := raft(late).First; first == 1 || first > 0 && first <= last+1 { // none at all where the state is all there is
		t.Errorf("its log begins at %d and ended at %d: it needed no snapshot", first, last)
	}
	w.end(2)
	w.device(late) // it counts: three of four are what the log needs
	// Away again. What it signed in the meantime, by its own file, no state may lack.
	last = raft(late).Last
	w.end(late)
	w.start(2)
	signed, err := openReceipts(filepath.Join(w.homes[late].Dir, "receipts"), nil)
	must(t, err)
	must(t, signed.note(label.Sum(label.TagRoundConfig), &statement.RoundConfig{Task: rc.Task, Seq: rc.Seq + 1000, RevealMs: time.Now().Add(time.Hour).UnixMilli()},
		label.Sum(label.TagHeader), last+1))
	must(t, signed.close())
	eventually(t, "the others' logs begin later again", func() bool {
		return raft(0).First > last+1 && raft(1).First > last+1 && raft(2).First > last+1
	})
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	err = Run(ctx, RunOptions{Dir: w.homes[late].Dir, Timing: replica.Loopback, Logger: slog.New(slog.NewTextHandler(w.logs, nil)), tune: w.tune})
	if !errors.Is(err, ErrStateRefused) || CauseOf(err, 4).Word != "state_refused" {
		t.Errorf("it ended with %v", err)
	}
}

// The first store founds the log once: whoever has no log later is another store.
func TestStores(t *testing.T) {
	h, err := InitHome(filepath.Join(t.TempDir(), "org"), HomeOptions{Name: "org", DeviceURL: "https://127.0.0.1:1", MeshAddr: "127.0.0.1:2"}, rand.Reader)
	must(t, err)
	random := mrand.NewChaCha8([32]byte{1})
	id, found, err := openStore(h, false, 4, random)
	if err != nil || id != h.Card.StoreID || found == nil {
		t.Fatalf("the first start: %q, %v, %v", id, found == nil, err)
	}
	if id, found, err = openStore(h, true, 4, random); err != nil || id != h.Card.StoreID || found == nil {
		t.Fatalf("it broke off before raft spoke: %q, %v, %v", id, found == nil, err)
	}
	must(t, found())
	if id, found, err = openStore(h, true, 4, random); err != nil || id != h.Card.StoreID || found != nil {
		t.Fatalf("the next start: %q, %v, %v", id, found == nil, err)
	}
	seen := map[string]bool{h.Card.StoreID: true}
	for range 3 { // its log is gone; what it said under an id since is not known at the next start
		if id, found, err = openStore(h, false, 4, random); err != nil || seen[id] || found != nil {
			t.Fatalf("an empty log: %q, %v, %v", id, found == nil, err)
		}
		seen[id] = true
	}
	if again, found, err := openStore(h, true, 4, random); err != nil || again != id || found != nil {
		t.Fatalf("taken in: %q, %v, %v", again, found == nil, err)
	}
	must(t, os.Remove(filepath.Join(h.Dir, raftDir, storeFile)))
	if _, _, err := openStore(h, true, 4, random); !errors.Is(err, ErrStoreUnknown) || CauseOf(err, 4).Word != "log_incomplete" {
		t.Fatalf("a log of nobody's: %v", err)
	}
	for _, few := range []int{1, 2} {
		if _, _, err := openStore(h, false, few, random); !errors.Is(err, ErrTooFew) || CauseOf(err, few).Word != "log_gone" {
			t.Fatalf("of %d: %v", few, err)
		}
	}
	for _, bad := range []string{"", "{", `{"version":2,"store":"` + id + `"}`, `{"version":1,"store":"x"}`} {
		must(t, os.WriteFile(filepath.Join(h.Dir, raftDir, storeFile), []byte(bad), 0o600))
		if _, _, err := openStore(h, true, 4, random); err == nil {
			t.Errorf("read %q", bad)
		}
	}
	// A fresh mark of another store, out of a copy of another folder, founds nothing.
	must(t, writeStore(h.Dir, storeRecord{Store: id, Fresh: true}))
	if got, found, err := openStore(h, false, 4, random); err != nil || found != nil || got == id {
		t.Fatalf("another folder's mark: %q, %v, %v", got, found == nil, err)
	}
}

// rejoin's part on the disk: the log is kept as evidence and is not there any more, everything else stays.
func TestSetAside(t *testing.T) {
	h := newHomes(t, 3, 1, time.Hour)[0]
	now := time.UnixMilli(1_800_000_000_000)
	if _, err := SetAside(t.Context(), h.Dir, now); err == nil || !strings.Contains(err.Error(), "never started") {
		t.Fatalf("before the first start: %v", err)
	}
	must(t, writeStore(h.Dir, storeRecord{Store: h.Card.StoreID}))
	to, err := SetAside(t.Context(), h.Dir, now)
	must(t, err)
	if _, err := os.Stat(filepath.Join(h.Dir, raftDir)); !errors.Is(err, fs.ErrNotExist) || filepath.Base(to) != "raft.set-aside-20270115T080000Z" {
		t.Fatalf("%s: %v", to, err)
	}
	if _, err := SetAside(t.Context(), h.Dir, now); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("nothing there: %v", err)
	}
	must(t, writeStore(h.Dir, storeRecord{Store: h.Card.StoreID}))
	if _, err := SetAside(t.Context(), h.Dir, now); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("over another: %v", err)
	}
	_, err = OpenHome(h.Dir, rand.Reader)
	must(t, err)
}

// Only a member's own signed word about the store that it has now moves anything.
func TestARejoinIsChecked(t *testing.T) {
	homes := newHomes(t, 4, 1, time.Hour)
	ch, _, err := homes[0].Charter()
	must(t, err)
	now := time.UnixMilli(1_800_000_000_000)
	m := &Member{ch: ch}
	const id = "123e4567-e89b-42d3-a456-426614174000"
	for _, tt := range []struct {
		name   string
		r      statement.Rejoin
		signer int
		store  string
		want   string
	}{
		{"its own", statement.Rejoin{Charter: ch.Hash(), Member: 2, Store: id, AtMs: now.UnixMilli()}, 2, id, ""},
		{"another's", statement.Rejoin{Charter: ch.Hash(), Member: 1, Store: id, AtMs: now.UnixMilli()}, 1, id, "word of member 1"},
		{"forged", statement.Rejoin{Charter: ch.Hash(), Member: 2, Store: id, AtMs: now.UnixMilli()}, 1, id, "signature"},
		{"an old one", statement.Rejoin{Charter: ch.Hash(), Member: 2, Store: id, AtMs: now.Add(-time.Hour).UnixMilli()}, 2, id, "off"},
		{"an earlier store's", statement.Rejoin{Charter: ch.Hash(), Member: 2, Store: id, AtMs: now.UnixMilli()}, 2, homes[2].Card.StoreID, "asks for"},
		{"another charter's", statement.Rejoin{Charter: label.Hash{1}, Member: 2, Store: id, AtMs: now.UnixMilli()}, 2, id, "another charter"},
		{"nobody's", statement.Rejoin{Charter: ch.Hash(), Member: 6, Store: id, AtMs: now.UnixMilli()}, 2, id, "no member"},
	} {
		s := statement.SignMember(homes[tt.signer].Identity, label.StmtRejoin, tt.r.Bytes())
		err := m.checkRejoin(2, &coordpb.MemberStatus{StoreId: tt.store, Rejoin: round.ToSigned(s)}, now)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// A member without a vote signs nothing.
func TestAWaitingMemberSignsNothing(t *testing.T) {
	r := newRig(t)
	r.log.await(true)
	for range 5 {
		r.now = r.now.Add(2 * time.Second)
		if r.m.Work(t.Context()) {
			t.Fatal("it worked")
		}
	}
	if r.log.size() > 0 || r.m.rejoin() == nil {
		t.Fatalf("%d entries", r.log.size())
	}
	r.log.await(false)
	r.until(round.Open)
	if r.m.rejoin() != nil {
		t.Error("it still asks to be taken in")
	}
	if fmt.Sprintf("%s, %s, %s", Seat{}.role(), Seat{Store: "x"}.role(), Seat{Store: "x", Voter: true}.role()) != "waiting, catching up, voter" {
		t.Error("roles")
	}
}

// TestAMemberThatKeepsComingBackKeepsNobodyOut: whoever asks for a new store again and again has its own removed once a
// minute, and the others are served meanwhile.
func TestAMemberThatKeepsComingBackKeepsNobodyOut(t *testing.T) {
	s := &seats{removed: map[string]time.Time{}}
	now := time.Unix(1, 0)
	servers := []replica.Server{{ID: "liar/1", Voter: true}, {ID: "lost/1", Voter: true}, {ID: "c/1", Voter: true}, {ID: "d/1", Voter: true}}
	alive := func(id string) bool { return id != "lost/1" }
	ask := func(store string) (replica.Change, string) {
		return s.next(servers, []replica.Joiner{{ID: "liar/" + store}, {ID: "lost/2", Applied: 9}}, 9, alive, now)
	}
	carryOut := func(store string, want replica.Change) {
		t.Helper()
		change, why := ask(store)
		if change != want {
			t.Fatalf("%+v (%s), want %+v", change, why, want)
		}
		servers = slices.DeleteFunc(servers, func(x replica.Server) bool { return x.ID == change.ID })
		if change.Step != replica.Remove {
			servers = append(servers, replica.Server{ID: change.ID, Voter: change.Step == replica.Promote})
		}
		now = now.Add(seatsEvery)
	}
	carryOut("2", replica.Change{Step: replica.Remove, ID: "liar/1"})
	carryOut("3", replica.Change{Step: replica.Add, ID: "liar/3"})
	carryOut("4", replica.Change{Step: replica.Remove, ID: "lost/1"})
	carryOut("5", replica.Change{Step: replica.Add, ID: "lost/2"})
	carryOut("6", replica.Change{Step: replica.Promote, ID: "lost/2"})
	if change, _ := ask("7"); change.ID != "" {
		t.Errorf("%+v within the minute", change)
	}
	now = now.Add(removeEvery)
	carryOut("8", replica.Change{Step: replica.Remove, ID: "liar/3"})
}

// TestSetAsideAmongFew: where nobody could take the member in, its log stays where it is, and no advice is to rejoin.
func TestSetAsideAmongFew(t *testing.T) {
	for _, size := range []struct{ n, f int }{{1, 0}, {2, 1}} {
		h := newHomes(t, size.n, size.f, time.Hour)[0]
		must(t, writeStore(h.Dir, storeRecord{Store: h.Card.StoreID}))
		if _, err := SetAside(t.Context(), h.Dir, time.Now()); !errors.Is(err, ErrTooFew) {
			t.Errorf("of %d: %v", size.n, err)
		}
		must(t, CheckStore(h.Dir))
	}
	for _, err := range []error{raftlog.ErrAppliedRewrite, &raftlog.ShortLogError{}, &raftlog.GuardError{}, &raftlog.DamagedError{}, ErrStoreUnknown, ErrStateRefused, vault.ErrWrongKey} {
		for members, rejoins := range map[int]bool{0: true, 1: false, 2: false, 3: true, 7: true} {
			if do := CauseOf(err, members).Do; strings.Contains(do, "run `ruche-coordinator rejoin`") != rejoins || strings.Contains(do, "anew") == rejoins {
				t.Errorf("of %d: %v: %s", members, err, do)
			}
		}
	}
}
