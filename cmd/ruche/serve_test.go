package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/pin"
)

// servant is a member's device port that serves fabricated rounds.
type servant struct {
	coordpb.UnimplementedDeviceServer
	rounds []*published
	status []*coordpb.MemberStatus
	stands *coordpb.Standing // of the lists and records that it serves; nil: an older program
	fail   error             // answers everything with it

	stateless bool // it keeps no state any more
}

func (s *servant) ListRounds(_ context.Context, r *coordpb.ListRoundsRequest) (*coordpb.ListRoundsResponse, error) {
	if s.fail != nil {
		return nil, s.fail
	}
	out := &coordpb.ListRoundsResponse{Standing: s.stands}
	for _, p := range s.rounds {
		if r.GetTaskId() != "" && r.GetTaskId() != p.rec.GetTaskId() {
			continue
		}
		line := &coordpb.RoundSummary{RoundId: p.id[:], TaskId: p.rec.GetTaskId(), Seq: p.rec.GetSeq(), Phase: p.rec.GetPhase(), Death: p.rec.GetDeath(),
			Accepted: uint32(len(p.rec.GetAccepts())), Target: 100, Contributors: uint32(len(p.rec.GetContributors())), OpenedMs: p.rc.ProposedMs}
		if p.rec.GetResult() != nil {
			model := p.model.Hash()
			line.ModelHash, line.EndedMs = model[:], p.rc.ProposedMs+60000
		}
		out.Rounds = append(out.Rounds, line)
	}
	return out, nil
}

func (s *servant) GetRound(_ context.Context, r *coordpb.GetRoundRequest) (*coordpb.RoundRecord, error) {
	for _, p := range s.rounds {
		if bytes.Equal(p.id[:], r.GetRoundId()) {
			rec := proto.Clone(p.rec).(*coordpb.RoundRecord)
			rec.Standing = s.stands
			return rec, nil
		}
	}
	return nil, status.Error(codes.NotFound, "no such round is kept here")
}

func (s *servant) GetAdapter(r *coordpb.GetAdapterRequest, stream grpc.ServerStreamingServer[coordpb.Chunk]) error {
	for _, p := range s.rounds {
		if h := p.model.Hash(); bytes.Equal(h[:], r.GetModelHash()) && !s.stateless {
			return coordpb.SendChunks(bytes.NewReader(p.state), 0, stream.Send)
		}
	}
	return status.Error(codes.NotFound, "no such state is kept here")
}

func (s *servant) ListMembers(context.Context, *coordpb.ListMembersRequest) (*coordpb.ListMembersResponse, error) {
	if s.fail != nil {
		return nil, s.fail
	}
	return &coordpb.ListMembersResponse{Members: s.status}, nil
}

// served is a hive whose members answer on loopback; those without a servant are down.
type served struct {
	*hive
	charter  string // path
	servants []*servant
}

func serve(t *testing.T, up int) *served {
	t.Helper()
	var ports []net.Listener
	var urls []string
	for range 4 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		ports, urls = append(ports, l), append(urls, "https://"+l.Addr().String())
	}
	s := &served{hive: newHive(t, urls), charter: filepath.Join(t.TempDir(), "charter.json")}
	must(t, os.WriteFile(s.charter, s.file, 0o600))
	for i, l := range ports {
		if i >= up {
			l.Close()
			continue
		}
		cert, err := pin.Certificate(s.tls[i], s.ch.Members[i].Name, time.Now())
		must(t, err)
		servant := &servant{}
		for j := range 4 {
			servant.status = append(servant.status, &coordpb.MemberStatus{Index: uint32(j), Name: s.ch.Members[j].Name, Leader: j == 1, Self: i == j, Term: 3, Committed: 40, Applied: uint64(40 - i), Epoch: 2, Erased: 1, Reachable: j < up,
				Standing: &coordpb.Standing{Leader: "org-1", Applied: uint64(40 - i)}})
		}
		server := grpc.NewServer(grpc.Creds(credentials.NewTLS(pin.Server(cert, "h2"))))
		coordpb.RegisterDeviceServer(server, servant)
		go server.Serve(l)
		t.Cleanup(server.Stop)
		s.servants = append(s.servants, servant)
	}
	return s
}

// show gives every member that is up the same rounds.
func (s *served) show(rounds ...*published) {
	for _, v := range s.servants {
		v.rounds = rounds
	}
}

func (s *served) ruche(args ...string) (int, string, string) {
	s.t.Helper()
	return ruche(s.t, append(args, "--charter", s.charter)...)
}

func TestRoundsFromTheOutside(t *testing.T) {
	s := serve(t, 4)
	one := s.publish(1, nil)
	two := s.publish(2, one)
	s.show(one, two)

	code, out, errs := s.ruche("rounds", "list", "--no-headers")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); code != 0 || len(lines) != 2 || !strings.HasPrefix(lines[1], two.id.String()+"   commons   2   published") || !strings.HasSuffix(lines[1], two.model.Hash().String()) {
		t.Errorf("rounds list: exit %d\n%s", code, out)
	}
	if !strings.Contains(errs, cli.DemoLabel) {
		t.Errorf("a demo without its label: %q", errs)
	}
	code, out, _ = s.ruche("rounds", "list", "--format", "jsonl")
	var line roundLine
	if err := json.Unmarshal([]byte(strings.SplitN(out, "\n", 2)[0]), &line); err != nil || code != 0 || line.ID != one.id.String() || line.Label != cli.DemoLabel {
		t.Errorf("rounds list as jsonl: exit %d, %v\n%s", code, err, out)
	}
	for _, name := range []string{"commons/2", "commons/latest", two.id.String(), two.id.String()[:6], strings.ToUpper(two.id.String()[:9])} {
		code, out, errs = s.ruche("rounds", "show", name)
		if code != 0 || !strings.Contains(out, two.id.String()) || !strings.Contains(out, cli.DemoLabel) || !strings.Contains(out, "1 no_quota") {
			t.Errorf("rounds show %s: exit %d\n%s%s", name, code, out, errs)
		}
	}
	code, out, _ = s.ruche("rounds", "verify", "commons/2")
	if code != 0 || strings.Count(out, "✓") != 11 || strings.Contains(out, "✗") {
		t.Errorf("rounds verify: exit %d\n%s", code, out)
	}
	code, out, _ = s.ruche("rounds", "wait", "commons/2", "--for", "5s", "--no-headers")
	if code != 0 || !strings.HasPrefix(out, two.id.String()) {
		t.Errorf("rounds wait: exit %d\n%s", code, out)
	}
	code, out, _ = s.ruche("adapters", "list", "--no-headers")
	if code != 0 || !strings.HasPrefix(out, one.model.Hash().String()+"   commons   1   lora   4") {
		t.Errorf("adapters list: exit %d\n%s", code, out)
	}
}

func TestMembersSpeakForThemselves(t *testing.T) {
	s := serve(t, 3)
	code, out, errs := s.ruche("members", "list")
	want := "INDEX   NAME    ROLE    LEADER   TERM   COMMITTED   APPLIED   EPOCH   ERASED   HEARS   REACHABLE\n" +
		"0       org-0   voter   no       3      40          40        2       1        org-1   yes\n" +
		"1       org-1   voter   yes      3      40          39        2       1        org-1   yes\n" +
		"2       org-2   voter   no       3      40          38        2       1        org-1   yes\n" +
		"3       org-3   voter   -        -      -           -         -       -        -       no\n"
	if code != 0 || out != want || !strings.Contains(errs, "member org-3") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	code, out, _ = s.ruche("members", "list", "--member", "org-1", "--no-headers")
	if code != 0 || !strings.Contains(out, "0   org-0   voter   no    3   40   39") {
		t.Errorf("as org-1 sees them: exit %d\n%s", code, out)
	}
}

// TestAMemberWithoutLeaderSaysSo: what it shows is as of then; a member that hears a leader is asked instead, if there is
// one; and a round that waits names whose word it lacks.
func TestAMemberWithoutLeaderSaysSo(t *testing.T) {
	s := serve(t, 2)
	one := s.publish(1, nil)
	one.rec.Phase, one.rec.Votes, one.rec.Reveals, one.rec.Result = "acked", one.rec.Votes[:2], nil, nil
	one.rec.Waits = []*coordpb.Wait{{What: "votes", Have: 2, Need: 3, Lacks: []uint32{2, 3}}}
	s.show(one)
	lost := &coordpb.Standing{AgeMs: 42_000, Applied: 17, Waits: []*coordpb.Wait{{What: "members up", Have: 2, Need: 3, Lacks: []uint32{2, 3}}}}
	s.servants[0].stands, s.servants[1].stands = lost, &coordpb.Standing{AgeMs: 50_000, Applied: 16}
	const old, up = "org-0 has heard no leader for 42s: what it shows is as of then (entry 17)", "2 of the 3 members needed are up; lacks org-2, org-3"
	code, out, errs := s.ruche("rounds", "list")
	if code != 0 || !strings.Contains(errs, old) || !strings.Contains(errs, up) {
		t.Errorf("rounds list: exit %d\n%s%s", code, out, errs)
	}
	code, out, _ = s.ruche("rounds", "show", "commons/1")
	if code != 0 || !strings.Contains(out, old) || !strings.Contains(out, "2 of 3 votes; lacks org-2, org-3") {
		t.Errorf("rounds show: exit %d\n%s", code, out)
	}
	s.servants[1].stands = &coordpb.Standing{Leader: "org-1", Applied: 18}
	code, out, errs = s.ruche("rounds", "list", "--format", "json")
	if code != 0 || strings.Contains(errs, "no leader") || !strings.Contains(out, `"served_by": "org-1"`) || !strings.Contains(out, `"hears": "org-1"`) {
		t.Errorf("with one that hears a leader: exit %d\n%s%s", code, out, errs)
	}
	code, _, errs = s.ruche("rounds", "list", "--member", "org-0")
	if code != 0 || !strings.Contains(errs, old) {
		t.Errorf("the one that was asked for: exit %d\n%s", code, errs)
	}
	s.servants[0].status[0].Standing = lost
	code, _, errs = s.ruche("members", "list")
	if code != 0 || !strings.Contains(errs, old) {
		t.Errorf("members list: exit %d\n%s", code, errs)
	}
}

// TestMembersThatHaveNotReadTheirLogs: one that started again and knows nothing yet is passed over; where no other is left
// the answer is that, and never an empty list.
func TestMembersThatHaveNotReadTheirLogs(t *testing.T) {
	s := serve(t, 2)
	one := s.publish(1, nil)
	s.show(one)
	s.servants[0].fail = status.Error(codes.Unavailable, "log_not_read: this member started again and has applied entry 0 of 41: it goes on when it hears a leader; ask another")
	code, out, errs := s.ruche("rounds", "list", "--no-headers")
	if code != 0 || !strings.HasPrefix(out, one.id.String()) {
		t.Errorf("with one that knows: exit %d\n%s%s", code, out, errs)
	}
	s.servants[1].fail = s.servants[0].fail
	for _, args := range [][]string{{"rounds", "list"}, {"rounds", "show", "commons/1"}, {"rounds", "list", "--member", "org-1"}, {"adapters", "list"}} {
		code, out, errs = s.ruche(args...)
		if code != int(cli.Connect) || out != "" || !strings.Contains(errs, "has applied entry 0 of 41") || !strings.Contains(errs, "ruche members list") {
			t.Errorf("%v: exit %d\n%s%s", args, code, out, errs)
		}
	}
	s.servants[0].fail = nil
	s.servants[0].status[0].Standing = &coordpb.Standing{AgeMs: -1, ReadsTo: 41}
	code, out, errs = s.ruche("members", "list", "--no-headers")
	if code != 0 || !strings.Contains(errs, "org-0 started again and has not read its log yet (entry 0 of 41)") || !strings.Contains(out, "40          40        -       -") && !strings.Contains(out, "40   40   -   -") {
		t.Errorf("members list: exit %d\n%s%s", code, out, errs)
	}
}

// TestAnOldStateThatNobodyKeeps is no failed check: members keep the newest states only. An export says so.
func TestAnOldStateThatNobodyKeeps(t *testing.T) {
	s := serve(t, 3)
	one := s.publish(1, nil)
	s.show(one)
	for _, v := range s.servants {
		v.stateless = true
	}
	code, out, errs := s.ruche("rounds", "verify", "commons/1")
	if code != 0 || strings.Contains(out, "✗") || !strings.Contains(out, "they keep the newest states of a task only") {
		t.Errorf("rounds verify: exit %d\n%s%s", code, out, errs)
	}
	code, _, errs = s.ruche("adapters", "export", "--round", "commons/1", "--base", "nowhere", "--peft", filepath.Join(t.TempDir(), "out"))
	if code != int(cli.Failed) || !strings.Contains(errs, "is not to be had") {
		t.Errorf("adapters export: exit %d\n%s", code, errs)
	}
}

func TestVerifyAllMembersFindsTheOneThatLies(t *testing.T) {
	s := serve(t, 3)
	one := s.publish(1, nil)
	s.show(one)
	other := s.publish(1, nil) // other devices, same config: a second world for the same round
	s.servants[2].rounds = []*published{other}
	if other.id != one.id {
		t.Fatal("the two worlds are of different rounds")
	}
	code, out, errs := s.ruche("rounds", "verify", "commons/1", "--all-members", "--format", "json")
	var answer struct {
		Status    string       `json:"status"`
		ErrorCode string       `json:"error_code"`
		Data      verifyReport `json:"data"`
	}
	must(t, json.Unmarshal([]byte(out), &answer))
	var got []string
	for _, m := range answer.Data.Members {
		got = append(got, m.Member+" "+m.Result)
	}
	if want := "org-0 ok, org-1 ok, org-2 failed, org-3 absent"; code != 1 || answer.ErrorCode != "verification_failed" || strings.Join(got, ", ") != want {
		t.Errorf("exit %d, %s, %v; want %s\n%s", code, answer.ErrorCode, got, want, errs)
	}
	code, out, errs = s.ruche("rounds", "verify", "commons/1", "--all-members")
	if code != 1 || !strings.Contains(out, "org-2    ✗") || !strings.Contains(errs, "hint:") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

func TestExitStatuses(t *testing.T) {
	s := serve(t, 2)
	one := s.publish(1, nil)
	s.show(one)
	bad := s.publish(2, one)
	bad.state[0] ^= 1
	dead := s.publish(3, one)
	death := statement.Dead()
	dead.rec.Phase, dead.rec.Death, dead.rec.Result, dead.rec.Decision = "dead", "certified", nil, death[:]
	s.show(one, bad, dead)
	empty := t.TempDir()
	for _, c := range []struct {
		args string
		code int
		word string
	}{
		{"rounds list", 0, ""},
		{"rounds verify commons/1", 0, ""},
		{"rounds verify commons/2", 1, "verification_failed"},
		{"rounds verify commons/7", 1, "not_found"},
		{"rounds show " + strings.Repeat("ab", 32), 1, "not_found"},
		{"rounds show abcdef0123", 1, "not_found"},
		{"rounds wait commons/3", 1, "round_dead"},
		{"rounds wait commons/9 --for 10ms", 3, "timeout"},
		{"adapters export --peft x --base y --round commons/2", 1, "verification_failed"},
		{"adapters export --peft x --base y --round commons/3", 1, "not_found"},
		{"rounds list --member org-3", 2, "unavailable"},
		{"members list --member org-2", 2, "unavailable"},
		{"rounds", 0, ""},
		{"rounds show", 4, "bad_arguments"},
		{"rounds show ab", 4, "bad_arguments"},
		{"rounds show latest", 4, "bad_arguments"},
		{"rounds show nothing/1", 4, "bad_arguments"},
		{"rounds show commons/one", 4, "bad_arguments"},
		{"rounds list --task nothing", 4, "bad_arguments"},
		{"rounds list --member nobody", 4, "bad_arguments"},
		{"rounds list --timeout 0s", 4, "bad_arguments"},
		{"rounds list --format xml", 4, ""},
		{"rounds list too many", 4, "bad_arguments"},
		{"adapters export --base y", 4, "bad_arguments"},
	} {
		args := strings.Fields(c.args)
		if !strings.Contains(c.args, "--format") {
			args = append(args, "--format", "json")
		}
		code, out, errs := s.ruche(args...)
		var e struct {
			ErrorCode string `json:"error_code"`
			Hint      string `json:"hint"`
		}
		json.Unmarshal([]byte(out), &e) // help is no JSON
		if code != c.code || e.ErrorCode != c.word {
			t.Errorf("ruche %s: exit %d %q, want %d %q\n%s%s", c.args, code, e.ErrorCode, c.code, c.word, out, errs)
		}
		if c.word != "" && e.Hint == "" {
			t.Errorf("ruche %s: the error says nothing of what to do next", c.args)
		}
	}
	if code, _, errs := ruche(t, "rounds", "list", "--dir", empty); code != 1 || !strings.Contains(errs, "RUCHE_CHARTER") {
		t.Errorf("without a charter: exit %d, %s", code, errs)
	}
}

func TestAnImpostorIsNamed(t *testing.T) {
	s := serve(t, 4)
	// The charter of another consortium, whose members would answer at the same addresses.
	urls := make([]string, 4)
	for i, m := range s.ch.Members {
		urls[i] = m.DeviceURL
	}
	s.random.Seed([32]byte{9})
	other := newHive(t, urls)
	for i := range other.ch.Members {
		other.ch.Members[i].TLSKey = s.key().Public()
	}
	k := &consortium{ch: other.ch, timeout: 5 * time.Second, only: 0}
	conn, err := dialMember(other.ch.Members[0])
	must(t, err)
	defer conn.Close()
	k.clients = []coordpb.DeviceClient{coordpb.NewDeviceClient(conn)}
	_, _, err = listRounds(context.Background(), k, "")
	if e := cli.Classify(err); e == nil || e.Code != cli.Connect || e.Word != "wrong_peer" {
		t.Errorf("an impostor answers: %v", err)
	}
}

func TestAnotherMemberIsAskedWhereOneFails(t *testing.T) {
	s := serve(t, 2)
	s.show(s.publish(1, nil))
	s.servants[0].fail = status.Error(codes.Internal, "internal error")
	if code, out, errs := s.ruche("rounds", "list", "--no-headers"); code != 0 || strings.Count(out, "\n") != 1 {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	s.servants[1].fail = status.Error(codes.ResourceExhausted, "busy\x1b[2J")
	code, _, errs := s.ruche("rounds", "list")
	if code != 1 || !strings.Contains(errs, "org-0: internal error") || strings.Contains(errs, "\x1b") {
		t.Errorf("exit %d, %q", code, errs)
	}
}
