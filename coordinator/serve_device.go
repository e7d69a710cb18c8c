package coordinator

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/intake"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/blob"
)

var errOtherCharter = status.Error(codes.FailedPrecondition, "this member runs under another charter than yours: fetch the consortium's current charter file")

// DeviceServer is the device port. Nothing that it says is believed without signatures, so it answers anybody; what it
// takes is checked by intake.
type DeviceServer struct {
	coordpb.UnimplementedDeviceServer
	m *Member
}

// DeviceServer returns the service of the device port.
func (m *Member) DeviceServer() *DeviceServer { return &DeviceServer{m: m} }

// Enroll exchanges a token for a certificate.
func (s *DeviceServer) Enroll(ctx context.Context, r *coordpb.EnrollRequest) (*coordpb.EnrollResponse, error) {
	return s.m.enrolRequest(ctx, r)
}

// CheckIn gives the open round of a task, or when to come back, the ends of earlier rounds, and the newest state.
func (s *DeviceServer) CheckIn(ctx context.Context, r *coordpb.CheckInRequest) (*coordpb.CheckInResponse, error) {
	m := s.m
	if h := m.ch.Hash(); !bytes.Equal(r.GetCharterHash(), h[:]) {
		return nil, errOtherCharter
	}
	device, err := label.HashFromBytes(r.GetDeviceId())
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "device id: %v", err)
	}
	task, ok := m.ch.Task(r.GetTaskId())
	if !ok {
		return nil, status.Error(codes.InvalidArgument, "the charter has no such task")
	}
	if len(r.GetRounds()) > checkInRounds {
		return nil, status.Errorf(codes.InvalidArgument, "%d rounds asked for, limit %d", len(r.GetRounds()), checkInRounds)
	}
	if err := m.knows(); err != nil {
		return nil, err
	}
	tick := m.ch.Timing.Tick.Milliseconds()
	out := &coordpb.CheckInResponse{ChunkBytes: coordpb.ChunkBytesMax, Retry: &coordpb.RetryWindow{DelayMinMs: tick, DelayMaxMs: 3 * tick}}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range r.GetRounds() {
		id, err := label.HashFromBytes(b)
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "round id: %v", err)
		}
		if v, ok := m.machine.Round(id); ok && v.Phase.Terminal() {
			if record, ok := m.machine.Record(id, round.Ends); ok {
				out.Earlier = append(out.Earlier, record)
			}
		}
	}
	if v, ok := m.machine.Latest(task.ID); ok {
		out.Latest, _ = m.machine.Record(v.ID, round.Ends)
	}
	v, ok := m.machine.Newest(task.ID)
	if !ok || v.Phase != round.Open {
		return out, nil
	}
	if o := m.machine.Acceptable(v.ID, device, label.Hash{}); o.Code != round.OK {
		return out, nil
	}
	out.Round = &coordpb.Certificate{Body: v.Body}
	for _, sig := range v.Signatures {
		out.Round.Signatures = append(out.Round.Signatures, &coordpb.MemberSignature{Member: uint32(sig.Member), Signature: sig.Signature})
	}
	for _, member := range v.Config.Listed().Members() {
		out.Ingress = append(out.Ingress, m.ch.Members[member].DeviceURL)
	}
	return out, nil
}

// QueryUpload gives the offset to resume from.
func (s *DeviceServer) QueryUpload(_ context.Context, r *coordpb.QueryUploadRequest) (*coordpb.QueryUploadResponse, error) {
	id, header, err := ids(r.GetRoundId(), r.GetHeaderHash())
	if err != nil {
		return nil, err
	}
	offset, complete, err := s.m.shelf.Offset(id, header)
	switch {
	case errors.As(err, new(*intake.DamageError)):
		s.m.cfg.Logger.Error("a contribution on disk is damaged", "round", id.String(), "error", err)
		return &coordpb.QueryUploadResponse{}, nil // what is damaged is not here, and taken again
	case err != nil:
		return nil, s.m.statusOf(err)
	}
	return &coordpb.QueryUploadResponse{Offset: uint64(offset), Complete: complete}, nil
}

// Upload takes a contribution and answers with its receipts.
func (s *DeviceServer) Upload(stream grpc.ClientStreamingServer[coordpb.UploadRequest, coordpb.UploadResponse]) error {
	answer, err := s.m.ingress.Upload(stream.Context(), stream.Recv)
	if err != nil {
		var r *intake.Refusal
		if errors.As(err, &r) {
			s.m.cfg.Logger.Info("an upload is refused", "code", r.Code)
		}
		return s.m.statusOf(err)
	}
	return stream.SendAndClose(answer)
}

// GetReceipts gathers the receipts of an accepted contribution again.
func (s *DeviceServer) GetReceipts(ctx context.Context, r *coordpb.GetReceiptsRequest) (*coordpb.UploadResponse, error) {
	id, header, err := ids(r.GetRoundId(), r.GetHeaderHash())
	if err != nil {
		return nil, err
	}
	if err := s.m.knows(); err != nil {
		return nil, err
	}
	terms, ok := s.m.Terms(id)
	if !ok {
		return nil, status.Error(codes.NotFound, "the round is not in progress here")
	}
	s.m.mu.Lock()
	_, ok = s.m.machine.Candidate(id, header)
	s.m.mu.Unlock()
	if !ok {
		return nil, status.Error(codes.NotFound, "no such contribution is accepted")
	}
	receipts, err := s.m.ingress.Receipts(ctx, id, header, terms)
	if err != nil {
		return nil, s.m.statusOf(err)
	}
	return &coordpb.UploadResponse{Outcome: "duplicate", Receipts: receipts}, nil
}

// GetAdapter streams a published state by its hash.
func (s *DeviceServer) GetAdapter(r *coordpb.GetAdapterRequest, stream grpc.ServerStreamingServer[coordpb.Chunk]) error {
	return s.m.sendModel(r, stream.Send)
}

// GetRound gives everything that is known of a round.
func (s *DeviceServer) GetRound(_ context.Context, r *coordpb.GetRoundRequest) (*coordpb.RoundRecord, error) {
	id, err := label.HashFromBytes(r.GetRoundId())
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "round id: %v", err)
	}
	if err := s.m.knows(); err != nil {
		return nil, err
	}
	standing := s.m.standing()
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	record, ok := s.m.machine.Record(id, round.Everything)
	if !ok {
		return nil, status.Error(codes.NotFound, "no such round is kept here")
	}
	record.Standing = standing
	return record, nil
}

// ListRounds gives a line per round, oldest first.
func (s *DeviceServer) ListRounds(_ context.Context, r *coordpb.ListRoundsRequest) (*coordpb.ListRoundsResponse, error) {
	if err := s.m.knows(); err != nil {
		return nil, err
	}
	s.m.mu.Lock()
	views := s.m.machine.Rounds()
	s.m.mu.Unlock()
	out := &coordpb.ListRoundsResponse{Standing: s.m.standing()}
	for _, v := range views {
		if r.GetTaskId() != "" && r.GetTaskId() != v.Config.Task {
			continue
		}
		line := &coordpb.RoundSummary{RoundId: v.ID[:], TaskId: v.Config.Task, Seq: v.Config.Seq, Phase: v.Phase.String(), Death: v.Death.String(),
			Accepted: uint32(v.Accepted), Target: v.Config.NMax, Contributors: uint32(v.Contributors)}
		if v.Result != nil {
			line.ModelHash = v.Result.Model[:]
		}
		for _, t := range v.Times {
			switch {
			case t.Phase == round.Open:
				line.OpenedMs = t.UnixMs
			case t.Phase.Terminal():
				line.EndedMs = t.UnixMs
			}
		}
		out.Rounds = append(out.Rounds, line)
	}
	return out, nil
}

// ListMembers gives the consortium as this member sees it.
func (s *DeviceServer) ListMembers(ctx context.Context, _ *coordpb.ListMembersRequest) (*coordpb.ListMembersResponse, error) {
	m := s.m
	out := &coordpb.ListMembersResponse{}
	alive, seats := m.peers.Alive(), m.log.Status().Seats
	out.Members = make([]*coordpb.MemberStatus, m.ch.N)
	ctx, cancel := context.WithTimeout(ctx, statusWait)
	defer cancel()
	var wg sync.WaitGroup
	for i := range m.ch.N {
		if i == m.me {
			out.Members[i] = m.status()
			continue
		}
		line := &coordpb.MemberStatus{Index: uint32(i), Name: m.ch.Members[i].Name, DeviceUrl: m.ch.Members[i].DeviceURL, Role: roleWaiting}
		if i < len(seats) {
			line.StoreId, line.Role = seats[i].Store, seats[i].role()
		}
		out.Members[i] = line
		if !alive.Has(i) {
			continue
		}
		wg.Go(func() {
			peer, err := m.peers.Mesh(i)
			if err != nil {
				return
			}
			if got, err := peer.Status(ctx, &coordpb.ListMembersRequest{}); err == nil {
				line.Leader, line.Term, line.Applied, line.Committed = got.GetLeader(), got.GetTerm(), got.GetApplied(), got.GetCommitted()
				line.Epoch, line.Erased, line.OpenRounds, line.Reachable = got.GetEpoch(), got.GetErased(), got.GetOpenRounds(), true
				line.Standing = got.GetStanding()
				line.StoreId, line.Role, line.Lacking, line.UnderReplicated = got.GetStoreId(), got.GetRole(), got.GetLacking(), got.GetUnderReplicated()
			}
		})
	}
	wg.Wait()
	return out, nil
}

// Roles of a member's store in the log, as tools see them.
const (
	roleVoter      = "voter"
	roleCatchingUp = "catching up" // taken in; it gets its vote when it holds the log
	roleWaiting    = "waiting"     // for the leader to take it in
)

func (s Seat) role() string {
	switch {
	case s.Voter:
		return roleVoter
	case s.Store != "":
		return roleCatchingUp
	}
	return roleWaiting
}

// status is this member's own line.
func (m *Member) status() *coordpb.MemberStatus {
	l := m.log.Status()
	out := &coordpb.MemberStatus{Index: uint32(m.me), Name: m.ch.Members[m.me].Name, Self: true, Leader: m.log.Leading(), Term: l.Term,
		Applied: l.Applied, Committed: l.Committed, DeviceUrl: m.ch.Members[m.me].DeviceURL, Reachable: true, Standing: m.standing()}
	out.StoreId, out.Role = l.Store, roleVoter
	out.Lacking, out.UnderReplicated = m.lack.get()
	if l.Waiting {
		out.Role = roleWaiting
		if m.me < len(l.Seats) && l.Seats[m.me].Store == l.Store {
			out.Role = l.Seats[m.me].role()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, k, ok := m.machine.KeyPackage(m.me); ok {
		out.Epoch = k.Epoch
	}
	out.Erased = m.machine.Erased(m.me)
	for _, v := range m.machine.Rounds() {
		if !v.Phase.Terminal() {
			out.OpenRounds++
		}
	}
	return out
}

// sendModel streams a published state by its hash, from the disk as it goes: nobody who asks for one holds it in memory
// here. Whoever gets it checks the hash.
func (m *Member) sendModel(r *coordpb.GetAdapterRequest, send func(*coordpb.Chunk) error) error {
	hash, err := label.HashFromBytes(r.GetModelHash())
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "model hash: %v", err)
	}
	f, size, err := m.results.OpenChecked(modelsGroup, hash, label.TagModel)
	if errors.As(err, new(*blob.DigestError)) {
		m.cfg.Logger.Error("a state on disk is damaged; it is set aside", "error", err)
		err = fs.ErrNotExist
	}
	if errors.Is(err, fs.ErrNotExist) {
		return status.Error(codes.NotFound, "no such state is kept here")
	}
	if err != nil {
		return m.statusOf(err)
	}
	defer f.Close()
	if r.GetOffset() > uint64(size) {
		return status.Errorf(codes.OutOfRange, "offset %d, the state has %d bytes", r.GetOffset(), size)
	}
	if _, err := f.Seek(int64(r.GetOffset()), io.SeekStart); err != nil {
		return m.statusOf(err)
	}
	return coordpb.SendChunks(f, r.GetOffset(), pacedSend(send))
}

// Model gives a published state to programs in this process.
func (m *Member) Model(hash label.Hash, valuesMax int) (layout.Model, error) {
	b, err := m.results.Read(modelsGroup, hash, label.TagModel)
	if err != nil {
		return layout.Model{}, err
	}
	return layout.ParseModel(b, valuesMax)
}

func ids(roundID, header []byte) (label.Hash, label.Hash, error) {
	r, err := label.HashFromBytes(roundID)
	if err != nil {
		return r, r, status.Errorf(codes.InvalidArgument, "round id: %v", err)
	}
	h, err := label.HashFromBytes(header)
	if err != nil {
		return r, h, status.Errorf(codes.InvalidArgument, "header hash: %v", err)
	}
	return r, h, nil
}

var _ coordpb.DeviceServer = (*DeviceServer)(nil)
var _ intake.State = (*Member)(nil)
var _ intake.Keys = (*Member)(nil)
