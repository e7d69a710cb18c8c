package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ruche-federation/ruche/cmd/internal/consortium"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/intake"
)

// truth asks the operators' commands until they say what is the case: these members are down, the others are up, and none
// of the former leads, nobody if they are too few. It returns when it asked those that told so; what is asked truthWithin
// after the kill or later, and does not tell, is an error. How long the commands themselves take is the machine's affair.
func truth(ctx context.Context, c *consortium.Consortium, down []int) (time.Duration, error) {
	began := time.Now()
	for {
		asked := time.Since(began)
		err := errors.Join(statusTells(ctx, c, down), membersTell(ctx, c, down), roundsTell(ctx, c))
		if err == nil {
			return asked, nil
		}
		if asked >= truthWithin {
			return asked, fmt.Errorf("%s after members %v were killed the operators' commands do not tell: %w", asked.Round(100*time.Millisecond), down, err)
		}
		if err := pause(ctx, truthEvery); err != nil {
			return asked, err
		}
	}
}

// told runs a command and reads its envelope: the data, and the word for what it refused, empty where all was well.
func told[T any](ctx context.Context, program string, args ...string) (data T, word string, err error) {
	out, runErr := consortium.Command(ctx, program, append([]string{"--format", "json"}, args...)...)
	var envelope struct {
		Status string `json:"status"`
		Data   T      `json:"data"`
		Word   string `json:"error_code"`
	}
	if err := json.Unmarshal(out, &envelope); err != nil {
		return data, "", errors.Join(runErr, err)
	}
	if ok := runErr == nil && envelope.Status == "ok"; !ok && envelope.Word == "" {
		envelope.Word = "failed"
	}
	return envelope.Data, envelope.Word, nil
}

// statusTells is about `ruche-coordinator status` in every member's folder. That no leader is known may be true for a while.
func statusTells(ctx context.Context, c *consortium.Consortium, down []int) error {
	quorum := len(c.Members)-len(down) > len(c.Members)/2
	leaders := 0
	for i, dir := range c.Dirs {
		s, word, err := told[struct {
			Condition string `json:"condition"`
			Leader    string `json:"leader"`
			Leading   bool   `json:"leading"`
		}](ctx, c.Programs.Coordinator, "--dir", dir, "status")
		name := c.Charter.Members[i].Name
		switch {
		case err != nil:
			return fmt.Errorf("status of %s: %w", name, err)
		case slices.Contains(down, i) && (word == "" || s.Condition == "running"):
			return fmt.Errorf("status says that %s, which is down, is %s", name, s.Condition)
		case slices.Contains(down, i):
			continue
		case word != "" || s.Condition != "running":
			return fmt.Errorf("status says that %s, which is up, is %s", name, s.Condition)
		case !quorum && (s.Leader != "" || s.Leading):
			return fmt.Errorf("status of %s names the leader %s, and there is no quorum", name, s.Leader)
		}
		for _, d := range down {
			if s.Leader == c.Charter.Members[d].Name {
				return fmt.Errorf("status of %s names the leader %s, which is down", name, s.Leader)
			}
		}
		if s.Leading {
			leaders++
		}
	}
	if leaders > 1 {
		return fmt.Errorf("by their status %d members lead", leaders)
	}
	return nil
}

// membersTell is about `ruche members list`.
func membersTell(ctx context.Context, c *consortium.Consortium, down []int) error {
	lines, _, err := told[[]struct {
		Name      string `json:"name"`
		Reachable bool   `json:"reachable"`
	}](ctx, c.Programs.Ruche, "--charter", c.CharterPath, "members", "list")
	if err != nil {
		return fmt.Errorf("members list: %w", err)
	}
	for i, l := range lines {
		if l.Reachable == slices.Contains(down, i) {
			return fmt.Errorf("members list says reachable %v of %s", l.Reachable, l.Name)
		}
	}
	return nil
}

// roundsTell is about `ruche rounds list` and `ruche rounds show`: what they say of the newest round lies between what
// the members say before and after. Where no member has read its log again they say that, and name no round.
func roundsTell(ctx context.Context, c *consortium.Consortium) error {
	before, err := c.Rounds(ctx)
	if err != nil && !errors.Is(err, consortium.ErrUnread) {
		return err
	}
	unread := err != nil
	lines, word, err := told[[]struct {
		ID       string `json:"id"`
		Seq      uint64 `json:"seq"`
		Phase    string `json:"phase"`
		Accepted uint32 `json:"accepted"`
	}](ctx, c.Programs.Ruche, "--charter", c.CharterPath, "rounds", "list")
	switch {
	case unread && err == nil && word == intake.CodeNotRead && len(lines) == 0:
		return nil
	case unread:
		return fmt.Errorf("rounds list says %q and %d rounds, and no member has read its log again: %v", word, len(lines), err)
	case err != nil || word != "" || len(lines) == 0:
		return fmt.Errorf("rounds list says nothing (%s): %v", word, err)
	}
	newest := lines[len(lines)-1]
	show, word, err := told[struct {
		ID    string `json:"id"`
		Seq   uint64 `json:"seq"`
		Phase string `json:"phase"`
	}](ctx, c.Programs.Ruche, "--charter", c.CharterPath, "rounds", "show", newest.ID)
	if err != nil || word != "" {
		return fmt.Errorf("rounds show %s says nothing (%s): %v", newest.ID, word, err)
	}
	after, err := c.Rounds(ctx)
	if err != nil {
		return err
	}
	listed := consortium.Progress([]*coordpb.RoundSummary{{Seq: newest.Seq, Phase: newest.Phase, Accepted: newest.Accepted}})
	if behind := consortium.Progress(before[:1]); listed < behind || listed > consortium.Progress(after) {
		return fmt.Errorf("rounds list says that round %d is %s", newest.Seq, newest.Phase)
	}
	if show.ID != newest.ID || show.Seq != newest.Seq {
		return fmt.Errorf("rounds show shows round %d for round %d", show.Seq, newest.Seq)
	}
	return nil
}
