package replica

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// gate refuses what no member sends that keeps to the protocol, before raft reads it. Raft takes every word of whoever is
// a member, and some it cannot take back: a term or an index near the end of the numbers, a configuration that does not
// decode or that names strangers, an entry of no kind, after which it panics or finds no leader at this start and all
// later ones.
type gate struct {
	members []string // of the charter
	log     Log
}

// refusal says why a request is not raft's to answer.
func (g *gate) refusal(command any) error {
	switch r := command.(type) {
	case *raft.AppendEntriesRequest:
		if err := g.term(r.Term); err != nil {
			return err
		}
		for i, entry := range r.Entries {
			if err := g.entry(r, uint64(i), entry); err != nil {
				return err
			}
		}
	case *raft.RequestVoteRequest:
		return g.term(r.Term)
	case *raft.RequestPreVoteRequest:
		return g.term(r.Term)
	case *raft.InstallSnapshotRequest:
		return g.snapshot(r)
	}
	return nil
}

// term refuses one that is too far ahead to be come to by elections: no later one would be left, and it spreads.
func (g *gate) term(term uint64) error {
	if term <= termAhead {
		return nil
	}
	own, err := g.log.GetUint64(currentTerm)
	if err != nil {
		return err
	}
	if term > own && term-own > termAhead {
		return fmt.Errorf("term %d is named, this member has seen %d, limit %d more", term, own, termAhead)
	}
	return nil
}

func (g *gate) entry(r *raft.AppendEntriesRequest, i uint64, entry *raft.Log) error {
	switch {
	case entry == nil:
		return errors.New("an entry is empty")
	case entry.Index != r.PrevLogEntry+1+i:
		return fmt.Errorf("entry %d follows %d", entry.Index, r.PrevLogEntry+i)
	case entry.Term > r.Term:
		return fmt.Errorf("entry %d is of term %d, its leader of %d", entry.Index, entry.Term, r.Term)
	}
	switch entry.Type {
	case raft.LogCommand, raft.LogNoop, raft.LogBarrier:
		return nil
	case raft.LogConfiguration:
		if err := g.configuration(entry.Data); err != nil {
			return fmt.Errorf("entry %d: %w", entry.Index, err)
		}
		return nil
	}
	return fmt.Errorf("entry %d is of kind %d", entry.Index, entry.Type)
}

// snapshot refuses also what is larger than any: raft would read all that its sender says that there is, on its main
// goroutine, to the end.
func (g *gate) snapshot(r *raft.InstallSnapshotRequest) error {
	if err := g.term(r.Term); err != nil {
		return err
	}
	last, err := g.log.LastIndex()
	switch {
	case err != nil:
		return err
	case r.Size < 0 || r.Size > snapshotWhole:
		return fmt.Errorf("a snapshot of %d bytes is offered, limit %d", r.Size, snapshotWhole)
	case r.SnapshotVersion < 1: // those of raft before 1.0 have no configuration
		return fmt.Errorf("a snapshot of version %d is offered", r.SnapshotVersion)
	case r.LastLogTerm > r.Term:
		return fmt.Errorf("a snapshot of term %d is offered by a leader of %d", r.LastLogTerm, r.Term)
	case r.LastLogIndex > last && r.LastLogIndex-last > indexAhead:
		return fmt.Errorf("a snapshot of entry %d is offered, this log ends at %d, limit %d more", r.LastLogIndex, last, indexAhead)
	case r.ConfigurationIndex > r.LastLogIndex:
		return fmt.Errorf("a snapshot of entry %d is offered with the configuration of %d", r.LastLogIndex, r.ConfigurationIndex)
	}
	return g.configuration(r.Configuration)
}

// configuration refuses one that does not decode, on which raft panics, and one of others than the charter's members.
func (g *gate) configuration(data []byte) error {
	c, err := decodeConfiguration(data)
	if err != nil {
		return err
	}
	seen, voters := map[raft.ServerID]bool{}, 0
	for _, s := range c.Servers {
		switch {
		case len(s.ID) > idMax || string(s.Address) != string(s.ID) || seen[s.ID]:
			return fmt.Errorf("configuration names %.200q at %.200q", s.ID, s.Address)
		case !seated(string(s.ID), g.members):
			return fmt.Errorf("configuration names %q, which is none of the charter's members", s.ID)
		}
		seen[s.ID] = true
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	if voters == 0 {
		return errors.New("configuration has no voter")
	}
	return nil
}

func decodeConfiguration(data []byte) (c raft.Configuration, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("configuration: %v", r)
		}
	}()
	return raft.DecodeConfiguration(data), nil
}

// refused answers what the gate refuses.
func (t *transport) refused(rpc raft.RPC) bool {
	err := t.gate.refusal(rpc.Command)
	if err == nil {
		return false
	}
	t.logger.Error("a request is refused", "error", err)
	rpc.Respond(nil, err)
	return true
}

// RequestVote is raft.Transport's. A candidate takes over whatever term it is answered.
func (t *transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if err := t.NetworkTransport.RequestVote(id, target, args, resp); err != nil {
		return err
	}
	return t.gate.term(resp.Term)
}

// RequestPreVote is raft.WithPreVote's.
func (t *transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := t.NetworkTransport.RequestPreVote(id, target, args, resp); err != nil {
		return err
	}
	return t.gate.term(resp.Term)
}
