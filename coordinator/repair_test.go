package coordinator

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/crypto/label"
)

// The fewest known copies first: what is below n-f goes before all else; then the oldest round, then the log's order.
func TestTheMostEndangeredFirst(t *testing.T) {
	n := func(copies int, round_, index uint64) need {
		return need{v: round.View{Index: round_}, k: round.Candidate{Index: index}, copies: copies}
	}
	list := []need{n(3, 10, 11), n(2, 20, 21), n(3, 5, 7), n(3, 5, 6), n(1, 30, 31), n(2, 20, 22)}
	slices.SortStableFunc(list, endangered)
	var got []string
	for _, x := range list {
		got = append(got, fmt.Sprintf("%d/%d/%d", x.copies, x.v.Index, x.k.Index))
	}
	if want := "[1/30/31 2/20/21 2/20/22 3/5/6 3/5/7 3/10/11]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// What is lacking is counted at once, pulled after a while, tried again later, and left alone while the log is behind.
func TestRepairLooksAtTheLogOnly(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	r.contribute(v)
	fix := newRepairer(r.m)
	if due := fix.look(r.now); len(due) > 0 {
		t.Fatalf("%d are due, and all are here", len(due))
	}
	candidates := r.m.machine.Candidates(v.ID)
	for _, k := range candidates[:2] {
		c, err := r.m.shelf.Load(v.ID, k.Header)
		must(t, err)
		must(t, r.m.shelf.Drop(c))
	}
	fix = newRepairer(r.m) // as after a start
	if due := fix.look(r.now); len(due) > 0 {
		t.Fatal("it does not wait for what is on its way")
	}
	if lacking, under := r.m.lack.get(); lacking != 2 || under != 2 {
		t.Fatalf("%d lacking, %d below n-f", lacking, under)
	}
	r.now = r.now.Add(repairAfter)
	if due := fix.look(r.now); len(due) != 2 || due[0].k.Header != candidates[0].Header || due[0].copies != 0 {
		t.Fatalf("due: %v", due)
	}
	if did, _ := fix.pass(t.Context()); did {
		t.Fatal("pulled from nobody")
	}
	if due := fix.look(r.now); len(due) > 0 {
		t.Fatal("what nobody had is asked for again at once")
	}
	r.now = r.now.Add(repairRetry)
	if due := fix.look(r.now); len(due) != 2 {
		t.Fatalf("%d are due", len(due))
	}
	r.now = r.now.Add(time.Hour)
	if due := fix.look(r.now); len(due) > 0 {
		t.Fatal("a log an hour behind is believed about what is open")
	}
}

// A copy that rotted and was dropped when another member asked for it is pulled again before the Close.
func TestRepairOfWhatWasDropped(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	d := r.contribute(v)[0]
	fix := newRepairer(r.m)
	fix.look(r.now)
	if lacking, _ := r.m.lack.get(); lacking != 0 {
		t.Fatalf("%d lacking, and all are here", lacking)
	}
	path := filepath.Join(r.home.Dir, "blobs", "y", v.ID.String(), d.header.Y.String())
	b, err := os.ReadFile(path)
	must(t, err)
	b[len(b)/2] ^= 4
	must(t, os.WriteFile(path, b, 0o600))
	h := d.header.Hash()
	if _, err := fetched(t, func(s grpc.ServerStreamingServer[coordpb.UploadRequest]) error {
		return r.m.MeshServer().FetchContribution(&coordpb.GetReceiptsRequest{RoundId: v.ID[:], HeaderHash: h[:]}, s)
	}); status.Code(err) != codes.NotFound {
		t.Fatalf("served: %v", err)
	}
	fix.look(r.now)
	if lacking, _ := r.m.lack.get(); lacking != 1 {
		t.Fatalf("%d lacking", lacking)
	}
	r.now = r.now.Add(repairAfter)
	if due := fix.look(r.now); len(due) != 1 || due[0].k.Header != h {
		t.Fatalf("due: %v", due)
	}
}

// A round's contributions stay until the round has ended in this member's own log, whatever phase it passes, and for long
// where the log does not know the round (coordinator design, 4.4). A member without a vote removes nothing.
func TestContributionsAreRemovedWithTheRoundAndNotBefore(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	r.contribute(v)
	here := func() int {
		entries, err := os.ReadDir(filepath.Join(r.home.Dir, "blobs", "y", v.ID.String()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		n := 0
		for _, e := range entries {
			if e.Type().IsRegular() {
				n++
			}
		}
		return n
	}
	begin := here()
	if begin < 3 {
		t.Fatalf("%d files", begin)
	}
	entries, seen := r.log.size(), map[round.Phase]bool{}
	for range 100 {
		n, _ := r.newest()
		seen[n.Phase] = true
		r.m.tidy()
		if n.Phase.Terminal() {
			break
		}
		if here() != begin {
			t.Fatalf("files are gone while the round is %s", n.Phase)
		}
		r.now = r.now.Add(1100 * time.Millisecond)
		r.m.Work(t.Context())
	}
	if got, _ := r.newest(); got.Phase != round.Published || !seen[round.Open] || here() > 0 {
		t.Fatalf("%s after %v, %d files", got.Phase, seen, here())
	}
	// A copy that comes back from somewhere, at a member that has not learnt yet of the round: it might be needed.
	strange := filepath.Join(r.home.Dir, "blobs", "heads", v.ID.String())
	r.restart(0)
	must(t, os.MkdirAll(strange, 0o700))
	must(t, os.WriteFile(filepath.Join(strange, v.ID.String()), []byte("head"), 0o600))
	r.m.tidy()
	r.now = r.now.Add(strangeFor - time.Minute)
	r.m.tidy()
	if _, err := os.Stat(strange); err != nil {
		t.Fatal("removed before the log knows anything of the round")
	}
	r.log.await(true)
	r.replay(r.log.size())
	r.m.Work(t.Context())
	if _, err := os.Stat(strange); err != nil {
		t.Fatal("a member without a vote removed something")
	}
	r.log.await(false)
	r.m.Work(t.Context())
	if _, err := os.Stat(strange); err == nil {
		t.Fatalf("still there, %d entries in the log", entries)
	}
}

// What is here of a round that the log knows no more goes when it is old enough, however often the member starts anew
// meanwhile; never while the log has not come so far itself.
func TestStrangeRoundsGoThoughTheMemberStartsAnew(t *testing.T) {
	r := newRig(t)
	r.until(round.Open) // a log whose time is far beyond that of this machine
	all := r.log.size()
	put := func(id label.Hash, age time.Duration) (dirs []string) {
		for _, kind := range []string{"blobs/y", "blobs/heads", "sums"} {
			dir := filepath.Join(r.home.Dir, kind, id.String())
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.WriteFile(filepath.Join(dir, id.String()), []byte("bytes"), 0o600))
			dirs = append(dirs, dir)
		}
		at := time.Now().Add(-age)
		must(t, os.Chtimes(dirs[2], at, at)) // the others are older
		for _, dir := range dirs[:2] {
			must(t, os.Chtimes(dir, at.Add(-time.Hour), at.Add(-time.Hour)))
		}
		return dirs
	}
	there := func(dirs []string) (n int) {
		for _, dir := range dirs {
			if _, err := os.Stat(dir); err == nil {
				n++
			}
		}
		return n
	}
	old, young := put(label.Hash{1}, strangeFor+time.Minute), put(label.Hash{2}, strangeFor-time.Minute)
	r.restart(0)
	r.m.tidy()
	if n := there(old); n != 3 {
		t.Fatalf("%d of 3 folders are left before the log was read", n)
	}
	for range 2 {
		r.restart(all)
		r.m.tidy()
	}
	if o, y := there(old), there(young); o != 0 || y != 3 {
		t.Errorf("of an old round %d of 3 folders are left, of a young one %d", o, y)
	}
	r.now = r.now.Add(strangeFor)
	r.m.tidy()
	if n := there(young); n != 0 {
		t.Errorf("%d folders are left by a member that never rested", n)
	}
}
