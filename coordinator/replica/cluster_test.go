package replica

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ruche-federation/ruche/storage/raftlog"
	"github.com/ruche-federation/ruche/storage/vault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// diary is an FSM that writes down what it is told.
type diary struct {
	mu       sync.Mutex
	lines    []string
	indexes  []uint64
	haltOn   string
	refuse   string // a line with which no state is taken
	restores int
}

func (d *diary) Apply(index uint64, command []byte) any {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.haltOn != "" && d.haltOn == string(command) {
		return Halt{errors.New("cannot read " + d.haltOn)}
	}
	d.lines = append(d.lines, string(command))
	d.indexes = append(d.indexes, index)
	return len(d.lines)
}

func (d *diary) Snapshot() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var b []byte
	for i, l := range d.lines {
		b = binary.BigEndian.AppendUint64(b, d.indexes[i])
		b = binary.BigEndian.AppendUint32(b, uint32(len(l)))
		b = append(b, l...)
	}
	return b, nil
}

func (d *diary) Check(b []byte) error {
	_, _, err := d.parse(b)
	return err
}

func (d *diary) Restore(b []byte) error {
	lines, indexes, err := d.parse(b)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines, d.indexes = lines, indexes
	d.restores++
	return nil
}

func (d *diary) parse(b []byte) (lines []string, indexes []uint64, err error) {
	d.mu.Lock()
	refuse := d.refuse
	d.mu.Unlock()
	for len(b) > 0 {
		if len(b) < 12 || len(b) < 12+int(binary.BigEndian.Uint32(b[8:])) {
			return nil, nil, errors.New("half a line")
		}
		n := 12 + int(binary.BigEndian.Uint32(b[8:]))
		indexes = append(indexes, binary.BigEndian.Uint64(b))
		lines = append(lines, string(b[12:n]))
		if refuse != "" && string(b[12:n]) == refuse {
			return nil, nil, errors.New("cannot be: " + refuse)
		}
		b = b[n:]
	}
	return lines, indexes, nil
}

func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.lines...)
}

// cluster is a consortium's members in one process and in virtual time, over a network in memory and real stores.
type cluster struct {
	t       testing.TB
	net     *switchboard
	ids     []string
	dirs    []string
	members []*member
	first   []string // ids as they were in the beginning
	wiped   []int    // members whose store is another by now
	tune    func(*Options)
}

type member struct {
	port  *port
	log   *raftlog.Store
	diary *diary
	*Replica
}

// inVirtualTime runs a test whose clocks stand still while anybody computes: nothing in it depends on how busy the
// machine is, and waiting costs nothing.
func inVirtualTime(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func newCluster(t testing.TB, n int, tune func(*Options)) *cluster {
	t.Helper()
	c := &cluster{t: t, net: newSwitchboard(1), members: make([]*member, n), tune: tune}
	for i := range n {
		c.ids, c.dirs = append(c.ids, fmt.Sprintf("org%d/store%d", i, i)), append(c.dirs, t.TempDir())
	}
	c.first = slices.Clone(c.ids)
	t.Cleanup(func() {
		for i := range c.members {
			c.stop(i)
		}
	})
	for i := range n {
		c.start(i)
	}
	return c
}

func (c *cluster) start(i int) {
	c.t.Helper()
	if err := c.tryStart(i); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) tryStart(i int) error {
	key, err := vault.LoadOrCreateKey(filepath.Join(c.dirs[i], "storage.key"), rand.Reader)
	if err != nil {
		return err
	}
	log, err := raftlog.Open(filepath.Join(c.dirs[i], "raft"), key, raftlog.Options{})
	if err != nil {
		return err
	}
	m := &member{port: c.net.listen(Seat(c.ids[i])), log: log, diary: &diary{}}
	opts := Options{Self: c.ids[i], Members: c.first, Dir: filepath.Join(c.dirs[i], "snapshots"), Log: log,
		Listener: m.port, Profile: Loopback, Logger: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context, id string) (net.Conn, error) {
			return c.net.dial(ctx, Seat(c.ids[i]), Seat(id))
		}}
	if !slices.Contains(c.wiped, i) {
		opts.Found = func() error { return nil }
	}
	if c.tune != nil {
		c.tune(&opts)
	}
	if m.Replica, err = New(m.diary, opts); err != nil {
		return errors.Join(err, m.port.Close(), log.Close())
	}
	c.members[i] = m
	return nil
}

// stop ends a member as a crash would, as far as the others can tell: its port goes first.
func (c *cluster) stop(i int) {
	c.t.Helper()
	m := c.members[i]
	if m == nil {
		return
	}
	c.members[i] = nil
	m.port.Close()
	if err := m.Close(); err != nil {
		c.t.Errorf("member %d: %v", i, err)
	}
	if err := m.log.Close(); err != nil {
		c.t.Errorf("member %d: log: %v", i, err)
	}
}

func (c *cluster) alive() []*member {
	var out []*member
	for _, m := range c.members {
		if m != nil {
			out = append(out, m)
		}
	}
	return out
}

func (m *member) votes() bool {
	servers, err := m.Servers()
	return err == nil && slices.Contains(servers, Server{m.opts.Self, true})
}

// leader waits for a member that leads and that all living members with a vote follow.
func (c *cluster) leader() (int, *member) {
	c.t.Helper()
	var index int
	eventually(c.t, "a leader that all follow", func() bool {
		for i, m := range c.members {
			if m == nil || !m.IsLeader() {
				continue
			}
			for _, o := range c.alive() {
				if id, _ := o.Leader(); id != c.ids[i] && o.votes() {
					return false
				}
			}
			index = i
			return true
		}
		return false
	})
	return index, c.members[index]
}

// propose is what a caller does: ask whoever leads until the command is in. The diary may hold it twice.
func (c *cluster) propose(line string) (any, uint64) {
	c.t.Helper()
	var result any
	var index uint64
	eventually(c.t, "proposing "+line, func() bool {
		_, m := c.leader()
		ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
		defer cancel()
		var err error
		result, index, err = m.Propose(ctx, []byte(line))
		return err == nil
	})
	return result, index
}

// agree waits until all living members have applied the entry, and wants equal diaries.
func (c *cluster) agree(index uint64) []string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	var first []string
	for i, m := range c.alive() {
		if err := m.WaitApplied(ctx, index); err != nil {
			c.t.Fatalf("%s: index %d: %v", m.opts.Self, index, err)
		}
		lines := m.diary.read()
		if i == 0 {
			first = lines
		} else if fmt.Sprint(lines) != fmt.Sprint(first) {
			c.t.Fatalf("%s has %v, another member %v", m.opts.Self, lines, first)
		}
	}
	return first
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for range 3000 {
		if cond() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}
