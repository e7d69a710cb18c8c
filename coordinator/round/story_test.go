package round

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

// TestStories runs the conversations of testdata: each line of a script becomes entries of one log. The machine is
// restarted from a snapshot after every entry, and at the end of a script its records must convince a stranger and a
// replay of the log must give the same state. Run with -rewrite to accept new output, and read the diff as a story.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &story{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return s.run(t, d) })
		s.close(t)
	})
}

type story struct {
	*log
}

func (s *story) run(t *testing.T, d *datadriven.TestData) string {
	var out strings.Builder
	if d.Cmd == "consortium" {
		o := options{n: 4, f: 1, nMin: 3, nMax: 100, kind: charter.KindLoRA, window: "1h"}
		var nMin, nMax int
		nMin, nMax = 3, 100
		d.MaybeScanArgs(t, "n", &o.n)
		d.MaybeScanArgs(t, "f", &o.f)
		d.MaybeScanArgs(t, "faulty", &o.faulty)
		d.MaybeScanArgs(t, "nmin", &nMin)
		d.MaybeScanArgs(t, "nmax", &nMax)
		d.MaybeScanArgs(t, "kind", &o.kind)
		d.MaybeScanArgs(t, "window", &o.window)
		o.nMin, o.nMax = uint32(nMin), uint32(nMax)
		s.log = newLog(t, o)
		s.restarts = true
		if d.HasArg("asleep") {
			return ""
		}
		for j := range o.n {
			s.apply(t, s.c.freshPackage(t, j, s.nowMs))
		}
		s.apply(t, TickCommand(s.nowMs))
		return fmt.Sprintf("(%d,%d): q %d, needed up %d, M at least %d\n", o.n, o.f, s.c.ch.Q, s.c.ch.Needed(), s.c.ch.ActiveMin())
	}
	s.step(t, d, &out)
	if v, ok := s.m.Newest("steps"); ok && !slices.Contains([]string{"show", "due", "waits", "erasures", "time", "pass"}, d.Cmd) {
		fmt.Fprintf(&out, "round %d is %s%s\n", v.Config.Seq, v.Phase, suffix(v))
	}
	return out.String()
}

func suffix(v View) string {
	s := ""
	if v.Death != NotDead {
		s += " (" + v.Death.String() + ")"
	}
	if v.Decided && v.Decision == statement.Dead() {
		s += ": DEAD, " + v.Reason
	} else if v.Decided {
		s += fmt.Sprintf(": a set of %d of %d", v.Contributors, v.Accepted)
	}
	if v.Foreign {
		s += " FOREIGN"
	}
	if v.Split {
		s += " SPLIT"
	}
	return s
}

func (s *story) step(t *testing.T, d *datadriven.TestData, out *strings.Builder) {
	say := func(who string, o ...Outcome) {
		var codes []string
		for _, o := range o {
			c := string(o.Code)
			if o.Detail != "" {
				c += " (" + s.redact(o.Detail) + ")"
			}
			codes = append(codes, c)
		}
		fmt.Fprintf(out, "%s: %s\n", who, strings.Join(codes, ", "))
	}
	members := func(do func(j int) *coordpb.Command) {
		for _, a := range d.CmdArgs {
			if j, err := strconv.Atoi(a.Key); err == nil {
				say(a.Key, s.apply(t, do(j))...)
			}
		}
	}
	v := s.round(t, d)
	lie := arg(d, "lie", "")
	switch d.Cmd {
	case "tick":
		s.nowMs = s.when(t, d, v)
		say(fmt.Sprintf("+%s", time.Duration(s.nowMs-epoch0)*time.Millisecond), s.apply(t, TickCommand(s.nowMs))...)
	case "keys":
		from, err := time.ParseDuration(arg(d, "from", "0s"))
		must(t, err)
		life, err := time.ParseDuration(arg(d, "life", "24h"))
		must(t, err)
		members(func(j int) *coordpb.Command { return s.c.packageFor(t, j, s.nowMs+from.Milliseconds(), life) })
	case "pass": // time that no tick tells of
		by, err := time.ParseDuration(d.CmdArgs[0].Key)
		must(t, err)
		s.nowMs += by.Milliseconds()
	case "stamp": // a leader's tick that is another time than now
		by, err := time.ParseDuration(d.CmdArgs[0].Key)
		must(t, err)
		say("leader", s.apply(t, TickCommand(s.nowMs+by.Milliseconds()))...)
	case "time":
		since := func(ms int64) string {
			if ms == 0 {
				return "none"
			}
			return fmt.Sprintf("+%s", time.Duration(ms-epoch0)*time.Millisecond)
		}
		fmt.Fprintf(out, "now %s, log time %s, horizon %s\n", since(s.nowMs), since(s.m.TimeMs()), since(s.m.HorizonMs()))
	case "enrol":
		for i, name := range names(d) {
			authority := i % s.c.ch.N
			if a := arg(d, "authority", ""); a != "" {
				authority, _ = strconv.Atoi(a)
			}
			quota, _ := strconv.Atoi(arg(d, "quota", "100"))
			life, err := time.ParseDuration(arg(d, "life", "1000h"))
			must(t, err)
			o := s.apply(t, s.c.enrol(t, name, authority, uint32(quota), s.nowMs+life.Milliseconds(), arg(d, "token", "token of "+name)))
			if o[0].Code != OK {
				say(name, o...)
			}
		}
	case "propose":
		rc, reason := s.m.NextConfig("steps", s.now(), mask(arg(d, "alive", "0123456")))
		if rc == nil {
			fmt.Fprintf(out, "no: %s\n", reason)
			return
		}
		if arg(d, "another", "") != "" { // a second leader with another clock
			rc = s.config(t, rc, rc.ProposedMs+1)
		}
		say(fmt.Sprintf("round %d, start %s", rc.Seq, startName(rc)), s.apply(t, ProposeCommand(rc))...)
	case "repropose": // the newest proposal altered: a racing or a lying leader
		rc := *v.Config
		rc.Seq += uint64(number(d, "seq", 0))
		say("leader", s.apply(t, ProposeCommand(s.config(t, &rc, rc.ProposedMs+int64(number(d, "ms", 1)))))...)
	case "sign":
		members(func(j int) *coordpb.Command { return s.c.sign(s.m, j, v.ID) })
	case "accept":
		var items []*statement.Accept
		for _, name := range names(d) {
			a := s.c.contribution(t, s.m, v.ID, name, arg(d, "nonce", "1"))
			if h := arg(d, "holders", ""); h != "" {
				a.Holders = mask(h)
			}
			a.Size += uint64(number(d, "extra", 0))
			if thief := arg(d, "by", ""); thief != "" {
				a.Signature = statement.SignContribution(s.c.device(t, thief), v.ID, a.Header)
			}
			items = append(items, a)
		}
		for i, o := range s.apply(t, AcceptsCommand(items...)) {
			if o.Code != OK {
				say(names(d)[i], o)
			}
		}
	case "close":
		c := &statement.Close{Round: v.ID, Active: mask(arg(d, "active", "")), Candidates: s.m.rounds[v.ID].candidates()}
		if lie != "" {
			c.Candidates = statement.HashCandidates(v.ID, nil)
		}
		if arg(d, "active", "") == "" {
			next, ok := s.m.NextClose(v.ID, s.now(), mask(arg(d, "alive", "0123456")))
			if !ok {
				fmt.Fprintln(out, "no close is due")
				return
			}
			c = next
		}
		say(fmt.Sprintf("M %v", c.Active), s.apply(t, CloseCommand(c))...)
	case "ack":
		closing := v.Closes[number(d, "close", len(v.Closes)-1)].Hash
		bad := strings.Split(arg(d, "bad", ""), "+")
		members(func(j int) *coordpb.Command {
			return s.c.ack(s.m, j, v.ID, closing, func(id label.Hash) bool {
				return bad[0] == "all" || slices.ContainsFunc(bad, func(name string) bool { return name != "" && s.c.deviceID(t, name) == id })
			})
		})
	case "vote":
		value := map[string]label.Hash{"": v.Decision, "dead": statement.Dead(), "other": label.Sum(label.TagSet)}[arg(d, "value", "")]
		members(func(j int) *coordpb.Command { return s.c.vote(j, v.ID, value) })
	case "expired":
		members(func(j int) *coordpb.Command { return s.c.expired(j, v.ID) })
	case "abort":
		members(func(j int) *coordpb.Command { return s.c.abort(j, v.ID) })
	case "reveal":
		members(func(j int) *coordpb.Command { return s.c.reveal(j, v.ID, v.Decision, lie) })
	case "result":
		members(func(j int) *coordpb.Command { return s.c.result(j, v.ID, v.Decision, lie) })
	case "erase": // of an epoch: the first, or the one named
		members(func(j int) *coordpb.Command { return s.c.erasure(j, uint64(number(d, "epoch", 1)), s.nowMs) })
	case "erasures":
		for j := range s.c.ch.N {
			fmt.Fprintf(out, "%d: erased to %d, owes %v\n", j, s.m.Erased(j), s.m.ErasuresDue(j))
		}
	case "waits":
		for _, w := range s.m.Waits(v.ID) {
			fmt.Fprintf(out, "%s: %d of %d, lacks %v\n", w.What, w.Have, w.Need, w.Lacks)
		}
	case "due":
		for j := range s.c.ch.N {
			var list []string
			for _, e := range s.m.Due(j) {
				e2, _ := s.m.Round(e.Round)
				text := fmt.Sprintf("%s in round %d", e.Duty, e2.Config.Seq)
				if e.Value == statement.Dead() {
					text += " for DEAD"
				}
				list = append(list, text)
			}
			fmt.Fprintf(out, "%d: %s\n", j, strings.Join(list, ", "))
		}
	case "show":
		for _, v := range s.m.Rounds() {
			fmt.Fprintf(out, "round %d is %s%s\n", v.Config.Seq, v.Phase, suffix(v))
			for _, code := range slices.Sorted(maps.Keys(v.Refused)) {
				fmt.Fprintf(out, "  refused %s: %d\n", code, v.Refused[code])
			}
			for _, c := range v.Closes {
				fmt.Fprintf(out, "  close %v, acked %v, complete %v, legal %v, blamed %v\n", c.Active, c.Acked, c.Complete, c.Legal, c.Blamed)
			}
		}
	default:
		t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
	}
}

// config derives the config that an honest member would for the same choices at another time.
func (s *story) config(t *testing.T, rc *statement.RoundConfig, ms int64) *statement.RoundConfig {
	out, err := statement.NewRoundConfig(s.c.ch, rc.Task, rc.Seq, rc.Start, ms, rc.KeyPackages)
	must(t, err)
	return out
}

// round is the round that a line speaks of: round=SEQ, or the newest.
func (s *story) round(t *testing.T, d *datadriven.TestData) View {
	if seq := number(d, "round", 0); seq > 0 {
		for _, v := range s.m.Rounds() {
			if v.Config.Seq == uint64(seq) {
				return v
			}
		}
		t.Fatalf("%s: no round %d", d.Pos, seq)
	}
	v, _ := s.m.Newest("steps")
	return v
}

// when reads "+90s", or a deadline of the round, which passes a millisecond later.
func (s *story) when(t *testing.T, d *datadriven.TestData, v View) int64 {
	switch a := d.CmdArgs[0].Key; a {
	case "close":
		return v.Config.CloseMs + 1
	case "ack":
		return v.Config.AckMs + 1
	case "reveal":
		return v.Config.RevealMs + 1
	default:
		by, err := time.ParseDuration(a)
		must(t, err)
		return s.nowMs + by.Milliseconds()
	}
}

// close checks what must hold at the end of every story.
func (s *story) close(t *testing.T) {
	replay := New(s.c.ch)
	for i, data := range s.all {
		replay.ApplyBytes(uint64(i+1), data)
	}
	if replay.Digest() != s.m.Digest() {
		t.Error("a replay of the log gives another state than the restarted machine")
	}
	for _, v := range s.m.Rounds() {
		record, _ := s.m.Record(v.ID, Everything)
		checkRecord(t, s.c.ch, record)
	}
}

// checkRecord verifies a record as a stranger would, with nothing but the charter.
func checkRecord(t *testing.T, ch *charter.Charter, p *coordpb.RoundRecord) {
	t.Helper()
	rc, err := statement.ParseRoundConfig(p.GetConfig().GetBody())
	must(t, err)
	must(t, rc.Check(ch))
	var signatures []statement.MemberSignature
	for _, s := range p.GetConfig().GetSignatures() {
		signatures = append(signatures, statement.MemberSignature{Member: int(s.Member), Signature: s.Signature})
	}
	if _, err := statement.VerifyRoundCert(ch, p.GetConfig().GetBody(), signatures); err != nil && p.Phase != "proposed" && p.Phase != "dead" && p.Phase != "acked" {
		t.Errorf("round %d is %s: %v", p.Seq, p.Phase, err)
	}
	list := func(in []*coordpb.MemberStatement) (out []statement.MemberStatement) {
		for _, s := range in {
			out = append(out, FromMemberStatement(s))
		}
		return out
	}
	votes, expired := list(p.Votes), list(p.Expired)
	dead := statement.VerifyDeadCert(ch, rc, votes, expired)
	if (dead == nil) != (p.Death == "certified") {
		t.Errorf("round %d is %s %s, its death certificate: %v", p.Seq, p.Phase, p.Death, dead)
	}
	if p.Phase == "sealed" || p.Phase == "revealed" || p.Phase == "published" {
		if err := statement.VerifySetCert(ch, rc, label.Hash(p.Decision), votes); err != nil {
			t.Errorf("round %d is %s: %v", p.Seq, p.Phase, err)
		}
	}
	if p.Phase == "published" {
		signatures = nil
		for _, s := range p.GetResult().GetSignatures() {
			signatures = append(signatures, statement.MemberSignature{Member: int(s.Member), Signature: s.Signature})
		}
		if _, err := statement.VerifyResultCert(ch, p.GetResult().GetBody(), signatures); err != nil {
			t.Errorf("round %d is published: %v", p.Seq, err)
		}
	}
}

// redact replaces hashes, so that a script's output says what matters.
func (s *story) redact(text string) string {
	fields := strings.Fields(text)
	for i, f := range fields {
		if len(f) == 64 {
			fields[i] = "#"
			for name, k := range s.c.devices {
				if identity.DeviceID(k.Public()).String() == f {
					fields[i] = name
				}
			}
		}
	}
	return strings.Join(fields, " ")
}

func startName(rc *statement.RoundConfig) string {
	if rc.Base.IsZero() {
		return "window " + rc.Start.Part
	}
	if len(rc.Start.Results) == 0 {
		return "init"
	}
	return "last result"
}

// names expands d0-d4 and lists.
func names(d *datadriven.TestData) (out []string) {
	for _, a := range d.CmdArgs {
		if !strings.HasPrefix(a.Key, "d") || len(a.Vals) > 0 {
			continue
		}
		from, to, ok := strings.Cut(a.Key, "-")
		if !ok {
			out = append(out, a.Key)
			continue
		}
		lo, _ := strconv.Atoi(from[1:])
		hi, _ := strconv.Atoi(to[1:])
		for i := lo; i <= hi; i++ {
			out = append(out, fmt.Sprintf("d%d", i))
		}
	}
	return out
}

func arg(d *datadriven.TestData, key, fallback string) string {
	for _, a := range d.CmdArgs {
		if a.Key == key && len(a.Vals) > 0 {
			return strings.Join(a.Vals, ",")
		}
	}
	return fallback
}

func number(d *datadriven.TestData, key string, fallback int) int {
	n, err := strconv.Atoi(arg(d, key, strconv.Itoa(fallback)))
	if err != nil {
		return fallback
	}
	return n
}

func mask(digits string) (m statement.Mask) {
	for _, r := range digits {
		m |= 1 << (r - '0')
	}
	return m
}
