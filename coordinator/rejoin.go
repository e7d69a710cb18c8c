package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/replica"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/fault"
)

// A member's log lies on a store with an id of its own; raft knows the store, the charter knows the member. `init` makes
// the first store, and that one alone founds the consortium's log, once. Whatever else has no log, be it lost or set
// aside, is a new store: it says so, signed, whenever the others ask for its status, waits without founding or
// voting, and the leader takes it in (coordinator design, 1.3; docs/decisions, stores).

const (
	raftDir   = "raft"
	storeFile = "store"
)

// storeRecord is raft/store: which store this is. A fresh one has never been started.
type storeRecord struct {
	Version int    `json:"version"`
	Store   string `json:"store"`
	Fresh   bool   `json:"fresh"`
}

const (
	storeVersion  = 1
	storeBytesMax = 1 << 10
)

// ErrStoreUnknown says that a log lies beside no store id.
var ErrStoreUnknown = errors.New("the raft folder holds a log and no store id")

func readStore(dir string) (storeRecord, error) {
	path := filepath.Join(dir, raftDir, storeFile)
	var r storeRecord
	f, err := os.Open(path)
	if err != nil {
		return r, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, storeBytesMax))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	if r.Version != storeVersion || !charter.IsUUID(r.Store) {
		return r, fmt.Errorf("%s: version %d, store id %q: this program reads version %d", path, r.Version, r.Store, storeVersion)
	}
	return r, nil
}

// CheckStore reads what says which store holds a member's log.
func CheckStore(dir string) error {
	_, err := readStore(dir)
	return err
}

func writeStore(dir string, r storeRecord) error {
	r.Version = storeVersion
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	raft := filepath.Join(dir, raftDir)
	if err := durable.MkdirAll(raft, 0o700); err != nil {
		return err
	}
	path := filepath.Join(raft, storeFile)
	return fault.Step("store", path, func() error { return durable.WriteFile(path, append(b, '\n'), 0o600) })
}

// newStoreID draws a UUID of version 4 (RFC 9562).
func newStoreID(rand io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "", fmt.Errorf("drawing the store id: %w", err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

// openStore decides which store this is and whether it may found the log. An empty one that is not fresh gets a new
// id at every start: what an earlier one of the same id may have voted or acknowledged is not known here.
func openStore(home *Home, holds bool, members int, rand io.Reader) (id string, found func() error, err error) {
	r, err := readStore(home.Dir)
	switch known := !errors.Is(err, fs.ErrNotExist); {
	case known && err != nil:
		return "", nil, err
	case known && r.Fresh && r.Store == home.Card.StoreID:
		return r.Store, func() error { return writeStore(home.Dir, storeRecord{Store: r.Store}) }, nil
	case known && holds:
		return r.Store, nil, nil
	case holds:
		return "", nil, ErrStoreUnknown
	case !CanRejoin(members):
		return "", nil, fmt.Errorf("this member's log is gone: %w", ErrTooFew)
	}
	if id, err = newStoreID(rand); err != nil {
		return "", nil, err
	}
	return id, nil, writeStore(home.Dir, storeRecord{Store: id})
}

// ErrTooFew says that a member's log cannot be learned from the others: the one other that there is cannot take a store in
// by itself, since a change needs a majority.
var ErrTooFew = errors.New("a consortium of one or two members has no majority without this log: it needs a new charter")

// CanRejoin reports whether a majority of so many members is left where one has lost its log.
func CanRejoin(members int) bool { return members > 2 }

// SetAside takes a member's log away, so that its next start begins with a new store that the others take in. Keys,
// epochs, receipts, contributions and results stay. The log is kept under another name, as evidence; it must never come
// back. It refuses while the member runs, and where the others could not take the new store in (ErrTooFew).
func SetAside(ctx context.Context, dir string, now time.Time) (to string, err error) {
	lock, err := lockDir(ctx, dir)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	from := filepath.Join(dir, raftDir)
	r, err := readStore(dir)
	switch {
	case err == nil && r.Fresh:
		return "", fmt.Errorf("the log in %s was never started: there is nothing to set aside", from)
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(from); err != nil {
			return "", err
		}
	}
	switch ch, err := charter.Load(filepath.Join(dir, charterFile)); {
	case errors.Is(err, fs.ErrNotExist): // it can be put back, and the log, too
	case err != nil:
		return "", err
	case !CanRejoin(ch.N):
		return "", fmt.Errorf("%s stays where it is: %w", from, ErrTooFew)
	}
	to = filepath.Join(dir, raftDir+".set-aside-"+now.UTC().Format("20060102T150405Z"))
	if _, err := os.Lstat(to); err == nil {
		return "", fmt.Errorf("%s exists: %w", to, fs.ErrExist)
	}
	return to, durable.Rename(from, to)
}

// rejoin is what a member says of itself while its store has no vote: nil otherwise.
func (m *Member) rejoin() *coordpb.Signed {
	l := m.log.Status()
	if !l.Waiting {
		return nil
	}
	r := &statement.Rejoin{Charter: m.ch.Hash(), Member: m.me, Store: l.Store, AtMs: m.cfg.Now().UnixMilli()}
	return round.ToSigned(statement.SignMember(m.cfg.Home.Identity, label.StmtRejoin, r.Bytes()))
}

// seats are the members' stores, as the leader knows them.
type seats struct {
	log     *raftLog
	removed map[string]time.Time // by seat, when its store was last removed: nobody makes work by a new one every second
	said    string               // the last reason for doing nothing
}

// keepSeats is the leader's part for members whose store is new, until the context ends. What is to be done is read off
// raft's own configuration and what the members say now, so a new leader goes on where the old one stopped.
func (l *raftLog) keepSeats(ctx context.Context) {
	s := &seats{log: l, removed: map[string]time.Time{}}
	tick := time.NewTicker(seatsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if l.raft.IsLeader() {
				s.step(ctx)
			}
		}
	}
}

func (s *seats) step(ctx context.Context) {
	m, now := s.log.m, s.log.m.cfg.Now()
	servers, err := s.log.raft.Servers()
	if err != nil {
		return
	}
	live := map[string]bool{s.log.self: true}
	var joiners []replica.Joiner
	for _, i := range s.log.peers.Alive().Members() {
		line := s.log.peers.line(i)
		if line == nil {
			continue
		}
		id := m.ch.Members[i].Name + "/" + line.GetStoreId()
		live[id] = true
		if line.GetRejoin() == nil {
			continue
		}
		if err := m.checkRejoin(i, line, now); err != nil {
			s.say(fmt.Sprintf("member %s is not taken in: %v", m.ch.Members[i].Name, err))
			continue
		}
		joiners = append(joiners, replica.Joiner{ID: id, Applied: line.GetApplied()})
	}
	change, why := s.next(servers, joiners, s.log.raft.Stats().Committed, func(id string) bool { return live[id] }, now)
	if change.ID == "" {
		if len(joiners) > 0 {
			s.say("a member waits for its vote: " + why)
		}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, proposeWait)
	defer cancel()
	if err := s.log.raft.Change(ctx, change); err != nil {
		m.cfg.Logger.Warn("a change of stores is not in the log yet", "step", string(change.Step), "store", change.ID, "error", err)
		return
	}
	m.cfg.Logger.Info("the members' stores have changed", "step", string(change.Step), "store", change.ID)
}

// next is the one change to make now. A seat whose store was removed a short while ago is passed over, not waited for:
// one that comes with a new store again and again must not keep the others out.
func (s *seats) next(servers []replica.Server, joiners []replica.Joiner, committed uint64, live func(string) bool, now time.Time) (replica.Change, string) {
	for {
		change, why := replica.NextChange(servers, joiners, committed, live)
		if change.Step != replica.Remove {
			return change, why
		}
		seat := replica.Seat(change.ID)
		if last, ok := s.removed[seat]; !ok || now.Sub(last) >= removeEvery {
			s.removed[seat] = now
			return change, why
		}
		joiners = slices.DeleteFunc(joiners, func(j replica.Joiner) bool { return replica.Seat(j.ID) == seat })
	}
}

// say logs a reason once, not twice a second.
func (s *seats) say(why string) {
	if why != s.said {
		s.said = why
		s.log.m.cfg.Logger.Warn(why)
	}
}

// checkRejoin verifies what member i said over its own connection: its signature, about its own seat and the store it
// has now, of late. What one member says about another is nothing.
func (m *Member) checkRejoin(i int, line *coordpb.MemberStatus, now time.Time) error {
	r, err := statement.VerifyRejoin(m.ch, round.FromSigned(line.GetRejoin()))
	switch {
	case err != nil:
		return err
	case r.Member != i:
		return fmt.Errorf("it sent a word of member %d", r.Member)
	case r.Store != line.GetStoreId():
		return fmt.Errorf("it asks for store %s and says that it has %.40q", r.Store, line.GetStoreId())
	}
	if off := now.Sub(time.UnixMilli(r.AtMs)).Abs(); off > m.ch.Timing.Slack.D()+aliveFor {
		return fmt.Errorf("its clock is %s off", off)
	}
	return nil
}
