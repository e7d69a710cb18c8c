package round

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// dumbDecide is the set rule of SA 2.3 written as it reads.
func dumbDecide(ch *charter.Charter, nMin int, candidates []Candidate, active statement.Mask, verdicts map[int][]statement.Verdict) (set map[label.Hash]bool, legal bool) {
	set = map[label.Hash]bool{}
	byAuthority := map[int]int{}
	for i, c := range candidates {
		ok := true
		for _, j := range active.Members() {
			ok = ok && verdicts[j][i] == statement.OK
		}
		if ok {
			set[c.Device] = true
			byAuthority[c.Authority]++
		}
	}
	floor := len(set)
	for range ch.AuthoritiesFaulty {
		largest, at := 0, 0
		for a, n := range byAuthority {
			if n > largest {
				largest, at = n, a
			}
		}
		floor -= largest
		delete(byAuthority, at)
	}
	if active.Size() < min(ch.N, 2*ch.F+1) || floor < nMin {
		return set, false
	}
	for _, j := range active.Members() {
		lost := 0
		for i := range candidates {
			others := true
			for _, k := range active.Members() {
				others = others && (k == j || verdicts[k][i] == statement.OK)
			}
			if others && verdicts[j][i] != statement.OK {
				lost++
			}
		}
		if float64(lost) > 0.2*float64(len(candidates)) && active.Size() != min(ch.N, 2*ch.F+1) {
			return set, false
		}
	}
	return set, true
}

// TestSetRule compares the set rule with the dumb one.
func TestSetRule(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := rapid.SampledFrom([][2]int{{1, 0}, {2, 1}, {3, 1}, {4, 1}, {5, 1}, {5, 2}, {7, 2}, {7, 3}}).Draw(r, "size")
		ch := &charter.Charter{N: s[0], F: s[1], Q: charter.Quorum(s[0], s[1]), AuthoritiesFaulty: rapid.IntRange(0, s[1]).Draw(r, "f_E")}
		n := rapid.IntRange(0, 30).Draw(r, "candidates")
		var candidates []Candidate
		for i := range n {
			candidates = append(candidates, Candidate{Device: label.Sum(label.TagDevice, []byte{byte(i)}), Authority: rapid.IntRange(0, s[0]-1).Draw(r, "authority")})
		}
		active := statement.Mask(rapid.IntRange(0, 1<<s[0]-1).Draw(r, "M"))
		verdicts := map[int][]statement.Verdict{}
		for _, j := range active.Members() {
			often := rapid.IntRange(0, 10).Draw(r, "refuses")
			for range n {
				v := statement.OK
				if rapid.IntRange(0, 10).Draw(r, "die") < often {
					v = statement.Missing
				}
				verdicts[j] = append(verdicts[j], v)
			}
			if n == 0 {
				verdicts[j] = nil
			}
		}
		nMin := rapid.IntRange(1, 10).Draw(r, "floor")
		d := DecideSet(ch, uint32(nMin), candidates, active, verdicts)
		set, legal := dumbDecide(ch, nMin, candidates, active, verdicts)
		if legal != (d.Err == nil) {
			r.Fatalf("legal %v, error %v", legal, d.Err)
		}
		if !legal {
			return
		}
		var got []label.Hash
		for _, i := range d.Set {
			got = append(got, candidates[i].Device)
		}
		if !slices.IsSortedFunc(got, compareHashes) || !maps.Equal(set, asSet(got)) {
			r.Fatalf("set %v, want %v", got, set)
		}
	})
}

// TestADeviceStandsOnceInASet: the log takes no second Accept of a device, and the set rule does not rely on it (SA 8.5).
func TestADeviceStandsOnceInASet(t *testing.T) {
	ch := &charter.Charter{N: 4, F: 1, Q: charter.Quorum(4, 1)}
	candidates := make([]Candidate, 4)
	verdicts := map[int][]statement.Verdict{}
	for i := range candidates {
		candidates[i] = Candidate{Device: label.Sum(label.TagDevice, []byte{byte(i)}), Header: label.Hash{byte(i)}, Authority: i}
		verdicts[i] = []statement.Verdict{statement.OK, statement.OK, statement.OK, statement.OK}
	}
	if d := DecideSet(ch, 3, candidates, 0b1111, verdicts); d.Err != nil || len(d.Set) != 4 {
		t.Fatalf("set %v: %v", d.Set, d.Err)
	}
	candidates[3].Device = candidates[0].Device
	if d := DecideSet(ch, 3, candidates, 0b1111, verdicts); d.Err == nil {
		t.Fatal("one device stands twice in a legal set")
	}
}

// TestOneMembersWordCostsAFifth: what one member alone refuses is left out up to a fifth of the candidates; beyond that M
// is not legal with it, unless M cannot be smaller (SA 2.3, Set rule).
func TestOneMembersWordCostsAFifth(t *testing.T) {
	ch := &charter.Charter{N: 4, F: 1, Q: charter.Quorum(4, 1)}
	candidates := make([]Candidate, 10)
	for i := range candidates {
		candidates[i] = Candidate{Device: label.Sum(label.TagDevice, []byte{byte(i)}), Authority: i % 4}
	}
	for _, c := range []struct {
		active  statement.Mask
		refuses [4]int // how many of the candidates, from the first on, each member refuses
		legal   bool
		set     int
	}{
		{0b1111, [4]int{0, 0, 0, 2}, true, 8},
		{0b1111, [4]int{0, 0, 0, 3}, false, 7},
		{0b1111, [4]int{0, 0, 3, 3}, true, 7}, // not one member's word
		{0b1111, [4]int{0, 0, 2, 5}, false, 5},
		{0b1011, [4]int{0, 0, 0, 3}, true, 7}, // there is no smaller M
	} {
		verdicts := map[int][]statement.Verdict{}
		for _, j := range c.active.Members() {
			for i := range candidates {
				v := statement.OK
				if i < c.refuses[j] {
					v = statement.BadBox
				}
				verdicts[j] = append(verdicts[j], v)
			}
		}
		if d := DecideSet(ch, 3, candidates, c.active, verdicts); (d.Err == nil) != c.legal || len(d.Set) != c.set {
			t.Errorf("M %v refusing %v: a set of %d, blamed %v, %v", c.active, c.refuses, len(d.Set), d.Blamed, d.Err)
		}
	}
}

// TestACloseIsForTheWholeList: a leader chooses M and nothing else (SA 2.3, Close and Acks).
func TestACloseIsForTheWholeList(t *testing.T) {
	l, id := closed(t, fourOne, 4)
	c := &statement.Close{Round: id, Active: 0b0111}
	for name, left := range map[string][]Candidate{"all": l.m.Candidates(id), "all but one": l.m.Candidates(id)[1:], "none": nil} {
		var list []statement.Contributor
		for _, k := range left {
			list = append(list, statement.Contributor{Device: k.Device, Header: k.Header})
		}
		c.Candidates = statement.HashCandidates(id, list)
		want := BadCandidates
		if name == "all" {
			want = OK
		}
		if got := l.branch().m.addClose(c, 100); got.Code != want {
			t.Errorf("a close for %s: %s, want %s", name, got.Code, want)
		}
	}
}

func asSet(in []label.Hash) map[label.Hash]bool {
	out := map[label.Hash]bool{}
	for _, h := range in {
		out[h] = true
	}
	return out
}

// TestLeaderFindsALegalClose: with at most f members silent or refusing, at n ≥ 3f+1, the leader's Closes reach a legal
// set soon, whoever they are (SA 2.4).
func TestLeaderFindsALegalClose(t *testing.T) {
	for _, s := range [][2]int{{4, 1}, {5, 1}, {7, 2}} {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			base, id := open(t, options{n: s[0], f: s[1], nMin: 3, nMax: 6, kind: charter.KindLoRA}, 6)
			rapid.Check(t, func(r *rapid.T) {
				l := base.branch()
				conduct := map[int]string{}
				for _, j := range rapid.Permutation(indices(s[0])).Draw(r, "who")[:s[1]] {
					conduct[j] = rapid.SampledFrom([]string{"silent", "refuses all", "refuses half", "honest"}).Draw(r, "conduct")
				}
				for tries := 0; ; tries++ {
					v, _ := l.m.Round(id)
					if v.Decided {
						if v.Decision == statement.Dead() || v.Contributors < 3 {
							r.Fatalf("decided %v with %d contributors, members %v", v.Decision, v.Contributors, conduct)
						}
						return
					}
					if tries > 2+s[1] {
						r.Fatalf("no legal set after %d closes, members %v", tries, conduct)
					}
					c, ok := l.m.NextClose(id, l.now(), 1<<s[0]-1)
					if !ok {
						r.Fatalf("no close is due after %d, members %v", tries, conduct)
					}
					l.m.Apply(l.m.Applied()+1, CloseCommand(c))
					for _, j := range c.Active.Members() {
						if conduct[j] == "silent" {
							continue
						}
						cmd := l.c.ack(l.m, j, id, c.Hash(), func(device label.Hash) bool {
							return conduct[j] == "refuses all" || conduct[j] == "refuses half" && device[0] < 128
						})
						l.m.Apply(l.m.Applied()+1, cmd)
					}
					l.nowMs += 61_000
				}
			})
		})
	}
}

// TestCohortFloor counts by hand.
func TestCohortFloor(t *testing.T) {
	for _, c := range []struct {
		by     []int
		faulty int
		want   int
	}{
		{nil, 1, 0}, {[]int{5}, 0, 5}, {[]int{5}, 1, 0}, {[]int{3, 2, 1}, 1, 3}, {[]int{1, 2, 3}, 2, 1}, {[]int{4, 4, 4, 4}, 1, 12}, {[]int{1, 1}, 5, 0},
	} {
		if got := CohortFloor(c.by, c.faulty); got != c.want {
			t.Errorf("%v without the %d largest: %d, want %d", c.by, c.faulty, got, c.want)
		}
	}
}
