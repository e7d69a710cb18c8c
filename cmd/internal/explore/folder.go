package explore

import (
	"crypto/sha256"
	"encoding/binary"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
)

// folders is what a member's folder may hold, by content. What never changes (keys, card) is left out.
type folders struct {
	dir  string
	ids  map[[32]byte]int
	list []map[string]string // path to content
	now  int                 // what lies in dir; -1 when that is not known
}

// parts of a member's folder that differ from state to state. Contributions and sums do not: what a member lacks of
// the first it gets from the others, the second it folds again, so that both lie there from the start of every run.
func parts() []string { return []string{"epochs", "configs", "results", "receipts", "derived"} }

func newFolders(dir string) *folders { return &folders{dir: dir, ids: map[[32]byte]int{}, now: -1} }

// id names a content. Vote files with the same records in another order are one: what was promised is their set.
func (f *folders) id(files map[string]string) int {
	h := sha256.New()
	put := func(s string) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
		h.Write([]byte(s))
	}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		put(p)
		if p != votesOf {
			put(files[p])
			continue
		}
		records, end := split(files[p])
		slices.Sort(records)
		put(strings.Join(records, ""))
		put(end)
	}
	sum := [32]byte(h.Sum(nil))
	n, ok := f.ids[sum]
	if !ok {
		n = len(f.list)
		f.ids[sum], f.list = n, append(f.list, files)
	}
	return n
}

// read is what lies in the folder now, as a crash of the process would leave it.
func (f *folders) read() (map[string]string, error) { return f.readParts(parts()...) }

func (f *folders) readParts(tops ...string) (map[string]string, error) {
	files := map[string]string{}
	for _, top := range tops {
		err := filepath.WalkDir(filepath.Join(f.dir, top), func(p string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			if err != nil || d.IsDir() || strings.HasSuffix(p, ".lock") || d.Name() == "lock" {
				return err
			}
			b, err := os.ReadFile(p)
			if os.IsNotExist(err) {
				return nil
			}
			rel, _ := filepath.Rel(f.dir, p) // both lie under dir
			files[filepath.ToSlash(rel)] = string(b)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

// put makes the folder hold a content.
func (f *folders) put(id int) error {
	if f.now == id {
		return nil
	}
	want := f.list[id]
	for _, top := range parts() {
		if f.now >= 0 && same(f.list[f.now], want, top+"/") {
			continue
		}
		if err := os.RemoveAll(filepath.Join(f.dir, top)); err != nil {
			return err
		}
		if err := f.write(want, top+"/"); err != nil {
			return err
		}
	}
	f.now = id
	return nil
}

// write writes those of files whose path begins with prefix.
func (f *folders) write(files map[string]string, prefix string) error {
	for p, b := range files {
		if !strings.HasPrefix(p, prefix) {
			continue
		}
		path := filepath.Join(f.dir, filepath.FromSlash(p))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(b), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func same(a, b map[string]string, prefix string) bool {
	n := 0
	for p, c := range a {
		if strings.HasPrefix(p, prefix) {
			if b[p] != c {
				return false
			}
			n++
		}
	}
	for p := range b {
		if strings.HasPrefix(p, prefix) {
			n--
		}
	}
	return n == 0
}

// promise is one record of a vote file.
type promise struct {
	kind  byte
	round label.Hash
	value label.Hash
}

// votesOf is where the vote file of the epoch lies that the rounds list.
const votesOf = "epochs/1/votes"

// promises reads the records of the listed epoch's vote file, as it lies in the folder now.
func (f *folders) promises() (map[promise]bool, error) {
	out := map[promise]bool{}
	records, err := durable.ReadRecords(filepath.Join(f.dir, filepath.FromSlash(votesOf)))
	if os.IsNotExist(err) {
		return out, nil
	}
	for _, b := range records {
		if len(b) == 2+2*label.Size {
			out[promise{b[1], label.Hash(b[2 : 2+label.Size]), label.Hash(b[2+label.Size:])}] = true
		}
	}
	return out, err
}

// torn is before with the last record of after half written; false where after has no further record.
func torn(before, after map[string]string) (map[string]string, bool) {
	old, grown := before[votesOf], after[votesOf]
	if old == "" || len(grown) <= len(old) || !strings.HasPrefix(grown, old) {
		return nil, false
	}
	out := maps.Clone(before)
	out[votesOf] = grown[:len(old)+(len(grown)-len(old))/2]
	return out, true
}

// split takes the records out of a vote file, as storage/durable frames them, and what follows the last whole one.
func split(file string) (records []string, rest string) {
	const header, before, after = 48, 8, 32
	if len(file) < header {
		return nil, file
	}
	rest = file[header:]
	for len(rest) >= before {
		n := int(binary.BigEndian.Uint32([]byte(rest[:4])))
		size := before + (n+7)/8*8 + after
		if n > len(rest) || size > len(rest) {
			break
		}
		records, rest = append(records, rest[before:before+n]), rest[size:]
	}
	return records, rest
}
