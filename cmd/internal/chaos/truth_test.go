//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/intake"
)

const newestID = "aa02"

// honest are replies that tell a scene as it is. The first member that is up leads, if anybody can, and serves the lists.
func honest(s *scene) *replies {
	x := &replies{before: make([]view, len(s.names)), after: make([]view, len(s.names))}
	var up, gone []string
	for _, name := range s.names {
		if s.isDown(name) {
			gone = append(gone, name)
		} else {
			up = append(up, name)
		}
	}
	leader := ""
	if s.quorum() {
		leader = up[0]
	}
	var waits []waitSaid
	if len(up) < s.needed {
		waits = []waitSaid{{What: "members up", Lacks: gone}}
	}
	for i, name := range s.names {
		if s.isDown(name) {
			x.status = append(x.status, answer[statusSaid]{data: statusSaid{Condition: "gone"}, word: "gone"})
			x.members.data = append(x.members.data, memberSaid{Name: name})
			x.before[i].err, x.after[i].err = errors.New("down"), errors.New("down")
			continue
		}
		x.status = append(x.status, answer[statusSaid]{data: statusSaid{Condition: "running", Leader: leader, Leading: name == leader, Alive: up}})
		x.members.data = append(x.members.data, memberSaid{Name: name, Reachable: true, Leader: name == leader, Hears: leader, Waits: waits})
		x.before[i].rounds = []*coordpb.RoundSummary{{RoundId: []byte{0xaa, 1}, Seq: 1, Phase: "published"}, {RoundId: []byte{0xaa, 2}, Seq: 2, Phase: "open", Accepted: 2}}
		x.after[i].rounds = []*coordpb.RoundSummary{x.before[i].rounds[0], {RoundId: []byte{0xaa, 2}, Seq: 2, Phase: "acked", Accepted: 4}}
	}
	x.list.data = []roundSaid{{ID: "aa01", Seq: 1, Phase: "published", ServedBy: up[0], Hears: leader},
		{ID: newestID, Seq: 2, Phase: "open", Accepted: 3, ServedBy: up[0], Hears: leader}}
	x.show.data = roundSaid{ID: newestID, Seq: 2, Phase: "closed", Accepted: 4, ServedBy: up[0], Hears: leader}
	return x
}

// TestTheTruthIsWhatItIs: what is told of a scene passes, and each single lie in it does not.
func TestTheTruthIsWhatItIs(t *testing.T) {
	scenes := map[string]scene{
		"all up":     {},
		"leaderless": {down: []int{0, 3}}, // two of four are no quorum
		"one down":   {down: []int{0}},
		"back":       {back: []int{2, 3}},
	}
	unread := status.Error(codes.Unavailable, intake.CodeNotRead+": entry 3 of 7")
	of := func(name string) *scene {
		s := scenes[name]
		s.names, s.needed = []string{"alpha", "beta", "gamma", "delta"}, 3
		return &s
	}
	for name := range scenes {
		if err := honest(of(name)).judge(of(name)); err != nil {
			t.Errorf("%s: the truth is a lie: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		scene string
		forge func(x *replies)
		want  string // empty: it is no lie
	}{
		"one that is down runs":         {"one down", func(x *replies) { x.status[0].data.Condition = "running" }, "is down, is running"},
		"one that is down exits with 0": {"one down", func(x *replies) { x.status[0].word = "" }, "is down"},
		"one that is down starts":       {"one down", func(x *replies) { x.status[0].data.Condition = "starting" }, "is down, is starting"},
		"one that is down leads":        {"one down", func(x *replies) { x.status[0].data.Leader = "alpha" }, "is down, names"},
		"one that is down sees others":  {"one down", func(x *replies) { x.status[0].data.Alive = []string{"beta"} }, "is down, names"},
		"one that is up is gone":        {"one down", func(x *replies) { x.status[1].data.Condition = "gone" }, "is up, is gone"},
		"one that is up starts":         {"one down", func(x *replies) { x.status[1].data.Condition = "starting" }, "is up, is starting"},
		"one that is back starts":       {"back", startingMember, ""},
		"one that starts is reached":    {"back", func(x *replies) { startingMember(x); x.members.data[2].Reachable = true }, ""},
		"one that is back is stale": {"back", func(x *replies) {
			x.status[2] = answer[statusSaid]{data: statusSaid{Condition: "stale"}, word: "stale"}
		}, "is up, is stale"},
		"one that runs is not reached":        {"back", func(x *replies) { x.members.data[2] = memberSaid{Name: "gamma"} }, "reachable false of gamma"},
		"no status at all":                    {"all up", func(x *replies) { x.status[2].err = errors.New("no JSON") }, "no JSON"},
		"the leader that died":                {"one down", func(x *replies) { x.status[1].data.Leader = "alpha" }, "alpha, which is down"},
		"a leader that is nobody":             {"all up", func(x *replies) { x.status[1].data.Leader = "omega" }, "no member"},
		"no leader":                           {"all up", func(x *replies) { x.status[1].data.Leader = "" }, ""},
		"a leader without a quorum":           {"leaderless", func(x *replies) { x.status[1].data.Leader = "beta" }, "no quorum"},
		"one leads without a quorum":          {"leaderless", func(x *replies) { x.status[1].data.Leading = true }, "1 members lead"},
		"two lead":                            {"all up", func(x *replies) { x.status[1].data.Leading = true }, "2 members lead"},
		"status sees one that is down":        {"one down", func(x *replies) { x.status[1].data.Alive = []string{"beta", "alpha"} }, "alpha is up"},
		"the list reaches one that is down":   {"one down", func(x *replies) { x.members.data[0].Reachable = true }, "reachable true of alpha"},
		"the list lacks a member":             {"one down", func(x *replies) { x.members.data = x.members.data[1:] }, "3 members"},
		"one that is not reached leads":       {"one down", func(x *replies) { x.members.data[0].Leader = true }, "not reached"},
		"one that is not reached hears":       {"one down", func(x *replies) { x.members.data[0].Hears = "beta" }, "not reached"},
		"the list names who died":             {"one down", func(x *replies) { x.members.data[1].Hears = "alpha" }, "alpha, which is down"},
		"the list names one without a quorum": {"leaderless", func(x *replies) { x.members.data[1].Hears = "gamma" }, "no quorum"},
		"by the list two lead":                {"all up", func(x *replies) { x.members.data[1].Leader = true }, "2 members lead"},
		"by the list one leads without":       {"leaderless", func(x *replies) { x.members.data[1].Leader = true }, "1 members lead"},
		"nobody is waited for":                {"leaderless", func(x *replies) { x.members.data[1].Waits = nil }, "does not say that it waits"},
		"one is not waited for":               {"leaderless", func(x *replies) { x.members.data[1].Waits[0].Lacks = []string{"alpha"} }, "of delta"},
		"one that is up is waited for":        {"one down", func(x *replies) { x.members.data[1].Waits = []waitSaid{{"members up", []string{"alpha", "delta"}}} }, "of delta"},
		"rounds of one that is down":          {"one down", func(x *replies) { x.list.data[1].ServedBy = "alpha" }, "not up"},
		"rounds list names who died":          {"one down", func(x *replies) { x.list.data[0].Hears = "alpha" }, "alpha, which is down"},
		"rounds list names one without":       {"leaderless", func(x *replies) { x.list.data[1].Hears = "beta" }, "no quorum"},
		"rounds show of one that is down":     {"one down", func(x *replies) { x.show.data.ServedBy = "alpha" }, "not up"},
		"rounds show names who died":          {"one down", func(x *replies) { x.show.data.Hears = "alpha" }, "rounds show names"},
		"rounds show names one without":       {"leaderless", func(x *replies) { x.show.data.Hears = "gamma" }, "no quorum"},
		"rounds list is behind":               {"all up", func(x *replies) { x.list.data[1].Accepted = 1 }, "round 2 is open"},
		"rounds list is ahead":                {"all up", func(x *replies) { x.list.data[1].Phase = "sealed" }, "round 2 is sealed"},
		"rounds list knows no newer":          {"all up", func(x *replies) { x.list.data = x.list.data[:1] }, "round 1 is published"},
		"rounds show is behind":               {"all up", func(x *replies) { x.show.data.Phase = "proposed" }, "round 2 is proposed"},
		"rounds show is ahead":                {"all up", func(x *replies) { x.show.data.Phase = "published" }, "round 2 is published"},
		"rounds show of nothing":              {"all up", func(x *replies) { x.show.data.Phase = "running" }, "round 2 is running"},
		"rounds show of another":              {"all up", func(x *replies) { x.show.data.ID = "aa01" }, "shows round"},
		"rounds show fails":                   {"all up", func(x *replies) { x.show.word = "failed" }, "says nothing"},
		"rounds list is empty":                {"all up", func(x *replies) { x.list.data = nil }, "says nothing"},
		"who served is silent":                {"all up", func(x *replies) { x.after[0] = view{err: errors.New("timeout")} }, "does not answer after"},
		"who served was silent":               {"all up", func(x *replies) { x.before[0] = view{err: errors.New("timeout")} }, "did not answer before"},
		"who served had not read":             {"back", func(x *replies) { x.before[0] = view{err: unread} }, ""},
		"nobody answers": {"leaderless", func(x *replies) {
			for i := range x.before {
				x.before[i] = view{err: errors.New("timeout")}
			}
		}, "no member answers"},
		"nobody has read, and says so": {"leaderless", func(x *replies) { nobodyRead(x, unread); x.list.word, x.list.data = intake.CodeNotRead, nil }, ""},
		"nobody has read, and lists":   {"leaderless", func(x *replies) { nobodyRead(x, unread) }, "no member has read"},
		"nobody has read: no rounds":   {"leaderless", func(x *replies) { nobodyRead(x, unread); x.list.data = nil }, "no member has read"},
	} {
		s := of(c.scene)
		x := honest(s)
		c.forge(x)
		if err := x.judge(s); (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want %q, got %v", name, c.want, err)
		}
	}
}

// startingMember: gamma, which is back, still starts, and is reached by nobody.
func startingMember(x *replies) {
	x.status[2].data = statusSaid{Condition: "starting"}
	x.members.data[2] = memberSaid{Name: "gamma"}
	x.members.data[0].Waits = []waitSaid{{"members up", []string{"gamma"}}}
}

func nobodyRead(x *replies, unread error) {
	x.before[1], x.before[2] = view{err: unread}, view{err: unread}
}

// TestADeviceThatWasKilledDoesNotRun by its status.
func TestADeviceThatWasKilledDoesNotRun(t *testing.T) {
	for i, c := range []struct {
		printed string
		exit    int
		lie     bool
	}{
		{`{"status":"error","data":{"state":"stopped","pid":0},"error_code":"stopped"}`, 1, false},
		{`{"status":"error","data":null,"error_code":"never_ran"}`, 1, false},
		{`{"status":"ok","data":{"state":"waiting","pid":7},"error_code":""}`, 0, true},
		{`{"status":"error","data":{"state":"stale","pid":7},"error_code":"stale"}`, 1, true},
		{`{"status":"error","data":{"state":"waiting","pid":0},"error_code":"stopped"}`, 1, true},
		{`{"status":"error","data":{"state":"stopped","pid":7},"error_code":"stopped"}`, 1, true},
		{`no JSON`, 1, true},
	} {
		program := filepath.Join(t.TempDir(), "node")
		must(t, os.WriteFile(program, fmt.Appendf(nil, "#!/bin/sh\necho '%s'\nexit %d\n", c.printed, c.exit), 0o700))
		if err := deviceTells(t.Context(), program, "."); c.lie != (err != nil) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// TestRecoveries: what another fault came into is not measured as the moment's own.
func TestRecoveries(t *testing.T) {
	at := func(seconds ...int) (out []time.Time) {
		for _, s := range seconds {
			out = append(out, time.Unix(int64(s), 0))
		}
		return out
	}
	all := []upload{{at(0)[0], at(1)[0]}, {at(9)[0], at(12)[0]}, {at(11)[0], at(15)[0]}, {at(40)[0], at(50)[0]}}
	for i, c := range []struct {
		moments, faults []time.Time
		begun, next     []time.Duration
	}{
		{at(10), nil, []time.Duration{5 * time.Second}, []time.Duration{2 * time.Second}},
		{at(10), at(5, 10, 20), []time.Duration{5 * time.Second}, []time.Duration{2 * time.Second}},
		{at(10), at(10, 13), nil, []time.Duration{2 * time.Second}},
		{at(10), at(10, 11), nil, nil},
		{at(10, 20), at(10, 20, 30), []time.Duration{5 * time.Second}, []time.Duration{2 * time.Second}},
		{at(60), nil, nil, nil},
	} {
		if begun, next := recoveries(all, c.moments, c.faults); !slices.Equal(begun, c.begun) || !slices.Equal(next, c.next) {
			t.Errorf("%d: %v and %v, want %v and %v", i, begun, next, c.begun, c.next)
		}
	}
	if got, want := gaps(all), []time.Duration{11 * time.Second, 3 * time.Second, 35 * time.Second}; !slices.Equal(got, want) {
		t.Errorf("gaps %v, want %v", got, want)
	}
}
