package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/aggregation/commons"
	"github.com/ruche-federation/ruche/aggregation/encode"
	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/fault"
)

// modelsGroup holds the published states.
const modelsGroup = "models"

// signResult opens the sum from vectors that f+1 members signed the same hash of, derives the next state, and signs both
// (SA 2.3, Unmask). Every member computes it for itself; nothing is taken on another's word but vectors named by hash.
func (m *Member) signResult(ctx context.Context, v round.View) (*coordpb.Command, error) {
	m.mu.Lock()
	sums, ok := m.machine.Sums(v.ID)
	set := m.machine.Set(v.ID)
	m.mu.Unlock()
	if !ok {
		return nil, nil
	}
	task, ok := m.ch.Task(v.Config.Task)
	if !ok {
		return nil, alarmf("the charter has no task %q", v.Config.Task)
	}
	lanes := int(v.Config.Len)
	sumY, err := m.vector(ctx, v, label.TagSum, sums.SumY, lanes)
	if err != nil {
		return nil, fmt.Errorf("sum of uploads: %w", err)
	}
	masks := committee.TSums{}
	for _, t := range sums.TSums {
		if masks[t.Subset], err = m.vector(ctx, v, label.TagTSum, t.Hash, lanes); err != nil {
			return nil, fmt.Errorf("masks of subset %v: %w", t.Subset, err)
		}
	}
	x, err := committee.Unmask(v.Config.Committee(m.ch), sumY, masks)
	if err != nil {
		return nil, err
	}
	params := v.Config.Params(task)
	opened, err := params.Decode(x, len(set))
	if errors.Is(err, encode.ErrBounds) {
		return nil, alarmf("the opened sum is out of bounds, the round publishes nothing: %w", err)
	}
	if err != nil {
		return nil, err
	}
	start, err := m.state(ctx, v.Config.Start.Model, task.Init())
	if err != nil {
		return nil, fmt.Errorf("start of round %d: %w", v.Config.Seq, err)
	}
	values, err := commons.Average(start.Values, opened, len(set), params)
	if err != nil {
		return nil, err
	}
	next := layout.Model{TaskID: task.ID, LayoutHash: v.Config.Layout, Seq: v.Config.Seq, Values: values}
	if err := next.Validate(); err != nil {
		return nil, alarmf("the next state: %w", err)
	}
	if err := m.keepModel(next); err != nil {
		return nil, err
	}
	if !m.stands(v.ID, round.Revealed) {
		return nil, nil // this member's log says that the round has ended meanwhile
	}
	if err := m.keepDerived(v.ID, next.Hash()); err != nil {
		return nil, err
	}
	result := &statement.Result{Round: v.ID, Set: v.Decision, X: committee.HashVector(label.TagUnmasked, x), Model: next.Hash()}
	m.cfg.Logger.Info("opened the sum", "task", task.ID, "seq", v.Config.Seq, "contributions", len(set), "model", result.Model.String(), "metrics", metrics(task.Layout.Tail, opened))
	return round.ResultCommand(v.ID, m.me, statement.SignMember(m.cfg.Home.Identity, label.StmtResult, result.Bytes())), nil
}

// metrics are the means of the tail, as far as their sums are possible ones.
func metrics(tail []layout.Metric, s encode.Sum) map[string]float64 {
	out := map[string]float64{}
	for i, t := range tail {
		if i < len(s.TailMean) && !s.TailBad[i] {
			out[t.Name] = s.TailMean[i]
		}
	}
	return out
}

// vector reads a sum from disk, or fetches it by its hash from a member that signed it.
func (m *Member) vector(ctx context.Context, v round.View, tag string, hash label.Hash, lanes int) ([]uint32, error) {
	b, err := m.sums.Read(v.ID.String(), hash, tag)
	if err == nil {
		return committee.ParseVector(b, lanes)
	}
	m.mu.Lock()
	holders := m.machine.Revealed(v.ID, hash)
	m.mu.Unlock()
	last := errors.New("no member that signed it can be reached")
	for _, member := range m.grudges.order(holders.Members()) {
		if member == m.me || !m.peers.Alive().Has(member) {
			continue
		}
		if b, last = m.fetchSum(ctx, member, v.ID, hash, lanes*committee.LaneBytes); last != nil {
			m.grudges.hold(member)
			continue
		}
		if label.Sum(tag, b) != hash {
			m.grudges.hold(member)
			m.cfg.Logger.Error("ALARM: a member sent other bytes than it signed", "member", member, "round", v.ID.String())
			last = fmt.Errorf("member %d sent other bytes than it signed", member)
			continue
		}
		return committee.ParseVector(b, lanes)
	}
	return nil, last
}

func (m *Member) fetchSum(ctx context.Context, member int, id, hash label.Hash, limit int) ([]byte, error) {
	peer, err := m.peers.Mesh(member)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	stream, err := peer.FetchSum(ctx, &coordpb.FetchSumRequest{RoundId: id[:], Hash: hash[:]})
	if err != nil {
		return nil, err
	}
	return coordpb.ReceiveChunks(limit, stream.Recv)
}

// state is a published state by its hash, from disk or from any member that has it; the public init needs neither.
func (m *Member) state(ctx context.Context, hash label.Hash, init layout.Model) (layout.Model, error) {
	if hash == init.Hash() {
		return init, nil
	}
	b, err := m.results.Read(modelsGroup, hash, label.TagModel)
	if err == nil {
		return layout.ParseModel(b, len(init.Values))
	}
	last := err
	for _, member := range m.grudges.order(m.peers.Alive().Members()) {
		if member == m.me {
			continue
		}
		b, err := m.fetchModel(ctx, member, hash, layout.CanonicalSizeMax(len(init.Values)))
		if status.Code(err) == codes.NotFound {
			last = err // it was away when the state was computed
			continue
		}
		if err != nil {
			m.grudges.hold(member)
			last = err
			continue
		}
		model, err := layout.ParseModel(b, len(init.Values))
		if err != nil || model.Hash() != hash {
			m.grudges.hold(member)
			last = fmt.Errorf("member %d sent other bytes than state %s", member, hash)
			continue
		}
		return model, m.keepModel(model)
	}
	return layout.Model{}, last
}

func (m *Member) fetchModel(ctx context.Context, member int, hash label.Hash, limit int) ([]byte, error) {
	peer, err := m.peers.Mesh(member)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	stream, err := peer.FetchAdapter(ctx, &coordpb.GetAdapterRequest{ModelHash: hash[:]})
	if err != nil {
		return nil, err
	}
	return coordpb.ReceiveChunks(limit, stream.Recv)
}

// keepModel writes a state under its hash, durably, before its hash is signed.
func (m *Member) keepModel(model layout.Model) error {
	b := model.Canonical()
	h := model.Hash()
	if kept, err := m.kept(m.results, modelsGroup, h, label.TagModel); kept || err != nil {
		return err
	}
	return fault.Step("model", m.cfg.Home.Dir, func() error { return m.results.PutLeaving(sumsFree, modelsGroup, h, label.TagModel, b) })
}

// followPublished fetches the published states that the log holds and this member does not: it was down, or late, when the
// others computed them. Devices may ask any member, and the next round starts from here.
func (m *Member) followPublished(ctx context.Context) bool {
	if m.cfg.Now().Before(m.followLater) {
		return false
	}
	did := false
	for i := range m.ch.Tasks {
		task := &m.ch.Tasks[i]
		m.mu.Lock()
		v, ok := m.machine.Latest(task.ID)
		m.mu.Unlock()
		if !ok || v.Result == nil || m.results.Has(modelsGroup, v.Result.Model) {
			continue
		}
		if _, err := m.state(ctx, v.Result.Model, task.Init()); err != nil {
			m.cfg.Logger.Warn("a published state is not here yet", "task", task.ID, "seq", v.Config.Seq, "error", err)
			m.followLater = m.cfg.Now().Add(retry(err))
			continue
		}
		m.cfg.Logger.Info("fetched a published state", "task", task.ID, "seq", v.Config.Seq)
		did = true
	}
	return did
}

// derivedDir has a file per round: the state that this member derived for it.
const derivedDir = "derived"

// keepDerived notes, durably, which state this member derived for a round.
func (m *Member) keepDerived(id, model label.Hash) error {
	dir := filepath.Join(m.cfg.Home.Dir, derivedDir)
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, id.String())
	return fault.Step("derived", path, func() error { return durable.WriteChecked(path, []byte(model.String()+"\n"), 0o600) })
}

// derived is the state that this member derived for a round; false if it derived none. A damaged note accuses nobody: it
// is removed, and the member believes f+1 others, as one that was away does.
func (m *Member) derived(id label.Hash) (label.Hash, bool, error) {
	path := filepath.Join(m.cfg.Home.Dir, derivedDir, id.String())
	b, err := durable.ReadChecked(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return label.Hash{}, false, nil
	case errors.As(err, new(*durable.CorruptError)):
		m.cfg.Logger.Error("the note of a state that this member derived is damaged; it is removed", "round", id.String(), "error", err)
		return label.Hash{}, false, durable.Remove(path)
	case err != nil:
		return label.Hash{}, false, err
	}
	h, err := label.ParseHash(strings.TrimSuffix(string(b), "\n"))
	return h, err == nil, err
}

// tidyDerived removes the notes that no start is compared with any more: of rounds before the newest published one, and
// of those that the state knows no more. What the log has yet to say of a round, it says within strangeFor.
func (m *Member) tidyDerived(now time.Time) error {
	dir := filepath.Join(m.cfg.Home.Dir, derivedDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var errs []error
	for _, e := range entries {
		id, perr := label.ParseHash(e.Name())
		if perr != nil {
			continue
		}
		m.mu.Lock()
		v, known := m.machine.Round(id)
		var last round.View
		if known {
			last, _ = m.machine.Latest(v.Config.Task)
		}
		m.mu.Unlock()
		over := known && last.Config != nil && v.Config.Seq < last.Config.Seq
		if !known {
			info, err := e.Info()
			over = err == nil && now.Sub(info.ModTime()) >= strangeFor
		}
		if over {
			errs = append(errs, durable.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(append(errs, err)...)
}

// tidyStates removes the states that nobody needs any more: the log knows what published them, and statesKept newer ones of
// the task are published. What a round that has not ended starts from, or published, stays whatever its age. One that the
// log does not name may be of a round that it has yet to apply, and goes after strangeFor.
func (m *Member) tidyStates(now time.Time) error {
	list, err := m.results.List(modelsGroup)
	if err != nil {
		return err
	}
	published, needed := map[label.Hash]bool{}, map[label.Hash]bool{}
	newer := map[string]int{}
	m.mu.Lock()
	rounds := m.machine.Rounds()
	m.mu.Unlock()
	slices.SortFunc(rounds, func(a, b round.View) int { return cmp.Compare(b.Config.Seq, a.Config.Seq) })
	for _, v := range rounds {
		if !v.Phase.Terminal() || v.Newest {
			needed[v.Config.Start.Model] = true
		}
		if v.Result == nil {
			continue
		}
		published[v.Result.Model] = true
		if n := newer[v.Config.Task]; n < statesKept || !v.Phase.Terminal() {
			needed[v.Result.Model] = true
		}
		newer[v.Config.Task]++
	}
	var errs []error
	for _, i := range list {
		if needed[i.Digest] || !published[i.Digest] && now.Sub(i.Modified) < strangeFor {
			continue
		}
		errs = append(errs, m.results.Remove(modelsGroup, i.Digest))
	}
	_, err = m.results.ExpireParts(now, partFor)
	return errors.Join(append(errs, err)...)
}

// tidy removes what no one needs any more: contributions, sums and receipts of rounds that have ended, parts of uploads
// that broke off, old states.
func (m *Member) tidy() {
	if now := time.Now(); now.Sub(m.swept) >= sweepEvery { // files carry the system's time
		m.swept = now
		if n, err := m.shelf.ExpireParts(now, partFor); err != nil || n > 0 {
			m.cfg.Logger.Info("parts of uploads that broke off are removed", "parts", n, "error", err)
		}
		if err := errors.Join(m.tidyDerived(now), m.tidyStates(now)); err != nil {
			m.cfg.Logger.Error("removing old notes and states failed; it is tried again", "error", err)
		}
	}
	ids, err := m.shelf.Rounds()
	if err != nil {
		m.cfg.Logger.Error("listing contributions failed", "error", err)
		return
	}
	groups, err := m.sums.Groups()
	if err != nil {
		m.cfg.Logger.Error("listing sums failed", "error", err)
		return
	}
	for _, g := range groups {
		if id, err := label.ParseHash(g); err == nil {
			ids = append(ids, id)
		}
	}
	ids = append(ids, m.signed.list()...)
	strange := map[label.Hash]time.Time{}
	for _, id := range ids {
		m.mu.Lock()
		v, known := m.machine.Round(id)
		m.mu.Unlock()
		if known && !v.Phase.Terminal() {
			continue
		}
		if !known {
			// One that this member has yet to apply again, or one that is kept no more.
			since, ok := m.strange[id]
			if !ok {
				since = m.cfg.Now()
			}
			strange[id] = since
			if m.cfg.Now().Sub(since) < strangeFor && !m.outlived(id, time.Now()) {
				continue
			}
		}
		if err := errors.Join(m.sums.RemoveGroup(id.String()), m.shelf.RemoveRound(id), m.signed.forget(id)); err != nil {
			m.cfg.Logger.Error("removing an ended round failed; it is tried again", "round", id.String(), "error", err)
		}
	}
	m.strange = strange
	m.opened.forget(m.over)
}

// outlived reports whether what is here of a round was changed last so long ago, by the system's time that its files carry
// and by the log's, that the log would know the round if it were kept still. A start does not begin this anew; nor does it
// rest on one clock, for a machine may wake with a wrong one, and the log be read again from far back.
func (m *Member) outlived(id label.Hash, now time.Time) bool {
	var last time.Time
	for _, dir := range []string{"blobs/y", "blobs/heads", "sums", "receipts"} {
		info, err := os.Stat(filepath.Join(m.cfg.Home.Dir, filepath.FromSlash(dir), id.String()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false
		}
		last = later(last, info.ModTime())
	}
	m.mu.Lock()
	logged := time.UnixMilli(m.machine.TimeMs())
	m.mu.Unlock()
	return !last.IsZero() && now.Sub(last) >= strangeFor && logged.Sub(last) >= strangeFor
}

// over reports whether a round has ended, or is not known.
func (m *Member) over(id label.Hash) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, known := m.machine.Round(id)
	return !known || v.Phase.Terminal()
}
