package lab

import (
	"testing"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// TestNobodySpeaksForAnother: a liar puts statements into the log in others' names, and others' own statements of
// another round, epoch or charter. Every one is refused for what is wrong with it, and the round goes on as if nothing
// had been said.
func TestNobodySpeaksForAnother(t *testing.T) {
	elsewhere := story(t, Options{N: 4, F: 1, Devices: 4})
	elsewhere.Begin()
	foreign := until(t, elsewhere, round.Open)

	f := story(t, Options{N: 4, F: 1, Devices: 5, Window: "1h"})
	must(t, f.Lead(0))
	l, err := f.Corrupt(3)
	must(t, err)
	h := f.log()
	f.Begin()
	until(t, f, round.Open)
	everybody(t, f, f.Devices...)
	first := until(t, f, round.Published)
	old := func(name string) (out []*coordpb.Command) { // what the log holds from the first round
		entries, _ := f.after(h, 0)
		for _, data := range entries {
			if cmd, err := round.ParseCommand(data); err == nil && commandName(cmd) == name {
				out = append(out, cmd)
			}
		}
		return out
	}
	f.Advance(13 * 60 * 60e9) // every member draws a second epoch before the second round
	must(t, f.RunUntil("the next round is open", func() bool { v, _ := f.Round(); return v.Config.Seq == 2 && v.Phase == round.Open }, 60))
	v, _ := f.Round()
	rc := v.Config
	victim := f.Devices[1]

	oldHeader, err := statement.ParseAccept(old("accepts")[0].GetAccepts().GetItems()[0])
	must(t, err)
	inThis := *oldHeader
	inThis.Round = v.ID
	taken, err := f.Devices[0].Forge(nil)
	must(t, err)
	f.Devices[0].Lies.Store(false) // nothing of it is sent by the device
	stolen := &statement.Accept{Round: v.ID, Header: taken.Header, Device: victim.ID, Authority: victim.Cert.Authority, Size: rc.ContributionSize(f.Charter), Holders: 0b1111,
		Signature: taken.Open.GetHeader().GetSignature()}

	k, _ := rc.Package(0)
	forged := *k
	forged.Epoch, forged.VoteKey = k.Epoch+1, l.home.Authority.Public()
	oldKeys, _ := first.Config.Package(3)
	mine, _ := rc.Package(3)
	otherCharter := *mine
	otherCharter.Charter, otherCharter.Epoch = elsewhere.Charter.Hash(), mine.Epoch+1

	cert := *victim.Cert
	cert.Token = statement.HashToken([]byte("another token"))
	stolenCert := cert
	stolenCert.Authority = l.Index()

	idle := 0 // has not signed the round: q others have
	for _, s := range v.Signatures {
		if s.Member == idle {
			idle++
		}
	}
	inName := func(member uint32, cmd *coordpb.Command, p *coordpb.RoundStatement) *coordpb.Command {
		p.Member = member
		return cmd
	}
	vote := l.Vote(rc, statement.Dead())
	abort := &statement.Abort{Round: v.ID, Reason: "in another's name"}
	relabelled := old("vote")[0]
	relabelled.GetVote().RoundId = v.ID[:]
	oldVote := (&statement.Vote{Round: v.ID, Value: statement.Dead()}).Bytes()
	reveal := &statement.Reveal{Round: v.ID, Set: label.Sum(label.TagSet), SumY: label.Sum(label.TagSum)}

	for _, c := range []struct {
		what string
		cmd  *coordpb.Command
		want round.Code
	}{
		{"keys in another's name", round.KeyPackageCommand(statement.SignMember(l.home.Identity, label.StmtKeyPackage, forged.Bytes())), round.BadSignature},
		{"own keys of an epoch that has ended", round.KeyPackageCommand(statement.SignMember(l.home.Identity, label.StmtKeyPackage, oldKeys.Bytes())), round.StaleEpoch},
		{"keys under another charter", round.KeyPackageCommand(statement.SignMember(l.home.Identity, label.StmtKeyPackage, otherCharter.Bytes())), round.Malformed},
		{"a round of another charter", round.ProposeCommand(foreign.Config), round.BadConfig},
		{"the first round again", round.ProposeCommand(first.Config), round.Duplicate},
		{"another's signature over a round", round.RoundSignatureCommand(v.ID, idle, l.home.Identity.Sign(label.StmtRoundConfig, append(v.Body, 0))), round.BadSignature},
		{"a certificate in another authority's name", round.DeviceCertCommand(statement.SignKey(l.home.Authority, label.StmtDeviceCert, cert.Bytes())), round.BadSignature},
		{"a certificate for another authority's device", round.DeviceCertCommand(statement.SignKey(l.home.Authority, label.StmtDeviceCert, stolenCert.Bytes())), round.Conflict},
		{"a contribution for another's device id", round.AcceptsCommand(stolen), round.BadSignature},
		{"the header of an earlier round", round.AcceptsCommand(&inThis), round.BadSignature},
		{"a contribution to a round that has ended", round.AcceptsCommand(oldHeader), round.Duplicate},
		{"a vote in another's name", inName(1, vote, vote.GetVote()), round.BadSignature},
		{"a vote of another round in the envelope of this one", relabelled, round.Malformed},
		{"a vote of another round as it was", old("vote")[0], round.Duplicate},
		{"a vote under the keys of an earlier epoch", round.VoteCommand(v.ID, 3, l.sign(first.Config, label.StmtVote, oldVote)), round.BadSignature},
		{"a vote under another charter's round", l.Vote(foreign.Config, statement.Dead()), round.UnknownRound},
		{"an ack of a close that is not there", l.Ack(rc, &statement.Close{Round: v.ID, Active: 0b111}, 0, nil), round.UnknownClose},
		{"a close before the candidates are frozen", round.CloseCommand(&statement.Close{Round: v.ID, Active: 0b1110}), round.TooEarly},
		{"a reveal before the certificate", l.Reveal(rc, reveal), round.NotCertified},
		{"an expiry before the deadline", l.Expired(rc), round.TooEarly},
		{"a result before the certificate", l.Result(&statement.Result{Round: v.ID, Set: reveal.Set, X: reveal.SumY, Model: first.Result.Model}), round.NotCertified},
		{"an abort in another's name", round.AbortCommand(v.ID, 2, statement.SignMember(l.home.Identity, label.StmtAbort, abort.Bytes())), round.BadSignature},
		{"its own abort, which alone is nothing", round.AbortCommand(v.ID, 3, statement.SignMember(l.home.Identity, label.StmtAbort, abort.Bytes())), round.OK},
		{"a time that has passed", round.TickCommand(1), round.StaleTick},
	} {
		if got := l.code(h, c.cmd); got != c.want {
			t.Errorf("%s: the log says %q, want %q", c.what, got, c.want)
		}
	}
	must(t, f.Check())
	everybody(t, f, f.Devices...)
	if v := until(t, f, round.Published); v.Contributors != 5 || v.Config.Seq != 2 {
		t.Errorf("round %d has %d contributors", v.Config.Seq, v.Contributors)
	}
	must(t, f.Finish())
}
