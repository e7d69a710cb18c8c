package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// roundReport is `rounds show`: a member's record of a round, read but not verified.
type roundReport struct {
	ID           string            `json:"id"`
	Task         string            `json:"task"`
	Seq          uint64            `json:"seq"`
	Label        string            `json:"label"`
	Phase        string            `json:"phase"`
	Death        string            `json:"death"`
	Decision     string            `json:"decision"` // H(S), "dead", or empty
	Reason       string            `json:"reason"`   // why DEAD
	Waits        []waitReport      `json:"waits"`    // what the round waits for, as the member sees it
	Hears        string            `json:"hears"`    // the leader that the member hears; empty: nobody, and what it knows is old
	HeardAge     float64           `json:"heard_age_seconds"`
	ServedBy     string            `json:"served_by"`
	Charter      string            `json:"charter"`
	Base         string            `json:"base"`
	Layout       string            `json:"layout"`
	StartModel   string            `json:"start_model"`
	StartResults []string          `json:"start_results"`
	StartPart    string            `json:"start_part"`
	Values       uint32            `json:"values"`
	TailItems    uint32            `json:"tail_items"`
	Lanes        uint32            `json:"lanes"`
	ClipL2       float64           `json:"clip_l2"`
	Gamma        float64           `json:"gamma"`
	NMin         uint32            `json:"n_min"`
	NMax         uint32            `json:"n_max"`
	CloseAt      string            `json:"close_deadline"`
	AckAt        string            `json:"ack_deadline"`
	RevealAt     string            `json:"reveal_deadline"`
	Phases       []phaseReport     `json:"phases"`
	Signers      []string          `json:"signers"`
	Listed       []listedReport    `json:"listed"`
	Accepted     int               `json:"accepted"`
	UploadBytes  uint64            `json:"upload_bytes"`
	Refused      map[string]uint32 `json:"refused"`
	Contributors []string          `json:"contributors"`
	Closes       []closeReport     `json:"closes"`
	Aborts       []abortReport     `json:"aborts"`
	Votes        []voteReport      `json:"votes"`
	Expired      []string          `json:"expired"`
	Reveals      []revealReport    `json:"reveals"`
	Result       *resultReport     `json:"result"`

	asOf string // where the member hears nobody
}

type phaseReport struct {
	Phase   string  `json:"phase"`
	At      string  `json:"at"`
	Seconds float64 `json:"seconds"` // until the next phase; 0 for the last
}

type listedReport struct {
	Member string `json:"member"`
	Epoch  uint64 `json:"epoch"`
	Erased string `json:"erased"` // when the member said that it erased this epoch's keys; empty: it has not
}

type abortReport struct {
	Member string `json:"member"`
	Reason string `json:"reason"`
}

type closeReport struct {
	Hash   string      `json:"hash"`
	Active []string    `json:"active"`
	Acks   []ackReport `json:"acks"`
}

type ackReport struct {
	Member  string         `json:"member"`
	Index   uint64         `json:"index"` // of its log entry, 0 where the member does not say
	OK      int            `json:"ok"`
	Refused map[string]int `json:"refused"`
}

type voteReport struct {
	Member string `json:"member"`
	Value  string `json:"value"`
}

type revealReport struct {
	Member string `json:"member"`
	SumY   string `json:"sum_y"`
	TSums  int    `json:"t_sums"`
}

type resultReport struct {
	Model   string   `json:"model"`
	X       string   `json:"x"`
	Signers []string `json:"signers"`
}

func showRoundCommand() *urfave.Command {
	return &urfave.Command{
		Name: "show", Usage: "all that a member says of a round; `rounds verify` checks it", ArgsUsage: "ROUND", Description: roundHint,
		Action: func(c *urfave.Context) error {
			args, err := cli.Args(c, 1, 1, "ROUND")
			if err != nil {
				return err
			}
			k, err := dial(c)
			if err != nil {
				return err
			}
			defer k.close()
			id, rec, member, err := fetchRound(c.Context, k, args[0], anyRound)
			if err != nil {
				return err
			}
			r, err := reportRound(k.ch, id, rec, k.ch.Members[member].Name)
			if err != nil {
				return cli.WithHint(err, "ask another member (--member)")
			}
			return cli.Out(c).Value(r, func(w io.Writer) error { return r.print(w, cli.Out(c)) })
		},
	}
}

// reportRound reads a record. Bodies that do not parse are an error; signatures are not looked at.
func reportRound(ch *charter.Charter, id label.Hash, rec *coordpb.RoundRecord, servedBy string) (*roundReport, error) {
	body := rec.GetConfig().GetBody()
	if got := statement.RoundID(body); got != id {
		return nil, fmt.Errorf("member %s serves round %s for round %s", servedBy, got, id)
	}
	rc, err := statement.ParseRoundConfig(body)
	if err != nil {
		return nil, err
	}
	names := func(m statement.Mask) []string {
		out := []string{}
		for _, i := range m.Members() {
			out = append(out, memberName(ch, i))
		}
		return out
	}
	r := &roundReport{ID: id.String(), Task: rc.Task, Seq: rc.Seq, Phase: rec.GetPhase(), Death: rec.GetDeath(), ServedBy: servedBy,
		Charter: rc.Charter.String(), Layout: rc.Layout.String(), StartModel: rc.Start.Model.String(), StartPart: rc.Start.Part, StartResults: []string{},
		Values: rc.Values, TailItems: rc.Tail, Lanes: rc.Len, ClipL2: rc.CReal, Gamma: rc.Gamma, NMin: rc.NMin, NMax: rc.NMax,
		CloseAt: cli.Time(rc.CloseMs), AckAt: cli.Time(rc.AckMs), RevealAt: cli.Time(rc.RevealMs), Accepted: len(rec.GetAccepts()),
		UploadBytes: rec.GetUploadBytes(), Refused: rec.GetRefused(), Contributors: []string{}, Signers: []string{}, Listed: []listedReport{}, Phases: []phaseReport{},
		Reason: rec.GetReason(), Waits: reportWaits(ch, rec.GetWaits()), Hears: rec.GetStanding().GetLeader(), HeardAge: heardAge(rec.GetStanding()),
		Closes: []closeReport{}, Aborts: []abortReport{}, Votes: []voteReport{}, Expired: []string{}, Reveals: []revealReport{}}
	if r.Refused == nil {
		r.Refused = map[string]uint32{}
	}
	if i, err := memberNamed(ch, servedBy); err == nil {
		r.asOf = standingNote(ch, i, rec.GetStanding())
	}
	if ch.Demo {
		r.Label = cli.DemoLabel
	}
	if !rc.Base.IsZero() {
		r.Base = rc.Base.String()
	}
	for _, h := range rc.Start.Results {
		r.StartResults = append(r.StartResults, h.String())
	}
	if d := rec.GetDecision(); len(d) > 0 {
		r.Decision = valueName(d)
	}
	for i, p := range rec.GetPhases() {
		at := phaseReport{Phase: p.GetPhase(), At: cli.Time(p.GetUnixMs())}
		if i+1 < len(rec.GetPhases()) {
			at.Seconds = float64(rec.GetPhases()[i+1].GetUnixMs()-p.GetUnixMs()) / 1000
		}
		r.Phases = append(r.Phases, at)
	}
	for _, s := range signatures(rec.GetConfig().GetSignatures()) {
		r.Signers = append(r.Signers, memberName(ch, s.Member))
	}
	for _, i := range rc.Listed().Members() {
		k, _ := rc.Package(i)
		r.Listed = append(r.Listed, listedReport{Member: memberName(ch, i), Epoch: k.Epoch, Erased: erasedAt(rec, i, k.Epoch)})
	}
	for _, d := range rec.GetContributors() {
		r.Contributors = append(r.Contributors, hex.EncodeToString(d))
	}
	byClose := map[label.Hash][]ackReport{}
	for i, p := range rec.GetAcks() {
		s := round.FromMemberStatement(p)
		k, err := statement.ParseAck(s.Statement.Body)
		if err != nil {
			return nil, err
		}
		at := ackReport{Member: memberName(ch, s.Member), Refused: map[string]int{}}
		if i < len(rec.GetAckIndexes()) {
			at.Index = rec.GetAckIndexes()[i]
		}
		for _, v := range k.Verdicts {
			if v == statement.OK {
				at.OK++
			} else {
				at.Refused[v.String()]++
			}
		}
		byClose[k.Close] = append(byClose[k.Close], at)
	}
	for _, b := range rec.GetCloses() {
		k, err := statement.ParseClose(b)
		if err != nil {
			return nil, err
		}
		r.Closes = append(r.Closes, closeReport{Hash: k.Hash().String(), Active: names(k.Active), Acks: append([]ackReport{}, byClose[k.Hash()]...)})
	}
	for _, s := range statements(rec.GetAborts()) {
		v, err := statement.ParseAbort(s.Statement.Body)
		if err != nil {
			return nil, err
		}
		r.Aborts = append(r.Aborts, abortReport{memberName(ch, s.Member), v.Reason})
	}
	for _, s := range statements(rec.GetVotes()) {
		v, err := statement.ParseVote(s.Statement.Body)
		if err != nil {
			return nil, err
		}
		r.Votes = append(r.Votes, voteReport{memberName(ch, s.Member), valueName(v.Value[:])})
	}
	for _, s := range rec.GetExpired() {
		r.Expired = append(r.Expired, memberName(ch, int(min(s.GetMember(), statement.MembersMax))))
	}
	for _, s := range statements(rec.GetReveals()) {
		v, err := statement.ParseReveal(s.Statement.Body)
		if err != nil {
			return nil, err
		}
		r.Reveals = append(r.Reveals, revealReport{memberName(ch, s.Member), v.SumY.String(), len(v.TSums)})
	}
	if p := rec.GetResult(); p != nil {
		v, err := statement.ParseResult(p.GetBody())
		if err != nil {
			return nil, err
		}
		r.Result = &resultReport{Model: v.Model.String(), X: v.X.String(), Signers: []string{}}
		for _, s := range signatures(p.GetSignatures()) {
			r.Result.Signers = append(r.Result.Signers, memberName(ch, s.Member))
		}
	}
	return r, nil
}

// erasedAt is when a member said that it erased an epoch's keys.
func erasedAt(rec *coordpb.RoundRecord, member int, epoch uint64) string {
	for _, s := range statements(rec.GetErasures()) {
		if x, err := statement.ParseErasure(s.Statement.Body); err == nil && s.Member == member && x.Member == member && x.Epoch == epoch {
			return cli.Time(x.AtMs)
		}
	}
	return ""
}

func memberName(ch *charter.Charter, i int) string {
	if i >= 0 && i < ch.N {
		return ch.Members[i].Name
	}
	return fmt.Sprintf("member %d", i)
}

// valueName writes what a vote is for.
func valueName(b []byte) string {
	dead := statement.Dead()
	if string(b) == string(dead[:]) {
		return "dead"
	}
	return hex.EncodeToString(b)
}

func (r *roundReport) print(w io.Writer, o *cli.Output) error {
	t := &cli.Table{Columns: make([]string, 2)}
	if r.Label != "" {
		t.Add("privacy", o.Bad(r.Label))
	}
	phase := r.Phase
	if r.Death != "" {
		phase += " (" + r.Death + ")"
	}
	t.Add("round", r.ID)
	t.Add("task", fmt.Sprintf("%s/%d", r.Task, r.Seq))
	t.Add("phase", phase)
	t.Add("served by", r.ServedBy+" (not verified: `ruche rounds verify`)")
	if r.asOf != "" {
		t.Add("as of", o.Bad(r.asOf))
	}
	t.Add("decision", r.Decision)
	if r.Reason != "" {
		t.Add("reason", r.Reason)
	}
	for _, w := range r.Waits {
		t.Add("waits", w.String())
	}
	if r.Result != nil {
		t.Add("model", r.Result.Model)
		t.Add("signed by", strings.Join(r.Result.Signers, ", "))
	}
	t.Add("accepted", fmt.Sprintf("%d of at most %d, floor %d; %s", r.Accepted, r.NMax, r.NMin, cli.Bytes(r.UploadBytes)))
	t.Add("contributors", len(r.Contributors))
	if len(r.Refused) == 0 {
		t.Add("refused", "none")
	}
	for _, reason := range sortedKeys(r.Refused) {
		t.Add("refused", fmt.Sprintf("%d %s", r.Refused[reason], reason))
	}
	t.Add("start", strings.TrimSpace(r.StartModel+" "+r.StartPart))
	t.Add("base", r.Base)
	t.Add("layout", r.Layout)
	t.Add("vector", fmt.Sprintf("%d values and %d metrics in %d lanes, clip %g, step %.4g", r.Values, r.TailItems, r.Lanes, r.ClipL2, r.Gamma))
	t.Add("deadlines", fmt.Sprintf("close %s, ack %s, reveal %s", r.CloseAt, r.AckAt, r.RevealAt))
	t.Add("certified by", strings.Join(r.Signers, ", "))
	for _, l := range r.Listed {
		erased := ""
		if l.Erased != "" {
			erased = ", keys erased " + l.Erased
		}
		t.Add("listed", fmt.Sprintf("%s, epoch %d%s", l.Member, l.Epoch, erased))
	}
	if err := t.Write(w, false); err != nil {
		return err
	}
	sections := []struct {
		title string
		table *cli.Table
	}{
		{"", r.phasesTable()}, {"", r.acksTable()}, {"", r.saidTable()},
	}
	for _, s := range sections {
		if len(s.table.Rows) == 0 {
			continue
		}
		fmt.Fprintln(w)
		if err := s.table.Write(w, !o.NoHeaders); err != nil {
			return err
		}
	}
	return nil
}

func (r *roundReport) phasesTable() *cli.Table {
	t := &cli.Table{Columns: []string{"PHASE", "BEGAN", "LASTED"}}
	for i, p := range r.Phases {
		lasted := ""
		if i+1 < len(r.Phases) {
			lasted = time.Duration(p.Seconds * float64(time.Second)).Round(time.Millisecond).String()
		}
		t.Add(p.Phase, p.At, lasted)
	}
	return t
}

func (r *roundReport) acksTable() *cli.Table {
	t := &cli.Table{Columns: []string{"CLOSE", "ACTIVE", "ACKED BY", "INDEX", "OK", "REFUSED"}}
	for _, k := range r.Closes {
		active := strings.Join(k.Active, ",")
		if len(k.Acks) == 0 {
			t.Add(k.Hash, active, "", "", "", "")
		}
		for _, a := range k.Acks {
			var refused []string
			for _, v := range sortedKeys(a.Refused) {
				refused = append(refused, fmt.Sprintf("%d %s", a.Refused[v], v))
			}
			t.Add(k.Hash, active, a.Member, a.Index, a.OK, strings.Join(refused, ", "))
		}
	}
	return t
}

func (r *roundReport) saidTable() *cli.Table {
	t := &cli.Table{Columns: []string{"SAID", "BY", "VALUE"}}
	for _, a := range r.Aborts {
		t.Add("abort", a.Member, a.Reason)
	}
	for _, v := range r.Votes {
		t.Add("vote", v.Member, v.Value)
	}
	for _, m := range r.Expired {
		t.Add("expired", m, "")
	}
	for _, v := range r.Reveals {
		t.Add("reveal", v.Member, fmt.Sprintf("%s and %d mask sums", v.SumY, v.TSums))
	}
	return t
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
