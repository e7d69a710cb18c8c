package replica

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
)

// Server is one store in raft's configuration.
type Server struct {
	ID    string
	Voter bool
}

// Seat is whose store an id names: the member, whatever disk it has.
func Seat(id string) string {
	if i := strings.LastIndexByte(id, '/'); i >= 0 {
		return id[:i]
	}
	return id
}

// seated reports whether a store is of one of the members.
func seated(id string, members []string) bool {
	return slices.ContainsFunc(members, func(m string) bool { return Seat(m) == Seat(id) })
}

// Servers is the newest configuration that this member has, committed or not; none before the first.
func (r *Replica) Servers() ([]Server, error) {
	f := r.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, err
	}
	var out []Server
	for _, s := range f.Configuration().Servers {
		out = append(out, Server{string(s.ID), s.Suffrage == raft.Voter})
	}
	return out, nil
}

// Joiner is a member whose store is new and asks to be taken in.
type Joiner struct {
	ID      string // the new store's
	Applied uint64 // how far it has come, by its own word
}

// Step is what is done to the configuration next.
type Step string

// The steps by which a seat changes its store. A vote or an acknowledgement of the old store is never counted again
// once its removal is in the log, and the new one's count only after it holds the log.
const (
	Remove  Step = "remove"
	Add     Step = "add"
	Promote Step = "promote"
)

// Change is a step and the store that it is about.
type Change struct {
	Step Step
	ID   string
}

// NextChange is the one change that a leader makes for members that ask to be taken in, or why there is none. It is a
// function of the configuration, so a new leader goes on where the old one stopped. Live says which stores answer: no
// change is made after which fewer than a majority of the voters would.
func NextChange(servers []Server, joiners []Joiner, committed uint64, live func(id string) bool) (Change, string) {
	why := "nobody asks"
	for _, j := range joiners {
		i := slices.IndexFunc(servers, func(s Server) bool { return s.ID == j.ID })
		old := slices.IndexFunc(servers, func(s Server) bool { return s.ID != j.ID && Seat(s.ID) == Seat(j.ID) })
		after, change := slices.Clone(servers), Change{}
		switch {
		case old >= 0:
			change = Change{Remove, servers[old].ID}
			after = slices.Delete(after, old, old+1)
		case i < 0:
			return Change{Add, j.ID}, ""
		case servers[i].Voter:
			continue // it will see so itself
		case j.Applied+promoteLag < committed:
			why = fmt.Sprintf("%s has applied %d of %d entries", j.ID, j.Applied, committed)
			continue
		default:
			change = Change{Promote, j.ID}
			after[i].Voter = true
		}
		voters, up := 0, 0
		for _, s := range after {
			if s.Voter {
				voters++
				if live(s.ID) {
					up++
				}
			}
		}
		if up <= voters/2 {
			why = fmt.Sprintf("%s of %s would leave %d of %d voters alive", change.Step, change.ID, up, voters)
			continue
		}
		return change, ""
	}
	return Change{}, why
}

// Change carries one change out, at the leader; raft makes one at a time. It returns when the change is committed, or
// with ErrUnknownOutcome when that is not known.
func (r *Replica) Change(ctx context.Context, c Change) error {
	return r.await(ctx, func() raft.Future {
		id := raft.ServerID(c.ID)
		switch c.Step {
		case Remove:
			return r.raft.RemoveServer(id, 0, 0)
		case Add:
			return r.raft.AddNonvoter(id, raft.ServerAddress(c.ID), 0, 0)
		}
		return r.raft.AddVoter(id, raft.ServerAddress(c.ID), 0, 0)
	})
}

// Holds reports whether a store was ever used: it has an entry or a snapshot. One that was not has promised nothing.
func Holds(log Log, dir string) (bool, error) {
	last, err := log.LastIndex()
	if err != nil || last > 0 {
		return last > 0, err
	}
	all, err := folders(filepath.Join(dir, snapshotsDir))
	return len(all) > 0, err
}
