package raftlog

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// lines is the smallest state machine: what it was told, in order.
type lines struct{ got []string }

func (f *lines) Apply(l *raft.Log) any             { f.got = append(f.got, string(l.Data)); return nil }
func (*lines) Snapshot() (raft.FSMSnapshot, error) { return nothing{}, nil }
func (*lines) Restore(r io.ReadCloser) error       { return r.Close() }
func quiet() hclog.Logger                          { return hclog.NewNullLogger() }
func serverConfig(id raft.ServerID) raft.Server {
	return raft.Server{ID: id, Address: raft.ServerAddress(id)}
}
func oneVoter(id raft.ServerID) raft.Configuration {
	return raft.Configuration{Servers: []raft.Server{serverConfig(id)}}
}

type nothing struct{}

func (nothing) Persist(s raft.SnapshotSink) error { return s.Close() }
func (nothing) Release()                          {}

func config(id raft.ServerID) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID, c.Logger, c.NoLegacyTelemetry = id, quiet(), true
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout, c.CommitTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond, time.Millisecond
	return c
}

// TestRaftRunsOnAStore lets raft itself use every part: bootstrap, elect, append, restart, replay.
func TestRaftRunsOnAStore(t *testing.T) {
	dir := t.TempDir()
	snaps := raft.NewInmemSnapshotStore()
	total := 0
	for restart := range 3 {
		s, fsm := mustOpen(t, dir), &lines{}
		_, trans := raft.NewInmemTransport("a")
		if restart == 0 {
			if err := raft.BootstrapCluster(config("a"), s, s, snaps, trans, oneVoter("a")); err != nil {
				t.Fatal(err)
			}
		}
		r, err := raft.NewRaft(config("a"), fsm, s, s, snaps, trans)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-r.LeaderCh():
		case <-time.After(2 * time.Minute):
			t.Fatalf("restart %d: no leader", restart)
		}
		for range 50 {
			f := r.Apply(fmt.Appendf(nil, "line %d", total), 2*time.Minute)
			if err := f.Error(); err != nil {
				t.Fatal(err)
			}
			total++
			if err := s.SetApplied(f.Index()); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Shutdown().Error(); err != nil {
			t.Fatal(err)
		}
		for i, line := range fsm.got {
			if line != fmt.Sprintf("line %d", i) {
				t.Fatalf("line %d is %q", i, line)
			}
		}
		if len(fsm.got) != total {
			t.Fatalf("%d of %d lines", len(fsm.got), total)
		}
		if err := s.Verify(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLyingLeaderCannotRewrite sends a follower what a lying leader of a higher term would: raft itself agrees to
// truncate applied entries, the store does not, and tells.
func TestLyingLeaderCannotRewrite(t *testing.T) {
	told := make(chan *AppliedRewriteError, 1)
	s, err := Open(t.TempDir(), testKey(t), Options{OnAppliedRewrite: func(e *AppliedRewriteError) {
		select {
		case told <- e:
		default:
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	honest := raft.Configuration{Servers: []raft.Server{serverConfig("victim"), serverConfig("liar")}}
	// The transport's own patience is half a second, which a disk may take.
	_, trans := raft.NewInmemTransportWithTimeout("victim", 2*time.Minute)
	_, liar := raft.NewInmemTransportWithTimeout("liar", 2*time.Minute)
	trans.Connect("liar", liar)
	liar.Connect("victim", trans)
	snaps, fsm := raft.NewInmemSnapshotStore(), &lines{}
	if err := raft.BootstrapCluster(config("victim"), s, s, snaps, trans, honest); err != nil {
		t.Fatal(err)
	}
	c := config("victim")
	c.HeartbeatTimeout, c.ElectionTimeout = time.Hour, time.Hour // stays a follower
	r, err := raft.NewRaft(c, fsm, s, s, snaps, trans)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { r.Shutdown().Error() }()
	send := func(term, prev, prevTerm, commit uint64, entries []*raft.Log) bool {
		t.Helper()
		var resp raft.AppendEntriesResponse
		if err := liar.AppendEntries("victim", "victim", &raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("liar"), Addr: []byte("liar")},
			Term:      term, Leader: []byte("liar"), PrevLogEntry: prev, PrevLogTerm: prevTerm, Entries: entries, LeaderCommitIndex: commit,
		}, &resp); err != nil {
			t.Fatal(err)
		}
		return resp.Success
	}
	if !send(2, 1, 1, 6, run(2, 8, 2)) { // honest so far: 8 entries, 6 of them committed
		t.Fatal("the follower refused honest entries")
	}
	for r.AppliedIndex() < 6 {
		time.Sleep(time.Millisecond)
	}
	if err := s.SetApplied(6); err != nil {
		t.Fatal(err)
	}
	if !send(3, 6, 2, 6, run(7, 9, 3)) {
		t.Fatal("entries above the applied index may be replaced")
	}
	if send(9, 3, 2, 9, run(4, 9, 9)) {
		t.Fatal("the follower took a rewrite of applied entries")
	}
	select {
	case e := <-told:
		if e.Op != "truncate" || e.First != 4 || e.Applied != 6 {
			t.Fatal(e)
		}
	default:
		t.Fatal("nobody was told")
	}
	for i := uint64(2); i <= 6; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil || l.Term != 2 {
			t.Fatalf("entry %d: term %d, %v", i, l.Term, err)
		}
	}
}
