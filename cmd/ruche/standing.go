package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
)

// askFresh is ask for what changes: an answer of a member that hears no leader is taken only if nobody has a better one.
// An older program does not say, and is believed.
func askFresh[T interface{ GetStanding() *coordpb.Standing }](ctx context.Context, k *consortium, f func(context.Context, coordpb.DeviceClient) (T, error)) (T, int, error) {
	v, member, err := ask(ctx, k, f)
	if err != nil || k.only >= 0 || !alone(v.GetStanding()) {
		return v, member, err
	}
	for i := member + 1; i < len(k.clients); i++ {
		other, err := askOne(ctx, k, i, f)
		if err == nil && (!alone(other.GetStanding()) || other.GetStanding().GetApplied() > v.GetStanding().GetApplied()) {
			v, member = other, i
		}
		if !alone(v.GetStanding()) {
			break
		}
	}
	return v, member, nil
}

// alone reports that a member hears no leader: it shows what it knew last.
func alone(s *coordpb.Standing) bool { return s != nil && s.GetLeader() == "" }

// heardAge is how many seconds ago a member heard a leader, -1 for never.
func heardAge(s *coordpb.Standing) float64 {
	if s.GetAgeMs() < 0 {
		return -1
	}
	return float64(s.GetAgeMs()) / 1000
}

// standingNote says in one line what an answer is worth, where it is not what it seems.
func standingNote(ch *charter.Charter, member int, s *coordpb.Standing) string {
	to := s.GetReadsTo()
	if !alone(s) && to == 0 {
		return ""
	}
	since := "since its start"
	if age := heardAge(s); age >= 0 {
		since = "for " + cli.Age(time.Duration(age*float64(time.Second)))
	}
	name := ch.Members[member].Name
	note := fmt.Sprintf("%s has heard no leader %s: what it shows is as of then (entry %d)", name, since, s.GetApplied())
	if to > 0 {
		note = fmt.Sprintf("%s started again and has not read its log yet (entry %d of %d): of rounds it knows nothing", name, s.GetApplied(), to)
	}
	for _, w := range waitLines(ch, s.GetWaits()) {
		note += "; waits: " + w
	}
	return cli.Printable(note)
}

// waitReport is something that is not there yet.
type waitReport struct {
	What  string   `json:"what"`
	Have  uint32   `json:"have"`
	Need  uint32   `json:"need"`
	Lacks []string `json:"lacks"` // the members whose word is missing
}

func reportWaits(ch *charter.Charter, in []*coordpb.Wait) []waitReport {
	out := []waitReport{}
	for _, w := range in {
		at := waitReport{What: w.GetWhat(), Have: w.GetHave(), Need: w.GetNeed(), Lacks: []string{}}
		for _, j := range w.GetLacks() {
			at.Lacks = append(at.Lacks, memberName(ch, int(min(j, charter.MembersMax))))
		}
		out = append(out, at)
	}
	return out
}

func (w waitReport) String() string {
	out := fmt.Sprintf("%d of %d %s", w.Have, w.Need, w.What)
	if w.What == "members up" {
		out = fmt.Sprintf("%d of the %d members needed are up", w.Have, w.Need)
	}
	if len(w.Lacks) > 0 {
		out += "; lacks " + strings.Join(w.Lacks, ", ")
	}
	return out
}

func waitLines(ch *charter.Charter, in []*coordpb.Wait) (out []string) {
	for _, w := range reportWaits(ch, in) {
		out = append(out, w.String())
	}
	return out
}
