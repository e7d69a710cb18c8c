package coordinator

import (
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/crypto/label"
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
	// The seq that is signed here must not be forgotten: no other config of it is signed in another log.
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
