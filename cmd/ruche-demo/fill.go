package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/cmd/internal/consortium"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/node/participant"
)

// fill turns what was seen of the rounds into the report: sums compared, bytes, phases, losses.
func (w *watcher) fill(r *Report) error {
	byDevice := map[label.Hash]*device{}
	for _, d := range w.devices {
		s, err := d.status()
		if err != nil {
			return fmt.Errorf("%s: %w", d.process.Name, err)
		}
		byDevice[s.Device] = d
	}
	for seq := uint64(1); seq <= uint64(w.rounds); seq++ {
		record, ok := w.records[seq]
		if !ok {
			continue
		}
		line, err := w.round(seq, record, byDevice)
		if err != nil {
			return fmt.Errorf("round %d: %w", seq, err)
		}
		r.Rounds = append(r.Rounds, line)
		if line.State == "published" {
			r.Loss.Participants.Rounds = append(r.Loss.Participants.Rounds, w.mean(seq, false))
			r.Loss.Newcomers.Rounds = append(r.Loss.Newcomers.Rounds, w.mean(seq, true))
		}
	}
	r.Loss.Unit = "nats/token"
	r.Loss.Participants.Base, r.Loss.Newcomers.Base = w.mean(0, false), w.mean(0, true)
	return nil
}

// mean is the plain mean over users of their mean token loss with the adapter of round seq; 0 if one has not measured it.
func (w *watcher) mean(seq uint64, newcomers bool) float64 {
	sum, n := 0.0, 0
	for _, d := range w.devices {
		if d.person.Newcomer != newcomers {
			continue
		}
		loss, ok := d.loss(seq)
		if !ok {
			return 0
		}
		sum, n = sum+loss, n+1
	}
	if n == 0 {
		return 0
	}
	return sum / float64(n)
}

func (w *watcher) round(seq uint64, record *coordpb.RoundRecord, byDevice map[label.Hash]*device) (RoundReport, error) {
	rc, err := statement.ParseRoundConfig(record.GetConfig().GetBody())
	if err != nil {
		return RoundReport{}, err
	}
	id := rc.ID()
	out := RoundReport{ID: id.String(), Seq: seq, State: record.GetPhase(), Contributors: len(record.GetContributors()), Refused: record.GetRefused(),
		BytesPlain: int(rc.Len) * committee.LaneBytes, Leader: w.leaders[seq], LeaderKilled: w.killed[seq]}
	if out.Refused == nil {
		out.Refused = map[string]uint32{}
	}
	began := map[string]float64{}
	for _, p := range record.GetPhases() {
		began[p.GetPhase()] = float64(p.GetUnixMs()) / 1e3
	}
	between := func(a, b string) float64 {
		if began[a] == 0 || began[b] == 0 {
			return 0
		}
		return began[b] - began[a]
	}
	out.Seconds = PhaseSeconds{Train: w.trained(seq), Close: between("closed", "acked"), Vote: between("acked", "sealed"), Reveal: between("sealed", "revealed"), Publish: between("revealed", "published")}
	out.Seconds.Upload = max(0, between("open", "closed")-out.Seconds.Train)
	if out.BytesUpMean, err = w.uploaded(id); err != nil {
		return out, err
	}
	if out.State != "published" {
		return out, nil
	}
	result, err := statement.ParseResult(record.GetResult().GetBody())
	if err != nil {
		return out, err
	}
	out.AdapterSHA256 = result.Model.String()
	plain, err := consortium.PlainSum(int(rc.Len), record.GetContributors(), func(h label.Hash) ([]uint32, error) {
		d, ok := byDevice[h]
		if !ok {
			return nil, errors.New("none of this demo's devices")
		}
		return consortium.Encoded(d.dir, id, int(rc.Len))
	})
	if err != nil {
		return out, err
	}
	// The signed Result names the opened sum by its hash: equal hashes are equal sums, bit for bit.
	out.SumEqualsPlain = committee.HashVector(label.TagUnmasked, plain) == result.X
	return out, nil
}

// uploaded is the mean of the bytes that left a participant in a round, by the devices' own ledgers.
func (w *watcher) uploaded(id label.Hash) (float64, error) {
	total, n := 0, 0
	for _, d := range w.devices {
		if d.person.Newcomer {
			continue
		}
		entries, err := participant.ReadLedger(filepath.Join(d.dir, "ledger"))
		if err != nil {
			return 0, err
		}
		for _, e := range entries {
			if e.Round == id && e.Kind == participant.KindContribution {
				total, n = total+e.Bytes, n+1
			}
		}
	}
	if n == 0 {
		return 0, nil
	}
	return float64(total) / float64(n), nil
}

// trained is the mean time that participants trained in a round, in seconds.
func (w *watcher) trained(seq uint64) float64 {
	var total float64
	n := 0
	for _, d := range w.devices {
		s, err := d.status()
		if d.person.Newcomer || err != nil || int(seq) > len(s.TrainMs) {
			continue
		}
		total, n = total+float64(s.TrainMs[seq-1])/1e3, n+1
	}
	if n == 0 {
		return 0
	}
	return total / float64(n)
}
