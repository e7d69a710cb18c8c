package replica

import (
	"bytes"
	"context"
	"log/slog"
	"math"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestRogueRequests: no request of a member makes the others panic, at once or at a later start, or leaves them without a
// leader for good. After each the log goes on, and so it does after a restart of all.
func TestRogueRequests(t *testing.T) {
	type target struct {
		id          string
		term, last  uint64 // of its log
		lastTerm    uint64
		servers     raft.Configuration
		transport   *transport
		addr        raft.ServerAddress
		self        raft.RPCHeader
		snapshotted []byte
	}
	appends := func(tg target, term uint64, entries ...*raft.Log) (uint64, error) {
		var answer raft.AppendEntriesResponse
		err := tg.transport.AppendEntries(raft.ServerID(tg.id), tg.addr, &raft.AppendEntriesRequest{RPCHeader: tg.self, Term: term, Leader: tg.self.Addr,
			PrevLogEntry: tg.last, PrevLogTerm: tg.lastTerm, Entries: entries, LeaderCommitIndex: tg.last + uint64(len(entries))}, &answer)
		return answer.Term, err
	}
	installs := func(tg target, change func(*raft.InstallSnapshotRequest)) error {
		req := &raft.InstallSnapshotRequest{RPCHeader: tg.self, SnapshotVersion: 1, Term: tg.term + 1, Leader: tg.self.Addr, LastLogIndex: tg.last, LastLogTerm: tg.lastTerm,
			Configuration: raft.EncodeConfiguration(tg.servers), ConfigurationIndex: 1, Size: int64(len(tg.snapshotted))}
		change(req)
		return tg.transport.InstallSnapshot(raft.ServerID(tg.id), tg.addr, req, &raft.InstallSnapshotResponse{}, bytes.NewReader(tg.snapshotted))
	}
	entry := func(tg target, typ raft.LogType, data []byte) *raft.Log {
		return &raft.Log{Index: tg.last + 1, Term: tg.term + 1, Type: typ, Data: data}
	}
	strangers := func(tg target) []byte {
		c := tg.servers.Clone()
		c.Servers[0].ID, c.Servers[0].Address = "nobody/store", "nobody/store"
		return raft.EncodeConfiguration(c)
	}
	elsewhere := func(tg target) []byte {
		c := tg.servers.Clone()
		c.Servers[0].Address = c.Servers[1].Address
		return raft.EncodeConfiguration(c)
	}
	for _, tt := range []struct {
		name string
		send func(tg target) error
	}{
		{"a heartbeat of the last term", func(tg target) error {
			return tg.transport.AppendEntries(raft.ServerID(tg.id), tg.addr, &raft.AppendEntriesRequest{RPCHeader: tg.self, Term: math.MaxUint64, Leader: tg.self.Addr}, &raft.AppendEntriesResponse{})
		}},
		{"entries of the last term", func(tg target) error { _, err := appends(tg, math.MaxUint64); return err }},
		{"a vote for the last term", func(tg target) error {
			return tg.transport.RequestVote(raft.ServerID(tg.id), tg.addr, &raft.RequestVoteRequest{RPCHeader: tg.self, Term: math.MaxUint64, LeadershipTransfer: true}, &raft.RequestVoteResponse{})
		}},
		{"a vote before the last term's", func(tg target) error {
			return tg.transport.RequestPreVote(raft.ServerID(tg.id), tg.addr, &raft.RequestPreVoteRequest{RPCHeader: tg.self, Term: math.MaxUint64}, &raft.RequestPreVoteResponse{})
		}},
		{"a configuration that does not decode", func(tg target) error {
			_, err := appends(tg, tg.term+1, entry(tg, raft.LogConfiguration, []byte("garbage")))
			return err
		}},
		{"a configuration of strangers", func(tg target) error {
			_, err := appends(tg, tg.term+1, entry(tg, raft.LogConfiguration, strangers(tg)))
			return err
		}},
		{"a configuration at another's address", func(tg target) error {
			_, err := appends(tg, tg.term+1, entry(tg, raft.LogConfiguration, elsewhere(tg)))
			return err
		}},
		{"a configuration of nobody", func(tg target) error {
			_, err := appends(tg, tg.term+1, entry(tg, raft.LogConfiguration, raft.EncodeConfiguration(raft.Configuration{})))
			return err
		}},
		{"an entry of no kind", func(tg target) error { _, err := appends(tg, tg.term+1, entry(tg, 77, nil)); return err }},
		{"an entry of an old kind", func(tg target) error {
			_, err := appends(tg, tg.term+1, entry(tg, raft.LogRemovePeerDeprecated, []byte("garbage")))
			return err
		}},
		{"no entry", func(tg target) error { _, err := appends(tg, tg.term+1, nil); return err }},
		{"an entry of a later term than its leader's", func(tg target) error {
			e := entry(tg, raft.LogNoop, nil)
			e.Term = math.MaxUint64
			_, err := appends(tg, tg.term+1, e)
			return err
		}},
		{"an entry far away", func(tg target) error {
			e := entry(tg, raft.LogNoop, nil)
			e.Index = math.MaxUint64
			_, err := appends(tg, tg.term+1, e)
			return err
		}},
		{"a snapshot whose configuration does not decode", func(tg target) error {
			return installs(tg, func(r *raft.InstallSnapshotRequest) { r.Configuration = []byte("garbage") })
		}},
		{"a snapshot of strangers", func(tg target) error {
			return installs(tg, func(r *raft.InstallSnapshotRequest) { r.Configuration = strangers(tg) })
		}},
		{"a snapshot of the last entry there can be", func(tg target) error {
			return installs(tg, func(r *raft.InstallSnapshotRequest) { r.LastLogIndex = math.MaxUint64 })
		}},
		{"a snapshot of the last term", func(tg target) error {
			return installs(tg, func(r *raft.InstallSnapshotRequest) { r.Term = math.MaxUint64 })
		}},
		{"a snapshot of a later term than its leader's", func(tg target) error {
			return installs(tg, func(r *raft.InstallSnapshotRequest) { r.LastLogTerm = math.MaxUint64 })
		}},
		{"a snapshot of a later configuration", func(tg target) error {
			return installs(tg, func(r *raft.InstallSnapshotRequest) { r.ConfigurationIndex = math.MaxUint64 })
		}},
		{"a snapshot as before raft 1.0", func(tg target) error {
			return installs(tg, func(r *raft.InstallSnapshotRequest) { r.SnapshotVersion = 0 })
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T) {
				c := newCluster(t, 3, nil)
				_, index := c.propose("one")
				c.agree(index)
				at, _ := c.leader()
				rogue := c.members[(at+1)%3]
				for i, m := range c.members {
					if m == rogue {
						continue
					}
					var last raft.Log
					if err := m.log.GetLog(m.Stats().Last, &last); err != nil {
						t.Fatal(err)
					}
					tg := target{id: c.ids[i], addr: raft.ServerAddress(c.ids[i]), term: m.Stats().Term, last: last.Index, lastTerm: last.Term, servers: configuration(c.ids),
						transport: rogue.transport, self: raft.RPCHeader{ProtocolVersion: 3, ID: []byte(rogue.opts.Self), Addr: []byte(rogue.opts.Self)}, snapshotted: snapshotOf(t, index, "one")}
					if err := tt.send(tg); err == nil {
						t.Errorf("%s takes it", c.ids[i])
					}
					if term := m.Stats().Term; term > 1000 {
						t.Errorf("%s is in term %d", c.ids[i], term)
					}
				}
				_, index = c.propose("two")
				c.agree(index)
				for i := range c.members {
					c.stop(i)
				}
				for i := range c.members {
					c.start(i)
				}
				_, index = c.propose("three")
				if lines := c.agree(index); len(lines) < 3 {
					t.Errorf("lines %q", lines)
				}
			})
		})
	}
}

// TestRogueAnswers: a candidate takes no term from an answer that no elections can have come to.
func TestRogueAnswers(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		_, index := c.propose("one")
		c.agree(index)
		for i := range c.members {
			c.stop(i)
		}
		quiet := &quiet{to: slog.New(slog.DiscardHandler)}
		layer := newStream(c.ids[2], c.net.listen(Seat(c.ids[2])), func(ctx context.Context, id string) (net.Conn, error) {
			return c.net.dial(ctx, Seat(c.ids[2]), Seat(id))
		})
		rogue := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Logger: quiet, Stream: layer, MaxPool: 1, Timeout: time.Second, MsgpackUseNewTimeFormat: true})
		asked, done := make(chan struct{}, 1000), make(chan struct{})
		go func() {
			for {
				select {
				case rpc := <-rogue.Consumer():
					switch rpc.Command.(type) {
					case *raft.RequestPreVoteRequest:
						rpc.Respond(&raft.RequestPreVoteResponse{Term: math.MaxUint64}, nil)
					case *raft.RequestVoteRequest:
						rpc.Respond(&raft.RequestVoteResponse{Term: math.MaxUint64}, nil)
					default:
						rpc.Respond(&raft.AppendEntriesResponse{}, nil)
					}
					select {
					case asked <- struct{}{}:
					default:
					}
				case <-done:
					return
				}
			}
		}()
		c.start(0)
		time.Sleep(time.Minute)
		if term := c.members[0].Stats().Term; len(asked) == 0 || term > 1000 {
			t.Errorf("asked %d times, in term %d", len(asked), term)
		}
		c.start(1)
		_, index = c.propose("two")
		c.agree(index)
		close(done)
		rogue.Close()
		layer.Close()
	})
}
