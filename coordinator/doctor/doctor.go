package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ruche-federation/ruche/coordinator"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/epoch"
	"github.com/ruche-federation/ruche/coordinator/replica"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/storage/durable"
)

// Level says how bad a finding is.
type Level string

// Levels. A Problem keeps the member from doing its part; a Warning wants a person's eye.
const (
	OK      Level = "ok"
	Note    Level = "note"
	Warning Level = "warning"
	Problem Level = "problem"
)

// Finding is one thing that was looked at.
type Finding struct {
	Level Level  `json:"level"`
	Area  string `json:"area"` // process, keys, charter, epochs, log, snapshots, rounds, disk, clock, alarms, files
	Word  string `json:"word"` // stable
	What  string `json:"what"` // what happened, or what is there
	Means string `json:"means,omitempty"`
	Do    string `json:"do,omitempty"`
}

// Examination is what was found.
type Examination struct {
	Dir        string              `json:"dir"`
	Name       string              `json:"name"`
	Consortium string              `json:"consortium"`
	Demo       bool                `json:"demo"`
	Charter    string              `json:"charter"`
	Running    bool                `json:"running"`
	Findings   []Finding           `json:"findings"`
	Log        *replica.LogFacts   `json:"log"` // null where it was not looked at
	Snapshots  []Snapshot          `json:"snapshots"`
	Epochs     []Epoch             `json:"epochs"`
	Rounds     []Round             `json:"rounds"` // live ones
	Alarms     []coordinator.Alarm `json:"alarms"`
	FreeBytes  uint64              `json:"free_bytes"`
	Read       *Reading            `json:"read"` // null unless every file was read

	home  *coordinator.Home
	ch    *charter.Charter
	me    int
	state *round.Machine // rebuilt; nil where that was not possible
	now   time.Time
	read  []epoch.Report
}

// Snapshot is one snapshot of the replicated state.
type Snapshot struct {
	Index   uint64 `json:"index"`
	Term    uint64 `json:"term"`
	Bytes   int64  `json:"bytes"`
	Problem string `json:"problem,omitempty"`
}

// Epoch is one epoch folder.
type Epoch struct {
	Number   uint64    `json:"number"`
	State    string    `json:"state"` // whole, damaged, unreadable, erased
	Promises []Promise `json:"promises"`
}

// Promise is what a vote file holds of one round.
type Promise struct {
	Round    string `json:"round"`
	Voted    string `json:"voted,omitempty"`
	Revealed string `json:"revealed,omitempty"`
	Expired  bool   `json:"expired,omitempty"`
}

// Round is a round that has not ended, by the rebuilt state.
type Round struct {
	ID       string `json:"id"`
	Task     string `json:"task"`
	Seq      uint64 `json:"seq"`
	Phase    string `json:"phase"`
	Accepted int    `json:"accepted"`
	Held     int    `json:"held"`  // contributions whose head is here
	Epoch    uint64 `json:"epoch"` // of this member, 0 if it is not listed
}

func (x *Examination) find(level Level, area, word, means, do, format string, args ...any) {
	x.Findings = append(x.Findings, Finding{level, area, word, fmt.Sprintf(format, args...), means, do})
}

// members is how many the charter has, 0 where it cannot be read.
func (x *Examination) members() int {
	if x.ch == nil {
		return 0
	}
	return x.ch.N
}

// Worst is the worst level found.
func (x *Examination) Worst() Level {
	worst := OK
	rank := map[Level]int{OK: 0, Note: 1, Warning: 2, Problem: 3}
	for _, f := range x.Findings {
		if rank[f.Level] > rank[worst] {
			worst = f.Level
		}
	}
	return worst
}

// Examine looks at a member's folder. It fails only where there is no such folder; everything else is a finding.
func Examine(dir string, now time.Time) (*Examination, error) { return look(dir, now, nil) }

func look(dir string, now time.Time, told Progress) (*Examination, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is no folder", dir)
	}
	x := &Examination{Dir: dir, now: now, Findings: []Finding{}, Snapshots: []Snapshot{}, Epochs: []Epoch{}, Rounds: []Round{}, Alarms: []coordinator.Alarm{}}
	release := x.process()
	defer release()
	if x.keys() {
		x.charterFile()
	}
	x.epochs()
	x.log()
	x.words()
	x.rounds()
	x.disk()
	x.clock()
	x.alarms()
	if told != nil {
		x.deep(told)
	}
	return x, nil
}

// process tells whether a member runs here, and how the last one ended. Where none runs, it keeps the folder until
// release, so that none starts meanwhile.
func (x *Examination) process() (release func()) {
	release = func() {}
	path := filepath.Join(x.Dir, "lock")
	if _, err := os.Stat(path); err == nil {
		lock, err := durable.Lock(path)
		switch {
		case errors.Is(err, durable.ErrLocked):
			x.Running = true
		case err == nil:
			release = func() { lock.Close() }
		default:
			x.find(Problem, "process", "lock", "whether a member runs here is not known", "run as the user who owns the folder", "the folder's lock cannot be taken: %v", err)
		}
	}
	s, err := coordinator.ReadStatus(x.Dir)
	switch {
	case x.Running:
		x.find(Note, "process", "running", "what it holds open is not looked at: the log, the state and the contributions", "see `ruche-coordinator status`; stop it first for a whole examination", "a member runs in this folder")
	case errors.Is(err, fs.ErrNotExist):
		x.find(Note, "process", "never_ran", "", "", "no member has run here yet")
	case err != nil:
		x.find(Warning, "process", "status_unreadable", "how the last run ended is not known", "nothing: the next run writes it anew", "status.json cannot be read: %v", err)
	case s.State == coordinator.StateFailed:
		x.find(Warning, "process", s.Reason, s.Means, s.Do, "the member stopped by itself at %s: %s", s.Written.UTC().Format(time.RFC3339), s.Message)
	case s.State != coordinator.StateStopped:
		x.find(Note, "process", "killed", "a kill costs nothing: whatever was said is on the disk", "start it with `ruche-coordinator run`", "the last run ended without a word after %s", s.Written.UTC().Format(time.RFC3339))
	default:
		x.find(OK, "process", "stopped", "", "", "the member was stopped at %s", s.Written.UTC().Format(time.RFC3339))
	}
	return release
}

const lostKeys = "put keys/ and card.json back from your copy of them; without them the member is gone, and the others need a new charter"

// keys reports whether the member's long-lived keys are here and belong together.
func (x *Examination) keys() bool {
	for _, name := range []string{"card.json", "keys/identity.key", "keys/authority.key", "keys/tls.key", "keys/storage.key"} {
		if _, err := os.Stat(filepath.Join(x.Dir, filepath.FromSlash(name))); err != nil {
			word, do := "key_missing", lostKeys
			if name == "card.json" {
				word, do = "no_member", "run `ruche-coordinator init` in an empty folder, or "+lostKeys
			} else if name == "keys/storage.key" {
				do = "put the file back; without it the raft folder cannot be opened: run `ruche-coordinator rejoin`"
			}
			x.find(Problem, "keys", word, "the member cannot start", do, "%s: %v", name, errors.Unwrap(err))
			return false
		}
	}
	home, err := coordinator.OpenHome(x.Dir, noRandom{})
	if err != nil {
		x.find(Problem, "keys", "keys_wrong", "the member cannot start", lostKeys, "%v", err)
		return false
	}
	x.home, x.Name = home, home.Card.Name
	x.find(OK, "keys", "keys", "", "", "keys and card of %s belong together", home.Card.Name)
	return true
}

// noRandom draws nothing: an examination makes no keys.
type noRandom struct{}

func (noRandom) Read([]byte) (int, error) { return 0, errors.New("nothing is drawn here") }

func (x *Examination) charterFile() {
	if _, err := os.Stat(filepath.Join(x.Dir, "charter.json")); errors.Is(err, fs.ErrNotExist) {
		x.find(Note, "charter", "no_charter", "the member waits for the key ceremony", "start it once with --charter FILE, the file that `ruche charter assemble` wrote", "no charter is pinned here")
		return
	}
	ch, me, err := x.home.Charter()
	switch {
	case err == nil:
		x.ch, x.me, x.Consortium, x.Demo, x.Charter = ch, me, ch.Consortium, ch.Demo, ch.Hash().String()
		x.find(OK, "charter", "charter", "", "", "charter of %s, member %d of %d, signed by all", ch.Consortium, me, ch.N)
	default:
		x.find(Problem, "charter", "charter_wrong", "the member cannot start", "copy the charter file again from any member or device of the consortium", "%v", err)
	}
}

func (x *Examination) epochs() {
	root := filepath.Join(x.Dir, "epochs")
	var err error
	if x.read, err = epoch.Inspect(root); err != nil {
		x.find(Problem, "epochs", "epochs_unreadable", "the member cannot start", "run as the user who owns the folder", "%v", err)
		return
	}
	for i := range x.read {
		r := &x.read[i]
		at := Epoch{Number: r.Number, State: "whole", Promises: []Promise{}}
		for _, p := range r.Promises {
			said := Promise{Round: p.Round.String(), Expired: p.Expired}
			if !p.Voted.IsZero() {
				said.Voted = p.Voted.String()
			}
			if !p.Revealed.IsZero() {
				said.Revealed = p.Revealed.String()
			}
			at.Promises = append(at.Promises, said)
		}
		switch {
		case r.Damage != nil:
			at.State = "damaged"
			x.find(Warning, "epochs", "epoch_damaged", "what this member promised under these keys is not certain: at the next start the keys are destroyed, its open rounds are left to the others, and a new epoch is drawn",
				"start the member; then look for the reason: disks do not do this by themselves", "epoch %d: %v", r.Number, r.Damage)
		case r.Err != nil:
			at.State = "unreadable"
			x.find(Problem, "epochs", "epoch_unreadable", "the member does not start; nothing is destroyed", "run the version that wrote it, as the user who owns the folder", "epoch %d: %v", r.Number, r.Err)
		default:
			x.find(OK, "epochs", "epoch", "", "", "epoch %d promises something in %s", r.Number, count(len(r.Promises), "round"))
		}
		x.Epochs = append(x.Epochs, at)
	}
	erased, err := epoch.Erased(root)
	for _, n := range erased {
		x.Epochs = append(x.Epochs, Epoch{Number: n, State: "erased", Promises: []Promise{}})
	}
	if err == nil && len(x.Epochs) == 0 {
		x.find(Note, "epochs", "no_epoch", "a running member draws one; rounds of earlier epochs it leaves to the others", "", "no epoch keys are here")
	}
}

func (x *Examination) alarms() {
	list, err := coordinator.ReadAlarms(x.Dir)
	if err != nil {
		x.find(Warning, "alarms", "alarms_damaged", "earlier alarms may not be shown", "the next start sets the file aside as alarms.damaged", "%v", err)
		return
	}
	x.Alarms = append(x.Alarms, list...)
	for _, a := range list {
		x.find(Warning, "alarms", a.What, meaning[a.What], "when you know the reason, remove the file `alarms` with the member stopped", "%s: %s", a.Time.UTC().Format(time.RFC3339), a.Detail)
	}
	if len(list) == 0 {
		x.find(OK, "alarms", "alarms", "", "", "no alarms")
	}
}

var meaning = map[string]string{
	coordinator.AlarmEpoch:    "the epoch's keys are destroyed; this member has no say in the rounds that list them, and drew new ones",
	coordinator.AlarmWitness:  "the vote file was cut or rolled back, or the key is elsewhere too; the epoch's keys are destroyed",
	coordinator.AlarmReceipts: "a lie about that round's contributions may not be recognised; the file is set aside",
	coordinator.AlarmState:    "a leader sent a state that contradicts what this member knows: it lies, or lost a part of its log",
	coordinator.AlarmDuty:     "the log asks for something that this member must not sign: a leader lies, or the log was exchanged",
	coordinator.AlarmClock:    "while this member led, no round went on; set its clock: the rounds go on by themselves",
	coordinator.AlarmDisk:     "the log took nothing for as long: this member neither acknowledged nor signed; it goes on by itself when there is room",
	coordinator.AlarmStopped:  "the member stopped by itself",
	coordinator.AlarmList:     "earlier alarms are in the file that was set aside",
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
