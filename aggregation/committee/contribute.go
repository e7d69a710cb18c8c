package committee

import (
	"errors"
	"fmt"
	"io"

	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/prg"
	"github.com/ruche-federation/ruche/crypto/seal"
)

// Sealed is what a device uploads, apart from its header.
type Sealed struct {
	Y           []byte       // x + Σ_T PRG(s_T) mod 2^32, as AppendVector writes it
	YHash       label.Hash   // label.Sum(label.TagContribution, Y)
	Commitments []label.Hash // com_T, in mask order over all subsets of the n members
	Boxes       [][]byte     // one per listed member, in the order of Round.Listed
}

// Contribute masks x for the round (SA 2.3, device, steps 3 to 5). A seed is drawn from rand for every subset of all
// n members, listed or not; a listed member's box holds the seeds of its subsets in mask order. aad is called once,
// with the commitments and the hash of y, and returns what the boxes are bound to: the hash of the header fields
// except the boxes.
//
// The seeds are forgotten before Contribute returns. x is left as it was: the caller clears it.
func Contribute(r Round, device label.Hash, nonce Nonce, x []uint32, aad func(commitments []label.Hash, yHash label.Hash) []byte, rand io.Reader) (Sealed, error) {
	if err := r.Validate(); err != nil {
		return Sealed{}, err
	}
	if len(x) != r.Len {
		return Sealed{}, fmt.Errorf("vector has %d lanes, the round has %d", len(x), r.Len)
	}
	if aad == nil {
		return Sealed{}, errors.New("boxes are bound to no header")
	}
	subsets := Subsets(r.N, r.F)
	seeds := make([]prg.Seed, len(subsets))
	defer func() {
		for _, s := range seeds {
			s.Erase()
		}
	}()
	out := Sealed{Commitments: make([]label.Hash, len(subsets))}
	masks := make([]*prg.Expander, len(subsets))
	for i, t := range subsets {
		s, err := prg.NewSeed(rand)
		if err != nil {
			return Sealed{}, fmt.Errorf("subset %v: %w", t, err)
		}
		seeds[i] = s
		context := maskContext(r.ID, device, nonce, t)
		out.Commitments[i] = commitment(context, s)
		masks[i] = prg.NewExpander(s, label.PurposeMask, context)
	}
	out.Y = make([]byte, 0, LaneBytes*len(x))
	digest := label.New(label.TagContribution)
	piece := make([]uint32, min(len(x), chunkLanes))
	for at := 0; at < len(x); at += len(piece) {
		piece = piece[:copy(piece, x[at:])]
		for _, m := range masks {
			m.Add(piece, uint64(at))
		}
		out.Y = AppendVector(out.Y, piece)
		digest.Write(out.Y[LaneBytes*at:])
	}
	out.YHash = label.Hash(digest.Sum(nil))

	bound := aad(out.Commitments, out.YHash)
	out.Boxes = make([][]byte, len(r.Listed))
	plain := make([]byte, 0, prg.SeedSize*Count(r.N-1, r.F))
	defer func() { clear(plain[:cap(plain)]) }()
	for b, p := range r.Listed {
		plain = plain[:0]
		for i, t := range subsets {
			if t.Has(p.Member) {
				plain = seeds[i].Append(plain)
			}
		}
		box, err := seal.Seal(p.SealKey, boxInfo(r.ID, p.Member, p.Epoch), bound, plain)
		if err != nil {
			return Sealed{}, fmt.Errorf("box of member %d: %w", p.Member, err)
		}
		out.Boxes[b] = box
	}
	return out, nil
}

// commitment is com_T = H("commit", H(RC) ‖ device_id ‖ upload_nonce ‖ T ‖ s_T).
func commitment(context []byte, s prg.Seed) label.Hash {
	buf := s.Append(append(make([]byte, 0, len(context)+prg.SeedSize), context...))
	defer clear(buf)
	return label.Sum(label.TagCommit, buf)
}
