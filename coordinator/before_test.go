package coordinator

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/coordinator/intake"
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

// TestARottenCopyIsNotAckedAsWhole: an ok in an Ack is for a copy whose y was read to the end (coordinator design, 4.3).
func TestARottenCopyIsNotAckedAsWhole(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	d := r.contribute(v)[0]
	e, err := r.m.listed(v.Config)
	must(t, err)
	terms := intake.Terms{Round: v.Config.Committee(r.ch)}
	judge := func() statement.Verdict {
		t.Helper()
		for _, k := range r.m.machine.Candidates(v.ID) {
			if k.Header == d.header.Hash() {
				verdict, err := r.m.judge(t.Context(), e, terms, v, k, 0)
				must(t, err)
				return verdict
			}
		}
		t.Fatal("the log lacks the contribution")
		return 0
	}
	if got := judge(); got != statement.OK {
		t.Fatalf("whole: %v", got)
	}
	path := filepath.Join(r.home.Dir, "blobs", "y", v.ID.String(), d.header.Y.String())
	b, err := os.ReadFile(path)
	must(t, err)
	b[len(b)/2] ^= 4
	must(t, os.WriteFile(path, b, 0o600))
	if got := judge(); got != statement.Missing {
		t.Errorf("rotten: %v", got)
	}
}

// TestNothingLeavesUnderAnExpiredRecord: a member that has said that it serves a round no more does not, whatever its log
// shows still (SA 8.3).
func TestNothingLeavesUnderAnExpiredRecord(t *testing.T) {
	r := newRig(t)
	r.contribute(r.until(round.Open))
	v := r.until(round.Revealed)
	reveal, err := statement.ParseReveal(v.Reveals[0].Statement.Body)
	must(t, err)
	_, err = r.m.mayServe(v.ID, reveal.SumY)
	must(t, err)
	e, err := r.m.listed(v.Config)
	must(t, err)
	must(t, e.RecordExpired(v.ID))
	if _, err := r.m.mayServe(v.ID, reveal.SumY); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("served: %v", err)
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
