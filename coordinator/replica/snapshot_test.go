package replica

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/raftlog"
	"github.com/ruche-federation/ruche/storage/vault"
)

func snapshotOf(t testing.TB, index uint64, state string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := writeSnapshot(&b, index, []byte(state)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSnapshotGolden(t *testing.T) {
	b := snapshotOf(t, 258, "ruche")
	const want = "7275636865736e70" + "0001" + "0000000000000102" + "0000000000000005" + "7275636865" +
		"1378b45a834fa04cc5893ccf3b7dbb1c69a9bbe3ead743be02e8e2ca524b9adc"
	if got := hex.EncodeToString(b); got != want {
		t.Fatalf("snapshot %s", got)
	}
	index, state, err := readSnapshot(bytes.NewReader(b))
	if err != nil || index != 258 || string(state) != "ruche" {
		t.Fatalf("index %d, state %q, %v", index, state, err)
	}
}

func TestDamagedSnapshotsAreRefused(t *testing.T) {
	good := snapshotOf(t, 7, "state")
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, _, err := readSnapshot(bytes.NewReader(bad)); err == nil {
			t.Fatalf("byte %d flipped and read", i)
		}
		if _, _, err := readSnapshot(bytes.NewReader(good[:i])); err == nil {
			t.Fatalf("cut at %d and read", i)
		}
	}
	if _, _, err := readSnapshot(bytes.NewReader(append(bytes.Clone(good), 0))); err == nil {
		t.Fatal("a byte more and read")
	}
	next := bytes.Clone(good)
	next[9] = snapshotVersion + 1
	if _, _, err := readSnapshot(bytes.NewReader(next)); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Fatalf("the next version: %v", err)
	}
	huge := bytes.Clone(good)
	huge[18] = 0xff
	if _, _, err := readSnapshot(bytes.NewReader(huge)); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Fatalf("a huge length: %v", err)
	}
}

func FuzzReadSnapshot(f *testing.F) {
	f.Add(snapshotOf(f, 1, ""))
	f.Add(snapshotOf(f, 1<<40, "state"))
	f.Fuzz(func(t *testing.T, b []byte) {
		index, state, err := readSnapshot(bytes.NewReader(b))
		if err != nil {
			return
		}
		if !bytes.Equal(snapshotOf(t, index, string(state)), b) {
			t.Fatal("two encodings of one snapshot")
		}
	})
}

// What a lying leader installs goes through raft's own sink: it must not be on the disk afterwards.
func TestALeadersSnapshotIsAdmittedOrNeverStored(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		_, index := c.propose("one")
		_, m := c.leader()
		if err := m.EnsureApplied(index); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name   string
			bytes  func(floor uint64) []byte
			stored bool
			fails  bool
		}{
			{"newer", func(f uint64) []byte { return snapshotOf(t, f+1, "") }, true, false},
			{"the same", func(f uint64) []byte { return snapshotOf(t, f, "") }, true, false},
			{"damaged", func(f uint64) []byte { b := snapshotOf(t, f, "x"); b[snapshotHead] ^= 1; return b }, false, false},
			{"of the future", func(f uint64) []byte { return snapshotOf(t, 1<<40, "") }, false, false},
			{"empty", func(uint64) []byte { return nil }, false, false},
			{"short", func(f uint64) []byte { b := snapshotOf(t, f, "x"); return b[:len(b)-1] }, false, false},
			{"long", func(f uint64) []byte { return append(snapshotOf(t, f, "x"), 0) }, false, false},
			{"no snapshot", func(uint64) []byte { return make([]byte, 100) }, false, false},
			{"older", func(f uint64) []byte { return snapshotOf(t, f-1, "") }, false, true},
		} {
			store, err := openSnapshots(t.TempDir(), m.Replica, &quiet{to: m.opts.Logger})
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			sink, err := store.Create(1, index+10, 1, raft.Configuration{}, 1, m.transport)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			b := tt.bytes(index)
			for len(b) > 0 && err == nil { // in the small pieces of a network
				n := min(5, len(b))
				_, err = sink.Write(b[:n])
				b = b[n:]
			}
			if err != nil { // as raft does
				_ = sink.Cancel()
			}
			if cerr := sink.Close(); err == nil {
				err = cerr
			} else if cerr == nil {
				t.Fatalf("%s: closed after %v", tt.name, err)
			}
			if left, _ := filepath.Glob(filepath.Join(store.dir, "*.tmp")); len(left) > 0 {
				t.Fatalf("%s: left: %v", tt.name, left)
			}
			list, lerr := store.List()
			if lerr != nil {
				t.Fatalf("%s: %v", tt.name, lerr)
			}
			if (err == nil) != tt.stored || (len(list) == 1) != tt.stored {
				t.Fatalf("%s: close: %v, %d snapshots stored", tt.name, err, len(list))
			}
			if failed := m.Err() != nil; failed != tt.fails || failed && !errors.Is(m.Err(), ErrOldSnapshot) {
				t.Fatalf("%s: replica: %v", tt.name, m.Err())
			}
		}
	})
}

// endless is what a liar sends: a beginning, and zeros for as long as somebody reads.
type endless struct {
	head []byte
	n    int
}

func (e *endless) Read(p []byte) (int, error) {
	clear(p)
	copy(p, e.head[min(e.n, len(e.head)):])
	e.n += len(p)
	return len(p), nil
}

// TestALeadersSnapshotIsBoundedAsItComes: raft reads as much as the leader says that there is. What is too much for a
// snapshot, or for the disk, is refused before the disk is full of it.
func TestALeadersSnapshotIsBoundedAsItComes(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		_, index := c.propose("one")
		_, m := c.leader()
		const large = 1 << 20
		for _, tt := range []struct {
			name string
			head []byte
			free uint64
			want string
			most int64 // bytes that reach the disk
		}{
			{"no snapshot", nil, 1 << 40, "not a snapshot", 0},
			{"a state beyond the bound", encodeHead(index, snapshotMax+1), 1 << 40, "limit", 0},
			{"longer than it says", encodeHead(index, large), 1 << 40, "its head says", snapshotHead + large + 32},
			{"more than there is room for", encodeHead(index, large), snapshotsLeave + large, "disk is full", 0},
			{"of the future", encodeHead(1<<40, large), 1 << 40, "in a log that ends at", 0},
			{"older", encodeHead(index-1, large), 1 << 40, "older", 0}, // the replica stops: last
		} {
			store, err := openSnapshots(t.TempDir(), m.Replica, &quiet{to: m.opts.Logger})
			if err != nil {
				t.Fatal(err)
			}
			store.free = func(string) (uint64, error) { return tt.free, nil }
			sink, err := store.Create(1, index+10, 1, raft.Configuration{}, 1, m.transport)
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(sink, &endless{head: tt.head})
			if err == nil || !strings.Contains(err.Error(), tt.want) || n > tt.most {
				t.Errorf("%s: %d bytes taken, at most %d: %v", tt.name, n, tt.most, err)
			}
			if err := sink.Cancel(); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			if left, err := os.ReadDir(store.dir); err != nil || len(left) > 0 {
				t.Errorf("%s: left: %v, %v", tt.name, left, err)
			}
		}
		if !errors.Is(m.Err(), ErrOldSnapshot) {
			t.Errorf("replica: %v", m.Err())
		}
	})
}

// TestARefusedStateLeavesNothing: a state that the FSM refuses is not on the disk afterwards, where raft would begin with it
// at the next start, with nothing left that knows better; and the snapshots before it are.
func TestARefusedStateLeavesNothing(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 3, func(o *Options) { o.TrailingLogs, o.SnapshotEvery, o.SnapshotInterval = 1, 1000, time.Hour })
		_, index := c.propose("one")
		c.agree(index)
		at, _ := c.leader()
		late := (at + 1) % 3
		if err := c.members[late].Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		kept := func() []SnapshotFile {
			files, err := InspectSnapshots(filepath.Join(c.dirs[late], "snapshots"))
			if err != nil {
				t.Fatal(err)
			}
			return files
		}
		before := kept()
		c.stop(late)
		for i := range 5 {
			c.propose(fmt.Sprint("lie ", i))
		}
		for _, m := range c.alive() {
			if err := m.Snapshot(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 { // as often as its supervisor starts it
			c.start(late)
			c.members[late].diary.mu.Lock()
			c.members[late].diary.refuse = "lie 3"
			c.members[late].diary.mu.Unlock()
			eventually(t, "the refusal", func() bool { return c.members[late].Err() != nil })
			if lines := c.members[late].diary.read(); fmt.Sprint(lines) != "[one]" {
				t.Errorf("lines %q", lines)
			}
			c.stop(late)
			if now := kept(); fmt.Sprint(now) != fmt.Sprint(before) {
				t.Fatalf("snapshots %+v, before %+v", now, before)
			}
		}
		c.start(late) // and whoever has no objection takes it
		_, index = c.propose("two")
		if lines := c.agree(index); len(lines) < 7 {
			t.Errorf("lines %q", lines)
		}
	})
}

// TestAnEndlessSnapshotDoesNotReachRaft: its main goroutine would read all of it.
func TestAnEndlessSnapshotDoesNotReachRaft(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 2, nil)
		c.propose("one")
		at, leader := c.leader()
		for i, m := range c.members {
			if i == at {
				continue
			}
			var answer raft.InstallSnapshotResponse
			err := leader.transport.InstallSnapshot(raft.ServerID(c.ids[i]), raft.ServerAddress(c.ids[i]), &raft.InstallSnapshotRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 3},
				SnapshotVersion: 1, Term: 99, LastLogIndex: 9, LastLogTerm: 9, Configuration: raft.EncodeConfiguration(configuration(c.ids)), Size: 1 << 60}, &answer, bytes.NewReader(make([]byte, 100)))
			if err == nil || m.Stats().Term >= 99 {
				t.Errorf("term %d, %v", m.Stats().Term, err)
			}
		}
		_, index := c.propose("two")
		c.agree(index)
	})
}

// smallDisk mounts a file system of so many bytes.
func smallDisk(t *testing.T, bytes int) string {
	t.Helper()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("needs root on Linux to mount a small file system")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprint("size=", bytes), "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("mounting a small file system is not permitted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil { // raft leaves a file open
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// TestNothingIsLeftOfASnapshotOnAFullDisk: others may take the room that there was when a snapshot began.
func TestNothingIsLeftOfASnapshotOnAFullDisk(t *testing.T) {
	dir := smallDisk(t, 1<<20)
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		_, index := c.propose("one")
		store, err := openSnapshots(dir, c.members[0].Replica, &quiet{to: c.members[0].opts.Logger})
		if err != nil {
			t.Fatal(err)
		}
		before, err := store.free(dir)
		if err != nil {
			t.Fatal(err)
		}
		store.free = func(string) (uint64, error) { return 1 << 40, nil }
		create := func(at uint64) (raft.SnapshotSink, error) {
			return store.Create(1, at, 1, raft.Configuration{}, 1, c.members[0].transport)
		}
		sink, err := create(index + 10)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(sink, &endless{head: encodeHead(index, 2<<20)}); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("written: %v", err)
		}
		filler, err := os.Create(filepath.Join(dir, "filler"))
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = filler.Write(make([]byte, 512))
		}
		if other, err := create(index + 11); err == nil {
			t.Errorf("another is begun: %v", other.Cancel())
		}
		if left, err := os.ReadDir(store.dir); err != nil || len(left) != 1 {
			t.Errorf("left of the one that was not begun: %v, %v", left, err)
		}
		if err := errors.Join(filler.Close(), os.Remove(filler.Name())); err != nil {
			t.Fatal(err)
		}
		_ = sink.Cancel()
		if left, err := os.ReadDir(store.dir); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
		if after, err := durable.FreeBytes(dir); err != nil || after != before {
			t.Errorf("%d bytes are free, %d were: %v", after, before, err)
		}
	})
}

func TestARestoredStateIsNeverOlder(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		_, index := c.propose("one")
		_, m := c.leader()
		err := m.machine.Restore(reader{bytes.NewReader(snapshotOf(t, index-1, ""))})
		if !errors.Is(err, ErrOldSnapshot) {
			t.Fatalf("restored: %v", err)
		}
		<-m.Failed()
		if lines := m.diary.read(); len(lines) != 1 {
			t.Fatalf("lines %q", lines)
		}
	})
}

type reader struct{ *bytes.Reader }

func (reader) Close() error { return nil }

func TestARewriteOfAppliedEntriesStopsTheReplica(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		_, index := c.propose("one")
		_, m := c.leader()
		if err := m.EnsureApplied(index); err != nil {
			t.Fatal(err)
		}
		w := &watched{m.opts.Log, m.Replica}
		if !w.IsMonotonic() {
			t.Fatal("raftlog has no gaps")
		}
		if err := w.StoreLogs([]*raft.Log{{Index: index, Term: 99, Data: []byte("forged")}}); !errors.Is(err, raftlog.ErrAppliedRewrite) {
			t.Fatalf("overwrite: %v", err)
		}
		<-m.Failed()
		if !errors.Is(m.Err(), raftlog.ErrAppliedRewrite) {
			t.Fatalf("failed with %v", m.Err())
		}
		if fmt.Sprint(m.diary.read()) != "[one]" {
			t.Fatalf("lines %q", m.diary.read())
		}
	})
}

// TestDamagedDescriptions: what a snapshot says of itself is damaged, or its state is, or nothing vouches for it. A member
// whose log holds everything, or reaches back to the snapshot before, starts and lacks nothing; another one is refused by
// name. The next snapshot replaces the damaged one.
func TestDamagedDescriptions(t *testing.T) {
	digit := func(key string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, "meta.json")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			at := bytes.Index(b, []byte(key))
			if at < 0 {
				t.Fatalf("no %s in %s", key, b)
			}
			at += len(key)
			for b[at+1] >= '0' && b[at+1] <= '9' {
				at++
			}
			b[at] ^= 1
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	flip := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, name)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 4
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	gone := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, damage := range []struct {
		name string
		do   func(t *testing.T, dir string)
	}{
		{"index", digit(`"Index":`)}, {"term", digit(`"Term":`)}, {"a voter", digit(`"Suffrage":`)},
		{"index of the configuration", digit(`"ConfigurationIndex":`)}, {"name", digit(`"ID":"`)}, {"size", digit(`"Size":`)},
		{"no JSON", digit("")}, {"no description", gone("meta.json")}, {"no stamp", gone("meta.sum")},
		{"a damaged stamp", flip("meta.sum")}, {"a damaged state", flip("state.bin")},
	} {
		for _, log := range []struct {
			name      string
			trailing  uint64
			snapshots int
			err       error
		}{{"a whole log", 1000, 1, nil}, {"a log from the snapshot before", 8, 2, nil}, {"a log from the snapshot", 1, 1, ErrNoSnapshot}, {"a log from the second snapshot", 1, 2, ErrNoSnapshot}} {
			t.Run(damage.name+" "+log.name, func(t *testing.T) {
				inVirtualTime(t, func(t *testing.T) {
					c := newCluster(t, 1, func(o *Options) { o.TrailingLogs = log.trailing })
					for s := range log.snapshots {
						for i := range 6 {
							c.propose(fmt.Sprint("line ", s, i))
						}
						_, m := c.leader()
						if err := m.Snapshot(t.Context()); err != nil {
							t.Fatal(err)
						}
						time.Sleep(time.Millisecond) // raft names snapshots by the time
					}
					c.propose("after the snapshots")
					_, m := c.leader()
					lines := m.diary.read()
					c.stop(0)
					files, err := InspectSnapshots(filepath.Join(c.dirs[0], "snapshots"))
					if err != nil || len(files) != log.snapshots || files[0].Err != nil {
						t.Fatalf("%+v, %v", files, err)
					}
					damage.do(t, files[0].Path)
					again, err := InspectSnapshots(filepath.Join(c.dirs[0], "snapshots"))
					if _, bad := again[0].State(); err != nil || bad == nil || again[0].Index != files[0].Index {
						t.Errorf("looked at: %+v, %v", again, err)
					}
					if err := c.tryStart(0); !errors.Is(err, log.err) || log.err == nil && err != nil {
						t.Fatalf("started: %v", err)
					}
					if log.err != nil {
						return
					}
					_, index := c.propose("after the damage")
					if now := c.agree(index); fmt.Sprint(now) != fmt.Sprint(append(lines, "after the damage")) {
						t.Fatalf("%q, before %q", now, lines)
					}
					for range 2 {
						c.propose("more")
						if err := c.members[0].Snapshot(t.Context()); err != nil {
							t.Fatal(err)
						}
						time.Sleep(time.Millisecond)
					}
					files, err = InspectSnapshots(filepath.Join(c.dirs[0], "snapshots"))
					if err != nil || len(files) != 2 || files[0].Err != nil || files[1].Err != nil || files[1].Index <= index {
						t.Fatalf("after two snapshots more: %+v, %v", files, err)
					}
					c.stop(0)
					c.start(0)
					if now := c.agree(index); len(now) < len(lines)+1 {
						t.Fatalf("after a restart %q", now)
					}
				})
			})
		}
	}
}

// TestAnEmptyLogNeedsItsSnapshot: after a leader's snapshot the log is empty, and the newest snapshot is all that there is.
// Where that one is damaged the one before it is no way out: this store acknowledged more.
func TestAnEmptyLogNeedsItsSnapshot(t *testing.T) {
	for _, tt := range []struct {
		name    string
		damaged int // newest first
		err     error
	}{{"none is damaged", -1, nil}, {"the older is", 1, nil}, {"the newest is", 0, ErrNoSnapshot}} {
		t.Run(tt.name, func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T) {
				c := newCluster(t, 1, nil)
				for s := range 2 {
					for i := range 3 {
						c.propose(fmt.Sprint("line ", s, i))
					}
					if err := c.members[0].Snapshot(t.Context()); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Millisecond) // raft names snapshots by the time
				}
				c.stop(0)
				key, err := vault.LoadOrCreateKey(filepath.Join(c.dirs[0], "storage.key"), nil)
				if err != nil {
					t.Fatal(err)
				}
				log, err := raftlog.Open(filepath.Join(c.dirs[0], "raft"), key, raftlog.Options{})
				if err != nil {
					t.Fatal(err)
				}
				files, err := InspectSnapshots(filepath.Join(c.dirs[0], "snapshots"))
				if last, _ := log.LastIndex(); err != nil || len(files) != 2 || files[0].Index != last {
					t.Fatalf("%+v in a log that ends at %d, %v", files, last, err)
				}
				log.SetSnapshot(files[0].Index)
				if err := errors.Join(log.DeleteRange(1, files[0].Index), log.Close()); err != nil {
					t.Fatal(err)
				}
				if tt.damaged >= 0 {
					if err := os.Remove(filepath.Join(files[tt.damaged].Path, "meta.json")); err != nil {
						t.Fatal(err)
					}
				}
				if err := c.tryStart(0); !errors.Is(err, tt.err) || tt.err == nil && err != nil {
					t.Fatalf("started: %v", err)
				}
				if tt.err != nil {
					return
				}
				_, index := c.propose("and on")
				if lines := c.agree(index); len(lines) != 7 {
					t.Fatalf("lines %q", lines)
				}
			})
		})
	}
}

// TestNoSnapshotWithoutItsStamp: a snapshot that cannot be stamped is not taken, and one whose writer fell between the
// stamp and the name is none, and gone after the next start.
func TestNoSnapshotWithoutItsStamp(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		_, index := c.propose("one")
		store, err := openSnapshots(t.TempDir(), c.members[0].Replica, &quiet{to: c.members[0].opts.Logger})
		if err != nil {
			t.Fatal(err)
		}
		sink, err := store.Create(1, index, 1, raft.Configuration{}, 1, c.members[0].transport)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sink.Write(snapshotOf(t, index, "")); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(store.dir, sink.ID()+".tmp", "meta.sum", "in the way"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(); err == nil {
			t.Fatal("taken without a stamp")
		}
		if left, err := os.ReadDir(store.dir); err != nil || len(left) > 0 {
			t.Fatalf("left: %v, %v", left, err)
		}

		if err := c.members[0].Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.stop(0)
		files, err := InspectSnapshots(filepath.Join(c.dirs[0], "snapshots"))
		if err != nil || len(files) != 1 {
			t.Fatalf("%+v, %v", files, err)
		}
		unfinished := files[0].Path + ".tmp"
		if err := os.Rename(files[0].Path, unfinished); err != nil {
			t.Fatal(err)
		}
		if files, err = InspectSnapshots(filepath.Join(c.dirs[0], "snapshots")); err != nil || len(files) > 0 {
			t.Fatalf("%+v, %v", files, err)
		}
		c.start(0)
		if _, err := os.Stat(unfinished); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("what a death left of a snapshot stays: %v", err)
		}
		_, index = c.propose("two")
		if lines := c.agree(index); fmt.Sprint(lines) != "[one two]" {
			t.Fatalf("lines %q", lines)
		}
	})
}
