//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/cmd/internal/consortium"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/node/participant"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// built are the real programs, from these sources.
func built(t testing.TB) consortium.Programs {
	t.Helper()
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin+string(filepath.Separator), "./cmd/ruche", "./cmd/ruche-node", "./cmd/ruche-coordinator")
	build.Dir = "../../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	p, err := consortium.FindPrograms(bin)
	must(t, err)
	return p
}

// TestAQuickRunAndItsForgeries kills three processes of a real consortium, finds nothing wrong, and then forges what was
// found in every way that a check is there for: a check that cannot fail proves nothing.
func TestAQuickRunAndItsForgeries(t *testing.T) {
	if testing.Short() {
		t.Skip("runs ten processes for about half a minute")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	r := newResult(ctx, "kills", "", "", 1)
	a, err := open(ctx, setting{programs: built(t), dir: t.TempDir(), members: membersOfRun, faults: faultsOfRun, devices: 5, values: 500, seed: 1, say: t.Logf})
	must(t, err)
	defer a.close()
	k := &killer{a: a, needs: a.c.Charter.Needed(), away: map[int]bool{}, last: -1}
	awaitPublished(t, ctx, a)
	short := 300 * time.Millisecond
	_, err = k.carryOut(ctx, []fault{
		{kind: killMember, leader: true, wait: 3 * time.Second, down: short, truth: true},
		{kind: killDevice, wait: short},
		{kind: suspendMember, wait: short, down: short},
		{kind: killMember, again: true, wait: time.Second, down: short},
	}, 3, r)
	must(t, err)
	if len(k.truths) != 1 || len(k.backs) != 1 || len(k.devices) != 1 || len(k.lies) > 0 {
		t.Errorf("the truth was told %d times of a kill, %d times of a start, %d times of a device; lies: %q", len(k.truths), len(k.backs), len(k.devices), k.lies)
	}
	lie, err := truth(ctx, a.c, []int{1}, nil)
	if err == nil {
		t.Errorf("after %s the operators' commands agree that a member which is up is down", lie)
	}
	unreadTruth(t, ctx, a)
	e, f, err := finish(ctx, a, r)
	must(t, err)
	if len(r.Violations) > 0 {
		t.Fatalf("violations: %s", strings.Join(r.Violations, "\n"))
	}
	if k.memberN != 2 || k.leaderN < 1 || k.deviceN != 1 || f.Published == 0 || f.Acks < 3 || f.Sums != f.Published {
		t.Fatalf("the run proves nothing: %+v", f)
	}
	forge(t, e)
	storedForgery(t, a)
	if _, err := a.c.Leader(ctx); err == nil {
		t.Error("somebody leads after all were stopped")
	}
}

// unreadTruth: two of four members, started again without the others, know of no round. They say so, and that is the truth;
// an empty list would be a lie.
func unreadTruth(t *testing.T, ctx context.Context, a *arena) {
	t.Helper()
	for _, m := range a.c.Members {
		m.Kill()
	}
	for _, m := range a.c.Members[:2] {
		must(t, m.Start())
	}
	two := newScene(a.c, []int{2, 3}, nil)
	for {
		x := &replies{}
		x.askRounds(ctx, a.c, two.down)
		err := x.roundsTell(two)
		if err == nil && x.before[0].unread() && x.before[1].unread() {
			break
		}
		t.Logf("not yet: %v", err)
		must(t, pause(ctx, recordEvery))
	}
	for _, m := range a.c.Members[2:] {
		must(t, m.Start())
	}
}

// awaitPublished waits for a round to be published, without which a run proves nothing: how long its devices take for
// that is the machine's affair.
func awaitPublished(t *testing.T, ctx context.Context, a *arena) {
	t.Helper()
	for {
		if rounds, err := a.c.Rounds(ctx); err == nil && slices.ContainsFunc(rounds, func(r *coordpb.RoundSummary) bool { return r.GetPhase() == round.Published.String() }) {
			return
		}
		must(t, pause(ctx, recordEvery))
	}
}

// forge breaks a copy of real evidence in one way after the other.
func forge(t *testing.T, real *Evidence) {
	// The devices that were acknowledged in a published round, and that round.
	var id label.Hash
	for _, x := range real.sorted() {
		if best := full(real.Rounds[x]); best.GetPhase() == round.Published.String() {
			id = x
		}
	}
	at, ack := -1, -1
	for i, d := range real.Devices {
		for j, x := range d.Ledger {
			if x.Kind == participant.KindAck && x.Round == id && slices.ContainsFunc(full(real.Rounds[id]).GetContributors(), func(b []byte) bool { return bytes.Equal(b, d.ID[:]) }) {
				at, ack = i, j
			}
		}
	}
	if at < 0 {
		t.Fatal("no published round has an acknowledged contributor")
	}
	for name, c := range map[string]struct {
		forge func(e *Evidence)
		want  string
	}{
		"a receipt with another signature": {func(e *Evidence) {
			b := e.Devices[at].Ledger[ack].Receipts[0]
			b[len(b)-1] ^= 1
		}, "member"},
		"too few receipts": {func(e *Evidence) {
			x := &e.Devices[at].Ledger[ack]
			x.Receipts, x.To = x.Receipts[:2], x.To[:2]
		}, "needs 3"},
		"one receipt twice": {func(e *Evidence) {
			x := &e.Devices[at].Ledger[ack]
			x.Receipts[1], x.To[1] = x.Receipts[0], x.To[0]
		}, "two receipts"},
		"receipts in another's name": {func(e *Evidence) {
			x := &e.Devices[at].Ledger[ack]
			x.To[0], x.To[1] = x.To[1], x.To[0]
		}, "member"},
		"a round that nobody knows": {func(e *Evidence) { delete(e.Rounds, id) }, "no member knows"},
		"an acknowledged contribution gone from the log": {func(e *Evidence) {
			each(e, id, func(r *coordpb.RoundRecord) {
				r.Accepts = slices.DeleteFunc(r.Accepts, func(b []byte) bool { return acceptOf(t, b).Device == e.Devices[at].ID })
				r.Contributors = without(r.Contributors, e.Devices[at].ID)
			})
		}, "is not in its set"},
		"an acknowledged contribution gone from the set": {func(e *Evidence) {
			each(e, id, func(r *coordpb.RoundRecord) { r.Contributors = without(r.Contributors, e.Devices[at].ID) })
		}, "says why"},
		"a member with another result": {func(e *Evidence) {
			r := e.Rounds[id][len(e.Rounds[id])-1].Record
			r.Result.Body = bytes.Clone(r.Result.Body)
			r.Result.Body[len(r.Result.Body)-1] ^= 1
		}, "two results"},
		"a member with another decision": {func(e *Evidence) {
			r := e.Rounds[id][len(e.Rounds[id])-1].Record
			r.Decision = bytes.Repeat([]byte{7}, label.Size)
		}, "two decisions"},
		"a member with another set": {func(e *Evidence) {
			for _, s := range e.Rounds[id] {
				if len(s.Record.GetContributors()) > 0 {
					s.Record.Contributors = s.Record.Contributors[1:]
					break
				}
			}
		}, "two sets"},
		"a member for which the round died": {func(e *Evidence) {
			e.Rounds[id][len(e.Rounds[id])-1].Record.Phase = round.Dead.String()
		}, "for others"},
		"a result that one member signed": {func(e *Evidence) {
			each(e, id, func(r *coordpb.RoundRecord) { r.Result.Signatures = r.Result.Signatures[:1] })
		}, "result certificate"},
		"a round config that two members signed": {func(e *Evidence) {
			each(e, id, func(r *coordpb.RoundRecord) { r.Config.Signatures = r.Config.Signatures[:2] })
		}, "round certificate"},
		"a sum that is off by one in one number": {func(e *Evidence) {
			encoded := e.Encoded
			e.Encoded = func(device, round label.Hash, lanes int) ([]uint32, error) {
				v, err := encoded(device, round, lanes)
				if device == e.Devices[at].ID && round == id {
					v[3]++
				}
				return v, err
			}
		}, "not the plain sum"},
		"a contribution that its device knows nothing of": {func(e *Evidence) {
			e.Devices[at].Ledger = slices.DeleteFunc(e.Devices[at].Ledger, func(x participant.Entry) bool { return x.Round == id })
		}, "ledger does not know"},
		"two contributions of one device": {func(e *Evidence) {
			x := e.Devices[at].Ledger[ack]
			x.Kind, x.Header = participant.KindContribution, label.Hash{1}
			e.Devices[at].Ledger = append(e.Devices[at].Ledger, x)
		}, "two contributions"},
		"a set that nobody saw": {func(e *Evidence) {
			each(e, id, func(r *coordpb.RoundRecord) { r.Accepts, r.Contributors = nil, nil })
		}, "not observed"},
	} {
		e := copyOf(real)
		c.forge(e)
		if got := strings.Join(e.Check().Violations, "\n"); !strings.Contains(got, c.want) {
			t.Errorf("%s: want %q in\n%s", name, c.want, got)
		}
	}
	if got := copyOf(real).Check().Violations; len(got) > 0 {
		t.Errorf("a copy of good evidence is bad: %v", got)
	}
	// An open round leaves a promise that somebody has to keep.
	e := copyOf(real)
	each(e, id, func(r *coordpb.RoundRecord) { r.Phase, r.Result = round.Sealed.String(), nil })
	if f := e.Check(); len(f.Promises) == 0 || f.OpenRound == 0 {
		t.Error("what was acknowledged in an open round is promised to nobody")
	}
}

func each(e *Evidence, id label.Hash, change func(*coordpb.RoundRecord)) {
	for _, s := range e.Rounds[id] {
		change(s.Record)
	}
}

func without(ids [][]byte, id label.Hash) [][]byte {
	return slices.DeleteFunc(ids, func(b []byte) bool { return bytes.Equal(b, id[:]) })
}

// TestWhatDevicesSentMeanwhile: rounds are asked for after the ledgers were read. A round that began and ended in between is
// of contributions that only a later reading has; its acks are the next check's.
func TestWhatDevicesSentMeanwhile(t *testing.T) {
	entry := func(kind string, round byte) participant.Entry {
		return participant.Entry{Kind: kind, Round: label.Hash{round}}
	}
	w := Witness{Ledger: []participant.Entry{entry(participant.KindContribution, 1), entry(participant.KindAck, 1), entry(participant.KindContribution, 2)}}
	w.sentSince(append(slices.Clone(w.Ledger), entry(participant.KindAck, 2), entry(participant.KindContribution, 3), entry(participant.KindAck, 3)))
	if n := len(w.Ledger); n != 4 || w.Ledger[3].Kind != participant.KindContribution || w.Ledger[3].Round != (label.Hash{3}) {
		t.Errorf("%+v", w.Ledger)
	}
}

func acceptOf(t *testing.T, b []byte) *statement.Accept {
	a, err := statement.ParseAccept(b)
	must(t, err)
	return a
}

func copyOf(e *Evidence) *Evidence {
	out := *e
	out.Devices, out.Rounds = nil, map[label.Hash][]Said{}
	for _, d := range e.Devices {
		c := Witness{d.Name, d.ID, slices.Clone(d.Ledger)}
		for i := range c.Ledger {
			c.Ledger[i].To = slices.Clone(c.Ledger[i].To)
			c.Ledger[i].Receipts = slices.Clone(c.Ledger[i].Receipts)
			for j := range c.Ledger[i].Receipts {
				c.Ledger[i].Receipts[j] = bytes.Clone(c.Ledger[i].Receipts[j])
			}
		}
		out.Devices = append(out.Devices, c)
	}
	for id, said := range e.Rounds {
		for _, s := range said {
			out.Rounds[id] = append(out.Rounds[id], Said{s.Member, proto.Clone(s.Record).(*coordpb.RoundRecord)})
		}
	}
	return &out
}

// storedForgery takes an enrolment away from what one member stored, and puts something else in its place.
func storedForgery(t *testing.T, a *arena) {
	for name, forge := range map[string]func(s *stored, i uint64){
		"missing": func(s *stored, i uint64) { delete(s.entries, i) },
		"changed": func(s *stored, i uint64) { s.entries[i] = []byte("something else") },
	} {
		all, err := openAll(a.c.Dirs, a.c.Charter)
		must(t, err)
		done := false
		for i, data := range all[3].entries {
			if cmd, err := round.ParseCommand(data); err == nil && cmd.GetDeviceCert() != nil && !done {
				forge(all[3], i)
				done = true
			}
		}
		if _, _, differ, err := sameState(all); err != nil || len(differ) != 1 || !done {
			t.Errorf("an entry is %s at one member: %q, %v", name, differ, err)
		}
	}
}

func TestAScheduleIsItsSeed(t *testing.T) {
	for _, kills := range []int{1, 2, 40, 500} {
		plan := schedule(7, kills, 4)
		if !reflect.DeepEqual(plan, schedule(7, kills, 4)) {
			t.Error("the same seed gives another schedule")
		}
		n, leader, truths, again, many, suspended, devices := 0, 0, 0, 0, 0, 0, 0
		for _, f := range plan {
			n += f.kills()
			switch {
			case f.leader && f.kind == killMember:
				leader++
			case f.again:
				again++
			case f.kind == blackout:
				many++
			case f.kind == suspendMember:
				suspended++
			case f.kind == killDevice:
				devices++
			}
			if f.truth {
				truths++
			}
			if f.kind == suspendMember && f.down > suspendMax || f.many > 4 {
				t.Errorf("fault %+v", f)
			}
		}
		if n != kills {
			t.Errorf("%d kills in a schedule of %d", n, kills)
		}
		if kills >= 40 && (3*leader < kills || truths < kills/10 || again == 0 || many == 0 || suspended == 0 || devices == 0) {
			t.Errorf("of %d kills %d meet the leader; %d with the commands watched, %d the same member, %d many, %d suspensions, %d devices", kills, leader, truths, again, many, suspended, devices)
		}
	}
	if reflect.DeepEqual(schedule(7, 40, 4), schedule(8, 40, 4)) {
		t.Error("another seed gives the same schedule")
	}
}

func TestAlarmsAreFound(t *testing.T) {
	log := "level=INFO msg=\"member is up\"\nlevel=ERROR msg=\"ALARM: the replica stops\"\npanic: runtime error\nlevel=WARN msg=\"raft: heartbeat timeout\"\n"
	if got := alarmLines("atelier.log", log); len(got) != 2 || !strings.Contains(got[0], "ALARM") || !strings.Contains(got[1], "panic") {
		t.Errorf("%q", got)
	}
}

func TestTheWordOfAnEnvelope(t *testing.T) {
	log := filepath.Join(t.TempDir(), "device.log")
	for text, want := range map[string]string{
		"level=INFO\n{\n  \"status\": \"ok\",\n  \"error_code\": \"\"\n}\n": "ok",
		"{\"status\": \"error\", \"error_code\": \"round_dead\"}\n":         "round_dead",
		"level=INFO\n": "nothing printed",
	} {
		must(t, os.WriteFile(log, []byte("{\"status\": \"error\", \"error_code\": \"earlier\"}\n"+text), 0o600))
		if got := envelopeWord(log, int64(len("{\"status\": \"error\", \"error_code\": \"earlier\"}\n"))); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
}

func TestTimesAreOrdered(t *testing.T) {
	r := &Result{}
	var all []time.Duration
	for i := 200; i > 0; i-- {
		all = append(all, time.Duration(i)*time.Millisecond)
	}
	r.timed("name", "1 ms", all)
	if got, want := r.Times[0], (Times{"name", 200, 0.101, 0.199, 0.2, "1 ms"}); got != want {
		t.Errorf("%+v", got)
	}
	if r.timed("none", "", nil); len(r.Times) != 1 {
		t.Error("times of nothing")
	}
}

// TestTheReportIsItsFiles: the page follows from the results and nothing else, shows what is wrong, and the one in the
// repository is the one that its results give.
func TestTheReportIsItsFiles(t *testing.T) {
	dir := t.TempDir()
	for name, r := range map[string]Result{
		"b.json": {Layer: "kills", About: "kills", Command: "make kills", Commit: "abc", Counts: []Count{{"kills | more", 3}}, Violations: []string{"something is lost"}},
		"a.json": {Layer: "powercuts", Skipped: "no root"},
	} {
		must(t, r.save(filepath.Join(dir, name)))
	}
	must(t, os.WriteFile(filepath.Join(dir, "other.json"), []byte(`[1,2]`), 0o600))
	bugs, err := json.Marshal([]Bug{{"kills", "it stops", "a cause", "a fix", "a test"}})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, bugsFile), bugs, 0o600))
	got, err := report(dir)
	must(t, err)
	again, err := report(dir)
	must(t, err)
	if !bytes.Equal(got, again) {
		t.Error("the same files give another page")
	}
	for _, want := range []string{"VIOLATION: something is lost", "skipped: no root", "kills \\| more", "| kills | it stops | a cause | a fix | a test |"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("the page lacks %q:\n%s", want, got)
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, "c.json"), []byte(`{"layer":"x","unknown":1}`), 0o600))
	if _, err := report(dir); err == nil {
		t.Error("a result with an unknown field is taken")
	}
	docs := filepath.Join("..", "..", "..", "docs", "benchmarks")
	want, err := report(docs)
	must(t, err)
	if have, err := os.ReadFile(filepath.Join(docs, reportFile)); err != nil || !bytes.Equal(have, want) {
		t.Errorf("docs/benchmarks/%s is not what its results give: run `make durability`: %v", reportFile, err)
	}
}

// TestProofs: what was found right is not verified again, what was found wrong is, and so is anything that changed.
func TestProofs(t *testing.T) {
	p, asked := new(proofs), 0
	verify := func(err error) func() (int, error) {
		return func() (int, error) {
			asked++
			return asked, err
		}
	}
	for i, c := range []struct {
		p    *proofs
		err  error
		from []string
		want int // how often it was verified by then
	}{
		{p, errors.New("wrong"), []string{"a", "b"}, 1},
		{p, nil, []string{"a", "b"}, 2},
		{p, nil, []string{"a", "b"}, 2},
		{p, nil, []string{"ab"}, 3},
		{p, nil, []string{"a", "c"}, 4},
		{nil, nil, []string{"a", "b"}, 5},
	} {
		var from [][]byte
		for _, s := range c.from {
			from = append(from, []byte(s))
		}
		if _, err := once(c.p, verify(c.err), "what", from...); err != c.err || asked != c.want {
			t.Errorf("step %d: verified %d times, want %d, %v", i, asked, c.want, err)
		}
	}
}
