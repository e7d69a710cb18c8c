package explore

import (
	"fmt"
	"strings"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// words are what an honest member has signed so far, a bit each. Nothing is ever taken back.
type words uint32

const (
	signed1 words = 1 << iota // the first config of the seq
	signed2                   // the second
	ack0                      // of closes[0]; the next two bits are of closes[1] and closes[2]
	ack1
	ack2
	voteA
	voteB
	voteDead
	vote2Dead // in the second round, which nobody opens
	revealA
	revealB
	expired1
	expired2
	other // anything that no rule of the protocol would have it sign
)

const (
	anyVote   = voteA | voteB | voteDead
	anyReveal = revealA | revealB
)

var wordNames = []string{"sign 1", "sign 2", "ack low", "ack high", "ack short", "vote A", "vote B", "vote DEAD", "vote DEAD 2", "reveal A", "reveal B", "expired", "expired 2", "other"}

func (s words) String() string {
	var out []string
	for i, n := range wordNames {
		if s>>i&1 == 1 {
			out = append(out, n)
		}
	}
	return strings.Join(out, ", ")
}

// each calls f with every single word of s.
func (s words) each(f func(words)) {
	for b := words(1); b <= other; b <<= 1 {
		if s&b != 0 {
			f(b)
		}
	}
}

// said names one statement of one honest member.
type said struct {
	member int
	word   words
}

// value is a value that a round may be decided for.
type value int

const (
	none value = iota
	setA
	setB
	dead
	foreign // of another kind than any log here decides
)

var valueNames = [...]string{"none", "A", "B", "DEAD", "foreign"}

func (v value) String() string { return valueNames[v] }

func (w *world) value(h label.Hash) value {
	for v, have := range w.hashes {
		if h == have {
			return value(v)
		}
	}
	return foreign
}

var voteWord = [...]words{setA: voteA, setB: voteB, dead: voteDead, foreign: other}
var revealWord = [...]words{setA: revealA, setB: revealB, dead: other, foreign: other}

// word reads what a member proposes. What it says of its epochs is no word of a round: 0.
func (w *world) word(cmd *coordpb.Command) (words, error) {
	pick := func(first, second words) (words, error) {
		switch string(cmdRound(cmd)) {
		case string(w.ids[0][:]):
			return first, nil
		case string(w.ids[1][:]):
			return second, nil
		}
		return other, nil
	}
	switch c := cmd.GetCommand().(type) {
	case *coordpb.Command_KeyPackage, *coordpb.Command_Erasure:
		return 0, nil
	case *coordpb.Command_RoundSignature:
		return pick(signed1, signed2)
	case *coordpb.Command_Ack:
		a, err := statement.ParseAck(c.Ack.GetStatement().GetBody())
		if err != nil {
			return 0, err
		}
		for i, v := range a.Verdicts {
			if v != statement.OK {
				return 0, fmt.Errorf("an honest member refuses candidate %d: %v", i, v)
			}
		}
		for i, cl := range w.closes {
			if cl.hash == a.Close {
				return ack0 << i, nil
			}
		}
		return other, nil
	case *coordpb.Command_Vote:
		v, err := statement.ParseVote(c.Vote.GetStatement().GetBody())
		if err != nil {
			return 0, err
		}
		second := other
		if v.Value == statement.Dead() {
			second = vote2Dead
		}
		return pick(voteWord[w.value(v.Value)], second)
	case *coordpb.Command_Reveal:
		r, err := statement.ParseReveal(c.Reveal.GetStatement().GetBody())
		if err != nil {
			return 0, err
		}
		return pick(revealWord[w.value(r.Set)], other)
	case *coordpb.Command_Expired:
		return pick(expired1, expired2)
	}
	return 0, fmt.Errorf("an honest member proposes %T", cmd.GetCommand())
}

func cmdRound(cmd *coordpb.Command) []byte {
	switch c := cmd.GetCommand().(type) {
	case *coordpb.Command_RoundSignature:
		return c.RoundSignature.GetRoundId()
	case *coordpb.Command_Vote:
		return c.Vote.GetRoundId()
	case *coordpb.Command_Reveal:
		return c.Reveal.GetRoundId()
	case *coordpb.Command_Expired:
		return c.Expired.GetRoundId()
	}
	return nil
}
