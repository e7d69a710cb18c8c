package coordinator

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/fault"
)

// signRound signs a proposed RoundConfig with the identity key (SA 2.3, Opening), if the charter prescribes it, it lists
// keys that this member holds, its clock is this member's too, and its start is none that this member's own derivation
// contradicts. The log has compared the start with the last Result.
func (m *Member) signRound(v round.View) (*coordpb.Command, error) {
	if err := round.CheckConfig(v.Config, m.ch, m.me); err != nil {
		return nil, alarmf("not signing: %w", err)
	}
	if err := round.CheckClock(v.Config, m.ch, m.cfg.Now().UnixMilli()); err != nil {
		return nil, err
	}
	if _, err := m.listed(v.Config); err != nil {
		return nil, err
	}
	if err := m.checkStart(v); err != nil {
		return nil, err
	}
	// The seq that is signed here must not be forgotten: no other config of it is signed in another log, or after another
	// leader's snapshot, which replaces the log.
	if err := m.keepConfig(v); err != nil {
		return nil, err
	}
	m.mu.Lock()
	applied := m.machine.Applied()
	m.mu.Unlock()
	if err := m.log.EnsureApplied(applied); err != nil {
		return nil, err
	}
	sig := m.cfg.Home.Identity.Sign(label.StmtRoundConfig, v.Body)
	m.cfg.Logger.Info("signing a round", "task", v.Config.Task, "seq", v.Config.Seq, "round", v.ID.String())
	return round.RoundSignatureCommand(v.ID, m.me, sig), nil
}

// checkStart refuses a start that this member's own derivation contradicts. That f+1 members signed it, the log has
// checked; one that this member did not compute itself, because it was away, it takes from them.
func (m *Member) checkStart(v round.View) error {
	m.mu.Lock()
	last, ok := m.machine.Latest(v.Config.Task)
	m.mu.Unlock()
	if !ok || last.Result == nil {
		return nil
	}
	own, ok, err := m.derived(last.ID)
	if err != nil {
		return err
	}
	if ok && own != last.Result.Model {
		return alarmf("round %s published state %s, this member derived %s", last.ID, last.Result.Model, own)
	}
	return nil
}

// keepConfig notes, durably and before the signature exists, which config this member signs for a task: the seqs that it
// signs rise, and no seq has two (SA 2.3, Opening). A damaged note is an alarm: somebody has to look before it is removed, for what
// was signed no log can tell for sure.
func (m *Member) keepConfig(v round.View) error {
	dir := filepath.Join(m.cfg.Home.Dir, "configs")
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, label.Sum(label.TagTask, []byte(v.Config.Task)).String())
	note := fmt.Sprintf("%d %s\n", v.Config.Seq, v.ID)
	write := func() error { return durable.WriteChecked(path, []byte(note), 0o600) }
	old, err := durable.ReadChecked(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case errors.As(err, new(*durable.CorruptError)):
		return alarmf("the note of what this member signed for %s is damaged: %w", v.Config.Task, err)
	case err != nil:
		return err
	case string(old) == note:
		// An earlier try may have ended between the note's new name and its folder's fsync.
		write = func() error { return durable.SyncDir(dir) }
	default:
		var seq uint64
		var id string
		if _, err := fmt.Sscanf(string(old), "%d %s\n", &seq, &id); err != nil {
			return alarmf("the note of what this member signed for %s is none: %w", v.Config.Task, err)
		}
		if seq >= v.Config.Seq {
			return alarmf("not signing round %d (%s): this member has signed round %d (%s)", v.Config.Seq, v.ID, seq, id)
		}
	}
	return fault.Step("config", path, write)
}
