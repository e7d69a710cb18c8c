package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/ruche-federation/ruche/storage/vault"
)

// image is a folder as it lies on the disk: what each file holds up to its last byte that is not zero, and its size.
type image map[string]imageFile

type imageFile struct {
	data []byte
	size int64
}

func photograph(t testing.TB, dir string) image {
	t.Helper()
	out := image{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		out[name] = imageFile{bytes.TrimRight(b, "\x00"), int64(len(b))}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// develop writes an image into a new folder, with one file replaced.
func (m image) develop(t testing.TB, name string, other imageFile) string {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	for n, f := range m {
		if n == name {
			f = other
		}
		if f.size < 0 {
			continue
		}
		path := filepath.Join(dir, n)
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, f.data, 0o600), os.Truncate(path, f.size))
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// rots are ways in which a file goes bad, at places that the seed chooses.
func rots(rng *rand.Rand, f imageFile, samples int) map[string]imageFile {
	out := map[string]imageFile{"gone": {size: -1}, "empty": {}}
	for range samples {
		if len(f.data) == 0 {
			break
		}
		at := rng.IntN(len(f.data))
		flipped := bytes.Clone(f.data)
		flipped[at] ^= 1 << rng.IntN(8)
		out[fmt.Sprintf("flipped at %d", at)] = imageFile{flipped, f.size}
		out[fmt.Sprintf("cut at %d", at)] = imageFile{f.data[:at], int64(at)}
		out[fmt.Sprintf("zeros from %d", at)] = imageFile{f.data[:at], f.size}
		hole := bytes.Clone(f.data)
		clear(hole[at/512*512 : min(len(hole), at/512*512+512)])
		out[fmt.Sprintf("zeros in the sector of %d", at)] = imageFile{hole, f.size}
	}
	return out
}

// TestRotIsNeverBelieved damages every file of a log's folder, one at a time, as a disk does: bytes that flip, ends that
// are missing, sectors of zeros, files that are gone. Then the store refuses to open, or says at the entry that it is
// damaged, or every entry up to the guard's last is what was stored; term and vote are what they were.
func TestRotIsNeverBelieved(t *testing.T) {
	seed := uint64(6)
	samples := 6
	if testing.Short() {
		samples = 2
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	s := mustOpen(t, dir)
	stored := map[uint64]*raft.Log{}
	put := func(first, last, term uint64) {
		logs := run(first, last, term)
		for _, l := range logs {
			l.Data = append(l.Data, bytes.Repeat([]byte{byte(l.Index)}, rng.IntN(3000))...)
			stored[l.Index] = l
		}
		mustStore(t, s, logs)
	}
	put(1, 40, 1)
	must(t, s.SetUint64([]byte(keyCurrentTerm), 2))
	must(t, s.SetUint64([]byte(keyLastVoteTerm), 2))
	must(t, s.Set([]byte(keyLastVoteCand), []byte("org1/store1")))
	must(t, s.SetApplied(20))
	must(t, s.Close()) // the first entries go into a table
	s = mustOpen(t, dir)
	put(35, 60, 2) // over the end of the first; these lie in the write-ahead log
	put(61, 70, 2)
	must(t, s.DeleteRange(1, 5))
	must(t, s.SetApplied(65))
	put(71, 75, 2) // nobody told the guard
	// A photograph that is blurred by a compaction under way shows a disk that never was; a sharp one opens whole.
	var whole image
	for sharp := false; !sharp; {
		whole = photograph(t, dir)
		again, err := Open(whole.develop(t, "", imageFile{}), testKey(t), Options{})
		if sharp = err == nil; sharp {
			must(t, again.Verify())
			must(t, again.Close())
		}
	}
	s.guard.f.Close()
	s.db.Close()
	var names []string
	for n := range whole {
		names = append(names, n)
	}
	slices.Sort(names)
	outcomes := map[string]int{}
	for _, name := range names {
		ways := rots(rng, whole[name], samples)
		var order []string
		for way := range ways {
			order = append(order, way)
		}
		slices.Sort(order)
		for _, way := range order {
			dir := whole.develop(t, name, ways[way])
			outcomes[kindOf(name)+": "+judge(t, name+" "+way, dir, stored)]++
			os.RemoveAll(dir)
		}
	}
	for o, n := range outcomes {
		t.Logf("%5d %s", n, o)
	}
	for _, o := range []string{"*.mem: refused: short", "*.sst: refused: a table", "guard: refused: the guard", "guard: opens whole"} {
		if outcomes[o] == 0 {
			t.Errorf("nothing ended as %q: the damage misses what it is for", o)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func kindOf(name string) string {
	if ext := filepath.Ext(name); ext != "" {
		return "*" + ext
	}
	return filepath.Base(name)
}

// judge opens a damaged store and says what came of it.
func judge(t *testing.T, what, dir string, stored map[uint64]*raft.Log) string {
	s, err := Open(dir, testKey(t), Options{})
	if err != nil {
		switch {
		case errors.As(err, new(*ShortLogError)):
			return "refused: short"
		case errors.As(err, new(*DamagedError)):
			return "refused: an entry"
		case errors.As(err, new(*GuardError)):
			return "refused: the guard"
		case errors.As(err, new(*vault.TableError)):
			return "refused: a table"
		}
		return "refused: the vault"
	}
	defer s.Close()
	if s.guard.w.term != 2 || s.guard.w.voteTerm != 2 || string(s.guard.w.candidate) != "org1/store1" || s.guard.w.applied != 65 {
		t.Errorf("%s: term or vote or applied is lost: %+v", what, s.guard.w)
	}
	last, _ := s.LastIndex()
	first, _ := s.FirstIndex()
	if last < 70 || first > 6 {
		t.Errorf("%s: it opens with entries %d to %d", what, first, last)
	}
	named := 0
	for i := uint64(6); i <= last; i++ {
		var got raft.Log
		want := stored[i]
		switch err := s.GetLog(i, &got); {
		case errors.Is(err, raft.ErrLogNotFound):
			t.Errorf("%s: entry %d is silently missing", what, i)
		case err != nil:
			named++
		case got.Term != want.Term || !bytes.Equal(got.Data, want.Data) || got.Index != i:
			t.Errorf("%s: entry %d is another one, of term %d", what, i, got.Term)
		}
	}
	if named > 0 {
		return "opens, says which entries are damaged"
	}
	return "opens whole"
}
