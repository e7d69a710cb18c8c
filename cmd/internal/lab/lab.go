package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// Options shape a Federation. Zero values are what is written beside them. The charter is a demo's: cohorts are small, and
// devices keep in clear what they encoded, for the plain sum that the opened one is compared with.
type Options struct {
	Dir     string // folders of all members and devices; removed by nobody here
	N, F    int    // a row of SA 2.2
	Seed    uint64 // of everything that chance decides but HPKE's own randomness
	Devices int
	Kind    string // charter.KindVector
	Window  string // for kind vector: "once", a window that is published once
	Values  int    // D for kind vector: 200
	NMin    uint32 // 3
	NMax    uint32 // Devices
	Faulty  int    // f_E
	// Patience, if set, ends a device's step after so much real time: with members that lag, an answer may be long in
	// coming.
	Patience time.Duration
}

func (o Options) withDefaults() Options {
	if o.Kind == "" {
		o.Kind = charter.KindVector
	}
	if o.Kind == charter.KindVector && o.Window == "" {
		o.Window = "once"
	}
	if o.Values == 0 {
		o.Values = 200
	}
	if o.NMin == 0 {
		o.NMin = charter.DemoCohortFloor
	}
	if o.NMax == 0 {
		o.NMax = max(uint32(o.Devices), o.NMin)
	}
	return o
}

// TaskID names the one task of a lab.
const TaskID = "mean"

// Federation is a consortium and its devices in one process. One goroutine, the caller's, uses it; members' services,
// which may still be at work after an answer, come from others.
type Federation struct {
	Charter *charter.Charter
	Seats   []*Seat   // the members' places, in charter order
	Devices []*Device // in order of their making; the caller's goroutine adds to them, under mu, and it alone reads without

	opts    Options
	task    *charter.Task
	rng     *rand.Rand // decisions; the caller's goroutine only
	now     atomic.Int64
	secrets *secrets
	logger  *slog.Logger
	onTurn  func() // called after each turn, if set
	steps   int
	turns   int
	tape    tape // what devices sent

	mu       sync.Mutex   // guards what follows and all that hangs on it; held while an entry is applied
	views    []*history   // the logs that members read; one unless a leader lies
	seed     maphash.Seed // of hashes of states
	leader   int          // -1: none
	leading  bool         // the leader proposes rounds, closes and ticks
	crashes  []CrashPoint
	spoken   map[label.Hash]*spoken // everything said of a round, in the log or not
	signed   map[signedSeq]label.Hash
	receipts []receiptSeen
	uploads  map[uploadKey]label.Hash // header by device and round, as the first byte of it arrived
	served   []Served

	failing  sync.Mutex // guards violated; a leaf
	violated []error
}

// New makes a consortium and its devices. Every member is up; nothing has happened yet. Start lets it begin.
func New(opts Options) (*Federation, error) {
	opts = opts.withDefaults()
	if opts.Dir == "" {
		return nil, errors.New("lab: no folder given")
	}
	f := &Federation{opts: opts, rng: rand.New(rand.NewPCG(opts.Seed, 1)), leader: 0, seed: maphash.MakeSeed(), spoken: map[label.Hash]*spoken{}, signed: map[signedSeq]label.Hash{},
		uploads: map[uploadKey]label.Hash{}}
	f.now.Store(1_800_000_000_000)
	f.secrets = newSecrets(func(form string) { f.fail("a secret stands in a log line (%s)", form) })
	f.logger = slog.New(slog.NewMultiHandler(
		slog.NewTextHandler(f.secrets, &slog.HandlerOptions{Level: slog.LevelDebug}),
		slog.NewJSONHandler(f.secrets, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err := f.charter(); err != nil {
		return nil, err
	}
	f.views = []*history{newHistory(f.Charter)}
	for _, s := range f.Seats {
		s.view = f.views[0]
		if err := s.start(nil); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	for range opts.Devices {
		if _, err := f.AddDevice(); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, nil
}

// charter holds the key ceremony: homes, cards, draft, signatures.
func (f *Federation) charter() error {
	var cards []charter.Card
	var homes []*coordinator.Home
	for i := range f.opts.N {
		s := &Seat{f: f, Index: i, Dir: filepath.Join(f.opts.Dir, fmt.Sprintf("member-%d", i)), rand: f.drawer(fmt.Sprintf("member %d", i))}
		home, err := coordinator.InitHome(s.Dir, coordinator.HomeOptions{Name: fmt.Sprintf("org-%d", i),
			DeviceURL: fmt.Sprintf("https://org-%d.example:7420", i), MeshAddr: fmt.Sprintf("org-%d.example:7421", i)}, s.rand)
		if err != nil {
			return err
		}
		f.secrets.add(home.Identity.Bytes())
		f.secrets.add(home.Authority.Bytes())
		f.secrets.add(home.TLS.Seed())
		f.Seats, homes, cards = append(f.Seats, s), append(homes, home), append(cards, home.Card)
	}
	task, err := f.newTask()
	if err != nil {
		return err
	}
	body, err := charter.Draft(cards, charter.Options{Consortium: "Lab", Demo: true, F: f.opts.F, AuthoritiesFaulty: f.opts.Faulty,
		MinContributors: int(f.opts.NMin), Tasks: []charter.Task{task},
		Timing: charter.Timing{EpochLife: charter.Duration(24 * time.Hour), Slack: charter.Duration(time.Minute), Tick: charter.Duration(time.Second)}})
	if err != nil {
		return err
	}
	var signatures []charter.Signature
	for _, h := range homes {
		s, err := charter.Sign(body, h.Identity)
		if err != nil {
			return err
		}
		signatures = append(signatures, s)
	}
	file, err := charter.Assemble(body, signatures)
	if err != nil {
		return err
	}
	for _, s := range f.Seats {
		if err := os.WriteFile(filepath.Join(s.Dir, "charter.json"), file, 0o600); err != nil {
			return err
		}
	}
	if f.Charter, err = charter.ParseFile(file); err != nil {
		return err
	}
	f.task, _ = f.Charter.Task(TaskID)
	return nil
}

func (f *Federation) newTask() (charter.Task, error) {
	t := charter.NewTask(TaskID, f.opts.Kind)
	var err error
	if f.opts.Kind == charter.KindLoRA {
		t.Layout, err = layout.LoRA([]layout.Module{{Name: "q", In: 24, Out: 16}, {Name: "v", In: 24, Out: 16}}, 4, 8, layout.StandardTail())
		t.Base = BaseModel().String()
		t.Recipe = charter.Recipe{Rank: 4, Alpha: 8, Steps: 8, Batch: 4, Window: 64, LR: 1e-2, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Clip: 1}
	} else {
		t.Layout, err = layout.Vector("mean", f.opts.Values, nil)
		t.Window = f.opts.Window
	}
	if err != nil {
		return t, err
	}
	t.InitSeed = label.Sum(label.TagTask, []byte("lab"))
	t.Encoding = charter.Encoding{CReal: 4, C: 2253}
	t.Cohort = charter.Cohort{NMin: f.opts.NMin, NMax: f.opts.NMax}
	d := func(d time.Duration) charter.Duration { return charter.Duration(d) }
	t.Timings = charter.Timings{Every: d(time.Minute), CloseAfter: d(CloseAfter), AckTimeout: d(5 * time.Second), AckAfter: d(AckAfter), RevealAfter: d(RevealAfter)}
	return t, nil
}

// BaseModel stands for the base model of kind lora: nothing is trained here.
func BaseModel() label.Hash { return label.Sum(label.TagBase, []byte("lab")) }

// Deadlines of the lab's task.
const (
	CloseAfter  = 10 * time.Minute
	AckAfter    = 10 * time.Minute
	RevealAfter = time.Hour
)

// Close stops everything. Folders stay.
func (f *Federation) Close() error {
	var errs []error
	for _, d := range f.Devices {
		errs = append(errs, d.Crash())
	}
	for _, s := range f.Seats {
		s.Crash()
	}
	return errors.Join(errs...)
}

// Now is the virtual time.
func (f *Federation) Now() time.Time { return time.UnixMilli(f.now.Load()).UTC() }

// Advance moves the clock; the log learns of it by the leader's next tick.
func (f *Federation) Advance(d time.Duration) { f.now.Add(d.Milliseconds()) }

// Steps and Turns count what was run, for reports.
func (f *Federation) Steps() int { return f.steps }

// Turns counts members' turns, after each of which everything was checked.
func (f *Federation) Turns() int { return f.turns }

// Round is the newest round as the log has it, the first of them if there are several; false before the first round.
func (f *Federation) Round() (round.View, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.views[0].observer.Newest(TaskID)
}

// observerRound is a round as the log has it.
func (f *Federation) observerRound(id label.Hash) (round.View, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.views[0].observer.Round(id)
}

// latest is the last published round as the log has it.
func (f *Federation) latest() (round.View, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.views[0].observer.Latest(TaskID)
}

// Phase is the newest round's phase; 0 before the first.
func (f *Federation) Phase() round.Phase {
	v, ok := f.Round()
	if !ok {
		return 0
	}
	return v.Phase
}

// Up is the set of members that run.
func (f *Federation) Up() (m statement.Mask) {
	for i, s := range f.Seats {
		if s.running() {
			m |= 1 << i
		}
	}
	return m
}

// drawer is a seeded source whose draws are remembered as secrets.
func (f *Federation) drawer(who string) *drawer {
	h := label.Sum(label.TagPersonal, binary.BigEndian.AppendUint64(nil, f.opts.Seed), []byte(who))
	return &drawer{from: rand.NewChaCha8(h), secrets: f.secrets}
}

// fail records a broken invariant.
func (f *Federation) fail(format string, args ...any) {
	f.failing.Lock()
	defer f.failing.Unlock()
	if len(f.violated) < violationsMax {
		f.violated = append(f.violated, fmt.Errorf(format, args...))
	}
}

func (f *Federation) violations() error {
	f.failing.Lock()
	defer f.failing.Unlock()
	return errors.Join(f.violated...)
}
