package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ruche-federation/ruche/coordinator"
	"github.com/ruche-federation/ruche/coordinator/epoch"
	"github.com/ruche-federation/ruche/coordinator/replica"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
)

// log opens a copy of the log, reads the snapshots, and rebuilds the state that the member would have.
func (x *Examination) log() {
	if x.home == nil || x.Running {
		return
	}
	dir := filepath.Join(x.Dir, "raft")
	if _, err := os.Stat(filepath.Join(dir, "log")); errors.Is(err, fs.ErrNotExist) {
		if files, err := replica.InspectSnapshots(dir); err == nil && len(files) > 0 {
			c := coordinator.CauseOf(replica.ErrNoLog, x.members())
			x.find(Problem, "log", c.Word, c.Means, c.Do, "%v", replica.ErrNoLog)
			return
		}
		if s, err := coordinator.ReadStatus(x.Dir); err == nil && s.Applied > 0 {
			if x.ch != nil && !coordinator.CanRejoin(x.ch.N) {
				c := coordinator.CauseOf(coordinator.ErrTooFew, x.ch.N)
				x.find(Problem, "log", c.Word, c.Means, c.Do, "the log is gone, and the last run had applied %d entries", s.Applied)
				return
			}
			x.find(Warning, "log", "log_gone", "the member starts with a new store and no vote, and learns the log from the others; it was set aside, or lost", "start it: the others take it in when a majority of them is up",
				"the log is gone, and the last run had applied %d entries", s.Applied)
			return
		}
		x.find(Note, "log", "no_log", "", "", "there is no log yet")
		return
	}
	type command struct {
		index uint64
		data  []byte
	}
	var commands []command
	facts, err := replica.InspectLog(dir, x.home.Storage, func(index uint64, data []byte) {
		commands = append(commands, command{index, bytes.Clone(data)})
	})
	if errors.Is(err, replica.ErrNoPlace) {
		x.find(Warning, "log", "log_not_copied", "whether the log is whole, and the state that it leads to, are not known", "set TMPDIR to a folder with room for a copy of the raft folder, and 32 MiB more, and look again", "%v", err)
		return
	}
	if err != nil {
		c := coordinator.CauseOf(err, x.members())
		x.find(Problem, "log", c.Word, c.Means, c.Do, "%v", err)
		return
	}
	x.Log = &facts
	if _, err := os.Stat(filepath.Join(dir, "store")); errors.Is(err, fs.ErrNotExist) && facts.Last > 0 {
		c := coordinator.CauseOf(coordinator.ErrStoreUnknown, x.members())
		x.find(Problem, "log", c.Word, c.Means, c.Do, "%v", coordinator.ErrStoreUnknown)
	}
	vote := "no vote given"
	if facts.VotedFor != "" {
		vote = fmt.Sprintf("voted for %s in term %d", facts.VotedFor, facts.VoteTerm)
	}
	x.find(OK, "log", "log", "", "", "entries %d to %d, each as it was written; guard: term %d, %s, applied %d", facts.First, facts.Last, facts.Term, vote, facts.Applied)
	if x.ch == nil {
		return
	}
	state, from := x.snapshots(dir)
	upTo := max(facts.Applied, facts.Commit)
	newest := uint64(0)
	for _, s := range x.Snapshots {
		newest = max(newest, s.Index)
	}
	if facts.First > from+1 || facts.First == 0 && newest > from {
		c := coordinator.CauseOf(replica.ErrNoSnapshot, x.members())
		x.find(Problem, "log", c.Word, c.Means, c.Do, "the log begins at entry %d and the newest snapshot that can be used ends at %d", facts.First, from)
		return
	}
	for _, c := range commands {
		if c.index <= from || c.index > upTo {
			continue
		}
		for _, o := range state.ApplyBytes(c.index, c.data) {
			if o.Code == round.UnknownCommand {
				why := coordinator.CauseOf(coordinator.ErrLaterCommand, x.members())
				x.find(Problem, "log", why.Word, why.Means, why.Do, "entry %d: %s", c.index, o.Detail)
				return
			}
		}
	}
	x.state = state
}

// snapshots rebuilds the state from the newest snapshot that can be used, or begins anew.
func (x *Examination) snapshots(dir string) (*round.Machine, uint64) {
	files, err := replica.InspectSnapshots(dir)
	if err != nil {
		x.find(Problem, "snapshots", "snapshots_unreadable", "the member cannot start", "run as the user who owns the folder", "%v", err)
	}
	state := round.New(x.ch)
	used := uint64(0)
	for _, f := range files {
		at := Snapshot{Index: f.Index, Term: f.Term, Bytes: f.Bytes}
		data, err := f.State()
		if err == nil {
			next := round.New(x.ch)
			if err = next.Restore(data); err == nil && used == 0 {
				state, used = next, f.Index
			}
		}
		if err != nil {
			at.Problem = err.Error()
			x.find(Warning, "snapshots", "snapshot_damaged", "the member starts from an older one and the log, where they reach", "nothing, if there is no other problem: the next snapshot replaces it", "snapshot of entry %d: %v", f.Index, err)
		} else {
			x.find(OK, "snapshots", "snapshot", "", "", "snapshot of entry %d, %d bytes, its certificates verified", f.Index, f.Bytes)
		}
		x.Snapshots = append(x.Snapshots, at)
	}
	return state, used
}

// words compares this member's own words in the log with its vote files, as the member does when it runs.
func (x *Examination) words() {
	if x.state == nil {
		return
	}
	for _, v := range x.state.Rounds() {
		k, listed := v.Config.Package(x.me)
		if !listed {
			continue
		}
		r := x.epoch(k.Epoch)
		if r == nil || !bytes.Equal(r.Vote, k.VoteKey) || r.Damage != nil || r.Err != nil {
			continue
		}
		lacks := func(kind epoch.Kind, value label.Hash) {
			if r.Holds(kind, v.ID, value) {
				return
			}
			x.find(Problem, "epochs", coordinator.AlarmWitness, "the vote file was cut or rolled back, or the key is elsewhere too: when it runs, the member destroys this epoch's keys and draws new ones",
				"start the member; then find out who put an older copy of the folder here", "the log holds a %v of ours in round %s/%d that the vote file of epoch %d lacks", kind, v.Config.Task, v.Config.Seq, k.Epoch)
		}
		for _, s := range v.Votes {
			if said, err := statement.ParseVote(s.Statement.Body); err == nil && s.Member == x.me {
				lacks(epoch.KindVote, said.Value)
			}
		}
		for _, s := range v.Reveals {
			if said, err := statement.ParseReveal(s.Statement.Body); err == nil && s.Member == x.me {
				lacks(epoch.KindReveal, said.Set)
			}
		}
		for _, s := range v.Expired {
			if s.Member == x.me {
				lacks(epoch.KindExpired, label.Hash{})
			}
		}
	}
}

func (x *Examination) epoch(number uint64) *epoch.Report {
	for i := range x.read {
		if x.read[i].Number == number {
			return &x.read[i]
		}
	}
	return nil
}

// rounds lists the live rounds and what of them is here.
func (x *Examination) rounds() {
	if x.state == nil {
		return
	}
	for _, v := range x.state.Rounds() {
		if v.Phase.Terminal() {
			continue
		}
		at := Round{ID: v.ID.String(), Task: v.Config.Task, Seq: v.Config.Seq, Phase: v.Phase.String(), Accepted: v.Accepted}
		for _, c := range x.state.Candidates(v.ID) {
			if _, err := os.Stat(filepath.Join(x.Dir, "blobs", "heads", v.ID.String(), c.Header.String())); err == nil {
				at.Held++
			}
		}
		if k, ok := v.Config.Package(x.me); ok {
			at.Epoch = k.Epoch
			if r := x.epoch(k.Epoch); (r == nil || r.Damage != nil) && x.now.UnixMilli() <= k.NotAfterMs {
				x.find(Warning, "rounds", "no_say", "this member can neither vote nor reveal in it; the others finish it without this one, where enough are left", "nothing: it takes part again from the next round on",
					"round %s/%d lists epoch %d, whose keys are not here", at.Task, at.Seq, k.Epoch)
			}
		}
		means := ""
		if at.Held < at.Accepted {
			means = "what is missing is pulled from the other members"
		}
		x.find(Note, "rounds", "round", means, "", "round %s/%d was %s at entry %d; %d of its %d contributions are here", at.Task, at.Seq, at.Phase, x.state.Applied(), at.Held, at.Accepted)
		x.Rounds = append(x.Rounds, at)
	}
	for _, n := range x.state.ErasuresDue(x.me) {
		x.find(Note, "epochs", "erasure_due", "", "", "no round needs epoch %d any more, and the log does not show yet that its keys are erased", n)
	}
}

func (x *Examination) disk() {
	free, err := durable.FreeBytes(x.Dir)
	if err != nil {
		x.find(Warning, "disk", "disk_unknown", "", "", "the free space is not known: %v", err)
		return
	}
	x.FreeBytes = free
	mib := free >> 20
	switch {
	case free < logStops:
		x.find(Problem, "disk", "disk_full", "the log takes nothing: a member that runs acknowledges and signs nothing until there is room, and one that is stopped does not start", "free space on this file system", "%d MiB are free, the log needs %d", mib, logStops>>20)
	case free < uploadsStop:
		x.find(Warning, "disk", "disk_low", "contributions are refused here; devices go to other members", "free space on this file system", "%d MiB are free, contributions leave %d", mib, uploadsStop>>20)
	default:
		x.find(OK, "disk", "disk", "", "", "%d MiB are free", mib)
	}
}

// clock compares this machine's clock with the greatest time in the log.
func (x *Examination) clock() {
	if x.state == nil || x.state.TimeMs() == 0 {
		return
	}
	last := time.UnixMilli(x.state.TimeMs()).UTC()
	if behind := last.Sub(x.now); behind > x.ch.Timing.Slack.D() {
		x.find(Problem, "clock", "clock_behind", "this clock is wrong, or a leader stamped the future into the log: the member signs no round until its clock is past that time",
			"set the clock; if it is right, ask the other members for the time that they see", "the log's last tick is %s, %s after this clock", last.Format(time.RFC3339), behind.Round(time.Second))
		return
	}
	x.find(OK, "clock", "clock", "", "", "the log's last tick is %s, %s ago", last.Format(time.RFC3339), x.now.Sub(last).Round(time.Second))
}
