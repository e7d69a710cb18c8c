package epoch

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/seal"
	"github.com/ruche-federation/ruche/storage/durable"
)

func hash(s string) label.Hash { return label.Sum(label.TagSet, []byte(s)) }

// body stands in for the statement of a vote or reveal: it holds the round and the value.
func body(round, value label.Hash) []byte {
	return append(append([]byte("body"), round[:]...), value[:]...)
}

func create(t testing.TB, root string, number uint64) *Epoch {
	t.Helper()
	e, err := Create(root, number, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func reopen(t testing.TB, e *Epoch) *Epoch {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(e.root, e.number)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Close() })
	return again
}

func TestAVoteIsForEver(t *testing.T) {
	e := create(t, filepath.Join(t.TempDir(), "epochs"), 7)
	round, a, b := hash("round"), hash("set a"), hash("set b")
	sig, err := e.Vote(round, a, body(round, a))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.VotePublic().Verify(label.StmtVote, body(round, a), sig); err != nil {
		t.Fatal(err)
	}
	for range 2 { // before and after a restart
		again, err := e.Vote(round, a, body(round, a))
		if err != nil || !bytes.Equal(again, sig) {
			t.Fatalf("the same vote again: %v", err)
		}
		var conflict *ConflictError
		if _, err := e.Vote(round, b, body(round, b)); !errors.As(err, &conflict) || conflict.Have != KindVote || conflict.Old != a {
			t.Fatalf("another vote in one round: %v", err)
		}
		if err := e.RecordVote(round, b); !errors.As(err, &conflict) {
			t.Fatalf("another record in one round: %v", err)
		}
		if _, err := e.Reveal(round, b, body(round, b)); !errors.As(err, &conflict) {
			t.Fatalf("a reveal against the vote: %v", err)
		}
		if v, ok := e.Voted(round); !ok || v != a {
			t.Fatal("the vote is not remembered")
		}
		if _, ok := e.Revealed(round); ok || e.Expired(round) {
			t.Fatal("more is remembered than was done")
		}
		public, sealPublic := e.VotePublic(), e.SealPublic()
		e = reopen(t, e)
		if !e.VotePublic().Equal(public) || !bytes.Equal(e.SealPublic(), sealPublic) || e.Number() != 7 || e.Torn() != 0 {
			t.Fatal("the epoch came back as another")
		}
	}
	if _, err := e.Vote(hash("another round"), b, body(hash("another round"), b)); err != nil {
		t.Fatalf("a vote in another round: %v", err)
	}
}

// TestRules walks the promises of one round: each step is refused or not, and a restart changes nothing.
func TestRules(t *testing.T) {
	const a, b = "a", "b"
	type step struct {
		kind    Kind
		value   string
		refused bool
	}
	for _, tc := range []struct {
		name  string
		steps []step
	}{
		{"reveal follows the vote", []step{{KindVote, a, false}, {KindReveal, a, false}, {KindReveal, a, false}, {KindVote, a, false}}},
		{"reveal of another value", []step{{KindVote, a, false}, {KindReveal, b, true}, {KindReveal, a, false}}},
		{"reveal without a vote, then a vote against it", []step{{KindReveal, a, false}, {KindVote, b, true}, {KindVote, a, false}}},
		{"two reveals", []step{{KindReveal, a, false}, {KindReveal, b, true}}},
		{"no reveal once expired", []step{{KindVote, a, false}, {KindExpired, "", false}, {KindReveal, a, true}, {KindExpired, "", false}}},
		{"not even the same reveal once expired", []step{{KindReveal, a, false}, {KindExpired, "", false}, {KindReveal, a, true}}},
		{"a late vote for dead", []step{{KindExpired, "", false}, {KindVote, a, false}, {KindVote, b, true}}},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %v", tc.name, restart), func(t *testing.T) {
				e := create(t, t.TempDir(), 1)
				round := hash("round")
				for i, s := range tc.steps {
					var err error
					switch s.kind {
					case KindVote:
						err = e.RecordVote(round, hash(s.value))
					case KindReveal:
						err = e.RecordReveal(round, hash(s.value))
					case KindExpired:
						err = e.RecordExpired(round)
					}
					var conflict *ConflictError
					if refused := errors.As(err, &conflict); refused != s.refused || err != nil && !refused {
						t.Fatalf("step %d, %v %s: %v", i, s.kind, s.value, err)
					}
					if restart {
						e = reopen(t, e)
					}
				}
			})
		}
	}
}

func TestExpiryIsSignedOnlyByWhoNeverRevealed(t *testing.T) {
	e := create(t, t.TempDir(), 1)
	silent, revealed := hash("silent"), hash("revealed")
	sig, err := e.Expire(silent, body(silent, silent))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.VotePublic().Verify(label.StmtExpired, body(silent, silent), sig); err != nil {
		t.Fatal(err)
	}
	v := hash("set")
	sig, err = e.Reveal(revealed, v, body(revealed, v))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.VotePublic().Verify(label.StmtReveal, body(revealed, v), sig); err != nil {
		t.Fatal(err)
	}
	var conflict *ConflictError
	if sig, err := e.Expire(revealed, body(revealed, v)); !errors.As(err, &conflict) || sig != nil {
		t.Fatalf("a member that revealed signed that it never did: %v", err)
	}
	if e = reopen(t, e); !e.Expired(revealed) || !e.Expired(silent) {
		t.Fatal("the end of serving is not remembered")
	}
}

func TestBodiesMustSayWhatIsRecorded(t *testing.T) {
	e := create(t, t.TempDir(), 1)
	round, a, b := hash("round"), hash("a"), hash("b")
	var wrong *BodyError
	if _, err := e.Vote(round, a, body(round, b)); !errors.As(err, &wrong) || wrong.Lacks != "value" {
		t.Errorf("the body of another vote: %v", err)
	}
	if _, err := e.Vote(round, a, body(b, a)); !errors.As(err, &wrong) || wrong.Lacks != "round" {
		t.Errorf("the body of another round: %v", err)
	}
	if _, err := e.Expire(round, nil); !errors.As(err, &wrong) {
		t.Errorf("an empty body: %v", err)
	}
	if _, ok := e.Voted(round); ok {
		t.Error("a refused body left a record")
	}
	for name, err := range map[string]error{
		"a vote without a value": e.RecordVote(round, label.Hash{}),
		"a vote without a round": e.RecordVote(label.Hash{}, a),
		"an expiry of no round":  e.RecordExpired(label.Hash{}),
	} {
		if err == nil {
			t.Errorf("%s was recorded", name)
		}
	}
	reopen(t, e)
}

func TestReceiptsAndAcksNeedNoRecord(t *testing.T) {
	e := create(t, t.TempDir(), 1)
	for stmt, sign := range map[string]func([]byte) ([]byte, error){label.StmtReceipt: e.Receipt, label.StmtAck: e.Ack} {
		sig, err := sign([]byte("body"))
		if err != nil {
			t.Fatal(err)
		}
		if err := e.VotePublic().Verify(stmt, []byte("body"), sig); err != nil {
			t.Error(err)
		}
		if err := e.VotePublic().Verify(label.StmtVote, []byte("body"), sig); err == nil {
			t.Errorf("a %s passes as a vote", stmt)
		}
	}
	if records, err := durable.ReadRecords(filepath.Join(e.root, "1", votesName)); err != nil || len(records) != 1 {
		t.Errorf("%d records, %v", len(records), err)
	}
}

func TestSealKeyOpensBoxesUntilTheEpochIsDestroyed(t *testing.T) {
	root := t.TempDir()
	e := create(t, root, 3)
	box, err := seal.Seal(e.SealPublic(), nil, nil, []byte("seeds"))
	if err != nil {
		t.Fatal(err)
	}
	key := e.SealKey()
	if pt, err := key.Open(box, nil, nil); err != nil || string(pt) != "seeds" {
		t.Fatal(err)
	}
	if err := e.RecordVote(hash("r"), hash("a")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := e.Destroy(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := key.Open(box, nil, nil); err == nil {
		t.Error("a destroyed key opened a box")
	}
	round, a := hash("r"), hash("a")
	for name, call := range map[string]func() error{
		"vote":    func() error { _, err := e.Vote(round, a, body(round, a)); return err },
		"reveal":  func() error { _, err := e.Reveal(round, a, body(round, a)); return err },
		"expire":  func() error { _, err := e.Expire(round, body(round, a)); return err },
		"receipt": func() error { _, err := e.Receipt(nil); return err },
		"witness": func() error { return e.Witness(KindVote, round, a) },
	} {
		if err := call(); !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Destroy: %v", name, err)
		}
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 1 || entries[0].Name() != "erased-3" {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if erased, err := Erased(root); err != nil || len(erased) != 1 || erased[0] != 3 {
		t.Errorf("erased: %v, %v", erased, err)
	}
	if err := errors.Join(Forget(root, 3), Forget(root, 3)); err != nil {
		t.Error(err)
	}
	if erased, err := Erased(root); err != nil || len(erased) != 0 {
		t.Errorf("forgotten: %v, %v", erased, err)
	}
	if _, err := Open(root, 3); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a destroyed epoch: %v", err)
	}
}

// TestForgettingADamagedEpochCostsNothing: its votes stay, so it is asked for again and again.
func TestForgettingADamagedEpochCostsNothing(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"damaged-7", "erased-8"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d, removals := hostDisk(), 0
	remove := d.remove
	d.remove = func(path string) error { removals++; return remove(path) }
	for range 3 {
		if err := errors.Join(d.forget(root, 7), d.forget(root, 8)); err != nil {
			t.Fatal(err)
		}
	}
	if erased, err := Erased(root); removals != 1 || len(erased) != 1 || erased[0] != 7 {
		t.Errorf("%d removals, %v is left, %v", removals, erased, err)
	}
}

func TestNumbersOnlyRise(t *testing.T) {
	root := t.TempDir()
	create(t, root, 5)
	for _, n := range []uint64{1, 5} {
		if _, err := Create(root, n, rand.Reader); !errors.Is(err, ErrExists) {
			t.Errorf("epoch %d beside epoch 5: %v", n, err)
		}
	}
	create(t, root, 6)
	if _, err := Create(root, 7, bytes.NewReader(make([]byte, 40))); err == nil {
		t.Error("keys from 40 bytes of randomness")
	}
	epochs, alarms, err := Load(root) // 5 and 6 are open here
	if !errors.Is(err, durable.ErrLocked) || len(alarms) != 0 || len(epochs) != 0 {
		t.Errorf("a second process: %v, %v, %v", epochs, alarms, err)
	}
	if _, err := os.Stat(filepath.Join(root, "5", keysName)); err != nil {
		t.Errorf("a second process destroyed keys: %v", err)
	}
}

func TestLoadFinishesAndOrders(t *testing.T) {
	root := t.TempDir()
	for _, n := range []uint64{2, 9, 10, 11} {
		if err := create(t, root, n).Close(); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Rename(filepath.Join(root, "10"), filepath.Join(root, ".gone-10")))
	must(os.MkdirAll(filepath.Join(root, ".new-12"), 0o700))
	must(os.WriteFile(filepath.Join(root, ".new-12", ".keys.tmp-1"), []byte("half a key"), 0o600))
	must(os.MkdirAll(filepath.Join(root, "007"), 0o700))
	must(os.MkdirAll(filepath.Join(root, "damaged-1"), 0o700))
	must(os.WriteFile(filepath.Join(root, "3"), nil, 0o600))
	epochs, alarms, err := Load(root)
	if err != nil || len(alarms) != 0 {
		t.Fatal(err, alarms)
	}
	var numbers []uint64
	for _, e := range epochs {
		numbers = append(numbers, e.Number())
		must(e.Close())
	}
	if fmt.Sprint(numbers) != "[2 9 11]" {
		t.Errorf("epochs %v", numbers)
	}
	for _, gone := range []string{".gone-10", ".new-12", "10", "12"} {
		if _, err := os.Stat(filepath.Join(root, gone)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there", gone)
		}
	}
	if epochs, alarms, err := Load(filepath.Join(root, "nowhere")); err != nil || epochs != nil || alarms != nil {
		t.Errorf("a root that does not exist: %v %v %v", epochs, alarms, err)
	}
}

func TestWitnessDestroysAKeyWhoseFileForgot(t *testing.T) {
	root := t.TempDir()
	e := create(t, root, 4)
	round, a, b := hash("round"), hash("a"), hash("b")
	for _, err := range []error{e.RecordVote(round, a), e.RecordReveal(round, a), e.RecordExpired(round),
		e.Witness(KindVote, round, a), e.Witness(KindReveal, round, a), e.Witness(KindExpired, round, label.Hash{})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var alarm *AlarmError
	if err := e.Witness(KindVote, round, b); !errors.As(err, &alarm) || alarm.Epoch != 4 || alarm.Erase != nil {
		t.Fatalf("a vote that the file does not hold: %v", err)
	}
	if _, err := e.Vote(round, a, body(round, a)); !errors.Is(err, ErrClosed) {
		t.Errorf("a vote after the alarm: %v", err)
	}
	checkDestroyed(t, root, 4)
	for kind := KindVote; kind <= KindExpired; kind++ {
		e := create(t, root, uint64(4+kind))
		if err := e.Witness(kind, round, label.Hash{}); !errors.As(err, &alarm) {
			t.Errorf("%v of a round the file never heard of: %v", kind, err)
		}
	}
}

// checkDestroyed: no keys anywhere below root for this epoch, and its votes kept aside.
func checkDestroyed(t *testing.T, root string, number uint64) {
	t.Helper()
	for _, prefix := range []string{"", newPrefix, gonePrefix} {
		if _, err := os.Stat(folder(root, prefix, number)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there", folder(root, prefix, number))
		}
	}
	entries, err := os.ReadDir(folder(root, damagedPrefix, number))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() != votesName {
			t.Errorf("a damaged epoch keeps its %s", entry.Name())
		}
	}
}

func TestEpochsDoNotPrint(t *testing.T) {
	e := create(t, t.TempDir(), 1)
	raw, err := os.ReadFile(filepath.Join(e.root, "1", keysName))
	if err != nil {
		t.Fatal(err)
	}
	type holder struct{ hidden *Epoch }
	out := ""
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		out += fmt.Sprintf(verb, e) + fmt.Sprintf(verb, holder{e}) + fmt.Sprintf(verb, &holder{e})
	}
	for _, secret := range [][]byte{raw[18:50], raw[50:82]} {
		for _, form := range []string{hex.EncodeToString(secret[:6]), strings.Trim(fmt.Sprint(secret[:6]), "[]")} {
			if strings.Contains(out, form) {
				t.Errorf("a key shows as %q", form)
			}
		}
	}
}
