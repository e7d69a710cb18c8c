package statement

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/ruche-federation/ruche/crypto/label"
)

const (
	closeVersion = 1
	ackVersion   = 1
)

// Contributor is one contribution as sets and candidate lists name it.
type Contributor struct {
	Device label.Hash
	Header label.Hash
}

// HashCandidates is H(candidates): all Accepts of a round in log order.
func HashCandidates(round label.Hash, inLogOrder []Contributor) label.Hash {
	return hashContributors(label.TagCandidates, round, inLogOrder)
}

// HashSet is H(S). The order of s does not matter: a set is hashed ascending by device id.
func HashSet(round label.Hash, s []Contributor) label.Hash {
	sorted := slices.Clone(s)
	SortContributors(sorted)
	return hashContributors(label.TagSet, round, sorted)
}

// SortContributors sorts ascending by device id.
func SortContributors(s []Contributor) {
	slices.SortFunc(s, func(a, b Contributor) int {
		if c := bytes.Compare(a.Device[:], b.Device[:]); c != 0 {
			return c
		}
		return bytes.Compare(a.Header[:], b.Header[:])
	})
}

func hashContributors(tag string, round label.Hash, s []Contributor) label.Hash {
	w := label.New(tag)
	w.Write(round[:])
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(s)))
	w.Write(n[:])
	for i := range s {
		w.Write(s[i].Device[:])
		w.Write(s[i].Header[:])
	}
	return label.Hash(w.Sum(nil))
}

// Close asks the members of M to say which candidates they hold and could open (SA 2.3, 4). Nobody signs it: it has no
// discretion but M.
type Close struct {
	Round      label.Hash
	Active     Mask // M
	Candidates label.Hash
}

// Bytes is the canonical encoding.
func (c *Close) Bytes() []byte {
	e := encodeHead(typeClose, closeVersion)
	e.hash(c.Round)
	e.u32(uint32(c.Active))
	e.hash(c.Candidates)
	return e.b
}

// ParseClose reads what Bytes wrote.
func ParseClose(b []byte) (*Close, error) {
	d := decode("close", b, typeClose, closeVersion)
	c := &Close{Round: d.hash(), Active: d.mask("active members"), Candidates: d.hash()}
	return c, d.end()
}

// Hash is H(Close), which Acks and zero-sharing are bound to.
func (c *Close) Hash() label.Hash { return label.Sum(label.TagClose, c.Bytes()) }

// Verdict is what one member says of one candidate.
type Verdict byte

// Verdicts. All but OK keep a candidate out of S.
const (
	OK            Verdict = iota
	Missing               // no holder gave it, after every one was asked
	BadHeader             // header or device signature
	BadDigest             // H(y) or H(boxes)
	BadBox                // the own box does not open
	BadCommitment         // a seed does not match its commitment
	BadLength             // y or a box has another length
	verdictEnd
)

var verdictNames = [verdictEnd]string{"ok", "missing", "bad_header", "bad_digest", "bad_box", "bad_commitment", "bad_length"}

// String is the stable name of a verdict.
func (v Verdict) String() string {
	if v < verdictEnd {
		return verdictNames[v]
	}
	return fmt.Sprintf("verdict(%d)", byte(v))
}

// Ack is one member's verdict on every candidate of one Close, in the candidates' order (SA 2.3, 5). Signed by its
// vote key.
type Ack struct {
	Round    label.Hash
	Close    label.Hash
	Verdicts []Verdict
}

// Bytes is the canonical encoding: a bit per candidate, set for OK, then one byte for each that is not.
func (a *Ack) Bytes() []byte {
	e := encodeHead(typeAck, ackVersion)
	e.hash(a.Round)
	e.hash(a.Close)
	e.u32(uint32(len(a.Verdicts)))
	bits := make([]byte, (len(a.Verdicts)+7)/8)
	var bad []byte
	for i, v := range a.Verdicts {
		if v == OK {
			bits[i/8] |= 1 << (i % 8)
		} else {
			bad = append(bad, byte(v))
		}
	}
	e.fixed(bits)
	e.fixed(bad)
	return e.b
}

// ParseAck reads what Bytes wrote.
func ParseAck(b []byte) (*Ack, error) {
	if len(b) > AckBytesMax {
		return nil, fmt.Errorf("ack has %d bytes, limit %d", len(b), AckBytesMax)
	}
	d := decode("ack", b, typeAck, ackVersion)
	a := &Ack{Round: d.hash(), Close: d.hash()}
	n := d.length("verdicts", CandidatesMax)
	bits := d.take((n + 7) / 8)
	if d.err != nil {
		return nil, d.err
	}
	if n > 0 {
		a.Verdicts = make([]Verdict, n)
	}
	for i := range a.Verdicts {
		if bits[i/8]>>(i%8)&1 == 1 {
			continue
		}
		v := Verdict(d.u8())
		if d.err == nil && (v == OK || v >= verdictEnd) {
			d.fail("has verdict %d, which this program does not read", byte(v))
		}
		if d.err != nil {
			return nil, d.err
		}
		a.Verdicts[i] = v
	}
	if n%8 != 0 && bits[n/8]>>(n%8) != 0 {
		return nil, errors.New("ack has bits beyond its candidates")
	}
	return a, d.end()
}
