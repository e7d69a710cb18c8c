package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/replica"
	"github.com/ruche-federation/ruche/coordinator/round"
)

// raftLog is the replicated log as a member uses it: commands go to the leader, wherever it is, and are proposed again
// while their fate is unknown. Every command is idempotent, so a repetition changes nothing.
type raftLog struct {
	m     *Member
	raft  *replica.Replica
	peers *meshPeers
	self  string // this store's id in raft
}

// Propose implements Log.
func (l *raftLog) Propose(ctx context.Context, cmd *coordpb.Command) ([]*coordpb.Outcome, error) {
	data, err := l.m.MarshalCommand(cmd)
	if err != nil {
		return nil, err
	}
	wait := 20 * time.Millisecond
	for {
		out, err := l.try(ctx, data)
		if err == nil || ctx.Err() != nil || final(err) {
			return out, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w; the last try: %w", ctx.Err(), err)
		case <-time.After(wait):
			wait = min(2*wait, 500*time.Millisecond)
		}
	}
}

// final reports whether trying again cannot help.
func final(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unimplemented:
		return true
	}
	return errors.Is(err, replica.ErrTooLarge) || errors.Is(err, replica.ErrClosed)
}

func (l *raftLog) try(ctx context.Context, data []byte) ([]*coordpb.Outcome, error) {
	if l.raft.IsLeader() {
		return l.local(ctx, data)
	}
	leader := l.leader()
	if leader < 0 || leader == l.m.me {
		return nil, errors.New("no leader is known")
	}
	peer, err := l.peers.Mesh(leader)
	if err != nil {
		return nil, err
	}
	answer, err := peer.Propose(ctx, &coordpb.ProposeRequest{Command: data})
	if err != nil {
		return nil, err
	}
	return answer.GetOutcomes(), bounded(answer.GetOutcomes())
}

// bounded refuses what no log answers: these are the leader's words, which go on to a device or into a log line.
func bounded(outcomes []*coordpb.Outcome) error {
	for _, o := range outcomes {
		if n := max(len(o.GetCode()), len(o.GetDetail())); n > round.DetailBytesMax {
			return fmt.Errorf("the leader answered with a text of %d bytes, limit %d", n, round.DetailBytesMax)
		}
	}
	return nil
}

// ProposeLocal implements LocalProposer.
func (l *raftLog) ProposeLocal(ctx context.Context, cmd *coordpb.Command) ([]*coordpb.Outcome, error) {
	data, err := l.m.MarshalCommand(cmd)
	if err != nil {
		return nil, err
	}
	return l.local(ctx, data)
}

func (l *raftLog) local(ctx context.Context, data []byte) ([]*coordpb.Outcome, error) {
	applied, _, err := l.raft.Propose(ctx, data)
	if err != nil {
		return nil, err
	}
	return Outcomes(applied)
}

// Leading implements Log.
func (l *raftLog) Leading() bool { return l.raft.IsLeader() }

// HandOver implements Log.
func (l *raftLog) HandOver(ctx context.Context, member int) error {
	servers, err := l.raft.Servers()
	if err != nil {
		return err
	}
	for _, s := range servers {
		if s.Voter && l.index(s.ID) == member {
			return l.raft.TransferTo(ctx, s.ID)
		}
	}
	return fmt.Errorf("member %s has no vote in the log", l.m.ch.Members[member].Name)
}

// EnsureApplied implements Log. The member's state shows an entry a moment before the replica counts it as applied, so
// it is waited for.
func (l *raftLog) EnsureApplied(index uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), applyWait)
	defer cancel()
	if err := l.raft.WaitApplied(ctx, index); err != nil {
		return err
	}
	return l.raft.EnsureApplied(index)
}

func (l *raftLog) leader() int {
	id, ok := l.raft.Leader()
	if !ok {
		return -1
	}
	return l.index(id)
}

// index is the member whose store an id names, -1 for nobody's.
func (l *raftLog) index(id string) int {
	return slices.IndexFunc(l.m.ch.Members, func(c charter.Card) bool { return c.Name == replica.Seat(id) })
}

// Status implements Log.
func (l *raftLog) Status() LogStatus {
	s := l.raft.Stats()
	out := LogStatus{Leader: l.leader(), Term: s.Term, Applied: s.Applied, Committed: s.Committed, Guarded: s.Guarded, Last: s.Last, Contact: s.Contact,
		Store: store(l.self), Waiting: true}
	servers, err := l.raft.Servers()
	if err != nil || len(servers) == 0 {
		return out
	}
	out.Seats = make([]Seat, l.m.ch.N)
	for _, server := range servers {
		if i := l.index(server.ID); i >= 0 && !out.Seats[i].Voter {
			out.Seats[i] = Seat{store(server.ID), server.Voter}
		}
		if server.ID == l.self && server.Voter {
			out.Waiting = false
		}
	}
	return out
}

// store is the store's part of an id.
func store(id string) string { return strings.TrimPrefix(id[len(replica.Seat(id)):], "/") }

var _ Log = (*raftLog)(nil)
var _ LocalProposer = (*raftLog)(nil)
