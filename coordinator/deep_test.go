package coordinator_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator"
	"github.com/ruche-federation/ruche/coordinator/doctor"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// table is a table of the log's database.
func table(t *testing.T, dir string) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "raft", "log", "log", "*.sst"))
	if err != nil || len(list) == 0 {
		all, _ := os.ReadDir(filepath.Join(dir, "raft", "log", "log"))
		t.Fatalf("no table among %v, %v", all, err)
	}
	return filepath.Join("raft", "log", "log", filepath.Base(list[0]))
}

func snapshot(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(dir, "raft", "snapshots"))
	if err != nil || len(list) != 1 {
		t.Fatalf("%d snapshots, %v", len(list), err)
	}
	return list[0].Name()
}

// TestDeepExamination: a folder in which every kind of file lies is read without a complaint; each kind is damaged, one at a
// time, and named with what becomes of it; what does not belong there is named too, and nothing is changed.
func TestDeepExamination(t *testing.T) {
	dir := coordinator.OpenRoundOf(t)
	in := func(name ...string) string { return filepath.Join(append([]string{dir}, name...)...) }
	one := func(folder ...string) string { // the first file there that is named by a hash
		t.Helper()
		list, err := os.ReadDir(in(folder...))
		must(t, err)
		for _, e := range list {
			if len(e.Name()) == 2*label.Size {
				return filepath.Join(append(folder, e.Name())...)
			}
		}
		t.Fatalf("nothing in %v", folder)
		return ""
	}
	live := filepath.Base(one("blobs", "heads"))
	put := func(tag string, folder ...string) string {
		t.Helper()
		b := []byte("as it was written for " + tag)
		must(t, os.MkdirAll(in(folder...), 0o700))
		path := filepath.Join(append(folder, label.Sum(tag, b).String())...)
		must(t, os.WriteFile(in(path), b, 0o600))
		return path
	}
	sumY, tSum, state := put(label.TagSum, "sums", live), put(label.TagTSum, "sums", live), put(label.TagModel, "results", "models")
	ended := put(label.TagContribution, "blobs", "y", strings.Repeat("ab", label.Size))
	must(t, os.MkdirAll(in("derived"), 0o700))
	derived := filepath.Join("derived", live)
	must(t, durable.WriteChecked(in(derived), []byte(live+"\n"), 0o600))

	deep := func() *doctor.Examination {
		t.Helper()
		told := 0
		x, err := doctor.Deep(dir, time.Now(), func(_ string, read, total int64) {
			if told++; read > total {
				t.Errorf("%d of %d bytes read", read, total)
			}
		})
		must(t, err)
		if told == 0 {
			t.Error("no progress is told")
		}
		return x
	}
	x := deep()
	if r := x.Read; r == nil || r.Damaged+r.Foreign+r.Left > 0 || r.Files < 20 || r.Bytes == 0 || x.Worst() != doctor.Note {
		t.Fatalf("a sound folder: %+v\n%+v", x.Read, x.Findings)
	}
	for _, c := range []struct {
		name, path string
		at         int // the byte that flips; from the end where negative
		level      doctor.Level
		word, says string // in what it means, or what to do
	}{
		{"y", one("blobs", "y", live), 40, doctor.Warning, "damaged", "pulled again from the other members"},
		{"y of a round that the log does not name", ended, 3, doctor.Warning, "damaged", "removed after 48 hours"},
		{"a head", one("blobs", "heads", live), 100, doctor.Warning, "damaged", "pulled again from the other members"},
		{"the sum of y", sumY, 3, doctor.Warning, "damaged", "folded again"},
		{"a T-sum", tSum, 3, doctor.Warning, "damaged", "folded again"},
		{"a state", state, 3, doctor.Warning, "damaged", "other members may have it"},
		{"receipts", one("receipts"), 30, doctor.Warning, "damaged", "sets it aside and raises an alarm"},
		{"a config", one("configs"), 3, doctor.Problem, "damaged", "remove the file"},
		{"a derivation", derived, 3, doctor.Warning, "damaged", "believes f+1 others"},
		{"a vote file", filepath.Join("epochs", "1", "votes"), 60, doctor.Warning, "epoch_damaged", "start the member"},
		{"the log's guard", filepath.Join("raft", "log", "guard"), 4, doctor.OK, "log", ""}, // one slot of two
		{"an entry of the log", table(t, dir), 200, doctor.Problem, "log_damaged", "rejoin"},
		{"a snapshot", filepath.Join("raft", "snapshots", snapshot(t, dir), "state.bin"), 100, doctor.Warning, "snapshot_damaged", "the next snapshot replaces it"},
		{"a snapshot's description", filepath.Join("raft", "snapshots", snapshot(t, dir), "meta.json"), 20, doctor.Warning, "snapshot_damaged", "the next snapshot replaces it"},
		{"what vouches for it", filepath.Join("raft", "snapshots", snapshot(t, dir), "meta.sum"), 3, doctor.Warning, "snapshot_damaged", "the next snapshot replaces it"},
		{"the store's id", filepath.Join("raft", "store"), 1, doctor.Problem, "damaged", "rejoin"},
		{"alarms", "alarms", 3, doctor.Warning, "alarms_damaged", "alarms.damaged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			old, err := os.ReadFile(in(c.path))
			must(t, err)
			b := append([]byte(nil), old...)
			b[(c.at+len(b))%len(b)] ^= 4
			must(t, os.WriteFile(in(c.path), b, 0o600))
			defer func() { must(t, os.WriteFile(in(c.path), old, 0o600)) }()
			x := deep()
			found := false
			for _, f := range x.Findings {
				found = found || f.Level == c.level && f.Word == c.word && (c.word != "damaged" || strings.HasPrefix(f.What, filepath.ToSlash(c.path)+": ")) && strings.Contains(f.Means+f.Do, c.says)
			}
			if n := x.Read.Damaged; !found || c.word == "damaged" && n != 1 {
				t.Errorf("%d damaged: %+v", n, x.Findings)
			}
			if after, err := os.ReadFile(in(c.path)); err != nil || string(after) != string(b) {
				t.Errorf("the file was changed: %v", err)
			}
		})
	}
	t.Run("every byte of a head", func(t *testing.T) {
		path := in(one("blobs", "heads", live))
		old, err := os.ReadFile(path)
		must(t, err)
		defer func() { must(t, os.WriteFile(path, old, 0o600)) }()
		for i := 0; i < len(old); i += 53 { // the signature's among them, which no hash names
			b := append([]byte(nil), old...)
			b[i] ^= 1
			must(t, os.WriteFile(path, b, 0o600))
			if x := deep(); x.Read.Damaged != 1 {
				t.Fatalf("byte %d of %d flips unseen", i, len(old))
			}
		}
	})
	for _, name := range []string{"notes.txt", "blobs/y/" + live + "/readme", "sums/readme/x", "tokens/abc", // foreign
		"blobs/y/" + live + "/" + live + ".part", "results/models/" + live + ".bad", ".card.json.tmp-1", "tokens/.x.tmp-1", // left over
		"receipts/" + live + ".damaged", "raft.set-aside-20260101T000000Z/log/log/x", "sums/.gone-" + live + "/x"} {
		path := in(filepath.FromSlash(name))
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, []byte("x"), 0o600))
	}
	x = deep()
	if x.Read.Foreign != 4 || x.Read.Left != 7 || x.Read.Damaged != 0 {
		t.Errorf("%+v: %+v", x.Read, x.Findings)
	}
	for _, f := range x.Findings { // what no start removes is not said to be removed by one
		if at := strings.Contains(f.What, ".card.json.tmp-1"); (at || strings.Contains(f.What, "tokens/.x.tmp-1")) && strings.Contains(f.Means+f.Do, "next start") != at {
			t.Errorf("%+v", f)
		}
	}
	lock, err := durable.Lock(in("lock"))
	must(t, err)
	defer lock.Close()
	if x, err := doctor.Deep(dir, time.Now(), func(string, int64, int64) {}); err != nil || x.Read != nil || !x.Running {
		t.Errorf("while it runs: %v %+v", err, x)
	}
}
