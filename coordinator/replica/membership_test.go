package replica

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNextChange(t *testing.T) {
	voters := func(ids ...string) (out []Server) {
		for _, id := range ids {
			out = append(out, Server{id, true})
		}
		return out
	}
	nobody := func(string) bool { return false }
	all := func(string) bool { return true }
	but := func(dead ...string) func(string) bool {
		return func(id string) bool { return !slices.Contains(dead, id) }
	}
	for _, tt := range []struct {
		name    string
		servers []Server
		joiners []Joiner
		live    func(string) bool
		want    Change
		why     string
	}{
		{"nobody asks", voters("a/1", "b/1", "c/1"), nil, all, Change{}, "nobody"},
		{"the old store goes first", voters("a/1", "b/1", "c/1"), []Joiner{{"b/2", 0}}, but("b/1"), Change{Remove, "b/1"}, ""},
		{"not while the rest is no majority", voters("a/1", "b/1", "c/1"), []Joiner{{"b/2", 0}}, but("b/1", "c/1"), Change{}, "leave 1 of 2"},
		{"four bear one more", voters("a/1", "b/1", "c/1", "d/1"), []Joiner{{"b/2", 0}}, but("b/1", "c/1"), Change{Remove, "b/1"}, ""},
		{"then it is added without a vote", voters("a/1", "c/1"), []Joiner{{"b/2", 0}}, all, Change{Add, "b/2"}, ""},
		{"it has to catch up", append(voters("a/1", "c/1"), Server{"b/2", false}), []Joiner{{"b/2", 99}}, all, Change{}, "99 of 300"},
		{"and gets its vote", append(voters("a/1", "c/1"), Server{"b/2", false}), []Joiner{{"b/2", 172}}, all, Change{Promote, "b/2"}, ""},
		{"not one that nobody hears", append(voters("a/1", "c/1"), Server{"b/2", false}), []Joiner{{"b/2", 300}}, but("b/2", "c/1"), Change{}, "leave 1 of 3"},
		{"a voter asks for nothing", voters("a/1", "b/2"), []Joiner{{"b/2", 0}}, all, Change{}, "nobody"},
		{"lost again meanwhile", append(voters("a/1", "c/1"), Server{"b/2", false}), []Joiner{{"b/3", 0}}, but("b/2"), Change{Remove, "b/2"}, ""},
		{"the second one is not held up by the first", append(voters("a/1", "c/1", "d/1"), Server{"b/2", false}),
			[]Joiner{{"b/2", 0}, {"c/2", 0}}, but("c/1"), Change{Remove, "c/1"}, ""},
		{"two members cannot mend each other", voters("a/1", "b/1"), []Joiner{{"b/2", 0}}, nobody, Change{}, "leave 0 of 1"},
	} {
		got, why := NextChange(tt.servers, tt.joiners, 300, tt.live)
		if got != tt.want || !strings.Contains(why, tt.why) {
			t.Errorf("%s: %v (%s), want %v (%s)", tt.name, got, why, tt.want, tt.why)
		}
	}
}

// wipe is a disk that broke: the member comes back with an empty one, under another store id.
func (c *cluster) wipe(i int) {
	c.t.Helper()
	c.stop(i)
	if err := errors.Join(os.RemoveAll(filepath.Join(c.dirs[i], "raft")), os.RemoveAll(filepath.Join(c.dirs[i], "snapshots"))); err != nil {
		c.t.Fatal(err)
	}
	c.wiped = append(c.wiped, i)
	c.ids[i] += "-again"
	c.start(i)
}

// takeIn does what the leader owes, until every living member votes.
func (c *cluster) takeIn() {
	c.t.Helper()
	var steps []Step
	eventually(c.t, "everybody to vote", func() bool {
		_, leader := c.leader()
		servers, err := leader.Servers()
		if err != nil {
			c.t.Fatal(err)
		}
		var joiners []Joiner
		live := map[string]bool{}
		for _, m := range c.alive() {
			live[m.opts.Self] = true
			if !m.votes() {
				joiners = append(joiners, Joiner{m.opts.Self, m.Applied()})
			}
		}
		change, _ := NextChange(servers, joiners, leader.Stats().Committed, func(id string) bool { return live[id] })
		if change.ID != "" {
			if err := leader.Change(c.t.Context(), change); err != nil {
				c.t.Fatal(err)
			}
			steps = append(steps, change.Step)
		}
		return len(joiners) == 0
	})
	if fmt.Sprint(steps) != "[remove add promote]" {
		c.t.Fatalf("steps %v", steps)
	}
}

// An entry is acknowledged by two of three; one of the two then loses its log. Whoever is left must not be elected by
// a store that does not know what the one before it promised.
func TestALostStoreIsNotCounted(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		c.propose("before")
		a, leader := c.leader()
		b, late := (a+1)%3, (a+2)%3
		c.stop(late)
		if _, _, err := leader.Propose(t.Context(), []byte("acknowledged")); err != nil {
			t.Fatal(err)
		}
		c.stop(a)
		c.wipe(b)
		c.start(late)
		time.Sleep(10 * time.Minute)
		if c.members[b].IsLeader() || c.members[late].IsLeader() {
			t.Fatal("one store and an empty one have elected a leader")
		}
		if last := c.members[b].Stats().Last; last != 0 {
			t.Fatalf("the empty store took entries up to %d in the name of the one before it", last)
		}
		c.start(a)
		c.takeIn()
		_, index := c.propose("after")
		if lines := c.agree(index); fmt.Sprint(lines) != "[before acknowledged after]" {
			t.Fatalf("lines %q", lines)
		}
	})
}

// A member whose log is gone is taken in from a snapshot, and is then one of the two that a majority needs.
func TestAWipedMemberIsTakenInAndCountsAgain(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 3, func(o *Options) { o.TrailingLogs = 2 })
		var index uint64
		for n := range 20 {
			_, index = c.propose(fmt.Sprintf("line %d", n))
		}
		a, leader := c.leader()
		if err := leader.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		b := (a + 1) % 3
		c.wipe(b)
		c.takeIn()
		c.agree(index)
		if c.members[b].diary.restores != 1 {
			t.Fatalf("%d snapshots restored", c.members[b].diary.restores)
		}
		// Everybody off and on: the new store is the same member's for good.
		for i := range c.members {
			c.stop(i)
			c.start(i)
		}
		c.stop((a + 2) % 3)
		_, index = c.propose("with the new store's vote")
		if lines := c.agree(index); len(lines) != 21 {
			t.Fatalf("%d lines", len(lines))
		}
	})
}

// A store that was used and is empty neither founds nor stands for election, whatever it is configured with.
func TestAnEmptyStoreWaits(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		c.propose("gone")
		c.wipe(0)
		time.Sleep(time.Hour)
		m := c.members[0]
		servers, err := m.Servers()
		if err != nil || len(servers) > 0 || m.IsLeader() || m.Stats().Term > 0 {
			t.Fatalf("servers %v, %+v, %v", servers, m.Stats(), err)
		}
	})
}

// What founding made durable is not asked for again, and a failure to make it so ends the start.
func TestFoundingIsConsumedBeforeRaftSpeaks(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		c.stop(0)
		broken := errors.New("disk full")
		for range 2 { // the second time the configuration is there already
			c.tune = func(o *Options) { o.Found = func() error { return broken } }
			if err := c.tryStart(0); !errors.Is(err, broken) {
				t.Fatalf("started: %v", err)
			}
		}
	})
}

func TestALogWithoutItsSnapshotIsRefused(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 1, func(o *Options) { o.TrailingLogs = 1 })
		for n := range 10 {
			c.propose(fmt.Sprint(n))
		}
		_, m := c.leader()
		if err := m.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.stop(0)
		if err := os.RemoveAll(filepath.Join(c.dirs[0], "snapshots")); err != nil {
			t.Fatal(err)
		}
		if err := c.tryStart(0); !errors.Is(err, ErrNoSnapshot) {
			t.Fatalf("started: %v", err)
		}
	})
}

// A store whose log is gone goes on from no snapshot: it does not know whom it voted for, nor what it acknowledged since.
func TestSnapshotsWithoutTheirLogAreRefused(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		c.propose("a")
		_, m := c.leader()
		if err := m.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.stop(0)
		if err := os.RemoveAll(filepath.Join(c.dirs[0], "raft")); err != nil {
			t.Fatal(err)
		}
		c.tune = func(o *Options) { o.Found = nil } // it was founded long ago
		if err := c.tryStart(0); !errors.Is(err, ErrNoLog) {
			t.Fatalf("started: %v", err)
		}
	})
}

// A caller that means another store hears nothing; a greeting may come in pieces, and may be wrong.
func TestGreeting(t *testing.T) {
	for _, tt := range []struct {
		sent string
		ok   bool
	}{{"\x03a/1hello", true}, {"\x03a/2hello", false}, {"\x00hello", false}, {"\xff" + strings.Repeat("a", 300), false}, {"\x03a", false}, {"", false}} {
		near, far := net.Pipe()
		s := newStream("a/1", nil, nil)
		go func() {
			for i := range len(tt.sent) {
				if _, err := far.Write([]byte(tt.sent[i : i+1])); err != nil {
					break
				}
			}
			far.Close()
		}()
		conn, err := s.track(near, false)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		if _, err := conn.Read(b); (err == nil) != tt.ok || tt.ok && b[0] != 'h' {
			t.Errorf("%q: %q, %v", tt.sent, b, err)
		}
		conn.Close()
	}
}

// FuzzGreeting: raft gets what follows this store's own greeting and nothing else, in whatever pieces it comes, and no caller
// has more than a greeting read.
func FuzzGreeting(f *testing.F) {
	const self = "a/123e4567-e89b-42d3-a456-426614174000"
	own := string(rune(len(self))) + self
	f.Add([]byte(own+"hello"), uint8(1))
	f.Add([]byte(own+own), uint8(7))
	f.Add([]byte(own[:len(own)-1]+"1hello"), uint8(200))
	f.Add([]byte("\x00"+own), uint8(0))
	f.Add([]byte("\xff"+strings.Repeat("a", 300)), uint8(16))
	f.Fuzz(func(t *testing.T, sent []byte, piece uint8) {
		caller := &pieces{rest: sent, most: int(piece) + 1}
		c, err := newStream(self, nil, nil).track(caller, false)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		want, ok := strings.CutPrefix(string(sent), own)
		if ok && (err != nil || string(got) != want) || !ok && len(got) > 0 {
			t.Fatalf("%q: %q, %v", sent, got, err)
		}
		if read := len(sent) - len(caller.rest); !ok && read > 1+idMax {
			t.Fatalf("%d bytes of no greeting are read", read)
		}
	})
}

// pieces is the near end of a caller that sends so many bytes at a time.
type pieces struct {
	net.Conn
	rest []byte
	most int
}

func (p *pieces) Read(b []byte) (int, error) {
	n := copy(b[:min(len(b), p.most)], p.rest)
	if p.rest = p.rest[n:]; n == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (p *pieces) Close() error { return nil }
