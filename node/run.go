package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/node/participant"
	"github.com/ruche-federation/ruche/storage/durable"
)

// RunOptions are what a running device is told.
type RunOptions struct {
	Task        string // empty: the charter's only task of the kind
	Observe     bool   // follow the commons, never contribute
	KeepEncoded bool   // keep each encoded vector in clear; demo charters only
	Floor       uint32 // smallest cohort the owner accepts; 0: the default

	Now    func() time.Time
	Rand   io.Reader // cryptographic
	Logger *slog.Logger
}

// TaskError says that it is not clear, or not possible, what a device takes part in.
type TaskError struct{ Reason string }

func (e *TaskError) Error() string { return e.Reason }

// pickTask finds the task to take part in: the named one, or the only one of its kind.
func pickTask(ch *charter.Charter, id, kind string) (*charter.Task, error) {
	var names []string
	var found []*charter.Task
	for i := range ch.Tasks {
		t := &ch.Tasks[i]
		names = append(names, fmt.Sprintf("%s (%s)", t.ID, t.Kind))
		if t.ID == id || id == "" && t.Kind == kind {
			found = append(found, t)
		}
	}
	all := strings.Join(names, ", ")
	switch {
	case len(found) == 0 && id != "":
		return nil, &TaskError{fmt.Sprintf("the charter has no task %q; it has %s", id, all)}
	case len(found) == 0:
		return nil, &TaskError{fmt.Sprintf("the charter has no task of kind %s; it has %s", kind, all)}
	case len(found) > 1:
		return nil, &TaskError{fmt.Sprintf("the charter has several tasks of kind %s: name one; it has %s", kind, all)}
	case found[0].Kind != kind:
		return nil, &TaskError{fmt.Sprintf("task %s is of kind %s, this command is for kind %s", found[0].ID, found[0].Kind, kind)}
	}
	return found[0], nil
}

// LimitMemory makes the runtime give memory back in time: a device is a guest on its owner's machine. It concerns the
// whole process, so programs call it, not Run.
func LimitMemory(modelParameters int) {
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(memoryFloor + 16*int64(modelParameters)) // weights, and as much thrice for activations and updates
}

// Run takes part in one task of kind lora until the context ends.
func Run(ctx context.Context, dir string, o RunOptions) error {
	e, err := open(ctx, dir, o, charter.KindLoRA, func(e *engine) (participant.Learner, error) {
		language, err := e.home.Language()
		if err != nil {
			return nil, err
		}
		return e.newLoRA(language), nil
	})
	if err != nil {
		return err
	}
	defer e.close()
	return e.loop(ctx, func(error) (bool, error) { return false, nil })
}

// engine is a device at work: its folder's lock, its connections and its part in the rounds.
type engine struct {
	home    *Home
	ch      *charter.Charter
	task    *charter.Task
	o       RunOptions
	lock    *durable.FileLock
	members *Members
	part    *participant.Participant
	status  *reporter
}

// open takes the folder's lock and brings everything up, the learner last. A learner's first Adopt happens here.
func open(ctx context.Context, dir string, o RunOptions, kind string, learner func(*engine) (participant.Learner, error)) (_ *engine, err error) {
	e := &engine{o: o}
	if e.home, err = OpenHome(dir); err != nil {
		return nil, err
	}
	ch, cert, err := e.home.Charter()
	if err != nil {
		return nil, err
	}
	e.ch = ch
	if e.task, err = pickTask(ch, o.Task, kind); err != nil {
		return nil, err
	}
	base := e.task.BaseHash()
	if kind == charter.KindLoRA && base.String() != e.home.Info.Base.SHA256 {
		return nil, &TaskError{fmt.Sprintf("task %s is for the base model %s, this device has %s", e.task.ID, base, e.home.Info.Base.SHA256)}
	}
	if e.lock, err = lockFolder(ctx, dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			if e.status != nil {
				e.status.set(func(s *Status) { s.LastError = err.Error() })
			}
			e.close()
		}
	}()
	// Before the first status is written. A join writes here without the lock, for a moment, when a certificate has ended:
	// it may fail, and is repeated.
	if _, err := durable.RemoveTemps(dir); err != nil {
		return nil, err
	}
	if ch.Demo {
		o.Logger.Warn(DemoLabel+": this charter allows cohorts that hide nobody", "consortium", ch.Consortium)
	}
	e.status = newReporter(e.home, ch, e.task, o.Observe, o.Now, o.Logger)
	e.status.set(func(*Status) {})
	go e.status.keep()
	inner, err := learner(e)
	if err != nil {
		return nil, err
	}
	e.members = NewMembers(ch)
	e.part, err = participant.New(ctx, participant.Config{Charter: ch, Task: e.task.ID, Base: base, Key: e.home.Key, Cert: cert, Dir: dir,
		Learner: &watched{inner, e}, Members: e.members, Now: o.Now, Rand: o.Rand, Logger: o.Logger,
		Floor: o.Floor, Observe: o.Observe, KeepEncoded: o.KeepEncoded})
	if err != nil {
		return nil, err
	}
	o.Logger.Info("device is up", "consortium", ch.Consortium, "task", e.task.ID, "observe", o.Observe, "seq", e.part.Seq(), "demo", ch.Demo)
	return e, nil
}

// lockFolder takes the folder for this process. It tries a few times: Running takes the lock for a moment to look.
func lockFolder(ctx context.Context, dir string) (*durable.FileLock, error) {
	for try := 1; ; try++ {
		lock, err := durable.Lock(filepath.Join(dir, lockFile))
		if !errors.Is(err, durable.ErrLocked) || try == lockTries {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lockWait):
		}
	}
}

// close gives everything back. The status says that nobody is at work any more.
func (e *engine) close() {
	if e.part != nil {
		if err := e.part.Close(); err != nil {
			e.o.Logger.Warn("closing the ledger", "error", err)
		}
	}
	if e.members != nil {
		e.members.Close()
	}
	if e.status != nil {
		e.status.set(func(s *Status) { s.State, s.PID = StateStopped, 0 })
	}
	if e.lock != nil {
		e.lock.Close()
	}
}

// loop steps until the context ends, which is no error, or done says that it is over.
func (e *engine) loop(ctx context.Context, done func(stepError error) (bool, error)) error {
	for {
		wait, err := e.part.Step(ctx)
		if ctx.Err() != nil {
			return nil
		}
		e.status.set(func(s *Status) {
			s.counts(e.part.Ledger().Entries())
			if s.LastError = ""; err != nil {
				s.LastError = err.Error()
			}
		})
		if over, err := done(err); over || err != nil {
			return err
		}
		if err != nil {
			e.o.Logger.Warn("the step failed; trying again", "error", err, "wait", wait.String())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// watched tells the status what a Learner is doing.
type watched struct {
	inner participant.Learner
	e     *engine
}

func (w *watched) Update(ctx context.Context, task *charter.Task, seq uint64, start layout.Model) (participant.Update, error) {
	w.e.status.set(func(s *Status) { s.State = StateTraining })
	began := w.e.o.Now()
	u, err := w.inner.Update(ctx, task, seq, start)
	took := w.e.o.Now().Sub(began)
	w.e.status.set(func(s *Status) {
		if err != nil {
			s.State = StateIdle
			return
		}
		s.State = StateUploading
		if s.TrainMs = append(s.TrainMs, took.Milliseconds()); len(s.TrainMs) > trainTimesMax {
			s.TrainMs = s.TrainMs[len(s.TrainMs)-trainTimesMax:]
		}
	})
	return u, err
}

func (w *watched) Adopt(ctx context.Context, task *charter.Task, m layout.Model) error {
	err := w.inner.Adopt(ctx, task, m)
	if err == nil {
		w.e.status.set(func(s *Status) { s.Seq, s.Adapter = m.Seq, m.Hash() })
	}
	return err
}

// newLoRA is the learner of kind lora of this device.
func (e *engine) newLoRA(language *Language) *loraLearner {
	return &loraLearner{language: language, device: e.home.Device(), texts: e.home.journalTexts(e.o.Now, e.o.Logger), measure: splitFor(e.o.Observe),
		peft: filepath.Join(e.home.Dir, filepath.FromSlash(peftFolder)), known: e.status.measured, report: func(v Evaluation) {
			e.status.set(func(s *Status) {
				if s.Evaluations = append(s.Evaluations, v); len(s.Evaluations) > evaluationsMax {
					s.Evaluations = s.Evaluations[len(s.Evaluations)-evaluationsMax:]
				}
			})
		}}
}

// ContributeOptions are what `contribute` is told beyond RunOptions.
type ContributeOptions struct {
	RunOptions
	Vector string // a safetensors file
	Once   bool   // wait for the end of the round too
}

// Contribution is what became of a contribution.
type Contribution struct {
	Label    string     `json:"label,omitempty"`
	Task     string     `json:"task"`
	Round    label.Hash `json:"round"`
	Seq      uint64     `json:"seq"`
	Bytes    int        `json:"bytes"`
	Receipts []string   `json:"receipts"`        // the members that signed
	End      string     `json:"end,omitempty"`   // published, dead or expired; empty: the round goes on
	Model    string     `json:"model,omitempty"` // hash of the published state
}

// ErrContributed says that there is nothing left to contribute to: the task is summed once, and this device was in it.
var ErrContributed = errors.New("this device has contributed to this task already, and a device is summed once")

// Contribute waits for an open round of a task of kind vector, contributes a file's vector and waits for the ack.
func Contribute(ctx context.Context, dir string, o ContributeOptions) (*Contribution, error) {
	var out *Contribution
	look := func() {}
	acked := func() bool {
		look()
		return out != nil && len(out.Receipts) > 0
	}
	e, err := open(ctx, dir, o.RunOptions, charter.KindVector, func(e *engine) (participant.Learner, error) {
		// Read now, so that a wrong file is said before a round is waited for.
		if _, err := ReadVector(o.Vector, e.task); err != nil {
			return nil, err
		}
		return &vectorLearner{o.Vector, acked}, nil
	})
	if err != nil {
		return nil, err
	}
	defer e.close()
	before := len(e.part.Ledger().Entries())
	if blocked(e.task, e.part.Ledger().Entries()) {
		return nil, ErrContributed
	}
	look = func() { out = e.outcome(e.part.Ledger().Entries()[before:]) }
	err = e.loop(ctx, func(stepError error) (bool, error) {
		var refusal *participant.RefusalError
		if errors.As(stepError, &refusal) && refusal.Seq > 0 {
			return true, stepError
		}
		return acked() && (!o.Once || out.End != ""), nil
	})
	if err == nil && (out == nil || len(out.Receipts) == 0 || o.Once && out.End == "") {
		err = ctx.Err()
	}
	return out, err
}

// blocked: a task whose window is no duration has one start for ever.
func blocked(task *charter.Task, entries []participant.Entry) bool {
	if _, err := time.ParseDuration(task.Window); err == nil {
		return false
	}
	given := map[label.Hash]bool{}
	for _, e := range entries {
		if e.Task != task.ID {
			continue
		}
		switch {
		case e.Kind == participant.KindContribution:
			given[e.Round] = false
		case e.Kind == participant.KindAck:
			given[e.Round] = true
		case e.Kind == participant.KindEnd && e.End == participant.EndDead:
			delete(given, e.Round)
		}
	}
	for _, acked := range given {
		if acked {
			return true
		}
	}
	return false
}

// outcome reads what the ledger says of the newest contribution among entries.
func (e *engine) outcome(entries []participant.Entry) (out *Contribution) {
	for _, x := range entries {
		switch {
		case x.Kind == participant.KindContribution:
			out = &Contribution{Label: demoLabel(e.ch), Task: x.Task, Round: x.Round, Seq: x.Seq, Bytes: x.Bytes}
		case x.Kind == participant.KindAck && out == nil: // of an upload that an earlier process began
			out = &Contribution{Label: demoLabel(e.ch), Task: x.Task, Round: x.Round, Seq: x.Seq, Receipts: x.To}
		case x.Kind == participant.KindAck && x.Round == out.Round:
			out.Receipts = x.To
		case x.Kind == participant.KindEnd && out != nil && x.Round == out.Round:
			out.End = x.End
			if e.part.Seq() == x.Seq {
				out.Model = e.part.State().String()
			}
		}
	}
	return out
}
