package intake

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/storage/durable"
)

// chunkOf is the chunk of y from one offset to another.
func chunkOf(y []byte, from, to int) *coordpb.Chunk {
	c := &coordpb.Chunk{Offset: uint64(from), Data: y[from:to]}
	c.Crc32C = crc32.Checksum(c.Data, crc32.MakeTable(crc32.Castagnoli))
	return c
}

func feed(chunks ...*coordpb.Chunk) func() (*coordpb.Chunk, error) {
	return func() (*coordpb.Chunk, error) {
		if len(chunks) == 0 {
			return nil, io.EOF
		}
		c := chunks[0]
		chunks = chunks[1:]
		return c, nil
	}
}

// checked is a device's contribution as a member checked it.
func (w *world) checked(d *device) *Contribution {
	w.t.Helper()
	c, _, err := Check(w, d.open())
	must(w.t, err)
	return c
}

// wantHeld checks that a contribution is here, bit for bit.
func wantHeld(t testing.TB, s *Shelf, d *device) {
	t.Helper()
	c, err := s.Load(d.header.Round, d.hash())
	must(t, err)
	must(t, s.Verify(c))
	r, err := s.Y(c)
	must(t, err)
	defer r.Close()
	y, err := io.ReadAll(r)
	if err != nil || string(y) != string(d.y) {
		t.Errorf("y differs: %v", err)
	}
}

// TestChunks: y arrives however a sender cuts it, or is refused for what is wrong with it; what was refused can be begun
// again.
func TestChunks(t *testing.T) {
	const half = coordpb.ChunkBytesMax
	lanes := 2*half/4 + 100
	w := newWorld(t, 1, 0, lanes)
	s := w.members[0].shelf
	size := lanes * 4
	for _, c := range []struct {
		name   string
		chunks func(y []byte) []*coordpb.Chunk
		code   string // "" : whole
		offset int64  // where it can be resumed
	}{
		{"in order", func(y []byte) []*coordpb.Chunk {
			return []*coordpb.Chunk{chunkOf(y, 0, half), chunkOf(y, half, 2*half), chunkOf(y, 2*half, size)}
		}, "", 0},
		{"small ones", func(y []byte) []*coordpb.Chunk {
			return []*coordpb.Chunk{chunkOf(y, 0, 1), chunkOf(y, 1, 100), chunkOf(y, 100, half), chunkOf(y, half, 2*half), chunkOf(y, 2*half, size)}
		}, "", 0},
		{"overlaps", func(y []byte) []*coordpb.Chunk {
			return []*coordpb.Chunk{chunkOf(y, 0, half), chunkOf(y, 5, 10), chunkOf(y, 10, half+7), chunkOf(y, half, 2*half), chunkOf(y, 2*half-1, size)}
		}, "", 0},
		{"again from the beginning", func(y []byte) []*coordpb.Chunk {
			return []*coordpb.Chunk{chunkOf(y, 0, half), chunkOf(y, 0, half), chunkOf(y, half, 2*half), chunkOf(y, 2*half, size)}
		}, "", 0},
		{"a gap", func(y []byte) []*coordpb.Chunk {
			return []*coordpb.Chunk{chunkOf(y, 0, half), chunkOf(y, half+1, 2*half)}
		}, CodeCorrupt, half},
		{"far ahead", func(y []byte) []*coordpb.Chunk {
			c := chunkOf(y, 0, half)
			c.Offset = 1<<64 - 1
			return []*coordpb.Chunk{c}
		}, CodeCorrupt, 0},
		{"wrong CRC", func(y []byte) []*coordpb.Chunk {
			c := chunkOf(y, half, 2*half)
			c.Crc32C++
			return []*coordpb.Chunk{chunkOf(y, 0, half), c}
		}, CodeCorrupt, half},
		{"empty", func(y []byte) []*coordpb.Chunk { return []*coordpb.Chunk{chunkOf(y, 0, 0)} }, CodeCorrupt, 0},
		{"none at all", func(y []byte) []*coordpb.Chunk { return []*coordpb.Chunk{nil} }, CodeCorrupt, 0},
		{"too large", func(y []byte) []*coordpb.Chunk { return []*coordpb.Chunk{chunkOf(y, 0, half+1)} }, CodeCorrupt, 0},
		{"too long", func(y []byte) []*coordpb.Chunk {
			long := append(append([]byte(nil), y...), 7)
			return []*coordpb.Chunk{chunkOf(y, 0, half), chunkOf(y, half, 2*half), chunkOf(long, 2*half, size+1)}
		}, CodeWrongLength, 2 * half},
		{"too short", func(y []byte) []*coordpb.Chunk {
			return []*coordpb.Chunk{chunkOf(y, 0, half), chunkOf(y, half, 2*half)}
		}, CodeWrongLength, 2 * half},
		{"nothing", func(y []byte) []*coordpb.Chunk { return nil }, CodeWrongLength, 0},
		{"other bytes", func(y []byte) []*coordpb.Chunk {
			bad := append([]byte(nil), y...)
			bad[half+3] ^= 1
			return []*coordpb.Chunk{chunkOf(bad, 0, half), chunkOf(bad, half, 2*half), chunkOf(bad, 2*half, size)}
		}, CodeCorrupt, 0},
		{"over and over", func(y []byte) (out []*coordpb.Chunk) {
			for range 100 {
				out = append(out, chunkOf(y, 0, half))
			}
			return out
		}, CodeCorrupt, half},
		{"in crumbs", func(y []byte) (out []*coordpb.Chunk) {
			for i := range 1000 {
				out = append(out, chunkOf(y, i, i+1))
			}
			return out
		}, CodeCorrupt, chunksMax * int64(size/half+2)},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := w.device()
			k := w.checked(d)
			err := s.Receive(t.Context(), k, feed(c.chunks(d.y)...))
			if c.code == "" {
				must(t, err)
				wantHeld(t, s, d)
				must(t, s.Receive(t.Context(), k, feed())) // again: nothing is read
				return
			}
			wantCode(t, err, c.code)
			if strings.Contains(err.Error(), string(filepath.Separator)) {
				t.Errorf("the refusal names a path: %v", err)
			}
			if s.Has(w.round.ID, d.hash()) {
				t.Fatal("held")
			}
			offset, complete, err := s.Offset(w.round.ID, d.hash())
			if err != nil || complete || offset != c.offset {
				t.Errorf("resumes at %d (%v, %v), want %d", offset, complete, err, c.offset)
			}
			must(t, s.Receive(t.Context(), k, feed(d.chunks(int(offset))...)))
			wantHeld(t, s, d)
			if offset, complete, err := s.Offset(w.round.ID, d.hash()); err != nil || !complete || offset != int64(size) {
				t.Errorf("complete at %d (%v, %v)", offset, complete, err)
			}
		})
	}
}

// TestHalves: a contribution is here when head and y are, whatever a crash left of it.
func TestHalves(t *testing.T) {
	w := newWorld(t, 1, 0, 1000)
	s := w.members[0].shelf
	id := w.round.ID
	for name, broken := range map[string]func(d *device){
		"y is missing":    func(d *device) { must(t, s.blobs.Remove(id.String(), d.header.Y)) },
		"head is missing": func(d *device) { must(t, os.Remove(s.headPath(place{id, d.hash()}))) },
		"head is missing and y has rotted": func(d *device) {
			must(t, os.Remove(s.headPath(place{id, d.hash()})))
			must(t, os.WriteFile(filepath.Join(filepath.Dir(s.heads), "y", id.String(), d.header.Y.String()), make([]byte, len(d.y)), 0o600))
		},
		"head is cut":   func(d *device) { must(t, os.Truncate(s.headPath(place{id, d.hash()}), 100)) },
		"head is empty": func(d *device) { must(t, os.Truncate(s.headPath(place{id, d.hash()}), 0)) },
		"head is another's": func(d *device) {
			other := w.device()
			must(t, os.WriteFile(s.headPath(place{id, d.hash()}), w.checked(other).shelved(0), 0o600))
		},
		"head is being written": func(d *device) { s.unsure[place{id, d.hash()}] = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			d := w.device()
			k := w.checked(d)
			must(t, s.Receive(t.Context(), k, feed(d.chunks(0)...)))
			broken(d)
			if s.Has(id, d.hash()) {
				t.Fatal("half a contribution is held")
			}
			clear(s.unsure)
			must(t, s.Receive(t.Context(), k, feed(d.chunks(0)...)))
			wantHeld(t, s, d)
		})
	}
}

// TestHeadThatCannotBeWritten: where the head's folder fails, nothing is held, and the y that is here is not sent again.
func TestHeadThatCannotBeWritten(t *testing.T) {
	w := newWorld(t, 1, 0, 1000)
	s := w.members[0].shelf
	d := w.device()
	k := w.checked(d)
	folder := filepath.Join(s.heads, w.round.ID.String())
	must(t, os.WriteFile(folder, nil, 0o600)) // a file where the folder should be
	if err := s.Receive(t.Context(), k, feed(d.chunks(0)...)); err == nil || s.Has(w.round.ID, d.hash()) {
		t.Fatal("held without a head", err)
	}
	must(t, os.Remove(folder))
	must(t, s.Receive(t.Context(), k, feed()))
	wantHeld(t, s, d)
	if len(s.unsure) != 0 {
		t.Errorf("%d heads are unsure", len(s.unsure))
	}
}

// TestRestart: what was held is held, what was begun is gone on with, what was being written is forgotten.
func TestRestart(t *testing.T) {
	w := newWorld(t, 1, 0, 2*coordpb.ChunkBytesMax/4)
	dir := filepath.Join(t.TempDir(), "blobs")
	s, err := OpenShelf(dir, 0)
	must(t, err)
	whole, part := w.device(), w.device()
	must(t, s.Receive(t.Context(), w.checked(whole), feed(whole.chunks(0)...)))
	wantCode(t, s.Receive(t.Context(), w.checked(part), feed(part.chunks(0)[0])), CodeWrongLength)
	left := filepath.Join(s.heads, w.round.ID.String(), ".x.tmp-1")
	must(t, os.WriteFile(left, []byte("half a head"), 0o600))
	must(t, s.Close())
	if s, err = OpenShelf(dir, 0); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	wantHeld(t, s, whole)
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a half-written head stays")
	}
	must(t, s.Receive(t.Context(), w.checked(part), feed(part.chunks(0)...)))
	wantHeld(t, s, part)
	rounds, err := s.Rounds()
	if err != nil || len(rounds) != 1 || rounds[0] != w.round.ID {
		t.Errorf("%v, %v", rounds, err)
	}
	must(t, s.RemoveRound(w.round.ID))
	if rounds, err := s.Rounds(); err != nil || len(rounds) != 0 || s.Has(w.round.ID, whole.hash()) {
		t.Errorf("%v, %v", rounds, err)
	}
}

// TestPartsExpire: what broke off and was not resumed is removed, and its round is known of until then.
func TestPartsExpire(t *testing.T) {
	w := newWorld(t, 1, 0, 2*coordpb.ChunkBytesMax/4)
	s := w.members[0].shelf
	d := w.device()
	wantCode(t, s.Receive(t.Context(), w.checked(d), feed(d.chunks(0)[0])), CodeWrongLength)
	if rounds, err := s.Rounds(); err != nil || len(rounds) != 1 {
		t.Errorf("%v, %v", rounds, err)
	}
	if n, err := s.ExpireParts(time.Now(), time.Hour); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := s.ExpireParts(time.Now().Add(2*time.Hour), time.Hour); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if offset, _, err := s.Offset(w.round.ID, d.hash()); offset != 0 || err != nil {
		t.Errorf("resumes at %d, %v", offset, err)
	}
	must(t, s.Receive(t.Context(), w.checked(d), feed(d.chunks(0)...)))
	wantHeld(t, s, d)
}

// TestKeepFree: contributions stop before the disk is full, since log and votes need room too.
func TestKeepFree(t *testing.T) {
	w := newWorld(t, 1, 0, 1000)
	s, err := OpenShelf(filepath.Join(t.TempDir(), "blobs"), 1<<62)
	must(t, err)
	defer s.Close()
	d := w.device()
	wantCode(t, s.Receive(t.Context(), w.checked(d), feed(d.chunks(0)...)), CodeFull)
}

// mount gives a folder with a file system of its own.
func mount(t *testing.T, size string) string {
	t.Helper()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("needs root on Linux to mount a small file system")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("mounting a small file system is not permitted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// TestManyTogetherKeepFree uses a real file system of 8 MiB: uploads that begin at once leave together what each leaves,
// and the room of the two sums that their round ends in.
func TestManyTogetherKeepFree(t *testing.T) {
	dir := mount(t, "8m")
	w := newWorld(t, 1, 0, 100_000) // 400 kB
	const keepFree = 2 << 20
	s, err := OpenShelf(filepath.Join(dir, "blobs"), keepFree)
	must(t, err)
	defer s.Close()
	const uploads = 24
	var contributions []*Contribution
	for range uploads {
		contributions = append(contributions, w.checked(w.device()))
	}
	begun, refused := make(chan bool, uploads), 0
	look, wg := make(chan struct{}), sync.WaitGroup{}
	for _, c := range contributions {
		wg.Go(func() {
			want := CodeFull
			err := s.Receive(t.Context(), c, func() (*coordpb.Chunk, error) {
				want = CodeWrongLength
				begun <- true
				<-look
				return nil, io.EOF
			})
			if want == CodeFull {
				begun <- false
			}
			if r := (*Refusal)(nil); !errors.As(err, &r) || r.Code != want {
				t.Errorf("want %s: %v", want, err)
			}
		})
	}
	for range uploads {
		if !<-begun {
			refused++
		}
	}
	free, err := durable.FreeBytes(dir)
	close(look)
	wg.Wait()
	must(t, err)
	if free < keepFree+2*400_000 || free > keepFree+4*400_000 || refused == 0 || refused == uploads {
		t.Errorf("%d of %d refused, %d bytes are free", refused, uploads, free)
	}
}

// TestFullDisk uses a real file system of 1 MiB: what does not fit is refused before its first byte, a head that finds no
// room too, and what was held stays.
func TestFullDisk(t *testing.T) {
	dir := mount(t, "1m")
	w := newWorld(t, 1, 0, 100_000) // 400 kB
	s, err := OpenShelf(filepath.Join(dir, "blobs"), 0)
	must(t, err)
	defer s.Close()
	in := New(Config{Me: 0, Receipts: 1, StoredMin: 1, Shelf: s, State: w, Peers: w.members[0], Keys: w.members[0], Log: w})
	w.members[0].shelf = s
	defer in.Close()
	var held []*device
	for range 2 {
		d := w.device()
		answer, err := in.Upload(t.Context(), d.upload())
		w.wantAck(t, d, answer, err, "accepted")
		held = append(held, d)
	}
	refused := w.device()
	_, err = in.Upload(t.Context(), messages(refused.open(), nil)) // not a byte of y is asked for
	wantCode(t, err, CodeFull)
	if strings.Contains(err.Error(), dir) {
		t.Errorf("the refusal names a path: %v", err)
	}
	// The head of a contribution whose y is here finds no room: files of a page each take what is left.
	k := w.checked(held[1])
	must(t, os.Remove(s.headPath(place{w.round.ID, k.Hash})))
	greedy := filepath.Join(dir, "greedy")
	must(t, os.Mkdir(greedy, 0o700))
	for i := 0; os.WriteFile(filepath.Join(greedy, fmt.Sprint(i)), make([]byte, 4096), 0o600) == nil; i++ {
	}
	wantCode(t, s.Receive(t.Context(), k, feed()), CodeFull)
	if s.Has(w.round.ID, k.Hash) {
		t.Error("held without a head")
	}
	wantHeld(t, s, held[0])
	must(t, os.RemoveAll(greedy))
	must(t, s.Receive(t.Context(), k, feed())) // y is here
	wantHeld(t, s, held[1])
}
