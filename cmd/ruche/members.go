package main

import (
	"context"
	"fmt"
	"sync"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
)

func membersCommand() *urfave.Command {
	return &urfave.Command{Name: "members", Usage: "the consortium's members", Subcommands: []*urfave.Command{listMembersCommand()}}
}

// memberLine is one line of `members list`.
type memberLine struct {
	Index      int          `json:"index"`
	Name       string       `json:"name"`
	Role       string       `json:"role"` // of its store in the log: voter, catching up, waiting
	StoreID    string       `json:"store_id"`
	Lacking    uint32       `json:"lacking"`          // accepted contributions of live rounds that it does not hold
	Under      uint32       `json:"under_replicated"` // of all that it knows, with fewer than n-f known holders
	Leader     bool         `json:"leader"`
	Term       uint64       `json:"term"`
	Committed  uint64       `json:"committed"`
	Applied    uint64       `json:"applied"`
	ReadsTo    uint64       `json:"reads_to"` // not 0: it started again and has not applied its log again so far; the rest is not known there yet
	Epoch      uint64       `json:"epoch"`
	Erased     uint64       `json:"erased"`            // highest epoch whose keys this member said it erased
	Hears      string       `json:"hears"`             // the leader that it hears; empty: nobody
	HeardAge   float64      `json:"heard_age_seconds"` // since it last heard one; -1: never
	Waits      []waitReport `json:"waits"`             // what keeps the consortium from working, as this member sees it
	OpenRounds uint32       `json:"open_rounds"`
	Reachable  bool         `json:"reachable"`
	Problem    string       `json:"problem"` // why it is not reachable
	DeviceURL  string       `json:"device_url"`
	Label      string       `json:"label"`

	note string // where it hears nobody
}

func listMembersCommand() *urfave.Command {
	return &urfave.Command{
		Name: "list", Usage: "each member's word about itself; with --member, how that one sees the others",
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c, 0, 0, "[--member NAME]"); err != nil {
				return err
			}
			k, err := dial(c)
			if err != nil {
				return err
			}
			defer k.close()
			var lines []memberLine
			var first error
			if k.only >= 0 {
				r, _, err := ask(c.Context, k, askMembers)
				if err != nil {
					return err
				}
				lines = seenBy(k.ch, r)
			} else {
				k.timeout = min(k.timeout, memberAskMax)
				lines, first = askEach(c.Context, k)
			}
			reached := 0
			for _, l := range lines {
				if l.Reachable {
					reached++
				}
			}
			if reached == 0 && first != nil {
				return fmt.Errorf("no member answers: %w", first)
			}
			for _, l := range lines {
				if l.Problem != "" {
					cli.Out(c).Notef("%s", cli.Printable(l.Problem))
				}
				if l.note != "" {
					cli.Out(c).Notef("%s", l.note)
				}
			}
			err = cli.Rows(cli.Out(c), lines, func() *cli.Table { return membersTable(lines) })
			if err == nil && reached < k.ch.Needed() {
				cli.Out(c).Notef("%d of %d members answer; rounds need %d", reached, k.ch.N, k.ch.Needed())
			}
			return err
		},
	}
}

func askMembers(ctx context.Context, c coordpb.DeviceClient) (*coordpb.ListMembersResponse, error) {
	return c.ListMembers(ctx, &coordpb.ListMembersRequest{})
}

func newLine(ch *charter.Charter, i int) memberLine {
	l := memberLine{HeardAge: -1, Waits: []waitReport{}, Index: i, Name: ch.Members[i].Name, Role: "voter", DeviceURL: ch.Members[i].DeviceURL}
	if ch.Demo {
		l.Label = cli.DemoLabel
	}
	return l
}

// askEach takes from every member its own line only, all at once: nobody vouches for another. The error is the first
// of those who did not answer.
func askEach(ctx context.Context, k *consortium) ([]memberLine, error) {
	lines, errs := make([]memberLine, k.ch.N), make([]error, k.ch.N)
	var wg sync.WaitGroup
	for i := range lines {
		wg.Go(func() {
			lines[i] = newLine(k.ch, i)
			r, err := askOne(ctx, k, i, askMembers)
			if err != nil {
				lines[i].Problem, errs[i] = err.Error(), err
				return
			}
			for _, s := range r.GetMembers() {
				if s.GetSelf() {
					lines[i].fill(k.ch, s)
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return lines, err
		}
	}
	return lines, nil
}

// seenBy is one member's view of all.
func seenBy(ch *charter.Charter, r *coordpb.ListMembersResponse) []memberLine {
	lines := make([]memberLine, ch.N)
	for i := range lines {
		lines[i] = newLine(ch, i)
	}
	for _, s := range r.GetMembers() {
		if i := int(s.GetIndex()); i < len(lines) {
			lines[i].fill(ch, s)
		}
	}
	return lines
}

// fill copies what the charter does not say.
func (l *memberLine) fill(ch *charter.Charter, s *coordpb.MemberStatus) {
	l.Leader, l.Term, l.Committed, l.Applied = s.GetLeader(), s.GetTerm(), s.GetCommitted(), s.GetApplied()
	l.StoreID, l.Lacking, l.Under = s.GetStoreId(), s.GetLacking(), s.GetUnderReplicated()
	if s.GetRole() != "" {
		l.Role = cli.Printable(s.GetRole())
	}
	l.Epoch, l.Erased, l.OpenRounds, l.Reachable = s.GetEpoch(), s.GetErased(), s.GetOpenRounds(), s.GetReachable()
	l.Hears, l.HeardAge, l.Waits = s.GetStanding().GetLeader(), heardAge(s.GetStanding()), reportWaits(ch, s.GetStanding().GetWaits())
	l.ReadsTo = s.GetStanding().GetReadsTo()
	l.note = standingNote(ch, l.Index, s.GetStanding())
}

func membersTable(lines []memberLine) *cli.Table {
	t := &cli.Table{Columns: []string{"INDEX", "NAME", "ROLE", "LEADER", "TERM", "COMMITTED", "APPLIED", "EPOCH", "ERASED", "HEARS", "REACHABLE"}}
	for _, l := range lines {
		if !l.Reachable {
			t.Add(l.Index, l.Name, l.Role, "", "", "", "", "", "", "", "no")
			continue
		}
		epoch, erased := fmt.Sprint(l.Epoch), fmt.Sprint(l.Erased)
		if l.ReadsTo > 0 {
			epoch, erased = "", ""
		}
		t.Add(l.Index, l.Name, l.Role, yesNo(l.Leader), fmt.Sprint(l.Term), l.Committed, l.Applied, epoch, erased, l.Hears, "yes")
	}
	return t
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
