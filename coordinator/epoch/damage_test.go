package epoch

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/seal"
	"github.com/ruche-federation/ruche/storage/durable"
)

// pattern makes two epochs with three records each, once, as bytes of their four files.
type pattern struct{ keys, votes, otherKeys, otherVotes []byte }

func newPattern(t *testing.T) pattern {
	t.Helper()
	read := func(number uint64) (keys, votes []byte) {
		root := t.TempDir()
		e := create(t, root, number)
		for _, err := range []error{e.RecordVote(hash("r"), hash("a")), e.RecordReveal(hash("r"), hash("a")), e.RecordVote(hash("s"), hash("b"))} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		dir := folder(root, "", number)
		keys, err := os.ReadFile(filepath.Join(dir, keysName))
		if err != nil {
			t.Fatal(err)
		}
		votes, err = os.ReadFile(filepath.Join(dir, votesName))
		if err != nil {
			t.Fatal(err)
		}
		return keys, votes
	}
	var p pattern
	p.keys, p.votes = read(8)
	p.otherKeys, p.otherVotes = read(9)
	return p
}

// lay writes epoch 8 with the given files; nil means no file.
func lay(t *testing.T, keys, votes []byte) (root string) {
	t.Helper()
	root = t.TempDir()
	dir := folder(root, "", 8)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{keysName: keys, votesName: votes} {
		if content == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestDamageDestroysTheKeys(t *testing.T) {
	p := newPattern(t)
	frame := (len(p.votes) - 48 - (len(p.otherVotes) - 48 - 3*112)) / 3 // three equal frames follow the begin record
	if frame != 112 {
		t.Fatalf("frames of %d bytes", frame)
	}
	without := func(from, to int) []byte { return append(append([]byte(nil), p.votes[:from]...), p.votes[to:]...) }
	second := len(p.votes) - 2*frame
	for _, tc := range []struct {
		name        string
		keys, votes []byte
	}{
		{"no key file", nil, p.votes},
		{"no vote file", p.keys, nil},
		{"nothing", nil, nil},
		{"an empty key file", []byte{}, p.votes},
		{"a key file cut short", p.keys[:len(p.keys)-1], p.votes},
		{"a longer key file", append(append([]byte(nil), p.keys...), 0), p.votes},
		{"a key file of zeros", make([]byte, keysSize), p.votes},
		{"another epoch's keys", p.otherKeys, p.votes},
		{"another epoch's votes", p.keys, p.otherVotes},
		{"an empty vote file", p.keys, []byte{}},
		{"a vote file with its header only", p.keys, p.votes[:48]},
		{"a vote file of zeros", p.keys, make([]byte, len(p.votes))},
		{"a record missing in the middle", p.keys, without(second, second+frame)},
		{"a record twice", p.keys, append(append([]byte(nil), p.votes...), p.votes[len(p.votes)-frame:]...)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := lay(t, tc.keys, tc.votes)
			epochs, alarms, err := Load(root)
			if err != nil || len(epochs) != 0 || len(alarms) != 1 || alarms[0].Epoch != 8 || alarms[0].Erase != nil {
				t.Fatalf("%v, %v, %v", epochs, alarms, err)
			}
			checkDestroyed(t, root, 8)
			if epochs, alarms, err := Load(root); err != nil || len(epochs) != 0 || len(alarms) != 0 {
				t.Errorf("a second start: %v, %v, %v", epochs, alarms, err)
			}
			if tc.votes != nil {
				if kept, err := os.ReadFile(filepath.Join(folder(root, damagedPrefix, 8), votesName)); err != nil || !bytes.Equal(kept, tc.votes) {
					t.Errorf("the votes were not kept as they were: %v", err)
				}
			}
		})
	}
}

// TestEveryFlippedByteIsNoticed: no byte of either file can change without the epoch staying closed.
func TestEveryFlippedByteIsNoticed(t *testing.T) {
	p := newPattern(t)
	for _, file := range []struct {
		name    string
		content []byte
		other   func(flipped []byte) (keys, votes []byte)
	}{
		{keysName, p.keys, func(f []byte) ([]byte, []byte) { return f, p.votes }},
		{votesName, p.votes, func(f []byte) ([]byte, []byte) { return p.keys, f }},
	} {
		step := 1
		if testing.Short() {
			step = 7
		}
		for i := 0; i < len(file.content); i += step {
			flipped := append([]byte(nil), file.content...)
			flipped[i] ^= 0x10
			root := lay(t, nil, nil)
			keys, votes := file.other(flipped)
			for name, content := range map[string][]byte{keysName: keys, votesName: votes} {
				if err := os.WriteFile(filepath.Join(folder(root, "", 8), name), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			e, err := Open(root, 8)
			var alarm *AlarmError
			var later *VersionError
			var laterRecords *durable.VersionError
			switch {
			case err == nil:
				e.Close()
				t.Fatalf("%s: byte %d flipped and the epoch opened", file.name, i)
			case errors.As(err, &alarm):
				checkDestroyed(t, root, 8)
			case errors.As(err, &later), errors.As(err, &laterRecords):
				if i != 8 && i != 9 { // the version fields
					t.Errorf("%s: byte %d: %v", file.name, i, err)
				}
			default:
				t.Errorf("%s: byte %d: %v", file.name, i, err)
			}
		}
	}
}

// TestTornLastRecordWasNeverSigned: a crash in the middle of an append costs that record and nothing else.
func TestTornLastRecordWasNeverSigned(t *testing.T) {
	p := newPattern(t)
	const frame = 112
	for cut := 1; cut < frame; cut += 5 {
		for _, zeros := range []bool{false, true} { // the length reached the disk and the data did not
			votes := append([]byte(nil), p.votes[:len(p.votes)-cut]...)
			if zeros {
				if cut < 40 {
					continue
				}
				votes = append([]byte(nil), p.votes...)
				clear(votes[len(votes)-frame:])
			}
			root := lay(t, p.keys, votes)
			e, err := Open(root, 8)
			if err != nil {
				t.Fatalf("cut %d: %v", cut, err)
			}
			if e.Torn() == 0 {
				t.Errorf("cut %d is not told", cut)
			}
			if _, ok := e.Voted(hash("s")); ok {
				t.Errorf("cut %d: the torn vote counts", cut)
			}
			if v, ok := e.Revealed(hash("r")); !ok || v != hash("a") {
				t.Errorf("cut %d: an earlier record is lost", cut)
			}
			if err := e.RecordVote(hash("s"), hash("another")); err != nil {
				t.Errorf("cut %d: %v", cut, err)
			}
			e.Close()
		}
	}
}

// TestRefusalsOfTheSystemAreNotDamage: what cannot be read now may be read later; nothing is destroyed.
func TestRefusalsOfTheSystemAreNotDamage(t *testing.T) {
	p := newPattern(t)
	root := lay(t, nil, p.votes)
	if err := os.Mkdir(filepath.Join(folder(root, "", 8), keysName), 0o700); err != nil { // reading it gives EISDIR
		t.Fatal(err)
	}
	var alarm *AlarmError
	if _, err := Open(root, 8); err == nil || errors.As(err, &alarm) {
		t.Errorf("a key file that cannot be read: %v", err)
	}
	root = lay(t, p.keys, nil)
	if err := os.Mkdir(filepath.Join(folder(root, "", 8), votesName), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(root, 8); err == nil || errors.As(err, &alarm) {
		t.Errorf("a vote file that cannot be opened: %v", err)
	}
	if _, err := os.Stat(filepath.Join(folder(root, "", 8), keysName)); err != nil {
		t.Error(err)
	}
}

// TestLaterFormatsAreLeftAlone: an older program does not destroy what a newer one wrote.
func TestLaterFormatsAreLeftAlone(t *testing.T) {
	p := newPattern(t)
	later := append([]byte(nil), p.keys...)
	later[9] = keysVersion + 1
	root := lay(t, later, p.votes)
	var version *VersionError
	if _, err := Open(root, 8); !errors.As(err, &version) || version.Got != 2 {
		t.Errorf("keys of version 2: %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(folder(root, "", 8), keysName)); err != nil || !bytes.Equal(got, later) {
		t.Errorf("keys of version 2 were touched: %v", err)
	}
	root = lay(t, p.keys, p.votes)
	r, _, err := durable.OpenRecords(filepath.Join(folder(root, "", 8), votesName), votesOptions())
	if err != nil {
		t.Fatal(err)
	}
	next := record{KindVote, hash("x"), hash("y")}.encode()
	next[0] = recordVersion + 1
	if err := r.Append(next); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, err := Open(root, 8); !errors.As(err, &version) {
		t.Errorf("a record of version 2: %v", err)
	}
	if _, err := os.Stat(filepath.Join(folder(root, "", 8), keysName)); err != nil {
		t.Error(err)
	}
}

// TestStoredFormsAreGolden holds version 1 of both forms.
func TestStoredFormsAreGolden(t *testing.T) {
	sealKey, err := seal.ParsePrivateKey(bytes.Repeat([]byte{0xaa}, 32))
	if err != nil {
		t.Fatal(err)
	}
	voteKey, err := identity.ParseKey(bytes.Repeat([]byte{0xbb}, 32))
	if err != nil {
		t.Fatal(err)
	}
	want := append([]byte("rucheepk\x00\x01\x00\x00\x00\x00\x00\x00\x01\x02"), append(bytes.Repeat([]byte{0xaa}, 32), bytes.Repeat([]byte{0xbb}, 32)...)...)
	sum := label.Sum("epoch", want)
	want = append(want, sum[:]...)
	if got := encodeKeys(0x102, sealKey, voteKey); !bytes.Equal(got, want) {
		t.Errorf("key file %x\nwant %x", got, want)
	}
	round, value := label.Hash(bytes.Repeat([]byte{1}, 32)), label.Hash(bytes.Repeat([]byte{2}, 32))
	if got, want := (record{KindReveal, round, value}).encode(), append([]byte{1, 2}, append(round[:], value[:]...)...); !bytes.Equal(got, want) {
		t.Errorf("record %x\nwant %x", got, want)
	}
	if got, want := encodeBegin(0x102, voteKey.Public()), append([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 2}, voteKey.Public()...); !bytes.Equal(got, want) {
		t.Errorf("begin %x\nwant %x", got, want)
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add(record{KindVote, hash("r"), hash("v")}.encode())
	f.Add(record{KindExpired, hash("r"), label.Hash{}}.encode())
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRecord(b); err == nil && !bytes.Equal(r.encode(), b) {
			t.Errorf("%x was read as %v", b, r)
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	sealKey, err := seal.ParsePrivateKey(make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	voteKey, err := identity.ParseKey(make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encodeKeys(5, sealKey, voteKey))
	f.Add([]byte(keysMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, v, err := parseKeys(b, 5); err == nil && !bytes.Equal(encodeKeys(5, s, v), b) {
			t.Errorf("%x was read as keys", b)
		}
	})
}
