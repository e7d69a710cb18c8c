package replica

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/raftlog"
	"github.com/ruche-federation/ruche/storage/vault"
)

// tally is what a storm counts.
type tally struct {
	Schedules    int     `json:"schedules"`
	Partitions   int     `json:"partitions"`
	OneWay       int     `json:"one_way"` // of the partitions
	Crashes      int     `json:"crashes"`
	Transfers    int     `json:"transfers"`
	Wipes        int     `json:"stores_wiped"`
	Promoted     int     `json:"stores_promoted"`
	Snapshots    int     `json:"snapshots_taken"`
	Restores     int     `json:"snapshots_restored"`
	Commands     int     `json:"commands_acknowledged"`
	Guarded      int     `json:"indexes_guarded"`
	Published    int     `json:"rounds_published"`
	RealStores   int     `json:"schedules_on_badger"`
	VirtualHours float64 `json:"virtual_hours"`
	Violations   int     `json:"violations"`
}

// perSchedule is how many partitions one schedule has.
const perSchedule = 20

// TestPartitions drives whole rounds through partitions, crashes, lost logs and transfers, in virtual time. RUCHE_PARTITIONS says how
// many, RUCHE_SEED which schedule alone. A seed fixes the schedule, not the interleaving: a failing one is run often.
func TestPartitions(t *testing.T) {
	want := 200
	if testing.Short() {
		want = 60
	}
	number := func(name string, into *int) bool {
		s := os.Getenv(name)
		if s == "" {
			return false
		}
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		*into = n
		return true
	}
	number("RUCHE_PARTITIONS", &want)
	three, five := newConsortium(t, 3, 1), newConsortium(t, 5, 1)
	total := &tally{}
	first, last := 1, (want+perSchedule-1)/perSchedule
	if number("RUCHE_SEED", &first) {
		last = first
	}
	for seed := first; seed <= last; seed++ {
		c := three
		if seed%2 == 0 {
			c = five
		}
		synctest.Test(t, func(t *testing.T) { newStorm(t, uint64(seed), c, total).run() })
		total.Schedules++
	}
	line, err := json.Marshal(total)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("partitions: %s", line)
	if total.Violations > 0 || total.Published < total.Schedules {
		t.Errorf("%d violations, %d rounds published in %d schedules", total.Violations, total.Published, total.Schedules)
	}
}

// storm is one schedule.
type storm struct {
	t     *testing.T
	seed  uint64
	rng   *mrand.Rand // the schedule's own
	net   *switchboard
	c     *consortium
	names []string // of the members
	first []string // the ids of their first stores
	seats []*seat
	real  bool
	cuts  int
	total *tally // what members count in it, mu guards; the rest is the schedule's, which one goroutine runs

	mu      sync.Mutex // guards what follows, and which process a seat has
	entries map[uint64][32]byte
	digests map[uint64]label.Hash
	results map[label.Hash]label.Hash
	acked   uint64 // the greatest index that anybody was told of
}

// seat is what outlives a member's process. The schedule changes it, while nothing runs on it.
type seat struct {
	s       *storm
	index   int
	id      string // of its store
	wipes   int
	dir     string
	disk    *memoryDisk
	votes   map[label.Hash]label.Hash // what it signed: a member votes once
	process *process                  // changed by the schedule under the storm's mu; it alone reads without
}

// process is a member while it runs.
type process struct {
	*Replica
	seat  *seat
	id    string // of its store: the seat's while it runs, and afterwards still its own
	port  *port
	close func() error
	stop  context.CancelFunc
	done  chan struct{}

	mu      sync.Mutex // guards machine
	machine *round.Machine
}

func newStorm(t *testing.T, seed uint64, c *consortium, total *tally) *storm {
	s := &storm{t: t, seed: seed, rng: mrand.New(mrand.NewPCG(seed, 2)), net: newSwitchboard(seed), c: c, total: total, real: seed%20 == 1,
		entries: map[uint64][32]byte{}, digests: map[uint64]label.Hash{}, results: map[label.Hash]label.Hash{}}
	s.net.delay = time.Duration(s.rng.IntN(40)+1) * time.Millisecond
	for i, m := range c.ch.Members {
		s.names, s.first = append(s.names, m.Name), append(s.first, m.Name+"/"+m.StoreID)
		s.seats = append(s.seats, &seat{s: s, index: i, id: m.Name + "/" + m.StoreID, dir: t.TempDir(), disk: newMemoryDisk(), votes: map[label.Hash]label.Hash{}})
	}
	return s
}

func (s *storm) violated(format string, args ...any) {
	s.t.Helper()
	s.mu.Lock()
	s.total.Violations++
	s.mu.Unlock()
	s.t.Errorf("RUCHE_SEED=%d: %s", s.seed, fmt.Sprintf(format, args...))
}

// ---- a member ----

func (x *seat) start() {
	s := x.s
	p := &process{seat: x, id: x.id, port: s.net.listen(s.names[x.index]), machine: round.New(s.c.ch), done: make(chan struct{}), close: func() error { return nil }}
	var log Log = x.disk
	if s.real {
		key, err := vault.LoadOrCreateKey(filepath.Join(x.dir, "storage.key"), rand.Reader)
		if err != nil {
			s.t.Fatal(err)
		}
		store, err := raftlog.Open(filepath.Join(x.dir, "raft"), key, raftlog.Options{})
		if err != nil {
			s.violated("member %d does not start again: %v", x.index, err)
			s.t.FailNow()
		}
		log, p.close = store, store.Close
	}
	opts := Options{Self: p.id, Members: s.first, Dir: filepath.Join(x.dir, "snapshots"), Log: log,
		Listener: p.port, Profile: LAN, Logger: slog.New(slog.DiscardHandler),
		SnapshotEvery: 40, TrailingLogs: 10, SnapshotInterval: 5 * time.Second,
		Dial: func(ctx context.Context, id string) (net.Conn, error) {
			return s.net.dial(ctx, s.names[x.index], Seat(id))
		}}
	if x.wipes == 0 {
		opts.Found = func() error { return nil }
	}
	var err error
	p.Replica, err = New(p, opts)
	if err != nil {
		s.violated("member %d does not start again: %v", x.index, err)
		s.t.FailNow()
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	s.mu.Lock()
	x.process = p
	s.mu.Unlock()
	go func() {
		defer close(p.done)
		p.live(ctx)
	}()
}

// crash ends a member: the others hear nothing of it any more, and what it was doing is cut off.
func (x *seat) crash() {
	p := x.process
	x.s.mu.Lock()
	x.process = nil
	x.s.mu.Unlock()
	p.port.Close()
	if err := p.Err(); err != nil {
		x.s.violated("member %d stopped by itself: %v", x.index, err)
	}
	p.stop()
	<-p.done
	if err := errors.Join(p.Replica.Close(), p.close()); err != nil {
		x.s.violated("member %d: %v", x.index, err)
	}
}

// Apply is FSM's.
func (p *process) Apply(index uint64, command []byte) any {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.machine.ApplyBytes(index, command)
	s := p.seat.s
	hash := sha256.Sum256(command)
	digest := label.Hash{}
	if index%8 == 0 {
		digest = p.machine.Digest()
	}
	s.mu.Lock()
	old, known := s.entries[index]
	s.entries[index] = hash
	s.mu.Unlock()
	if known && old != hash {
		s.violated("member %d applies another command at index %d than was applied before", p.seat.index, index)
	}
	s.compare(p, index, digest)
	return out
}

// compare holds a member's state at an index against everybody's.
func (s *storm) compare(p *process, index uint64, digest label.Hash) {
	s.mu.Lock()
	old, known := s.digests[index]
	if !digest.IsZero() {
		s.digests[index] = digest
	}
	s.mu.Unlock()
	if known && !digest.IsZero() && old != digest {
		s.violated("member %d has another state at index %d than a member before", p.seat.index, index)
	}
	v, ok := p.machine.Latest(stormTask)
	if !ok || v.Result == nil {
		return
	}
	s.mu.Lock()
	result, known := s.results[v.ID]
	s.results[v.ID] = v.Result.Model
	s.mu.Unlock()
	if known && result != v.Result.Model || v.Split || v.Foreign {
		s.violated("round %d has two results", v.Config.Seq)
	}
}

// Snapshot is FSM's.
func (p *process) Snapshot() ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seat.s.mu.Lock()
	p.seat.s.total.Snapshots++
	p.seat.s.mu.Unlock()
	return p.machine.Snapshot(), nil
}

// Check is FSM's.
func (p *process) Check(state []byte) error { return round.New(p.seat.s.c.ch).Restore(state) }

// Restore is FSM's.
func (p *process) Restore(state []byte) error {
	next := round.New(p.seat.s.c.ch)
	if err := next.Restore(state); err != nil {
		p.seat.s.violated("member %d cannot read a snapshot: %v", p.seat.index, err)
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.machine = next
	p.seat.s.mu.Lock()
	p.seat.s.total.Restores++
	p.seat.s.mu.Unlock()
	p.seat.s.compare(p, next.Applied(), next.Digest())
	return nil
}

// live is a member's loop: it proposes what it owes to whoever leads, and makes durable what it has applied.
func (p *process) live(ctx context.Context) {
	s, later := p.seat.s, map[[32]byte]time.Time{}
	for {
		p.mu.Lock()
		now := time.Now()
		wishes := s.c.wishes(p.machine, p.seat.index, now)
		if p.IsLeader() {
			wishes = append(wishes, s.c.leads(p.machine, now, s.alive(p.seat.index))...)
		}
		if !p.votes() {
			wishes = nil // it follows, and signs nothing
		}
		p.mu.Unlock()
		for _, cmd := range wishes {
			if ctx.Err() != nil {
				break
			}
			data := marshal(s.t, cmd)
			h := sha256.Sum256(data)
			if now := time.Now(); now.After(later[h]) {
				later[h] = now.Add(time.Second)
				p.vote(cmd)
				p.propose(ctx, data)
			}
		}
		if index := p.Applied(); ctx.Err() == nil && index > 0 {
			if err := p.EnsureApplied(index); err != nil && p.Err() == nil {
				s.violated("member %d cannot guard index %d: %v", p.seat.index, index, err)
			}
			s.mu.Lock()
			s.total.Guarded++
			s.mu.Unlock()
		}
		p.takeIn(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// votes reports whether this member's store is a voter, as far as it knows.
func (p *process) votes() bool {
	servers, err := p.Servers()
	return err == nil && slices.Contains(servers, Server{p.id, true})
}

// takeIn is the leader's part for members whose store is new.
func (p *process) takeIn(ctx context.Context) {
	s := p.seat.s
	servers, err := p.Servers()
	if err != nil || !p.IsLeader() {
		return
	}
	var joiners []Joiner
	live := map[string]bool{}
	for _, i := range s.alive(p.seat.index).Members() {
		s.mu.Lock()
		o := s.seats[i].process
		s.mu.Unlock()
		if o == nil || !s.net.reaches(s.names[p.seat.index], s.names[i]) {
			continue
		}
		live[o.id] = true
		if !o.votes() {
			joiners = append(joiners, Joiner{o.id, o.Applied()})
		}
	}
	change, _ := NextChange(servers, joiners, p.Stats().Committed, func(id string) bool { return live[id] })
	if change.ID == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if p.Change(ctx, change) == nil && change.Step == Promote {
		s.mu.Lock()
		s.total.Promoted++
		s.mu.Unlock()
	}
}

// vote is this member's vote file.
func (p *process) vote(cmd *coordpb.Command) {
	v := cmd.GetVote()
	if v == nil {
		return
	}
	parsed, err := statement.ParseVote(v.GetStatement().GetBody())
	if err != nil {
		p.seat.s.violated("%v", err)
		return
	}
	if old, ok := p.seat.votes[parsed.Round]; ok && old != parsed.Value {
		p.seat.s.violated("member %d would vote twice in one round", p.seat.index)
	}
	p.seat.votes[parsed.Round] = parsed.Value
}

// propose asks whoever this member takes for the leader, if the way there is open. An answer that does not find its
// way back is no answer.
func (p *process) propose(ctx context.Context, data []byte) {
	s := p.seat.s
	id, ok := p.Leader()
	if !ok {
		return
	}
	var leader *process
	for i := range s.names {
		if s.names[i] == Seat(id) && s.net.reaches(s.names[p.seat.index], s.names[i]) {
			s.mu.Lock()
			leader = s.seats[i].process
			s.mu.Unlock()
		}
	}
	if leader == nil {
		return
	}
	s.mu.Lock()
	before := s.acked
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, index, err := leader.Propose(ctx, data)
	if err != nil || !s.net.reaches(s.names[p.seat.index], Seat(id)) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total.Commands++
	if index <= before {
		s.total.Violations++
		s.t.Errorf("RUCHE_SEED=%d: index %d is acknowledged to who began after index %d was acknowledged", s.seed, index, before)
	}
	s.acked = max(s.acked, index)
	if s.entries[index] != sha256.Sum256(data) {
		s.total.Violations++
		s.t.Errorf("RUCHE_SEED=%d: index %d is acknowledged and holds another command", s.seed, index)
	}
}

// alive are the members that one reaches.
func (s *storm) alive(from int) (m statement.Mask) {
	for i, x := range s.seats {
		s.mu.Lock()
		up := x.process != nil
		s.mu.Unlock()
		if up && s.net.reaches(s.names[from], s.names[i]) {
			m |= 1 << i
		}
	}
	return m
}

var _ io.Closer = (*port)(nil)

// ---- the schedule ----

func (s *storm) run() {
	began := time.Now()
	defer func() {
		s.mu.Lock()
		s.total.VirtualHours += time.Since(began).Hours()
		s.total.Published += len(s.results)
		s.mu.Unlock()
	}()
	if s.real {
		s.total.RealStores++
	}
	for _, x := range s.seats {
		s.up(x)
	}
	for s.cuts < perSchedule && !s.t.Failed() {
		s.event()
		time.Sleep(time.Duration(s.rng.IntN(6000)) * time.Millisecond)
	}
	s.calm()
	for _, x := range s.seats {
		s.down(x)
	}
}

func (s *storm) up(x *seat) {
	if x.process == nil {
		x.start()
	}
}

func (s *storm) down(x *seat) {
	if x.process != nil {
		x.crash()
	}
}

// event is one thing that goes wrong, or is mended.
func (s *storm) event() {
	n := len(s.seats)
	some := s.seats[s.rng.IntN(n)]
	if s.rng.IntN(2) == 0 { // whoever leads is the most interesting one
		for _, x := range s.seats {
			if x.process != nil && x.process.IsLeader() {
				some = x
			}
		}
	}
	switch s.rng.IntN(11) {
	case 0, 1, 2: // two halves, neither of which hears the other
		side := s.rng.IntN(1<<n-2) + 1
		if s.rng.IntN(2) == 0 {
			side = 1 << some.index
		}
		for i := range n {
			for j := range n {
				if side>>i&1 != side>>j&1 {
					s.net.set(s.names[i], s.names[j], true, false)
				}
			}
		}
		s.cuts++
		s.total.Partitions++
	case 3, 4: // one way only
		for j := range n {
			if j != some.index && s.rng.IntN(2) == 0 {
				if s.rng.IntN(2) == 0 {
					s.net.set(s.names[some.index], s.names[j], true, false)
				} else {
					s.net.set(s.names[j], s.names[some.index], true, false)
				}
			}
		}
		s.cuts++
		s.total.Partitions++
		s.total.OneWay++
	case 5, 6:
		s.heal(s.rng.IntN(2) == 0)
	case 7:
		s.total.Crashes++
		s.down(some)
	case 8:
		for _, x := range s.seats {
			s.up(x)
		}
	case 9:
		if p := some.process; p != nil {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			if p.Transfer(ctx) == nil {
				s.total.Transfers++
			}
			cancel()
		}
	case 10:
		s.wipe(some)
	}
}

// wipe takes a member's log away and starts it again, with a new store id, which is what a person does whose disk
// broke. It comes while all others have a vote: more lost stores than the others can mend are lost for good.
func (s *storm) wipe(x *seat) {
	for _, o := range s.seats {
		if o.process == nil || !o.process.votes() {
			return
		}
	}
	s.total.Wipes++
	s.down(x)
	x.wipes++
	x.id = fmt.Sprintf("%s/%d", s.names[x.index], x.wipes)
	x.dir, x.disk = s.t.TempDir(), newMemoryDisk()
	s.up(x)
}

func (s *storm) heal(reset bool) {
	for i := range s.names {
		for j := range s.names {
			if i != j {
				s.net.set(s.names[i], s.names[j], false, reset)
			}
		}
	}
}

// calm mends everything, and wants a round from beginning to end and the same state everywhere.
func (s *storm) calm() {
	s.heal(s.rng.IntN(2) == 0)
	for _, x := range s.seats {
		s.up(x)
	}
	s.mu.Lock()
	before := len(s.results)
	s.mu.Unlock()
	for end := time.Now().Add(time.Hour); ; time.Sleep(time.Second) {
		s.mu.Lock()
		done := len(s.results) > before+1 // one may have been nearly there
		s.mu.Unlock()
		for _, x := range s.seats {
			done = done && x.process.votes()
		}
		if done {
			break
		}
		if time.Now().After(end) {
			s.violated("no round ends, or not everybody votes, within an hour after all is mended: %s", s.describe())
			return
		}
	}
	for _, x := range s.seats { // nobody proposes any more
		x.process.stop()
		<-x.process.done
	}
	s.mu.Lock()
	acked := s.acked
	s.mu.Unlock()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		equal := true
		first := s.seats[0].process
		for _, x := range s.seats {
			p := x.process
			p.mu.Lock()
			at, digest := p.machine.Applied(), p.machine.Digest()
			p.mu.Unlock()
			first.mu.Lock()
			equal = equal && at == first.machine.Applied() && digest == first.machine.Digest() && at >= acked
			first.mu.Unlock()
		}
		if equal {
			return
		}
		if time.Now().After(end) {
			s.violated("the members do not come to one state: %s", s.describe())
			return
		}
	}
}

func (s *storm) describe() string {
	out := ""
	for _, x := range s.seats {
		if p := x.process; p != nil {
			p.mu.Lock()
			v, _ := p.machine.Newest(stormTask)
			_, why := p.machine.NextConfig(stormTask, time.Now(), s.alive(x.index))
			out += fmt.Sprintf("\n  member %d: %+v, machine %d, round %s, next: %s, error %v", x.index, p.Stats(), p.machine.Applied(), v.Phase, why, p.Err())
			p.mu.Unlock()
		}
	}
	return out
}
