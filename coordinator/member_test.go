package coordinator

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// TestRoundOfOne: a whole round, restarted from the folder and the beginning of the log after every step.
func TestRoundOfOne(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	devices := r.contribute(v)
	for range 60 {
		v, _ = r.newest()
		if v.Phase == round.Published {
			break
		}
		r.now = r.now.Add(1100 * time.Millisecond)
		r.m.Work(t.Context())
		if v, _ = r.newest(); v.Phase != round.Published { // a published round's files go
			for _, d := range devices {
				if !r.m.shelf.Has(v.ID, d.header.Hash()) {
					t.Fatalf("a contribution is gone while the round is %s", v.Phase)
				}
			}
		}
		r.restart(r.log.size())
	}
	if v.Phase != round.Published || v.Contributors != 3 {
		t.Fatalf("the round is %s with %d contributors\n%s", v.Phase, v.Contributors, r.logs)
	}
	r.m.Work(t.Context())
	for _, folder := range []string{"blobs/heads", "blobs/y", "sums", "receipts"} {
		if _, err := os.Stat(filepath.Join(r.home.Dir, folder, v.ID.String())); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of an ended round: %v", folder, err)
		}
	}
	if _, err := r.m.Model(v.Result.Model, 200); err != nil {
		t.Error(err)
	}
	for _, d := range devices {
		if strings.Contains(r.logs.String(), d.id().String()) {
			t.Error("a device is named in a log line")
		}
	}
	if strings.Contains(r.logs.String(), "ALARM") {
		t.Errorf("alarms:\n%s", r.logs)
	}
}

// TestEpochsSurviveReplay: a member that starts again holds the keys of an open round, though a newer epoch is there and
// the log is not replayed yet; they go when the round has ended.
func TestEpochsSurviveReplay(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	r.contribute(v)
	must(t, r.m.publishEpoch(t.Context(), r.now.UnixMilli(), r.known(), true)) // as if half of the epoch's life had passed
	if n := len(r.m.epochs.list()); n != 2 {
		t.Fatalf("%d epochs", n)
	}
	entries := r.log.size()
	for applied := range entries + 1 {
		r.log.forget() // the worst case: nothing says how far the log went
		r.restart(applied)
		r.log.refuse(errors.New("no leader"))
		r.m.keepEpochs(t.Context())
		r.log.refuse(nil)
		if _, ok := r.m.epochs.get(1); !ok {
			t.Fatalf("the open round's keys are gone after %d of %d entries", applied, entries)
		}
	}
	if _, err := r.m.listed(v.Config); err != nil {
		t.Fatal(err)
	}
	r.until(round.Published)
	r.m.keepEpochs(t.Context())
	if _, ok := r.m.epochs.get(1); ok {
		t.Error("keys of an ended round stay")
	}
}

// TestEpochsEnd: at the end of their life keys go, needed or not, and what needed them lapses without an alarm.
func TestEpochsEnd(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	r.contribute(v)
	r.now = r.now.Add(25 * time.Hour)
	r.log.refuse(errors.New("no leader"))
	r.m.Work(t.Context())
	if n := len(r.m.epochs.list()); n != 1 { // the new one, not published yet
		t.Errorf("%d epochs", n)
	}
	if _, err := r.m.listed(v.Config); !errors.Is(err, errEpochEnded) {
		t.Error(err)
	}
	if strings.Contains(r.logs.String(), "ALARM") {
		t.Errorf("alarms:\n%s", r.logs)
	}
	r.log.refuse(nil)
}

// TestWitness: a vote in the log that the file lacks destroys the keys; the member goes on with new ones.
func TestWitness(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	r.contribute(v)
	v = r.until(round.Sealed) // voted
	must(t, r.m.Close())
	votes := filepath.Join(r.home.Dir, "epochs", "1", "votes")
	raw, err := os.ReadFile(votes)
	must(t, err)
	r.start(0)
	must(t, r.m.Close())
	// The vote file as it was before the vote: its last record is cut off whole.
	cut := false
	for n := len(raw) - 1; n > 0 && !cut; n-- {
		must(t, os.WriteFile(votes, raw[:n], 0o600))
		r.start(r.log.size())
		e, ok := r.m.epochs.get(1)
		if !ok {
			t.Fatal("a torn record destroyed the keys")
		}
		_, voted := e.Voted(v.ID)
		if cut = !voted; !cut {
			must(t, r.m.Close())
		}
	}
	r.now = r.now.Add(2 * time.Second)
	r.m.Work(t.Context())
	if _, ok := r.m.epochs.get(1); ok {
		t.Fatalf("the keys live on\n%s", r.logs)
	}
	if !strings.Contains(r.logs.String(), "ALARM") {
		t.Error("no alarm")
	}
	if err := r.m.Ready(v.ID); err == nil {
		t.Error("a member without keys is ready")
	}
	r.now = r.now.Add(2 * time.Second)
	r.m.Work(t.Context())
	if e := r.m.epochs.newest(); e == nil || e.Number() != 2 {
		t.Errorf("no new epoch: %v", e)
	}
	if v, _ := r.newest(); len(v.Reveals) != 0 {
		t.Error("revealed without keys")
	}
}

// TestNothingToWitness: keys that are erased while the log is compared with what they said are no reason for an alarm.
func TestNothingToWitness(t *testing.T) {
	r := newRig(t)
	r.contribute(r.until(round.Open))
	r.until(round.Sealed) // voted
	e, ok := r.m.epochs.get(1)
	if !ok {
		t.Fatal("no keys")
	}
	must(t, e.Close())
	r.m.witnessed = 0
	r.m.witness()
	if strings.Contains(r.logs.String(), "ALARM") {
		t.Errorf("alarms:\n%s", r.logs)
	}
}

// TestNothingIsDoneBeforeTheStateIsBack: a member whose log was further does nothing until it is there again.
func TestNothingIsDoneBeforeTheStateIsBack(t *testing.T) {
	r := newRig(t)
	r.contribute(r.until(round.Open))
	before := r.log.size()
	if r.log.Status().Guarded == 0 {
		t.Fatal("receipts rest on nothing")
	}
	r.restart(int(r.log.Status().Guarded) - 1)
	r.now = r.now.Add(2 * time.Second)
	if r.m.Work(t.Context()) || r.log.size() != before {
		t.Error("it worked")
	}
	r.replay(before)
	if !r.m.Work(t.Context()) {
		t.Error("it does not work")
	}
}

// TestRestoreKeepsReceipts: a snapshot that lacks an Accept of an open round that this member receipted, or has it
// elsewhere, is refused, also after a restart; an earlier one of the member's own is not.
func TestRestoreKeepsReceipts(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	early, err := r.m.Snapshot()
	must(t, err)
	earlyIndex := int(r.log.Status().Applied)
	r.contribute(v)
	late, err := r.m.Snapshot()
	must(t, err)

	// A leader's log that took other devices, or none, and went on.
	lie := round.New(r.ch)
	must(t, lie.Restore(early))
	for i := range 20 {
		lie.Apply(uint64(earlyIndex+1+i), round.TickCommand(r.now.UnixMilli()+int64(i)))
	}
	wantRefused := func() {
		t.Helper()
		err := r.m.Restore(lie.Snapshot())
		if err == nil || !strings.Contains(err.Error(), "receipt") {
			t.Fatalf("restored: %v", err)
		}
		if got, _ := r.m.Snapshot(); len(got) < len(late) {
			t.Error("the state is another after a refusal")
		}
	}
	wantRefused()
	must(t, r.m.Restore(late)) // the same again is fine
	if err := r.m.Restore(early); err == nil || !strings.Contains(err.Error(), "has applied") {
		t.Fatalf("an older state over a newer one: %v", err)
	}
	// After a restart the state is empty, and the receipts are not.
	must(t, r.m.Close())
	r.start(0)
	if err := r.m.Restore(lie.Snapshot()); err == nil || !strings.Contains(err.Error(), "receipt") {
		t.Fatalf("restored after a restart: %v", err)
	}
	must(t, r.m.Restore(early)) // its own, older one: the log goes on from there
	must(t, r.m.Restore(late))
	// Long after the round nobody can take anything back.
	r.now = time.UnixMilli(v.Config.RevealMs + 1)
	must(t, r.m.Restore(lie.Snapshot()))
}

// TestReceiptsOfRoundsThatAreKeptNoMore: a member that was away while many rounds passed gets a state without the one in
// which it signed receipts. It is believed where a later round of the task is certified, and only there.
func TestReceiptsOfRoundsThatAreKeptNoMore(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	r.contribute(v)
	r.until(round.Published)
	state, err := r.m.Snapshot()
	must(t, err)
	for _, c := range []struct {
		task string
		seq  uint64
		fine bool
	}{{v.Config.Task, v.Config.Seq - 1, true}, {v.Config.Task, v.Config.Seq, false}, {v.Config.Task, v.Config.Seq + 1, false}, {"another", 0, false}} {
		id := label.Sum(label.TagRoundConfig, []byte(c.task), []byte{byte(c.seq)})
		rc := &statement.RoundConfig{Task: c.task, Seq: c.seq, RevealMs: r.now.Add(time.Hour).UnixMilli()}
		must(t, r.m.signed.note(id, rc, label.Sum(label.TagHeader), 1))
		if err := r.m.Restore(state); (err == nil) != c.fine {
			t.Errorf("round %d of %s: %v", c.seq, c.task, err)
		}
		must(t, r.m.signed.forget(id))
	}
}

// TestReceipts: what was receipted is remembered across restarts and torn writes; an Accept at another index than the one receipted is an alarm, not a second receipt.
func TestReceipts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "receipts")
	told := newRig(t).m.alarms
	s, err := openReceipts(dir, told)
	must(t, err)
	id, a, b := label.Sum(label.TagRoundConfig, []byte("x")), label.Hash{1}, label.Hash{2}
	rc := &statement.RoundConfig{Task: "steps", Seq: 5, RevealMs: 99}
	must(t, s.note(id, rc, a, 7))
	must(t, s.note(id, rc, b, 7))
	must(t, s.note(id, rc, a, 7))
	if err := s.note(id, rc, a, 8); !errors.As(err, new(*alarm)) {
		t.Error(err)
	}
	must(t, s.close())
	if s, err = openReceipts(dir, told); err != nil {
		t.Fatal(err)
	}
	if got := s.rounds[id]; got == nil || got.revealMs != 99 || got.task != "steps" || got.seq != 5 || got.index[a] != 7 || got.index[b] != 7 || len(got.index) != 2 {
		t.Errorf("%+v", got)
	}
	must(t, s.close())
	// A torn end is cut off; damage is set aside, and the member goes on.
	path := filepath.Join(dir, id.String())
	raw, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, raw[:len(raw)-3], 0o600))
	if s, err = openReceipts(dir, told); err != nil || len(s.rounds[id].index) != 1 {
		t.Fatal(err)
	}
	must(t, s.note(id, rc, b, 7))
	must(t, s.close())
	raw[len(raw)/2] ^= 1
	must(t, os.WriteFile(path, raw, 0o600))
	if s, err = openReceipts(dir, told); err != nil || len(s.rounds) != 0 {
		t.Fatal(err)
	}
	must(t, s.note(id, rc, b, 7))
	must(t, s.forget(id))
	must(t, s.forget(id))
	must(t, s.close())
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 1 || !strings.HasSuffix(entries[0].Name(), ".damaged") || told.count() != 1 {
		t.Errorf("%v, %d alarms", entries, told.count())
	}
}

// TestMayServe: a vector leaves the member from its reveal on until the round expires or dies, and no other ever does.
func TestMayServe(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	r.contribute(v)
	code := func(id, hash label.Hash) codes.Code { _, err := r.m.mayServe(id, hash); return status.Code(err) }
	some := label.Sum(label.TagSum, []byte("x"))
	if c := code(label.Hash{1}, some); c != codes.NotFound {
		t.Errorf("unknown round: %v", c)
	}
	for _, p := range []round.Phase{round.Open, round.Closed, round.Acked, round.Sealed} {
		if p != round.Open {
			if v, _ = r.newest(); v.Phase > p {
				continue
			}
			v = r.until(p)
		}
		if c := code(v.ID, some); c != codes.FailedPrecondition {
			t.Errorf("%s: %v", p, c)
		}
	}
	v = r.until(round.Revealed)
	reveal, err := statement.ParseReveal(v.Reveals[0].Statement.Body)
	must(t, err)
	named := []label.Hash{reveal.SumY}
	for _, s := range reveal.TSums {
		named = append(named, s.Hash)
	}
	for _, h := range named {
		if c := code(v.ID, h); c != codes.OK {
			t.Errorf("revealed: %v", c)
		}
	}
	if c := code(v.ID, some); c != codes.NotFound {
		t.Errorf("a vector that the reveal does not name: %v", c)
	}
	e, err := r.m.listed(v.Config)
	must(t, err)
	// The log says expired, the record is not there yet: nothing leaves any more.
	r.tick(time.UnixMilli(v.Config.RevealMs + 1))
	if c := code(v.ID, named[0]); c != codes.FailedPrecondition {
		t.Errorf("dead: %v", c)
	}
	must(t, e.RecordExpired(v.ID))
	if c := code(v.ID, named[0]); c != codes.FailedPrecondition {
		t.Errorf("expired: %v", c)
	}
	r.now = r.now.Add(48 * time.Hour)
	if c := code(v.ID, named[0]); c != codes.FailedPrecondition {
		t.Errorf("after the epoch: %v", c)
	}
}

// TestLateDuties: a round that ended while a member was folding is neither revealed nor opened by it.
func TestLateDuties(t *testing.T) {
	r := newRig(t)
	r.contribute(r.until(round.Open))
	v := r.until(round.Sealed)
	r.tick(time.UnixMilli(v.Config.RevealMs + 1))
	cmd, err := r.m.signReveal(t.Context(), v) // as it was when the duty was read
	if cmd != nil || err != nil {
		t.Errorf("%v, %v", cmd, err)
	}
	e, err := r.m.listed(v.Config)
	must(t, err)
	if _, ok := e.Revealed(v.ID); ok {
		t.Error("a reveal is recorded for a dead round")
	}
	if cmd, err := r.m.signExpired(v); cmd == nil || err != nil { // and so it can still say that it never revealed
		t.Errorf("%v, %v", cmd, err)
	}

	r = newRig(t)
	r.contribute(r.until(round.Open))
	v = r.until(round.Revealed)
	r.tick(time.UnixMilli(v.Config.RevealMs + 1))
	if cmd, err := r.m.signResult(t.Context(), v); cmd != nil || err != nil {
		t.Errorf("%v, %v", cmd, err)
	}
}

// TestReceiptsEnd: nothing is receipted for a round that has ended.
func TestReceiptsEnd(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	d := r.contribute(v)[0]
	if _, err := r.m.Receipt(t.Context(), v.ID, d.header.Hash()); err != nil {
		t.Fatal(err)
	}
	r.until(round.Published)
	if _, err := r.m.Receipt(t.Context(), v.ID, d.header.Hash()); err == nil {
		t.Error("receipted after the end")
	}
}

// TestOwnDerivation: a member does not sign a start that its own derivation contradicts.
func TestOwnDerivation(t *testing.T) {
	r := newRig(t)
	r.contribute(r.until(round.Open))
	v := r.until(round.Published)
	must(t, r.m.checkStart(v))
	must(t, r.m.keepDerived(v.ID, label.Hash{7}))
	if err := r.m.checkStart(v); !errors.As(err, new(*alarm)) {
		t.Error(err)
	}
	must(t, os.Remove(filepath.Join(r.home.Dir, "derived", v.ID.String()))) // it was away
	must(t, r.m.checkStart(v))
}

// TestADamagedDerivationAccusesNobody: a flipped digit in the note of a derivation is no contradiction, and the note of a
// round goes when a later one is published.
func TestADamagedDerivationAccusesNobody(t *testing.T) {
	r := newRig(t)
	r.contribute(r.until(round.Open))
	v := r.until(round.Published)
	path := filepath.Join(r.home.Dir, derivedDir, v.ID.String())
	b, err := os.ReadFile(path)
	must(t, err)
	b[0] ^= 1 // still a digit
	must(t, os.WriteFile(path, b, 0o600))
	must(t, r.m.checkStart(v))
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the damaged note is still there: %v", err)
	}
	must(t, r.m.keepDerived(v.ID, v.Result.Model))
	strange := label.Hash{8}
	must(t, r.m.keepDerived(strange, label.Hash{7}))
	notes := func() (n int) {
		found, err := filepath.Glob(filepath.Join(r.home.Dir, derivedDir, "*"))
		must(t, err)
		return len(found)
	}
	must(t, r.m.tidyDerived(time.Now()))
	if n := notes(); n != 2 {
		t.Errorf("%d notes, want those of the newest round and of one that the log may yet bring", n)
	}
	must(t, r.m.tidyDerived(time.Now().Add(strangeFor+time.Minute)))
	if _, known, err := r.m.derived(v.ID); err != nil || !known || notes() != 1 {
		t.Errorf("the newest round's note is known: %v, %v; of %d", known, err, notes())
	}
}

// TestOneConfigOfASeq: what a member has signed for a task it signs again, and nothing else of that seq or below, whatever
// its log says since.
func TestOneConfigOfASeq(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	kept, err := filepath.Glob(filepath.Join(r.home.Dir, "configs", "*"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("the round was signed under %d notes, %v", len(kept), err)
	}
	must(t, r.m.keepConfig(v)) // again
	config := *v.Config
	other := v
	other.ID, other.Config = label.Hash{9}, &config
	for _, seq := range []uint64{v.Config.Seq, v.Config.Seq - 1} {
		config.Seq = seq
		if err := r.m.keepConfig(other); !errors.As(err, new(*alarm)) {
			t.Errorf("seq %d after %d: %v", seq, v.Config.Seq, err)
		}
	}
	config.Seq = v.Config.Seq + 1
	must(t, r.m.keepConfig(other))
	if err := r.m.keepConfig(v); !errors.As(err, new(*alarm)) {
		t.Errorf("an earlier round again: %v", err)
	}
	notes, err := filepath.Glob(filepath.Join(r.home.Dir, "configs", "*"))
	must(t, err)
	note, err := os.ReadFile(notes[0])
	must(t, err)
	note[0]-- // a lower seq: to believe it is to sign a second config of one seq
	for _, damaged := range [][]byte{note, nil} {
		must(t, os.WriteFile(notes[0], damaged, 0o600))
		if err := r.m.keepConfig(other); !errors.As(err, new(*alarm)) {
			t.Errorf("with the damaged note %q: %v", damaged, err)
		}
	}
}

// TestASnapshotSpendsNoSeqs: a leader's snapshot in which a round of a far seq waits for this member's signature is refused.
// If it were signed, the note of it would keep the member from signing any true round.
func TestASnapshotSpendsNoSeqs(t *testing.T) {
	r := newRig(t)
	r.m.keepEpochs(t.Context())
	state, err := r.m.Snapshot()
	must(t, err)
	lie := round.New(r.ch)
	must(t, lie.Restore(state))
	rc, reason := lie.NextConfig(testTask, r.now, 1)
	if rc == nil {
		t.Fatal(reason)
	}
	far, err := statement.NewRoundConfig(r.ch, testTask, 1<<60, rc.Start, rc.ProposedMs, rc.KeyPackages)
	must(t, err)
	lie.Apply(lie.Applied()+1, round.ProposeCommand(rc))
	state = bytes.Replace(lie.Snapshot(), rc.Bytes(), far.Bytes(), 1)
	start := rc.Start.Hash(rc.Task, rc.Cell)
	at := bytes.Index(state, start[:]) // the task's seq stands before its start
	binary.BigEndian.PutUint64(state[at-8:], 1<<60)
	if err := r.m.Restore(state); err == nil {
		r.m.Work(t.Context())
		notes, _ := filepath.Glob(filepath.Join(r.home.Dir, "configs", "*"))
		t.Fatalf("the state is taken, and %d configs are signed", len(notes))
	} else if !strings.Contains(err.Error(), "seq") && !strings.Contains(err.Error(), "certified") {
		t.Fatal(err)
	}
	if v := r.until(round.Open); v.Config.Seq != 1 {
		t.Errorf("round %d is open", v.Config.Seq)
	}
}

// TestACertificateIsNotForgotten: a snapshot that lacks a round certificate which this member has seen is refused: the
// newest certified round is what bounds the seqs that it signs.
func TestACertificateIsNotForgotten(t *testing.T) {
	r := newRig(t)
	r.m.keepEpochs(t.Context())
	state, err := r.m.Snapshot()
	must(t, err)
	r.until(round.Open)
	lie := round.New(r.ch)
	must(t, lie.Restore(state))
	for lie.Applied() < uint64(r.log.applied) {
		lie.Apply(lie.Applied()+1, round.TickCommand(r.now.UnixMilli()))
	}
	if err := r.m.Restore(lie.Snapshot()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("restored: %v", err)
	}
	whole, err := r.m.Snapshot()
	must(t, err)
	must(t, r.m.Restore(whole))
}

// TestVoteFileOpenedAgain: after a failed write the file is read again, and the vote is given once.
func TestVoteFileOpenedAgain(t *testing.T) {
	r := newRig(t)
	r.contribute(r.until(round.Open))
	v := r.until(round.Acked)
	e, err := r.m.listed(v.Config)
	must(t, err)
	must(t, e.Close()) // as good as a file that takes nothing more
	if _, err := r.m.signVote(v, v.Decision); err == nil {
		t.Fatal("a closed epoch signs")
	}
	again, err := r.m.listed(v.Config)
	must(t, err)
	if again == e {
		t.Fatal("the epoch was not opened again")
	}
	r.until(round.Published)
}

// TestForwarded: time, rounds and closes are not taken from followers.
func TestForwarded(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	s := r.m.MeshServer()
	r.m.log = localLog{r.log}
	for name, c := range map[string]struct {
		cmd  *coordpb.Command
		want codes.Code
	}{
		"tick":    {round.TickCommand(statement.TimeMax), codes.InvalidArgument},
		"propose": {round.ProposeCommand(v.Config), codes.InvalidArgument},
		"close":   {round.CloseCommand(&statement.Close{Round: v.ID, Active: 1, Candidates: label.Hash{1}}), codes.InvalidArgument},
		"empty":   {&coordpb.Command{}, codes.InvalidArgument},
		"expired": {round.ExpiredCommand(v.ID, 0, statement.Signed{Body: (&statement.Expired{Round: v.ID}).Bytes(), Signature: make([]byte, 64)}), codes.OK},
	} {
		b, err := proto.Marshal(c.cmd)
		must(t, err)
		_, err = s.Propose(t.Context(), &coordpb.ProposeRequest{Command: b})
		if status.Code(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Propose(t.Context(), &coordpb.ProposeRequest{Command: []byte{0xff}}); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	if r.m.machine.TimeMs() == statement.TimeMax {
		t.Error("log time has ended")
	}
}

// localLog takes forwarded commands, as the leader's log does.
type localLog struct{ *memoryLog }

func (l localLog) ProposeLocal(ctx context.Context, cmd *coordpb.Command) ([]*coordpb.Outcome, error) {
	return l.Propose(ctx, cmd)
}

// TestAMemberThatHasNotReadItsLog: started again and without a leader it has applied nothing yet, which is no reason to say
// that there are no rounds; it says that, and how far it is, until it knows what it knew.
func TestAMemberThatHasNotReadItsLog(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	r.contribute(v) // receipts: the guard knows how far the log was applied
	hash := r.ch.Hash()
	ask := func() map[string]error {
		s, ctx := r.m.DeviceServer(), t.Context()
		out := map[string]error{}
		_, out["ListRounds"] = s.ListRounds(ctx, &coordpb.ListRoundsRequest{})
		_, out["GetRound"] = s.GetRound(ctx, &coordpb.GetRoundRequest{RoundId: v.ID[:]})
		_, out["GetReceipts"] = s.GetReceipts(ctx, &coordpb.GetReceiptsRequest{RoundId: v.ID[:], HeaderHash: hash[:]})
		_, out["CheckIn"] = s.CheckIn(ctx, &coordpb.CheckInRequest{CharterHash: hash[:], DeviceId: hash[:], TaskId: testTask})
		return out
	}
	unread := func(n int) {
		t.Helper()
		for call, err := range ask() {
			if want := fmt.Sprintf("log_not_read: this member started again and has applied entry %d of %d:", n, r.log.guarded); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", call, err)
			}
		}
		list, err := r.m.DeviceServer().ListMembers(t.Context(), &coordpb.ListMembersRequest{})
		must(t, err)
		if at := list.GetMembers()[0].GetStanding(); at.GetApplied() != uint64(n) || at.GetReadsTo() != r.log.guarded {
			t.Errorf("standing %v", at)
		}
		if s := r.m.statusFile(); s.Applied != uint64(n) || s.ReadsTo != r.log.guarded {
			t.Errorf("status %+v", s)
		}
	}
	guarded := int(r.log.guarded)
	r.restart(0)
	unread(0)
	r.replay(guarded - 1)
	unread(guarded - 1)
	r.replay(len(r.log.entries))
	for call, err := range ask() {
		if call != "GetReceipts" && err != nil || call == "GetReceipts" && status.Code(err) != codes.NotFound {
			t.Errorf("%s after the log was read: %v", call, err)
		}
	}
	if s := r.m.statusFile(); s.ReadsTo != 0 || s.OpenRounds != 1 {
		t.Errorf("status %+v", s)
	}
	r.log.waiting = true
	r.restart(len(r.log.entries))
	for call, err := range ask() {
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "log_not_read: this member's log is new") {
			t.Errorf("%s of a member that waits to be taken in: %v", call, err)
		}
	}
}

// TestEntriesBeyondTheGuard: before it hears a leader, a follower that started again cannot tell which of its log's last
// entries it had shown; once it hears one, the guard tells, and what it knew it goes on showing when the leader is lost.
func TestEntriesBeyondTheGuard(t *testing.T) {
	r := newRig(t)
	l := &silent{memoryLog: r.log, status: LogStatus{Leader: -1, Last: 9, Guarded: 7, Applied: 7}}
	r.m.log = l
	if err := r.m.knows(); !strings.Contains(fmt.Sprint(err), "entry 7 of 9") {
		t.Errorf("before a leader: %v", err)
	}
	l.status.Contact = r.now
	if err := r.m.knows(); err != nil {
		t.Errorf("after a leader: %v", err)
	}
	l.status.Contact = time.Time{}
	if err := r.m.knows(); err != nil {
		t.Errorf("what was read is known: %v", err)
	}
}

// silent is a log whose member follows.
type silent struct {
	*memoryLog
	status LogStatus
}

func (l *silent) Leading() bool     { return false }
func (l *silent) Status() LogStatus { return l.status }
