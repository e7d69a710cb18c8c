package explore

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// full asks for the longer runs: RUCHE_EXPLORE=full go test ./cmd/internal/explore -timeout 1h
func full() bool { return os.Getenv("RUCHE_EXPLORE") == "full" }

// clean runs a search that has to find nothing, and fails where it has not been where things can go wrong.
func clean(t *testing.T, o Options) *Report {
	t.Helper()
	r, err := Run(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r)
	t.Log(r.Reached)
	if missing := r.Missing(o); len(missing) > 0 {
		t.Errorf("no state has: %s", strings.Join(missing, "; "))
	}
	return r
}

// TestThreeMembersOneLies goes through every state of (3,1).
func TestThreeMembersOneLies(t *testing.T) {
	if testing.Short() {
		t.Skip("a complete search")
	}
	clean(t, Options{N: 3, F: 1})
}

// TestFourMembersOpening goes through every state of (4,1)'s opening, with two configs of one seq.
func TestFourMembersOpening(t *testing.T) {
	if !full() {
		t.Skip("RUCHE_EXPLORE=full asks for it")
	}
	clean(t, Options{N: 4, F: 1, Part: Opening})
}

// TestFourMembersVoteAndReveal goes through every state of (4,1)'s vote and reveal.
func TestFourMembersVoteAndReveal(t *testing.T) {
	if !full() {
		t.Skip("RUCHE_EXPLORE=full asks for it")
	}
	clean(t, Options{N: 4, F: 1, Part: VoteAndReveal})
}

// TestWalks goes at random through sizes with more members and more liars.
func TestWalks(t *testing.T) {
	if testing.Short() {
		t.Skip("random walks of real members")
	}
	walks := 6
	if full() {
		walks = 200
	}
	for _, size := range [][2]int{{5, 1}, {7, 2}} {
		clean(t, Options{N: size[0], F: size[1], Walks: walks, Steps: 400, Seed: 1})
	}
}

// TestASearchThatWasNowhere is none.
func TestASearchThatWasNowhere(t *testing.T) {
	walk := Options{N: 5, F: 1, Walks: 1}
	for _, c := range []struct {
		o       Options
		reached []string
		missing int
	}{
		{Options{N: 4, F: 1}, nil, len(Landmarks())},
		{Options{N: 4, F: 1}, Landmarks(), 0},
		{Options{N: 4, F: 1}, Landmarks()[:7], 1},
		{Options{N: 1}, Landmarks()[:7], 0},
		{Options{N: 4, F: 1, Part: Opening}, []string{"RoundCert", "SetCert A"}, 2},
		{walk, nil, 4},
		{walk, []string{"RoundCert", "SetCert B", "DeadCert by expiry", "reveal B"}, 0},
		{walk, []string{"RoundCert", "SetCert B", "reveal B"}, 1},
	} {
		r := &Report{Reached: map[string]int{}}
		for _, name := range c.reached {
			r.Reached[name]++
		}
		if got := r.Missing(c.o); len(got) != c.missing {
			t.Errorf("%+v with %q: %q are missing, want %d", c.o, c.reached, got, c.missing)
		}
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
	r := clean(t, Options{N: 1, F: 0})
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
