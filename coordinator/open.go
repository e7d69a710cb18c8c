package coordinator

import (
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/crypto/label"
)

// signRound signs a proposed RoundConfig with the identity key (SA 2.3, Opening), if the charter prescribes it, it lists
// keys that this member holds, its clock is this member's too, and its start is the state that this member has itself
// or can check. The log has compared the start with the last Result.
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
	sig := m.cfg.Home.Identity.Sign(label.StmtRoundConfig, v.Body)
	m.cfg.Logger.Info("signing a round", "task", v.Config.Task, "seq", v.Config.Seq, "round", v.ID.String())
	return round.RoundSignatureCommand(v.ID, m.me, sig), nil
}
