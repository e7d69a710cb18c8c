package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ruche-federation/ruche/storage/durable"
)

// Options are what New needs besides the FSM. All fields but those marked optional are required.
type Options struct {
	Self    string   // this store's id, "member/store id"
	Members []string // every member's first id, in the charter's order: the same list everywhere
	Dir     string   // the folder for snapshots; made if need be
	Log     Log      // stays the caller's, to be closed after Close
	// Found is optional. Where it is set, a store that was never used founds the cluster of Members; it is called when
	// that is on the disk and before raft says a word, and must see to it, durably, that it is never set again. Without it
	// such a store waits until the others take it in: whoever lost its log must not found, nor vote, a second time.
	Found func() error

	// Listener gives the other members' connections; Close closes it. Dial connects to the member with that id and
	// returns only when it has proved to be that member.
	Listener net.Listener
	Dial     func(ctx context.Context, id string) (net.Conn, error)

	Profile Profile      // optional
	Logger  *slog.Logger // optional: warnings and errors of raft, and the reason of a failure
	// OnApplied is optional: it is called after each batch of entries, and after a restored snapshot, without locks held
	// and from the FSM's goroutine. It must return at once.
	OnApplied func(index uint64)
	// OnFull is optional: it is called every second once the disk has been too full for the log for a minute.
	OnFull func()
	// Snapshots are taken when SnapshotEvery entries came since the last one, and leave TrailingLogs entries for followers
	// that are a little behind; looked at every SnapshotInterval to twice that. Zero: 8192, 10240, two minutes.
	SnapshotEvery    uint64
	TrailingLogs     uint64
	SnapshotInterval time.Duration
}

// Replica is this member's copy of the FSM and its part in keeping it equal to the others'. It is safe for concurrent use.
type Replica struct {
	opts      Options
	timing    timing
	machine   *machine
	raft      *raft.Raft
	transport *transport
	stream    *stream
	leaders   chan struct{}
	slots     chan struct{} // a token per proposal that waits
	started   atomic.Bool   // New is through with raft's own start
	full      atomic.Int64  // for how many seconds the log has found no room, from 1; 0 while it does

	guardMu  sync.Mutex // one fsync of the guard at a time
	durable  atomic.Uint64
	readTerm atomic.Uint64 // the term in which an own entry is known to be committed

	mu       sync.Mutex // guards what follows
	closing  bool
	err      error
	shutdown func() raft.Future // set once raft runs

	pending sync.WaitGroup // waits for raft's answers
	failed  chan struct{}
	done    chan struct{} // closed by Close
	ticking sync.WaitGroup
}

func (o *Options) check() error {
	switch {
	case o.Log == nil, o.Listener == nil, o.Dial == nil, o.Dir == "":
		return errors.New("replica: Log, Listener, Dial and Dir are required")
	case !seated(o.Self, o.Members):
		return fmt.Errorf("replica: %q is not one of the members", o.Self)
	case o.Found != nil && !slices.Contains(o.Members, o.Self):
		return fmt.Errorf("replica: the store %q is none of those that found the cluster", o.Self)
	}
	for i, id := range o.Members {
		if id == "" || len(id) > idMax {
			return fmt.Errorf("replica: member %d has an id of %d bytes, wants 1 to %d", i, len(id), idMax)
		}
		if slices.Contains(o.Members[:i], id) {
			return fmt.Errorf("replica: two members have the id %q", id)
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// New starts a replica: the FSM is restored from the newest snapshot, and the log follows as soon as a leader says what
// is committed. The Listener is closed also when New fails.
func New(fsm FSM, opts Options) (_ *Replica, err error) {
	if opts.Listener != nil {
		defer func() {
			if err != nil {
				opts.Listener.Close()
			}
		}()
	}
	if err := opts.check(); err != nil {
		return nil, err
	}
	t, err := opts.Profile.timing()
	if err != nil {
		return nil, err
	}
	r := &Replica{opts: opts, timing: t, leaders: make(chan struct{}, 1), slots: make(chan struct{}, proposalsMax),
		failed: make(chan struct{}), done: make(chan struct{}), shutdown: func() raft.Future { return nil }}
	r.machine = &machine{fsm: fsm, replica: r, notify: make(chan struct{})}
	r.durable.Store(opts.Log.Applied())

	logger := &quiet{to: opts.Logger}
	snaps, err := openSnapshots(opts.Dir, r, logger)
	if err != nil {
		return nil, err
	}
	log := &watched{opts.Log, r}
	cache, err := raft.NewLogCache(cachedEntries, log)
	if err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	config := r.config(logger)

	r.stream = newStream(opts.Self, opts.Listener, opts.Dial)
	r.transport = newTransport(&raft.NetworkTransportConfig{
		Logger: logger, Stream: r.stream, MaxPool: poolMax, Timeout: t.io, MsgpackUseNewTimeFormat: true,
		MaxRPCsInFlight: inFlight}, &gate{opts.Members, opts.Log}, t.heartbeat/10)
	defer func() {
		if err != nil {
			r.endTransport()
		}
	}()
	holds, err := Holds(opts.Log, opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	if !holds && opts.Found != nil {
		if err := raft.BootstrapCluster(config, cache, log, snaps, r.transport, configuration(opts.Members)); err != nil {
			return nil, fmt.Errorf("replica: first start: %w", err)
		}
	}
	if opts.Found != nil {
		if err := opts.Found(); err != nil {
			return nil, fmt.Errorf("replica: first start: %w", err)
		}
	}
	if err := snaps.survey(); err != nil {
		return nil, err
	}
	if r.raft, err = raft.NewRaft(config, r.machine, cache, log, snaps, r.transport); err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	follows := func(term uint64) (uint64, bool) {
		return r.raft.LastIndex(), r.raft.State() == raft.Follower && r.raft.CurrentTerm() == term
	}
	r.transport.follows.Store(&follows)
	r.started.Store(true)
	r.mu.Lock()
	r.shutdown = sync.OnceValue(r.raft.Shutdown)
	already := r.err != nil
	r.mu.Unlock()
	if already {
		r.shutdown()
	}
	r.raft.RegisterObserver(raft.NewObserver(nil, false, func(o *raft.Observation) bool {
		if _, ok := o.Data.(raft.LeaderObservation); ok {
			select {
			case r.leaders <- struct{}{}:
			default:
			}
		}
		return false // the filter is all we need
	}))
	r.ticking.Add(1)
	go r.recordLast()
	stored, err := r.Servers()
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("replica: %w", err)
	}
	for _, server := range stored {
		if !seated(server.ID, opts.Members) {
			r.Close()
			return nil, fmt.Errorf("replica: the log in %s was made by other members than the charter's: it names %q", opts.Dir, server.ID)
		}
	}
	return r, nil
}

func (r *Replica) config(logger *quiet) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(r.opts.Self)
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = r.timing.heartbeat, r.timing.election, r.timing.lease
	c.CommitTimeout = r.timing.commit
	c.MaxAppendEntries = appendMax
	c.BatchApplyCh = true
	c.SnapshotThreshold, c.TrailingLogs, c.SnapshotInterval = 8192, 10240, 2*time.Minute
	if r.opts.SnapshotEvery > 0 {
		c.SnapshotThreshold = r.opts.SnapshotEvery
	}
	if r.opts.TrailingLogs > 0 {
		c.TrailingLogs = r.opts.TrailingLogs
	}
	if r.opts.SnapshotInterval > 0 {
		c.SnapshotInterval = r.opts.SnapshotInterval
	}
	c.NoLegacyTelemetry = true
	c.Logger = logger
	return c
}

// configuration is raft's name for the members. An id is also the address: only Options.Dial knows where that is.
func configuration(ids []string) raft.Configuration {
	var c raft.Configuration
	for _, id := range ids {
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	return c
}

// recordLast keeps the guard near the log's end, so that an end which goes missing is noticed at the next start.
func (r *Replica) recordLast() {
	defer r.ticking.Done()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := r.failBroken(r.opts.Log.RecordLast()); err != nil {
				r.opts.Logger.Warn("the log's guard cannot be written", "error", err)
			}
			if full := r.full.Load(); full > 0 {
				r.full.CompareAndSwap(full, full+1)
				if full > fullSeconds && r.opts.OnFull != nil {
					r.opts.OnFull()
				}
			}
		case <-r.failed:
			return
		case <-r.done:
			return
		}
	}
}

// fail stops the replica for good. It may be called from within raft, so it waits for nothing.
func (r *Replica) fail(err error) {
	r.mu.Lock()
	if r.err != nil {
		r.mu.Unlock()
		return
	}
	r.err = err
	close(r.failed)
	shutdown := r.shutdown
	r.mu.Unlock()
	r.opts.Logger.Error("ALARM: the replica stops", "error", err)
	shutdown()
}

// failBroken stops the replica where a write has failed so that there is no other before the log is opened again, by the
// next process. It passes the error on.
func (r *Replica) failBroken(err error) error {
	if errors.As(err, new(*durable.BrokenError)) {
		r.fail(err)
	}
	return err
}

// Failed is closed when the replica has stopped by itself; Err says why. It must still be closed.
func (r *Replica) Failed() <-chan struct{} { return r.failed }

// Err is the reason of a failure, nil as long as there is none.
func (r *Replica) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Close stops the replica and closes the Listener. Waiting proposals get their answer first where raft has one to give
// within the leader's lease. A leader that can should Transfer before.
func (r *Replica) Close() error {
	r.mu.Lock()
	if r.closing {
		r.mu.Unlock()
		return nil
	}
	r.closing = true
	r.mu.Unlock()
	answered := make(chan struct{})
	go func() {
		r.pending.Wait()
		close(answered)
	}()
	select {
	case <-answered:
	case <-r.failed:
	case <-time.After(2 * r.timing.lease): // by then a leader without a majority has stepped down, and said so
	}
	close(r.done)
	future := r.shutdown()
	r.endTransport()
	err := future.Error()
	r.ticking.Wait()
	return err
}

// endTransport closes the listener and every connection, so that nothing in raft waits for a peer.
func (r *Replica) endTransport() {
	r.transport.Close()
	r.transport.CloseStreams()
}

// Leader is the id of the member that leads as far as this one knows.
func (r *Replica) Leader() (id string, ok bool) {
	_, leader := r.raft.LeaderWithID()
	return string(leader), leader != ""
}

// IsLeader reports whether this member leads as far as it knows: another one may have been elected already.
func (r *Replica) IsLeader() bool { return r.raft.State() == raft.Leader }

// LeaderChanges gets a token when Leader may give another answer; several changes may be one token. It is for one reader.
func (r *Replica) LeaderChanges() <-chan struct{} { return r.leaders }

// Transfer hands leadership to the follower that is furthest. It fails at a follower.
func (r *Replica) Transfer(ctx context.Context) error {
	return r.await(ctx, func() raft.Future { return r.raft.LeadershipTransfer() })
}

// TransferTo hands leadership to one voter. It fails at a follower.
func (r *Replica) TransferTo(ctx context.Context, id string) error {
	return r.await(ctx, func() raft.Future {
		return r.raft.LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(id))
	})
}

// Stats is what operators see.
type Stats struct {
	State     string // Follower, Candidate, Leader, Shutdown
	Leader    string // id, empty while none is known
	Term      uint64
	Committed uint64 // as far as this member knows
	Applied   uint64 // the last command or configuration that the FSM has seen
	Guarded   uint64 // applied and durably known to be
	First     uint64 // the log's first and last entry, 0 for none
	Last      uint64
	Contact   time.Time // when a follower heard a leader last, zero for never; says nothing at the leader
}

// Stats gives a picture of this member that need not be consistent in itself.
func (r *Replica) Stats() Stats {
	leader, _ := r.Leader()
	first, _ := r.opts.Log.FirstIndex() // a log that cannot answer has other ways to say so
	return Stats{State: r.raft.State().String(), Leader: leader, Term: r.raft.CurrentTerm(), Committed: r.raft.CommitIndex(),
		Applied: r.machine.applied.Load(), Guarded: r.durable.Load(), First: first, Last: r.raft.LastIndex(), Contact: r.raft.LastContact()}
}

// Snapshot takes a snapshot now. It is no error if nothing was applied since the last one.
func (r *Replica) Snapshot(ctx context.Context) error {
	err := r.await(ctx, func() raft.Future { return r.raft.Snapshot() })
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	return err
}
