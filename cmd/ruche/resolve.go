package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/crypto/label"
)

const roundHint = "a round is named by its id, a unique prefix of at least 6 digits, TASK/SEQ, TASK/latest or latest: see `ruche rounds list`"

// wanted says which rounds a name may stand for.
type wanted byte

const (
	anyRound  wanted = iota
	anAdapter        // published, of kind lora
)

// roundNamed finds the round that a person means among those that a member lists, oldest first.
func roundNamed(ch *charter.Charter, rounds []*coordpb.RoundSummary, name string, want wanted) (label.Hash, error) {
	if id, err := label.ParseHash(strings.ToLower(name)); err == nil {
		return id, nil
	}
	var candidates []*coordpb.RoundSummary
	for _, r := range rounds {
		if want == anyRound || r.GetPhase() == round.Published.String() {
			candidates = append(candidates, r)
		}
	}
	kind := "round"
	if want == anAdapter {
		kind = "published round"
	}
	var tasks []string // that latest may mean
	for _, t := range ch.Tasks {
		if want == anyRound || t.Kind == charter.KindLoRA {
			tasks = append(tasks, t.ID)
		}
	}
	task, seq, ofTask := strings.Cut(name, "/")
	if name == "latest" {
		if len(tasks) == 0 {
			return label.Hash{}, cli.Fail("no_adapter", "see `ruche charter show`", "no task of the charter is of kind %s", charter.KindLoRA)
		}
		if len(tasks) > 1 {
			return label.Hash{}, cli.BadUsage("say which: "+tasks[0]+"/latest", "latest is ambiguous, there are %d tasks", len(tasks))
		}
		task, seq, ofTask = tasks[0], "latest", true
	}
	if ofTask {
		if _, ok := ch.Task(task); !ok {
			return label.Hash{}, cli.BadUsage(roundHint, "no task is named %q", task)
		}
		n, err := strconv.ParseUint(seq, 10, 64)
		if err != nil && seq != "latest" {
			return label.Hash{}, cli.BadUsage(roundHint, "round %q: %q is no number", name, seq)
		}
		var found *coordpb.RoundSummary
		for _, r := range candidates {
			if r.GetTaskId() != task {
				continue
			}
			if seq == "latest" && (found == nil || r.GetSeq() >= found.GetSeq()) || seq != "latest" && r.GetSeq() == n {
				found = r // of two proposals of one seq the later
			}
		}
		if found == nil {
			return label.Hash{}, cli.Fail("not_found", "see `ruche rounds list`", "no %s %s", kind, name)
		}
		return label.HashFromBytes(found.GetRoundId())
	}
	return byPrefix(candidates, kind, strings.ToLower(name))
}

func byPrefix(candidates []*coordpb.RoundSummary, kind, prefix string) (label.Hash, error) {
	if strings.Trim(prefix, "0123456789abcdef") != "" || len(prefix) > 2*label.Size {
		return label.Hash{}, cli.BadUsage(roundHint, "round %q is no id", prefix)
	}
	if len(prefix) < prefixDigitsMin {
		return label.Hash{}, cli.BadUsage(roundHint, "round %q has %d digits, needs at least %d", prefix, len(prefix), prefixDigitsMin)
	}
	var matches []string
	var found []byte
	for _, r := range candidates {
		if id := hex.EncodeToString(r.GetRoundId()); strings.HasPrefix(id, prefix) {
			matches, found = append(matches, id), r.GetRoundId()
		}
	}
	switch len(matches) {
	case 0:
		return label.Hash{}, cli.Fail("not_found", "see `ruche rounds list`", "no %s begins with %s", kind, prefix)
	case 1:
		return label.HashFromBytes(found)
	}
	return label.Hash{}, cli.BadUsage("give more digits: "+strings.Join(matches, ", "), "round %s is ambiguous, %d begin with it", prefix, len(matches))
}

// listRounds asks for every round of a task, or of all tasks. It returns the member that answered.
func listRounds(ctx context.Context, k *consortium, task string) (*coordpb.ListRoundsResponse, int, error) {
	if task != "" {
		if _, ok := k.ch.Task(task); !ok {
			return nil, -1, cli.BadUsage("tasks are "+taskNames(k.ch), "no task is named %q", task)
		}
	}
	return askFresh(ctx, k, func(ctx context.Context, c coordpb.DeviceClient) (*coordpb.ListRoundsResponse, error) {
		return c.ListRounds(ctx, &coordpb.ListRoundsRequest{TaskId: task})
	})
}

func taskNames(ch *charter.Charter) string {
	var names []string
	for _, t := range ch.Tasks {
		names = append(names, t.ID)
	}
	return strings.Join(names, ", ")
}

// getRound asks one member for everything it knows of a round.
func getRound(ctx context.Context, k *consortium, member int, id label.Hash) (*coordpb.RoundRecord, error) {
	return askOne(ctx, k, member, func(ctx context.Context, c coordpb.DeviceClient) (*coordpb.RoundRecord, error) {
		return c.GetRound(ctx, &coordpb.GetRoundRequest{RoundId: id[:]})
	})
}

// fetchRound finds the round that a person names and fetches its record from the member that listed it.
func fetchRound(ctx context.Context, k *consortium, name string, want wanted) (id label.Hash, rec *coordpb.RoundRecord, member int, err error) {
	list, member, err := listRounds(ctx, k, "")
	if err != nil {
		return id, nil, -1, err
	}
	if id, err = roundNamed(k.ch, list.GetRounds(), name, want); err != nil {
		return id, nil, member, err
	}
	if rec, err = getRound(ctx, k, member, id); err != nil {
		return id, nil, member, err
	}
	return id, rec, member, nil
}

// roundSources let an audit fetch from one member, and, where alone is false, a state that it lacks from any other: a
// member may learn that a round is published before it has computed the state itself, and states are named by their hash.
func roundSources(ctx context.Context, k *consortium, member int, alone bool) sources {
	return sources{
		state: func(model label.Hash) ([]byte, error) {
			b, err := fetchState(ctx, k, member, model)
			if status.Code(err) != codes.NotFound {
				return b, err
			}
			if alone || k.only >= 0 {
				return nil, absent("this member does not have it")
			}
			gone := 1 // members that say that they do not have it
			for i := range k.clients {
				if i == member {
					continue
				}
				b, oerr := fetchState(ctx, k, i, model)
				if oerr == nil {
					return b, nil
				}
				if status.Code(oerr) == codes.NotFound {
					gone++
				}
			}
			if gone >= k.ch.Believe() {
				return nil, absent("%d members do not have it, nobody has: they keep the newest states of a task only", gone)
			}
			return nil, err
		},
		previous: func(task string, model label.Hash) (*coordpb.RoundRecord, error) {
			list, err := askOne(ctx, k, member, func(ctx context.Context, c coordpb.DeviceClient) (*coordpb.ListRoundsResponse, error) {
				return c.ListRounds(ctx, &coordpb.ListRoundsRequest{TaskId: task})
			})
			if err != nil {
				return nil, err
			}
			for _, r := range list.GetRounds() {
				if string(r.GetModelHash()) != string(model[:]) {
					continue
				}
				id, err := label.HashFromBytes(r.GetRoundId())
				if err != nil {
					return nil, fmt.Errorf("member %s lists a round without id", k.ch.Members[member].Name)
				}
				return getRound(ctx, k, member, id)
			}
			return nil, absent("the round it starts from is not kept any more")
		},
	}
}
