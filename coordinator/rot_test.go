package coordinator

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/crypto/label"
)

// rotAll flips a bit of every whole file below dir, and says how many those were.
func rotAll(t *testing.T, dir string) (n int) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || len(e.Name()) != 2*label.Size {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 4
		n++
		return os.WriteFile(path, b, 0o600)
	}))
	return n
}

// fetched is what a stream of chunks brings.
func fetched[T any](t *testing.T, call func(grpc.ServerStreamingServer[T]) error) ([]*T, error) {
	t.Helper()
	s := &sink[T]{ctx: t.Context()}
	err := call(s)
	return s.got, err
}

type sink[T any] struct {
	grpc.ServerStream
	ctx context.Context
	got []*T
}

func (s *sink[T]) Context() context.Context { return s.ctx }
func (s *sink[T]) Send(m *T) error          { s.got = append(s.got, m); return nil }

func (r *rig) fetchState(h label.Hash) ([]byte, error) {
	chunks, err := fetched(r.t.(*testing.T), func(s grpc.ServerStreamingServer[coordpb.Chunk]) error {
		return r.m.DeviceServer().GetAdapter(&coordpb.GetAdapterRequest{ModelHash: h[:]}, s)
	})
	var b []byte
	for _, c := range chunks {
		b = append(b, c.GetData()...)
	}
	return b, err
}

// TestRotBeforeASecondTry: a member kept its sums, or the next state, and fell before what it signed was in the log. What
// rotted meanwhile is not signed for as it is: it is written again.
func TestRotBeforeASecondTry(t *testing.T) {
	for _, c := range []struct {
		before round.Phase
		folder string
		files  int
	}{{round.Sealed, "sums", 2}, {round.Revealed, "results", 1}} {
		t.Run(c.folder, func(t *testing.T) {
			r := newRig(t)
			r.contribute(r.until(round.Open))
			r.until(c.before)
			r.log.fails = errors.New("no leader is known")
			r.now = r.now.Add(1100 * time.Millisecond)
			r.m.Work(t.Context())
			if n := rotAll(t, filepath.Join(r.home.Dir, c.folder)); n != c.files {
				t.Fatalf("%d files in %s, want %d", n, c.folder, c.files)
			}
			r.log.fails = nil
			r.restart(len(r.log.entries))
			v := r.until(round.Published)
			b, err := r.fetchState(v.Result.Model)
			if err != nil || label.Sum(label.TagModel, b) != v.Result.Model {
				t.Errorf("the state is not what was signed: %v", err)
			}
			if !strings.Contains(r.logs.String(), "a file of an earlier try is damaged on disk") {
				t.Error("nothing of it is in the log")
			}
		})
	}
}

// TestNothingRottenLeaves: a sum, a state, a contribution's y and its head's signature rot on a member's disk. Whoever asks
// for them gets nothing, the damaged file is taken out of the way, and what can be made again is.
func TestNothingRottenLeaves(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	devices := r.contribute(v)
	contribution := func(d *testDevice) ([]*coordpb.UploadRequest, error) {
		h := d.header.Hash()
		return fetched(t, func(s grpc.ServerStreamingServer[coordpb.UploadRequest]) error {
			return r.m.MeshServer().FetchContribution(&coordpb.GetReceiptsRequest{RoundId: v.ID[:], HeaderHash: h[:]}, s)
		})
	}
	again := func(what string, d *testDevice) {
		t.Helper()
		if got, err := contribution(d); status.Code(err) != codes.NotFound || len(got) > 0 {
			t.Errorf("%s: %d messages leave, %v", what, len(got), err)
		}
		h := d.header.Hash()
		if q, err := r.m.DeviceServer().QueryUpload(t.Context(), &coordpb.QueryUploadRequest{RoundId: v.ID[:], HeaderHash: h[:]}); err != nil || q.GetComplete() {
			t.Errorf("%s: an upload would be complete: %v %v", what, q, err)
		}
		if _, err := r.m.ingress.Upload(t.Context(), d.upload()); err != nil {
			t.Errorf("%s: it is not taken again: %v", what, err)
		}
		if got, err := contribution(d); err != nil || len(got) < 2 {
			t.Errorf("%s: taken again, %d messages, %v", what, len(got), err)
		}
	}
	y := filepath.Join(r.home.Dir, "blobs", "y", v.ID.String())
	head := func(d *testDevice) string {
		return filepath.Join(r.home.Dir, "blobs", "heads", v.ID.String(), d.header.Hash().String())
	}
	rotAll(t, y)
	again("y", devices[0])
	b, err := os.ReadFile(head(devices[0]))
	must(t, err)
	at := bytes.Index(b, devices[0].open().GetHeader().GetSignature())
	b[at+7] ^= 1
	must(t, os.WriteFile(head(devices[0]), b, 0o600))
	again("a signature", devices[0])

	// Of two others y rotted too; after a restart no receipt is signed for them, and an upload of the same bytes mends them.
	r.restart(len(r.log.entries))
	h := devices[1].header.Hash()
	if _, err := r.m.DeviceServer().GetReceipts(t.Context(), &coordpb.GetReceiptsRequest{RoundId: v.ID[:], HeaderHash: h[:]}); err == nil {
		t.Error("a receipt is signed for a copy that rotted")
	}
	for _, d := range devices[1:] {
		if _, err := r.m.ingress.Upload(t.Context(), d.upload()); err != nil {
			t.Errorf("a contribution whose copy rotted is not taken again: %v", err)
		}
	}

	v = r.until(round.Revealed)
	want := r.m.revealed(v)
	if n := rotAll(t, filepath.Join(r.home.Dir, "sums")); n != len(want) {
		t.Fatalf("%d sums, %d revealed", n, len(want))
	}
	sum := func(h label.Hash) ([]*coordpb.Chunk, error) {
		return fetched(t, func(s grpc.ServerStreamingServer[coordpb.Chunk]) error {
			return r.m.MeshServer().FetchSum(&coordpb.FetchSumRequest{RoundId: v.ID[:], Hash: h[:]}, s)
		})
	}
	for h := range want {
		if got, err := sum(h); err == nil || len(got) > 0 {
			t.Errorf("%d chunks of a rotten sum leave, %v", len(got), err)
		}
	}
	r.m.keepRevealed(t.Context())
	for h, tag := range want {
		got, err := sum(h)
		var b []byte
		for _, c := range got {
			b = append(b, c.GetData()...)
		}
		if err != nil || label.Sum(tag, b) != h {
			t.Errorf("folded again: %d bytes, %v", len(b), err)
		}
	}

	v = r.until(round.Published)
	rotAll(t, filepath.Join(r.home.Dir, "results"))
	if b, err := r.fetchState(v.Result.Model); status.Code(err) != codes.NotFound || len(b) > 0 {
		t.Errorf("%d bytes of a rotten state leave, %v", len(b), err)
	}
}

// TestOldStatesGo: after more rounds than states are kept the oldest go, and what the log does not name yet stays.
func TestOldStatesGo(t *testing.T) {
	r := newRigOver(t, "1m")
	var published []label.Hash
	for range statesKept + 2 {
		r.now = r.now.Add(time.Minute)
		r.contribute(r.until(round.Open))
		published = append(published, r.until(round.Published).Result.Model)
	}
	junk := func(text string, age time.Duration) label.Hash {
		h := label.Sum(label.TagModel, []byte(text))
		must(t, r.m.results.Put(modelsGroup, h, label.TagModel, []byte(text)))
		at := time.Now().Add(-age)
		must(t, os.Chtimes(filepath.Join(r.home.Dir, "results", modelsGroup, h.String()), at, at))
		return h
	}
	fresh, old := junk("of a round that is yet to be applied", time.Hour), junk("of none", strangeFor+time.Hour)
	r.now = r.now.Add(time.Minute)
	r.until(round.Open)
	r.m.swept = time.Time{}
	r.m.tidy()
	for i, h := range published {
		if got := r.m.results.Has(modelsGroup, h); got != (i >= 2) {
			t.Errorf("state %d of %d is kept: %v", i+1, len(published), got)
		}
	}
	if a, b := r.m.results.Has(modelsGroup, fresh), r.m.results.Has(modelsGroup, old); !a || b {
		t.Errorf("a state that the log does not name yet is kept: %v; one that nobody knows: %v", a, b)
	}
	if _, err := r.fetchState(published[0]); status.Code(err) != codes.NotFound {
		t.Errorf("asked for one that is gone: %v", err)
	}
}
