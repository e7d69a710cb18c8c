package committee

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/prg"
	"github.com/ruche-federation/ruche/crypto/seal"
)

// Flaw says what is wrong with a contribution.
type Flaw int

// Flaws, in the order in which they are looked for.
const (
	FlawCommitments Flaw = iota + 1 // not one commitment per subset
	FlawBox                         // the member's box does not open
	FlawSeeds                       // the box holds another number of bytes than the member's seeds have
	FlawCommitment                  // the commitment of one subset differs from the seed in the box
)

// InvalidError says that the contribution itself is at fault: the member's ack for it is "invalid". Any other error of
// OpenBox is the caller's own: a round, key or epoch that do not belong together, or a key erased meanwhile.
type InvalidError struct {
	Member int // whose box
	Flaw   Flaw
	Subset Mask // FlawCommitment only
	Got    int  // FlawCommitments and FlawSeeds: what was there
	Want   int  // and what should have been
}

func (e *InvalidError) Error() string {
	switch e.Flaw {
	case FlawCommitments:
		return fmt.Sprintf("contribution has %d commitments, want %d", e.Got, e.Want)
	case FlawBox:
		return fmt.Sprintf("box of member %d does not open", e.Member)
	case FlawSeeds:
		return fmt.Sprintf("box of member %d holds %d bytes of seeds, want %d", e.Member, e.Got, e.Want)
	case FlawCommitment:
		return fmt.Sprintf("box of member %d: commitment of subset %v differs", e.Member, e.Subset)
	}
	return fmt.Sprintf("contribution is invalid for member %d", e.Member)
}

// Shares are one member's seeds of one contribution, checked against its commitments and bound to the round, device
// and nonce they were opened for. They print as their type only.
type Shares struct {
	context func(Mask) []byte
	lanes   int
	subsets []Mask
	seeds   []prg.Seed
}

// OpenBox opens the box that a contribution holds for member me, under the epoch key the round lists for it, and
// checks the seeds against the commitments of me's subsets (SA 2.3, intake). box and aad are as received; aad is what
// the device bound its boxes to, recomputed from its signed header.
func OpenBox(r Round, me int, epoch uint64, key *seal.PrivateKey, device label.Hash, nonce Nonce, commitments []label.Hash, box, aad []byte) (Shares, error) {
	if err := checkSize(r.N, r.F); err != nil {
		return Shares{}, err
	}
	listed, ok := r.recipient(me)
	if !ok {
		return Shares{}, fmt.Errorf("round does not list member %d", me)
	}
	if listed.Epoch != epoch {
		return Shares{}, fmt.Errorf("round lists epoch %d of member %d, not %d", listed.Epoch, me, epoch)
	}
	if !bytes.Equal(listed.SealKey, key.Public()) {
		return Shares{}, fmt.Errorf("round lists another seal key for epoch %d of member %d", epoch, me)
	}
	if want := Count(r.N, r.F); len(commitments) != want {
		return Shares{}, &InvalidError{Member: me, Flaw: FlawCommitments, Got: len(commitments), Want: want}
	}
	plain, err := key.Open(box, boxInfo(r.ID, me, epoch), aad)
	if errors.Is(err, seal.ErrOpen) {
		return Shares{}, &InvalidError{Member: me, Flaw: FlawBox}
	} else if err != nil {
		return Shares{}, fmt.Errorf("box of member %d: %w", me, err)
	}
	defer clear(plain)
	mine := Count(r.N-1, r.F)
	if want := prg.SeedSize * mine; len(plain) != want {
		return Shares{}, &InvalidError{Member: me, Flaw: FlawSeeds, Got: len(plain), Want: want}
	}
	id := r.ID
	out := Shares{
		context: func(t Mask) []byte { return maskContext(id, device, nonce, t) },
		lanes:   r.Len,
		subsets: make([]Mask, 0, mine),
		seeds:   make([]prg.Seed, 0, mine),
	}
	for i, t := range Subsets(r.N, r.F) {
		if !t.Has(me) {
			continue
		}
		at := prg.SeedSize * len(out.seeds)
		s, err := prg.SeedFromBytes(plain[at : at+prg.SeedSize])
		if err != nil {
			return Shares{}, err
		}
		com := commitment(out.context(t), s)
		if subtle.ConstantTimeCompare(com[:], commitments[i][:]) != 1 {
			s.Erase()
			out.Erase()
			return Shares{}, &InvalidError{Member: me, Flaw: FlawCommitment, Subset: t}
		}
		out.subsets = append(out.subsets, t)
		out.seeds = append(out.seeds, s)
	}
	return out, nil
}

// Subsets lists the subsets whose seeds these are, in mask order.
func (s Shares) Subsets() []Mask { return append([]Mask(nil), s.subsets...) }

// AddTo adds the masks of this contribution to the member's sums, subset by subset: sums[T][i] += r_T[i]. Sums that do
// not exist yet begin at zero. Callers add each contribution of the certified set once, and no other.
func (s Shares) AddTo(sums TSums) error {
	for _, t := range s.subsets {
		if v, ok := sums[t]; ok && len(v) != s.lanes {
			return fmt.Errorf("sum of subset %v has %d lanes, the round has %d", t, len(v), s.lanes)
		}
	}
	for _, t := range s.subsets {
		if sums[t] == nil {
			sums[t] = make([]uint32, s.lanes)
		}
		if err := AddMasks(t, sums[t], s); err != nil {
			return err
		}
	}
	return nil
}

// AddMasks adds the masks of one subset, of several contributions, to the subset's sum: a piece of the sum at a time, so
// that the whole of it goes through the cache once and not for each of them. Several subsets' may be added at the same
// time.
func AddMasks(t Mask, sum []uint32, of ...Shares) error {
	masks := make([]*prg.Expander, len(of))
	for i, s := range of {
		at := slices.Index(s.subsets, t)
		if at < 0 {
			return fmt.Errorf("shares hold no seed of subset %v", t)
		}
		if len(sum) != s.lanes {
			return fmt.Errorf("sum of subset %v has %d lanes, the round has %d", t, len(sum), s.lanes)
		}
		masks[i] = prg.NewExpander(s.seeds[at], label.PurposeMask, s.context(t))
	}
	for at := 0; at < len(sum); at += chunkLanes {
		chunk := sum[at:min(at+chunkLanes, len(sum))]
		for _, m := range masks {
			m.Add(chunk, uint64(at))
		}
	}
	return nil
}

// Erase overwrites the seeds.
func (s Shares) Erase() {
	for _, seed := range s.seeds {
		seed.Erase()
	}
}

const redacted = "committee.Shares(secret)"

// String prints the type only.
func (Shares) String() string { return redacted }

// GoString prints the type only.
func (Shares) GoString() string { return redacted }

// Format prints the type only, under every verb.
func (Shares) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue logs the type only.
func (Shares) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON refuses.
func (Shares) MarshalJSON() ([]byte, error) {
	return nil, errors.New("committee.Shares is secret and has no JSON form")
}
