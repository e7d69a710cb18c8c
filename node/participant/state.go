package participant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/fault"
)

// state is the last verified result of the task, or the public init.
type state struct {
	Seq    uint64     `json:"seq"`
	Model  label.Hash `json:"model"`
	Result label.Hash `json:"result"` // HashResult; zero for the init

	model layout.Model
}

// adapterPath is where the canonical bytes of a state lie.
func (p *Participant) adapterPath(model label.Hash) string {
	return filepath.Join(p.cfg.Dir, "adapters", model.String())
}

func (p *Participant) currentPath() string {
	return filepath.Join(p.cfg.Dir, "adapters", p.task.ID+".json")
}

// loadState reads the last adopted state and checks it again; without one, or with a damaged one, it begins with the
// public init: the members' newest state is fetched with the next check-in. The ledger, not this, says what was uploaded
// from which start.
func (p *Participant) loadState() (state, error) {
	m := p.task.Init()
	first := state{Model: m.Hash(), model: m}
	s, err := p.readState()
	switch {
	case errors.Is(err, fs.ErrNotExist) && s.Seq == 0:
		return first, nil
	case err != nil && (errors.Is(err, fs.ErrNotExist) || !errors.As(err, new(*fs.PathError))):
		p.cfg.Logger.Error("the last verified state is damaged: it is fetched again", "error", err)
		return first, nil
	}
	return s, err
}

// readState returns what it knows of the state also with an error.
func (p *Participant) readState() (s state, err error) {
	if s, err = readCurrent(p.currentPath()); err != nil {
		return s, err
	}
	b, err := os.ReadFile(p.adapterPath(s.Model))
	if err != nil {
		return s, err
	}
	s.model, err = p.parseModel(b, s.Model, s.Seq)
	return s, err
}

// readCurrent reads the file that names the state of a task, without that state.
func readCurrent(path string) (s state, err error) {
	b, err := durable.ReadChecked(path)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// sweepAdapters removes the states that no task's file names: a process ended between two writes of keep, or before the
// state of before was removed. While one of the files cannot be read nobody knows what it names, and all stay.
func sweepAdapters(dir string, logger *slog.Logger) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	named := map[label.Hash]bool{}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".json" {
			continue
		}
		s, err := readCurrent(filepath.Join(dir, e.Name()))
		if err != nil {
			logger.Warn("adapters that nobody needs may stay", "error", err)
			return nil
		}
		named[s.Model] = true
	}
	for _, e := range entries {
		if hash, err := label.ParseHash(e.Name()); err == nil && !named[hash] {
			if err := durable.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseModel checks that bytes are the state of that name, round and layout.
func (p *Participant) parseModel(b []byte, want label.Hash, seq uint64) (layout.Model, error) {
	m, err := layout.ParseModel(b, p.task.Layout.D())
	if err != nil {
		return m, fmt.Errorf("adapter %s: %w", want, err)
	}
	if got := m.Hash(); got != want {
		return m, fmt.Errorf("adapter %s: the bytes have the hash %s", want, got)
	}
	if err := p.task.Layout.Check(m); err != nil {
		return m, fmt.Errorf("adapter %s: %w", want, err)
	}
	if m.TaskID != p.task.ID || m.Seq != seq {
		return m, fmt.Errorf("adapter %s is of task %q, round %d; expected %q, round %d", want, m.TaskID, m.Seq, p.task.ID, seq)
	}
	return m, nil
}

// follow verifies the newest published round, fetches its state and adopts it: q signatures on the config, f+1 on the
// result, the result's hash over the bytes.
func (p *Participant) follow(ctx context.Context, record *coordpb.RoundRecord) error {
	rc, err := statement.VerifyRoundCert(p.cfg.Charter, record.GetConfig().GetBody(), signatures(record.GetConfig().GetSignatures()))
	if err != nil {
		return fmt.Errorf("refusing the published adapter: %w", err)
	}
	if rc.Task != p.task.ID {
		return fmt.Errorf("refusing the published adapter: it is of task %q", rc.Task)
	}
	body := record.GetResult().GetBody()
	r, err := statement.VerifyResultCert(p.cfg.Charter, body, signatures(record.GetResult().GetSignatures()))
	if err != nil {
		return fmt.Errorf("refusing the adapter of round %d: %w", rc.Seq, err)
	}
	switch {
	case r.Round != rc.ID():
		return fmt.Errorf("refusing the adapter of round %d: its result is of another round", rc.Seq)
	case rc.Seq < p.current.Seq:
		return nil // this member is behind
	case rc.Seq == p.current.Seq && r.Model != p.current.Model:
		return fmt.Errorf("ALARM: two results of round %d have %d signatures each: %s and %s", rc.Seq, p.cfg.Charter.Believe(), p.current.Model, r.Model)
	case rc.Seq == p.current.Seq:
		return nil
	}
	raw, err := p.fetch(ctx, r.Model)
	if err != nil {
		return err
	}
	m, err := p.parseModel(raw, r.Model, rc.Seq)
	if err != nil {
		return fmt.Errorf("refusing the adapter of round %d: %w", rc.Seq, err)
	}
	next := state{Seq: rc.Seq, Model: r.Model, Result: statement.HashResult(body), model: m}
	if err := p.keep(next, raw); err != nil {
		return err
	}
	old := p.current
	p.current, p.pending = next, true
	if old.Seq > 0 {
		if err := durable.Remove(p.adapterPath(old.Model)); err != nil {
			return err
		}
	}
	return p.adopt(ctx)
}

// adopt hands the current state to the Learner; a failure is tried again at the next step.
func (p *Participant) adopt(ctx context.Context) error {
	if err := p.cfg.Learner.Adopt(ctx, p.task, p.current.model); err != nil {
		return fmt.Errorf("adopting the adapter of round %d: %w", p.current.Seq, err)
	}
	p.pending = false
	p.cfg.Logger.Info("adopted the commons", "seq", p.current.Seq, "adapter", p.current.Model.String())
	return nil
}

// keep writes the bytes, then the file that names them.
func (p *Participant) keep(s state, raw []byte) error {
	path := p.adapterPath(s.Model)
	if err := fault.Step("adapter", path, func() error { return durable.WriteFile(path, raw, 0o600) }); err != nil {
		return err
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	path = p.currentPath()
	return fault.Step("current", path, func() error { return durable.WriteChecked(path, append(b, '\n'), 0o600) })
}

// fetch asks members in turn for the bytes of a state. They name themselves by their hash, so any member will do.
func (p *Participant) fetch(ctx context.Context, model label.Hash) ([]byte, error) {
	limit := layout.CanonicalSizeMax(p.task.Layout.D())
	var last error
	for i := range p.cfg.Charter.N {
		raw, err := call(ctx, p.cfg.Members, (p.asked+i)%p.cfg.Charter.N, func(ctx context.Context, c coordpb.DeviceClient) ([]byte, error) {
			stream, err := c.GetAdapter(ctx, &coordpb.GetAdapterRequest{ModelHash: model[:]})
			if err != nil {
				return nil, err
			}
			return coordpb.ReceiveChunks(limit, stream.Recv)
		})
		if err == nil && label.Sum(label.TagModel, raw) == model {
			return raw, nil
		}
		if err == nil {
			err = fmt.Errorf("member %d sent other bytes than the signed hash names", (p.asked+i)%p.cfg.Charter.N)
		}
		last = err
	}
	return nil, fmt.Errorf("adapter %s: %w", model, last)
}
