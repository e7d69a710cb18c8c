package explore

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// full asks for the longer runs: RUCHE_EXPLORE=full go test ./cmd/internal/explore -timeout 1h
func full() bool { return os.Getenv("RUCHE_EXPLORE") == "full" }

// reached fails where a search has not been where things can go wrong.
func reached(t *testing.T, r *Report, names ...string) {
	t.Helper()
	t.Log(r)
	for _, n := range names {
		if r.Reached[n] == 0 {
			t.Errorf("no state has: %s", n)
		}
	}
}

func everything() []string {
	return []string{"RoundCert", "SetCert A", "SetCert B", "DeadCert by votes", "DeadCert by expiry", "reveal A", "reveal B", "votes split"}
}

// TestThreeMembersOneLies goes through every state of (3,1).
func TestThreeMembersOneLies(t *testing.T) {
	if testing.Short() {
		t.Skip("a complete search")
	}
	r, err := Run(Options{N: 3, F: 1})
	if err != nil {
		t.Fatal(err)
	}
	reached(t, r, everything()...)
}

// TestFourMembersOpening goes through every state of (4,1)'s opening, with two configs of one seq.
func TestFourMembersOpening(t *testing.T) {
	if !full() {
		t.Skip("RUCHE_EXPLORE=full asks for it")
	}
	r, err := Run(Options{N: 4, F: 1, Part: Opening})
	if err != nil {
		t.Fatal(err)
	}
	reached(t, r, "RoundCert", "DeadCert by votes", "DeadCert by expiry")
}

// TestFourMembersVoteAndReveal goes through every state of (4,1)'s vote and reveal.
func TestFourMembersVoteAndReveal(t *testing.T) {
	if !full() {
		t.Skip("RUCHE_EXPLORE=full asks for it")
	}
	r, err := Run(Options{N: 4, F: 1, Part: VoteAndReveal})
	if err != nil {
		t.Fatal(err)
	}
	reached(t, r, everything()...)
}

// TestWalks goes at random through sizes with more members and more liars.
func TestWalks(t *testing.T) {
	if testing.Short() {
		t.Skip("random walks of real members")
	}
	walks := 4
	if full() {
		walks = 200
	}
	for _, size := range [][2]int{{5, 1}, {7, 2}} {
		r, err := Run(Options{N: size[0], F: size[1], Walks: walks, Steps: 400, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		t.Log(r.Reached)
		reached(t, r, "RoundCert")
	}
}

// TestWithoutTheQuorum: by a plain majority a lying leader certifies two sets, and the search finds how.
func TestWithoutTheQuorum(t *testing.T) {
	if testing.Short() {
		t.Skip("a long search")
	}
	wantViolation(t, Options{N: 3, F: 1, Part: VoteAndReveal, Quorum: 2}, "invariant 2: two values")
}

// TestWithKeysInBackups: where a backup holds the vote key, a restored member signs again, and a walk finds it.
func TestWithKeysInBackups(t *testing.T) {
	wantViolation(t, Options{N: 1, F: 0, KeysInBackup: true, Walks: 20, Steps: 60, Seed: 1}, "invariant 9: ")
}

// TestOneMember goes through every state of (1,0), where the leader has only the order of the log to lie with.
func TestOneMember(t *testing.T) {
	r, err := Run(Options{N: 1, F: 0})
	if err != nil {
		t.Fatal(err)
	}
	reached(t, r, "RoundCert", "SetCert A", "SetCert B", "DeadCert by votes", "DeadCert by expiry", "reveal A", "reveal B")
	if r.Restored == 0 {
		t.Error("no restored member was looked at")
	}
}

func wantViolation(t *testing.T, opts Options, what string) {
	t.Helper()
	r, err := Run(opts)
	if !errors.As(err, new(*Violation)) || !strings.Contains(err.Error(), what) {
		t.Fatalf("got %v after %v, want %q", err, r, what)
	}
	t.Log(err)
}
