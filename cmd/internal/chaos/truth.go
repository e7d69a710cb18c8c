package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/cmd/internal/consortium"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/intake"
	"github.com/ruche-federation/ruche/node"
)

// truth asks the operators' commands until they say what is the case: these members are down, the others are up, and none
// of the former leads, nobody if they are too few; one of those that were started again just now may be starting. It returns
// when it asked those that told so; what is asked truthWithin after the kill or the start, or later, and does not tell, is
// an error. How long the commands themselves take is the machine's affair.
func truth(ctx context.Context, c *consortium.Consortium, down, back []int) (time.Duration, error) {
	s := newScene(c, down, back)
	asked, err := until(ctx, func() error { return ask(ctx, c, down).judge(s) })
	if err != nil {
		err = fmt.Errorf("%s after members %v were killed and %v started again the operators' commands do not tell: %w", asked.Round(100*time.Millisecond), down, back, err)
	}
	return asked, err
}

// deviceTruth asks `ruche-node status` of a device that was killed.
func deviceTruth(ctx context.Context, program, dir string) (time.Duration, error) {
	asked, err := until(ctx, func() error { return deviceTells(ctx, program, dir) })
	if err != nil {
		err = fmt.Errorf("%s after a device was killed its status does not tell: %w", asked.Round(100*time.Millisecond), err)
	}
	return asked, err
}

// until asks until it is told the truth, truthWithin from now for the last time, and says when it asked last.
func until(ctx context.Context, tells func() error) (time.Duration, error) {
	began := time.Now()
	for {
		asked := time.Since(began)
		err := tells()
		if err == nil || asked >= truthWithin {
			return asked, err
		}
		if err := pause(ctx, truthEvery); err != nil {
			return asked, err
		}
	}
}

// answer is what a command printed: its data, and the word for what it refused, empty where all was well.
type answer[T any] struct {
	data T
	word string
	err  error // nothing that can be read
}

// told runs a command and reads its envelope.
func told[T any](ctx context.Context, program string, args ...string) answer[T] {
	out, runErr := consortium.Command(ctx, program, append([]string{"--format", "json"}, args...)...)
	var envelope struct {
		Status string `json:"status"`
		Data   T      `json:"data"`
		Word   string `json:"error_code"`
	}
	if err := json.Unmarshal(out, &envelope); err != nil {
		return answer[T]{err: errors.Join(runErr, err)}
	}
	if ok := runErr == nil && envelope.Status == "ok"; !ok && envelope.Word == "" {
		envelope.Word = "failed"
	}
	return answer[T]{envelope.Data, envelope.Word, nil}
}

// deviceTells is about a device that does not run. One that was killed before it said anything never ran.
func deviceTells(ctx context.Context, program, dir string) error {
	a := told[struct {
		State string `json:"state"`
		PID   int    `json:"pid"`
	}](ctx, program, "--dir", dir, "status")
	stopped := a.word == "stopped" && a.data.State == node.StateStopped && a.data.PID == 0
	switch {
	case a.err != nil:
		return a.err
	case !stopped && a.word != "never_ran":
		return fmt.Errorf("ruche-node status says of a device that was killed %q: %s, process %d", a.word, a.data.State, a.data.PID)
	}
	return nil
}

type (
	statusSaid struct {
		Condition string   `json:"condition"`
		Leader    string   `json:"leader"`
		Leading   bool     `json:"leading"`
		Alive     []string `json:"alive"`
	}
	memberSaid struct {
		Name      string     `json:"name"`
		Reachable bool       `json:"reachable"`
		Leader    bool       `json:"leader"`
		Hears     string     `json:"hears"`
		Waits     []waitSaid `json:"waits"`
	}
	waitSaid struct {
		What  string   `json:"what"`
		Lacks []string `json:"lacks"`
	}
	roundSaid struct {
		ID       string `json:"id"`
		Seq      uint64 `json:"seq"`
		Phase    string `json:"phase"`
		Accepted uint32 `json:"accepted"`
		ServedBy string `json:"served_by"`
		Hears    string `json:"hears"`
	}
)

// replies are what the commands said, and what the members themselves said of their rounds before and after.
type replies struct {
	status        []answer[statusSaid] // `ruche-coordinator status`, in every member's folder
	members       answer[[]memberSaid] // `ruche members list`
	before, after []view               // by member
	list          answer[[]roundSaid]  // `ruche rounds list`
	show          answer[roundSaid]    // `ruche rounds show` of the newest of them
}

// view is a member's own list of rounds.
type view struct {
	rounds []*coordpb.RoundSummary
	err    error
}

func ask(ctx context.Context, c *consortium.Consortium, down []int) *replies {
	x := askStatus(ctx, c)
	x.members = told[[]memberSaid](ctx, c.Programs.Ruche, "--charter", c.CharterPath, "members", "list")
	x.askRounds(ctx, c, down)
	return x
}

func askStatus(ctx context.Context, c *consortium.Consortium) *replies {
	x := &replies{}
	for _, dir := range c.Dirs {
		x.status = append(x.status, told[statusSaid](ctx, c.Programs.Coordinator, "--dir", dir, "status"))
	}
	return x
}

func (x *replies) askRounds(ctx context.Context, c *consortium.Consortium, down []int) {
	x.before = views(ctx, c, down)
	x.list = told[[]roundSaid](ctx, c.Programs.Ruche, "--charter", c.CharterPath, "rounds", "list")
	if n := len(x.list.data); n > 0 {
		x.show = told[roundSaid](ctx, c.Programs.Ruche, "--charter", c.CharterPath, "rounds", "show", x.list.data[n-1].ID)
	}
	x.after = views(ctx, c, down)
}

// views asks every member that is up.
func views(ctx context.Context, c *consortium.Consortium, down []int) []view {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	out := make([]view, len(c.Clients))
	var wg sync.WaitGroup
	for i, client := range c.Clients {
		if slices.Contains(down, i) {
			out[i].err = errors.New("down")
			continue
		}
		wg.Go(func() {
			list, err := client.ListRounds(ctx, &coordpb.ListRoundsRequest{})
			out[i] = view{list.GetRounds(), err}
		})
	}
	wg.Wait()
	return out
}

// unread reports that a member has not read its log again since it started, and knows of no rounds.
func (v view) unread() bool {
	return v.err != nil && strings.HasPrefix(status.Convert(v.err).Message(), intake.CodeNotRead+":")
}

// at is how far a round has come in a view, 0 where it is not there.
func (v view) at(id string) int {
	for _, r := range v.rounds {
		if hex.EncodeToString(r.GetRoundId()) == id {
			return consortium.Progress([]*coordpb.RoundSummary{{Seq: r.GetSeq(), Phase: r.GetPhase()}})
		}
	}
	return 0
}

// scene is what is the case when the commands are asked.
type scene struct {
	names      []string // of the members
	needed     int      // of them, for rounds to go on
	down, back []int
	starting   []string // of those that are back: they say so
}

func newScene(c *consortium.Consortium, down, back []int) *scene {
	s := &scene{needed: c.Charter.Needed(), down: down, back: back}
	for _, m := range c.Charter.Members {
		s.names = append(s.names, m.Name)
	}
	return s
}

func (s *scene) isDown(name string) bool { return slices.Contains(s.down, slices.Index(s.names, name)) }

// quorum reports whether anybody can lead.
func (s *scene) quorum() bool { return len(s.names)-len(s.down) > len(s.names)/2 }

// leader judges whom somebody names. That no leader is known may be true for a while.
func (s *scene) leader(who, leader string) error {
	switch {
	case leader == "":
		return nil
	case !slices.Contains(s.names, leader):
		return fmt.Errorf("%s names the leader %q, which is no member", who, leader)
	case s.isDown(leader):
		return fmt.Errorf("%s names the leader %s, which is down", who, leader)
	case !s.quorum():
		return fmt.Errorf("%s names the leader %s, and there is no quorum", who, leader)
	}
	return nil
}

// judge holds the replies against the scene.
func (x *replies) judge(s *scene) error {
	s.starting = nil
	if err := x.statusTells(s); err != nil { // it says who is starting
		return err
	}
	return errors.Join(x.membersTell(s), x.roundsTell(s))
}

func (x *replies) statusTells(s *scene) error {
	leaders := 0
	for i, a := range x.status {
		name, who := s.names[i], "status of "+s.names[i]
		if a.err != nil {
			return fmt.Errorf("%s: %w", who, a.err)
		}
		if s.isDown(name) {
			if ended := slices.Contains([]string{"gone", "stopped", "failed"}, a.data.Condition); a.word == "" || !ended {
				return fmt.Errorf("status says that %s, which is down, is %s", name, a.data.Condition)
			}
			if a.data.Leader != "" || a.data.Leading || len(a.data.Alive) > 0 {
				return fmt.Errorf("%s, which is down, names the leader %q and %d members that are up", who, a.data.Leader, len(a.data.Alive))
			}
			continue
		}
		if slices.Contains(s.back, i) && a.word == "" && a.data.Condition == "starting" {
			s.starting = append(s.starting, name)
			continue
		}
		if a.word != "" || a.data.Condition != "running" {
			return fmt.Errorf("status says that %s, which is up, is %s", name, a.data.Condition)
		}
		if err := s.leader(who, a.data.Leader); err != nil {
			return err
		}
		if i := slices.IndexFunc(a.data.Alive, s.isDown); i >= 0 {
			return fmt.Errorf("%s says that %s is up, which is down", who, a.data.Alive[i])
		}
		if a.data.Leading {
			leaders++
		}
	}
	if leaders > 1 || leaders == 1 && !s.quorum() {
		return fmt.Errorf("by their status %d members lead", leaders)
	}
	return nil
}

func (x *replies) membersTell(s *scene) error {
	if x.members.err != nil || x.members.word != "" || len(x.members.data) != len(s.names) {
		return fmt.Errorf("members list shows %d members (%s): %v", len(x.members.data), x.members.word, x.members.err)
	}
	leaders := 0
	for _, l := range x.members.data {
		who := "members list, of " + l.Name + ","
		if starting := slices.Contains(s.starting, l.Name); l.Reachable == s.isDown(l.Name) && !starting {
			return fmt.Errorf("members list says reachable %v of %s", l.Reachable, l.Name)
		}
		if !l.Reachable {
			if l.Leader || l.Hears != "" {
				return fmt.Errorf("%s who is not reached, says that it leads (%v) and hears the leader %q", who, l.Leader, l.Hears)
			}
			continue
		}
		if l.Leader {
			leaders++
		}
		if err := errors.Join(s.leader(who, l.Hears), s.waits(who, l.Waits)); err != nil {
			return err
		}
	}
	if leaders > 1 || leaders == 1 && !s.quorum() {
		return fmt.Errorf("by members list %d members lead", leaders)
	}
	return nil
}

// waits judges what a member says it waits for: where too few are up it names all that are down, and nobody who is up.
func (s *scene) waits(who string, list []waitSaid) error {
	said := false
	for _, w := range list {
		if w.What != "members up" {
			continue
		}
		said = true
		for _, name := range s.names {
			if lacks := slices.Contains(w.Lacks, name); lacks != s.isDown(name) && !slices.Contains(s.starting, name) {
				return fmt.Errorf("%s waits for members (%s): of %s this is not true", who, strings.Join(w.Lacks, ", "), name)
			}
		}
	}
	if up := len(s.names) - len(s.down); up < s.needed && !said {
		return fmt.Errorf("%s does not say that it waits for members: %d of %d are up", who, up, s.needed)
	}
	return nil
}

// roundsTell: what `ruche rounds list` and `rounds show` say of the newest round lies between what the member that served
// them said before and after. Where no member has read its log again they say that, and name no round.
func (x *replies) roundsTell(s *scene) error {
	var errs []error
	known, unread := false, false
	for _, v := range x.before {
		known, unread = known || v.err == nil, unread || v.unread()
		errs = append(errs, v.err)
	}
	switch {
	case !known && !unread:
		return fmt.Errorf("no member answers: %w", errors.Join(errs...))
	case !known && x.list.err == nil && x.list.word == intake.CodeNotRead && len(x.list.data) == 0:
		return nil
	case !known:
		return fmt.Errorf("rounds list says %q and %d rounds, and no member has read its log again: %v", x.list.word, len(x.list.data), x.list.err)
	case x.list.err != nil || x.list.word != "" || len(x.list.data) == 0:
		return fmt.Errorf("rounds list says nothing (%s): %v", x.list.word, x.list.err)
	case x.show.err != nil || x.show.word != "":
		return fmt.Errorf("rounds show says nothing (%s): %v", x.show.word, x.show.err)
	}
	for _, l := range x.list.data {
		if _, err := x.served(s, "rounds list", l); err != nil {
			return err
		}
	}
	newest := x.list.data[len(x.list.data)-1]
	server, _ := x.served(s, "rounds list", newest)
	listed := consortium.Progress([]*coordpb.RoundSummary{{Seq: newest.Seq, Phase: newest.Phase, Accepted: newest.Accepted}})
	if listed < consortium.Progress(x.before[server].rounds) || listed > consortium.Progress(x.after[server].rounds) {
		return fmt.Errorf("rounds list says that round %d is %s with %d contributions", newest.Seq, newest.Phase, newest.Accepted)
	}
	show := x.show.data
	if show.ID != newest.ID || show.Seq != newest.Seq {
		return fmt.Errorf("rounds show shows round %d for round %d", show.Seq, newest.Seq)
	}
	server, err := x.served(s, "rounds show", show)
	if err != nil {
		return err
	}
	shown := consortium.Progress([]*coordpb.RoundSummary{{Seq: show.Seq, Phase: show.Phase}})
	if shown < x.before[server].at(show.ID) || shown > x.after[server].at(show.ID) {
		return fmt.Errorf("rounds show says that round %d is %s", show.Seq, show.Phase)
	}
	return nil
}

// served judges who served a line, and the leader in it. What one says that did not know its rounds before is held
// against what it says after.
func (x *replies) served(s *scene, command string, l roundSaid) (server int, err error) {
	server = slices.Index(s.names, l.ServedBy)
	switch {
	case server < 0 || s.isDown(l.ServedBy):
		return 0, fmt.Errorf("%s is served by %q, which is not up", command, l.ServedBy)
	case x.before[server].err != nil && !x.before[server].unread():
		return 0, fmt.Errorf("%s is served by %s, which did not answer before: %w", command, l.ServedBy, x.before[server].err)
	case x.after[server].err != nil:
		return 0, fmt.Errorf("%s is served by %s, which does not answer after: %w", command, l.ServedBy, x.after[server].err)
	}
	return server, s.leader(command, l.Hears)
}
