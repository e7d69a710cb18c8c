package replica

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/ruche-federation/ruche/storage/raftlog"
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
			{"older", func(f uint64) []byte { return snapshotOf(t, f-1, "") }, false, true},
		} {
			files, err := raft.NewFileSnapshotStoreWithLogger(t.TempDir(), 2, &quiet{to: m.opts.Logger})
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			store := &snapshots{files, m.Replica}
			sink, err := store.Create(1, index+10, 1, raft.Configuration{}, 1, m.transport)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			b := tt.bytes(index)
			for len(b) > 0 { // in the small pieces of a network
				n := min(5, len(b))
				if _, err := sink.Write(b[:n]); err != nil {
					t.Fatalf("%s: %v", tt.name, err)
				}
				b = b[n:]
			}
			err = sink.Close()
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
