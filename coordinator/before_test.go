package coordinator

import (
	"errors"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
)

// forgetful is a log whose applied index cannot be made durable.
type forgetful struct{ *memoryLog }

var errForgetful = errors.New("the applied index is not on the disk")

func (forgetful) EnsureApplied(uint64) error { return errForgetful }

// TestNoReceiptOrAckRestsOnAnUnguardedLog: where the applied index does not reach the disk, a member signs neither (SA 2.5).
func TestNoReceiptOrAckRestsOnAnUnguardedLog(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	devices := r.contribute(v)
	r.m.log = forgetful{r.log}
	if _, err := r.m.Receipt(t.Context(), v.ID, devices[0].header.Hash()); !errors.Is(err, errForgetful) {
		t.Errorf("a receipt: %v", err)
	}
	for range 5 {
		r.now = r.now.Add(1100 * time.Millisecond)
		r.m.Work(t.Context())
	}
	if v, _ = r.newest(); v.Phase != round.Closed {
		t.Errorf("the round is %s", v.Phase)
	}
	r.m.log = r.log
	r.until(round.Acked)
}

// TestVotesFollowTheLog: a member votes for what its log decided, however late its own clock has it (SA 2.3, Set rule).
func TestVotesFollowTheLog(t *testing.T) {
	r := newRig(t)
	r.contribute(r.until(round.Open))
	v := r.until(round.Acked)
	r.now = time.UnixMilli(v.Config.AckMs).Add(time.Minute)
	cmd, err := r.m.signVote(v, v.Decision)
	must(t, err)
	vote, err := statement.ParseVote(cmd.GetVote().GetStatement().GetBody())
	must(t, err)
	if vote.Value != v.Decision || vote.Value == statement.Dead() {
		t.Errorf("voted for %s, its log decided %s", vote.Value, v.Decision)
	}
}

// TestRevealNeedsItsCertificate: whatever else says that a set is certified, a member counts the votes itself, and folds
// no set but the certified one (SA 2.3, Reveal).
func TestRevealNeedsItsCertificate(t *testing.T) {
	r := newRig(t)
	r.contribute(r.until(round.Open))
	v := r.until(round.Sealed)
	bare := v
	bare.Votes = nil
	if cmd, err := r.m.signReveal(t.Context(), bare); err == nil || cmd != nil {
		t.Error("revealed without votes")
	}
	if e, _ := r.m.epochs.get(1); e != nil {
		if _, revealed := e.Revealed(v.ID); revealed {
			t.Error("a reveal is recorded without votes")
		}
	}
	r.until(round.Published)
}
