package statement

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/aggregation/encode"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/crypto/label"
)

const roundConfigVersion = 1

// RingBits is k: the ring is Z_{2^32} (SA 3.2, checked profile).
const RingBits = 32

// Start is what every contribution of a round is a difference to. A device contributes once per start, unless a death
// certificate proves that nothing was opened.
type Start struct {
	Results []label.Hash // HashResult of the results it rests on; empty for the public init
	Model   label.Hash   // the state that devices load
	Part    string       // the trained factor; for kind vector the data window
}

// Hash names the start within its task and cell.
func (s Start) Hash(task string, cell uint32) label.Hash {
	e := new(encoder)
	e.string(task)
	e.u32(cell)
	s.encode(e)
	return label.Sum(label.TagStart, e.b)
}

func (s Start) encode(e *encoder) {
	e.hashes(s.Results)
	e.hash(s.Model)
	e.string(s.Part)
}

// RoundConfig opens a round (SA 2.3, 0). Its hash is the round id. All but Seq, Start, ProposedMs and KeyPackages
// follows from the charter and from these: a leader has no other choice, and Check leaves it none.
type RoundConfig struct {
	Consortium  string
	Charter     label.Hash
	Task        string
	Cell        uint32 // 0
	Seq         uint64 // from 1, without gaps, per task and cell
	ProposedMs  int64  // the leader's clock when it proposed
	Start       Start
	Base        label.Hash // base model; zero for kind vector
	Layout      label.Hash
	Values      uint32 // D
	Tail        uint32 // metric items
	Len         uint32 // lanes of y
	RingBits    uint32 // 32
	Gamma       float64
	CReal       float64
	C           uint32
	B           uint64
	NormCheck   byte   // 0: none
	Participant string // "device"
	PrivacyUnit string // "device"
	Consent     label.Hash
	NotAfterMs  int64 // the least naf listed: nothing is signed for this round after it
	NMin        uint32
	NMax        uint32
	CloseMs     int64 // deadlines, passed by ticks in the log
	AckMs       int64
	RevealMs    int64
	Noise       byte     // 0: none
	KeyPackages []Signed // ascending by member, at least the charter's Needed

	listed []*KeyPackage
}

// Bytes is the canonical encoding, which is what is signed.
func (rc *RoundConfig) Bytes() []byte {
	e := encodeHead(typeRoundConfig, roundConfigVersion)
	e.string(rc.Consortium)
	e.hash(rc.Charter)
	e.string(rc.Task)
	e.u32(rc.Cell)
	e.u64(rc.Seq)
	e.i64(rc.ProposedMs)
	rc.Start.encode(e)
	e.hash(rc.Base)
	e.hash(rc.Layout)
	e.u32(rc.Values)
	e.u32(rc.Tail)
	e.u32(rc.Len)
	e.u32(rc.RingBits)
	e.f64(rc.Gamma)
	e.f64(rc.CReal)
	e.u32(rc.C)
	e.u64(rc.B)
	e.u8(rc.NormCheck)
	e.string(rc.Participant)
	e.string(rc.PrivacyUnit)
	e.hash(rc.Consent)
	e.i64(rc.NotAfterMs)
	e.u32(rc.NMin)
	e.u32(rc.NMax)
	e.i64(rc.CloseMs)
	e.i64(rc.AckMs)
	e.i64(rc.RevealMs)
	e.u8(rc.Noise)
	e.u32(uint32(len(rc.KeyPackages)))
	for _, s := range rc.KeyPackages {
		e.bytes(s.Body)
		e.bytes(s.Signature)
	}
	return e.b
}

// ParseRoundConfig reads what Bytes wrote and checks what holds for every RoundConfig of this version. It verifies no
// signature and no policy: Check does.
func ParseRoundConfig(b []byte) (*RoundConfig, error) {
	if len(b) > ConfigBytesMax {
		return nil, fmt.Errorf("round config has %d bytes, limit %d", len(b), ConfigBytesMax)
	}
	d := decode("round config", b, typeRoundConfig, roundConfigVersion)
	rc := &RoundConfig{Consortium: d.string("consortium", NameBytesMax), Charter: d.hash(), Task: d.string("task", NameBytesMax),
		Cell: d.u32(), Seq: d.u64(), ProposedMs: d.time("proposal time"),
		Start: Start{Results: d.hashes("start", StartsMax), Model: d.hash(), Part: d.string("part", PartBytesMax)},
		Base:  d.hash(), Layout: d.hash(), Values: d.u32(), Tail: d.u32(), Len: d.u32(), RingBits: d.u32(),
		Gamma: d.f64(), CReal: d.f64(), C: d.u32(), B: d.u64(), NormCheck: d.u8(),
		Participant: d.string("participants", NameBytesMax), PrivacyUnit: d.string("privacy unit", NameBytesMax), Consent: d.hash(),
		NotAfterMs: d.time("not_after"), NMin: d.u32(), NMax: d.u32(),
		CloseMs: d.time("close deadline"), AckMs: d.time("ack deadline"), RevealMs: d.time("reveal deadline"), Noise: d.u8()}
	for range d.length("key packages", MembersMax) {
		rc.KeyPackages = append(rc.KeyPackages, Signed{Body: d.bytes("key package", ConfigBytesMax), Signature: d.bytes("signature", SignatureMax)})
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	if err := rc.check(); err != nil {
		return nil, fmt.Errorf("round config: %w", err)
	}
	return rc, nil
}

// check holds for every RoundConfig, whatever the charter.
func (rc *RoundConfig) check() error {
	switch {
	case rc.NormCheck != 0:
		return errors.New("norm_check is set, this version implements none")
	case rc.Noise != 0:
		return errors.New("noise is set, this version implements none")
	case rc.Participant != charter.ParticipantsDevice:
		return fmt.Errorf("participants is %.40q, this version implements %q only", rc.Participant, charter.ParticipantsDevice)
	case rc.PrivacyUnit != charter.PrivacyUnitDevice:
		return fmt.Errorf("privacy_unit is %.40q, this version implements %q only", rc.PrivacyUnit, charter.PrivacyUnitDevice)
	case !rc.Consent.IsZero():
		return errors.New("consent_text_hash is set, this version implements none")
	case rc.Cell != 0:
		return fmt.Errorf("cell_id is %d, this version implements 0 only", rc.Cell)
	case rc.RingBits != RingBits:
		return fmt.Errorf("ring has %d bits, this version implements %d only", rc.RingBits, RingBits)
	case math.IsNaN(rc.Gamma) || math.IsNaN(rc.CReal):
		return errors.New("gamma or c_real is no number")
	case rc.Seq == 0:
		return errors.New("seq is 0, rounds begin at 1")
	case !(rc.ProposedMs < rc.CloseMs && rc.CloseMs < rc.AckMs && rc.AckMs < rc.RevealMs && rc.RevealMs <= rc.NotAfterMs):
		return errors.New("deadlines are not in the order proposal, close, ack, reveal, not_after")
	}
	rc.listed = nil
	seen := map[string]bool{}
	for i, s := range rc.KeyPackages {
		k, err := ParseKeyPackage(s.Body)
		if err != nil {
			return err
		}
		if i > 0 && rc.listed[i-1].Member >= k.Member {
			return errors.New("key packages are not in ascending order of members")
		}
		if seen[string(k.VoteKey)] || seen[string(k.SealKey)] {
			return errors.New("two key packages share a key")
		}
		seen[string(k.VoteKey)], seen[string(k.SealKey)] = true, true
		if rc.ProposedMs < k.NotBeforeMs || rc.ProposedMs > k.HalfMs() {
			return fmt.Errorf("key package of member %d is not in the first half of its life", k.Member)
		}
		if k.NotAfterMs < rc.NotAfterMs {
			return fmt.Errorf("not_after is later than the naf of member %d", k.Member)
		}
		rc.listed = append(rc.listed, k)
	}
	return nil
}

// ID is the round id, H(RC).
func (rc *RoundConfig) ID() label.Hash { return RoundID(rc.Bytes()) }

// RoundID is the round id of the exact bytes of a RoundConfig.
func RoundID(body []byte) label.Hash { return label.Sum(label.TagRoundConfig, body) }

// Listed is the set of members whose key packages rc carries.
func (rc *RoundConfig) Listed() (m Mask) {
	for _, k := range rc.packages() {
		m |= 1 << k.Member
	}
	return m
}

// Package returns the key package of a listed member.
func (rc *RoundConfig) Package(member int) (*KeyPackage, bool) {
	for _, k := range rc.packages() {
		if k.Member == member {
			return k, true
		}
	}
	return nil, false
}

// packages are the parsed key packages; those of a RoundConfig made by hand that do not parse are left out.
func (rc *RoundConfig) packages() []*KeyPackage {
	if len(rc.listed) == len(rc.KeyPackages) {
		return rc.listed
	}
	var out []*KeyPackage
	for _, s := range rc.KeyPackages {
		if k, err := ParseKeyPackage(s.Body); err == nil {
			out = append(out, k)
		}
	}
	return out
}

// Committee gives what the masked sum needs to know of rc.
func (rc *RoundConfig) Committee(ch *charter.Charter) committee.Round {
	r := committee.Round{ID: rc.ID(), N: ch.N, F: ch.F, Len: int(rc.Len)}
	for _, k := range rc.packages() {
		r.Listed = append(r.Listed, committee.Recipient{Member: k.Member, Epoch: k.Epoch, SealKey: k.SealKey})
	}
	return r
}

// Params gives the encoder's parameters for rc. The rotation hangs on the start, not on the round: a leader cannot try
// proposals until one suits it.
func (rc *RoundConfig) Params(task *charter.Task) encode.Params {
	start := rc.Start.Hash(rc.Task, rc.Cell)
	return task.Params(label.Sum(label.TagRotation, task.InitSeed[:], start[:]))
}

// ContributionSize is the exact size of a contribution's vector and boxes: what an Accept declares.
func (rc *RoundConfig) ContributionSize(ch *charter.Charter) uint64 {
	return 4*uint64(rc.Len) + uint64(len(rc.KeyPackages))*uint64(committee.BoxSize(ch.N, ch.F))
}

// NewRoundConfig derives the one RoundConfig that the charter allows for these choices. packages are ascending by member.
func NewRoundConfig(ch *charter.Charter, taskID string, seq uint64, start Start, proposedMs int64, packages []Signed) (*RoundConfig, error) {
	task, ok := ch.Task(taskID)
	if !ok {
		return nil, fmt.Errorf("round config: task %.40q is not in the charter", taskID)
	}
	if len(packages) < ch.Needed() || len(packages) > ch.N {
		return nil, fmt.Errorf("round config: %d key packages, needed are %d to %d", len(packages), ch.Needed(), ch.N)
	}
	rc := &RoundConfig{Consortium: ch.Consortium, Charter: ch.Hash(), Task: taskID, Seq: seq, ProposedMs: proposedMs, Start: start,
		Base: task.BaseHash(), Layout: task.Layout.Hash(), Values: uint32(task.Layout.D()), Tail: uint32(task.Layout.TailLen()),
		RingBits: RingBits, CReal: task.Encoding.CReal, C: task.Encoding.C,
		Participant: task.Participants, PrivacyUnit: task.PrivacyUnit, NMin: task.Cohort.NMin, NMax: task.Cohort.NMax,
		KeyPackages: packages}
	p := rc.Params(task)
	rc.Len, rc.B, rc.Gamma = uint32(p.Len()), p.B, p.Gamma()
	for i, s := range packages {
		k, err := VerifyKeyPackage(ch, s)
		if err != nil {
			return nil, fmt.Errorf("round config: %w", err)
		}
		if i == 0 || k.NotAfterMs < rc.NotAfterMs {
			rc.NotAfterMs = k.NotAfterMs
		}
	}
	rc.CloseMs = proposedMs + task.Timings.CloseAfter.Milliseconds()
	rc.AckMs = rc.CloseMs + task.Timings.AckAfter.Milliseconds()
	rc.RevealMs = rc.NotAfterMs - ch.Timing.Slack.Milliseconds()
	if after := task.Timings.RevealAfter.Milliseconds(); after > 0 {
		if rc.AckMs+after > rc.RevealMs {
			return nil, fmt.Errorf("round config: key packages end before the reveal deadline")
		}
		rc.RevealMs = rc.AckMs + after
	}
	if err := rc.checkStart(task); err != nil {
		return nil, fmt.Errorf("round config: %w", err)
	}
	if err := rc.check(); err != nil {
		return nil, fmt.Errorf("round config: %w", err)
	}
	return rc, nil
}

// checkStart applies the rules on a start that need no log: what a lying leader could otherwise use to make one start
// look like two, and sum a device twice.
func (rc *RoundConfig) checkStart(task *charter.Task) error {
	if task.Kind == charter.KindVector {
		// Nothing is trained, so an earlier result is no part of the start: only the data window tells sums apart.
		end, err := task.ParseWindowPart(rc.Start.Part)
		if err != nil {
			return err
		}
		if !end.IsZero() && end.UnixMilli() > rc.ProposedMs {
			return errors.New("the data window is not complete when the round is proposed")
		}
	} else if rc.Start.Part != task.Layout.Factor {
		return fmt.Errorf("start trains %.10q, the layout %q", rc.Start.Part, task.Layout.Factor)
	}
	if task.Kind == charter.KindVector && len(rc.Start.Results) != 0 {
		return errors.New("start of kind vector rests on results")
	}
	if len(rc.Start.Results) > 1 {
		return fmt.Errorf("start rests on %d results, this version implements one cell", len(rc.Start.Results))
	}
	return nonzero("start", append([]label.Hash{rc.Start.Model}, rc.Start.Results...)...)
}

// Check verifies rc's key packages and that everything else is what the charter prescribes. Whether the start is the
// last result, and whether ProposedMs is now, is the caller's to know.
func (rc *RoundConfig) Check(ch *charter.Charter) error {
	want, err := NewRoundConfig(ch, rc.Task, rc.Seq, rc.Start, rc.ProposedMs, rc.KeyPackages)
	if err != nil {
		return err
	}
	if !bytes.Equal(rc.Bytes(), want.Bytes()) {
		return errors.New("round config is not the one that the charter prescribes")
	}
	return nil
}
