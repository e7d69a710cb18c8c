package charter

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/ruche-federation/ruche/aggregation/commons"
	"github.com/ruche-federation/ruche/aggregation/encode"
	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/crypto/label"
)

// Kinds of task.
const (
	KindVector = "vector" // a mean of vectors that devices hold; nothing is trained
	KindLoRA   = "lora"   // the commons adapter
)

// The only values of fields whose other values later versions will accept.
const (
	ParticipantsDevice = "device"
	PrivacyUnitDevice  = "device"
)

// Task is one thing the consortium computes, in rounds.
type Task struct {
	ID       string        `json:"id"`
	Kind     string        `json:"kind"`      // vector or lora
	Base     string        `json:"base"`      // SHA-256 of the base model in hex; empty for kind vector
	Layout   layout.Layout `json:"layout"`    // what the vector means
	InitSeed label.Hash    `json:"init_seed"` // public seed of the frozen factors and the rotation
	Recipe   Recipe        `json:"recipe"`    // how a device trains; all zero for kind vector
	Encoding Encoding      `json:"encoding"`
	Cohort   Cohort        `json:"cohort"`
	Timings  Timings       `json:"timings"`

	// Window is what a device's vector covers, for kind vector, where nothing is trained: a device is summed once per
	// window. A duration ("24h") names successive windows aligned to the Unix epoch, anything else is one window for
	// ever, which is published once. Empty for kind lora.
	Window string `json:"window"`

	// Fields of later versions. Any value but the default is refused by name.
	Participants    string          `json:"participants"`      // "device"
	PrivacyUnit     string          `json:"privacy_unit"`      // "device"
	ConsentTextHash string          `json:"consent_text_hash"` // ""
	Noise           json.RawMessage `json:"noise"`             // null
	NormCheck       json.RawMessage `json:"norm_check"`        // null
	Cells           int             `json:"cells"`             // 1
}

// Recipe is the local training of kind lora (learning.md 3.3 step 4).
type Recipe struct {
	Rank        int     `json:"rank"`
	Alpha       float64 `json:"alpha"`
	Steps       int     `json:"steps"`
	Batch       int     `json:"batch"`
	Window      int     `json:"window"` // tokens
	LR          float64 `json:"lr"`
	Beta1       float64 `json:"beta1"`
	Beta2       float64 `json:"beta2"`
	Eps         float64 `json:"eps"`
	WeightDecay float64 `json:"weight_decay"`
	Clip        float64 `json:"clip"` // gradient norm per step
}

// ClipFor is a clip that an honest update of values numbers by this recipe seldom reaches: Adam moves a number by at most
// about LR a step, and steps that agree only in part add up to somewhat more than half of that. Measured at 8 steps and
// 24 000 numbers: a norm of 5.6, where this gives 8.1.
func (r *Recipe) ClipFor(values int) float64 {
	return r.LR * math.Sqrt(float64(values)) * (0.4 + 0.6*float64(r.Steps))
}

// Encoding is the clip of a whole update and its integer bound (SA 3.2, checked profile).
type Encoding struct {
	CReal float64 `json:"c_real"` // ℓ2 clip of the update
	C     uint32  `json:"c"`      // ℓ2 bound of the integers
}

// Cohort bounds a round's contributors.
type Cohort struct {
	NMin uint32 `json:"n_min"` // floor, counted without the f_E largest authorities
	NMax uint32 `json:"n_max"` // the round closes when so many are accepted
}

// Timings are a task's deadlines, as offsets.
type Timings struct {
	Every       Duration `json:"every"`        // least time from one proposal to the next
	CloseAfter  Duration `json:"close_after"`  // proposal to close deadline
	AckTimeout  Duration `json:"ack_timeout"`  // a Close's silent member is left out of the next after it
	AckAfter    Duration `json:"ack_after"`    // close deadline to ack deadline
	RevealAfter Duration `json:"reveal_after"` // ack deadline to reveal deadline; 0: as long as the listed keys live
}

// NewTask returns a task with every field of later versions at its default.
func NewTask(id, kind string) Task {
	return Task{ID: id, Kind: kind, Participants: ParticipantsDevice, PrivacyUnit: PrivacyUnitDevice, Cells: 1,
		Noise: json.RawMessage("null"), NormCheck: json.RawMessage("null")}
}

// check applies the rules that concern one task.
func (t *Task) check(c *Charter) error {
	if err := checkName("id", t.ID); err != nil {
		return err
	}
	if strings.Contains(t.ID, " ") {
		return fmt.Errorf("id %.40q has a space", t.ID)
	}
	if err := t.Layout.Validate(); err != nil {
		return fmt.Errorf("layout: %w", err)
	}
	var err error
	switch t.Kind {
	case KindVector:
		err = t.checkVector()
	case KindLoRA:
		err = t.checkLoRA()
	default:
		err = fmt.Errorf("kind is %.40q, it must be %s or %s", t.Kind, KindVector, KindLoRA)
	}
	if err != nil {
		return err
	}
	if err := t.checkLater(); err != nil {
		return err
	}
	if err := t.checkCohort(c); err != nil {
		return err
	}
	if err := t.Timings.check(c.Timing); err != nil {
		return err
	}
	if err := t.Params(label.Sum(label.TagRotation)).Validate(); err != nil {
		return fmt.Errorf("encoding: %w", err)
	}
	return nil
}

func (t *Task) checkVector() error {
	if t.Base != "" {
		return errors.New("base must be empty for kind vector")
	}
	if t.Recipe != (Recipe{}) {
		return errors.New("recipe must be all zero for kind vector")
	}
	if t.Layout.Factor != layout.FactorVector {
		return fmt.Errorf("layout.factor is %.10q, it must be %q for kind vector", t.Layout.Factor, layout.FactorVector)
	}
	if err := checkName("window", t.Window); err != nil {
		return err
	}
	if d, err := time.ParseDuration(t.Window); err == nil && (d < time.Second || d%time.Second != 0) {
		return fmt.Errorf("window is %s, a duration must be whole seconds", t.Window)
	}
	return nil
}

func (t *Task) checkLoRA() error {
	if t.BaseHash().IsZero() {
		return errors.New("base is not a SHA-256 in lower-case hex")
	}
	if t.Window != "" {
		return errors.New("window must be empty for kind lora")
	}
	if t.Layout.Factor != layout.FactorB {
		return fmt.Errorf("layout.factor is %.10q: this version trains factor %s only", t.Layout.Factor, layout.FactorB)
	}
	r := &t.Recipe
	switch {
	case r.Rank != t.Layout.Rank || r.Alpha != t.Layout.Alpha:
		return errors.New("recipe.rank and recipe.alpha must be the layout's")
	case r.Steps < 1 || r.Steps > 1<<20:
		return fmt.Errorf("recipe.steps is %d, it must lie in [1, 2^20]", r.Steps)
	case r.Batch < 1 || r.Batch > 1<<12:
		return fmt.Errorf("recipe.batch is %d, it must lie in [1, 4096]", r.Batch)
	case r.Window < 2 || r.Window > 1<<17:
		return fmt.Errorf("recipe.window is %d, it must lie in [2, 131072]", r.Window)
	}
	for _, v := range []struct {
		name   string
		value  float64
		lo, hi float64
	}{
		{"lr", r.LR, 1e-12, 1e3}, {"beta1", r.Beta1, 0, 0.999999}, {"beta2", r.Beta2, 0, 0.99999999},
		{"eps", r.Eps, 1e-16, 1}, {"weight_decay", r.WeightDecay, 0, 10}, {"clip", r.Clip, 0, 1e9},
	} {
		if !(v.value >= v.lo && v.value <= v.hi) { // NaN is refused
			return fmt.Errorf("recipe.%s is %v, it must lie in [%v, %v]", v.name, v.value, v.lo, v.hi)
		}
	}
	return nil
}

// checkLater refuses what this version does not implement: a rule that nobody enforces is worse than none.
func (t *Task) checkLater() error {
	switch {
	case t.Participants != ParticipantsDevice:
		return fmt.Errorf("participants is %.40q, this version implements %q only", t.Participants, ParticipantsDevice)
	case t.PrivacyUnit != PrivacyUnitDevice:
		return fmt.Errorf("privacy_unit is %.40q, this version implements %q only", t.PrivacyUnit, PrivacyUnitDevice)
	case t.ConsentTextHash != "":
		return errors.New("consent_text_hash is set, this version implements none")
	case !isNull(t.Noise):
		return errors.New("noise is set, this version implements null only")
	case !isNull(t.NormCheck):
		return errors.New("norm_check is set, this version implements null only")
	case t.Cells != 1:
		return fmt.Errorf("cells is %d, this version implements 1 only", t.Cells)
	}
	return nil
}

func isNull(m json.RawMessage) bool { return len(m) == 0 || bytes.Equal(m, []byte("null")) }

func (t *Task) checkCohort(c *Charter) error {
	switch {
	case int64(t.Cohort.NMin) < int64(c.MinContributors):
		return fmt.Errorf("cohort.n_min is %d, min_contributors is %d", t.Cohort.NMin, c.MinContributors)
	case t.Cohort.NMax < t.Cohort.NMin || t.Cohort.NMax > CohortMax:
		return fmt.Errorf("cohort.n_max is %d, it must lie in [n_min, %d]", t.Cohort.NMax, CohortMax)
	case t.Encoding.C < 1 || t.Encoding.C > math.MaxUint16:
		return fmt.Errorf("encoding.c is %d, it must lie in [1, 65535]", t.Encoding.C)
	case !(t.Encoding.CReal > 0 && t.Encoding.CReal <= 1e9):
		return fmt.Errorf("encoding.c_real is %v, it must lie in (0, 1e9]", t.Encoding.CReal)
	}
	return nil
}

// check proves besides that every deadline lies before the naf of every package a round may list: a package is listed
// in the first half of its life only, so half of epoch_life remains at least.
func (t *Timings) check(g Timing) error {
	for _, v := range []struct {
		name string
		d    Duration
		lo   time.Duration
	}{
		{"every", t.Every, 0}, {"close_after", t.CloseAfter, time.Millisecond}, {"ack_timeout", t.AckTimeout, time.Millisecond},
		{"ack_after", t.AckAfter, time.Millisecond}, {"reveal_after", t.RevealAfter, 0},
	} {
		if v.d.D() < v.lo || v.d.D() > 366*24*time.Hour || v.d.D()%time.Millisecond != 0 {
			return fmt.Errorf("timings.%s is %s, it must be whole milliseconds of at least %s", v.name, v.d.D(), v.lo)
		}
	}
	if t.AckTimeout > t.AckAfter {
		return fmt.Errorf("timings.ack_timeout (%s) is longer than ack_after (%s)", t.AckTimeout.D(), t.AckAfter.D())
	}
	reveal := max(t.RevealAfter, Duration(time.Millisecond))
	if sum := t.CloseAfter + t.AckAfter + reveal + g.Slack; sum > g.EpochLife/2 {
		return fmt.Errorf("timings.close_after + ack_after + reveal_after + slack is %s, half of epoch_life is %s", sum.D(), g.EpochLife.D()/2)
	}
	return nil
}

// BaseHash returns the base model's hash, zero where there is none.
func (t *Task) BaseHash() label.Hash {
	b, err := hex.DecodeString(t.Base)
	if err != nil || len(b) != label.Size || strings.ToLower(t.Base) != t.Base {
		return label.Hash{}
	}
	return label.Hash(b)
}

// Params gives the encoder's parameters; rotation is the round's public seed.
func (t *Task) Params(rotation label.Hash) encode.Params {
	return encode.Params{Profile: encode.ProfileChecked, CReal: t.Encoding.CReal, C: t.Encoding.C, B: encode.BoundFor(t.Encoding.C),
		NMax: t.Cohort.NMax, D: t.Layout.D(), Tail: t.Layout.Tail, Rotation: rotation}
}

// Init is the state before the first result: what every round of kind vector, and the first of kind lora, starts from.
func (t *Task) Init() layout.Model {
	return layout.Model{TaskID: t.ID, LayoutHash: t.Layout.Hash(), Seq: 0, Values: commons.Init(t.Layout)}
}

// windowFormat writes a window's beginning in UTC.
const windowFormat = "2006-01-02T15:04:05Z"

// WindowPart names the last complete window at now: what a RoundConfig's start carries for kind vector. For a window
// that is no duration it is the window itself.
func (t *Task) WindowPart(now time.Time) string {
	d, ok := t.windowSpan()
	if !ok {
		return t.Window
	}
	k := floorDiv(now.Unix(), int64(d/time.Second)) - 1
	return time.Unix(k*int64(d/time.Second), 0).UTC().Format(windowFormat) + "/" + t.Window
}

// ParseWindowPart checks that part names a window of this task and returns its end; the zero time for a window that
// is no duration.
func (t *Task) ParseWindowPart(part string) (end time.Time, err error) {
	d, ok := t.windowSpan()
	if !ok {
		if part != t.Window {
			return time.Time{}, fmt.Errorf("window %.80q is not the task's (%s)", part, t.Window)
		}
		return time.Time{}, nil
	}
	begin, rest, _ := strings.Cut(part, "/")
	at, err := time.Parse(windowFormat, begin)
	if err != nil || rest != t.Window || at.Format(windowFormat) != begin {
		return time.Time{}, fmt.Errorf("window %.80q is not of the form %s/%s", part, windowFormat, t.Window)
	}
	end = at.Add(d)
	if t.WindowPart(end) != part {
		return time.Time{}, fmt.Errorf("window %.80q is not aligned to %s", part, t.Window)
	}
	return end, nil
}

func (t *Task) windowSpan() (time.Duration, bool) {
	d, err := time.ParseDuration(t.Window)
	return d, err == nil && d >= time.Second
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
