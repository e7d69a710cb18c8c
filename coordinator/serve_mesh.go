package coordinator

import (
	"context"
	"errors"
	"io/fs"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/intake"
	"github.com/ruche-federation/ruche/storage/blob"
)

// MeshServer is what members offer each other. The mesh authenticates members; what they send is checked all the same.
type MeshServer struct {
	coordpb.UnimplementedMeshServer
	m *Member
}

// MeshServer returns the service of the mesh port.
func (m *Member) MeshServer() *MeshServer { return &MeshServer{m: m} }

// LocalProposer proposes at this member alone; it fails where this member is not the leader.
type LocalProposer interface {
	ProposeLocal(ctx context.Context, cmd *coordpb.Command) ([]*coordpb.Outcome, error)
}

// Propose takes another member's command, at the leader only: a command is forwarded once, never around.
func (s *MeshServer) Propose(ctx context.Context, r *coordpb.ProposeRequest) (*coordpb.ProposeResponse, error) {
	local, ok := s.m.log.(LocalProposer)
	if !ok {
		return nil, status.Error(codes.Unimplemented, "this log takes no forwarded commands")
	}
	cmd, err := parseCommand(r.GetCommand())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if !forwarded(cmd) {
		return nil, status.Error(codes.InvalidArgument, "a member proposes its own statements; time, rounds and closes are the leader's own affair")
	}
	outcomes, err := local.ProposeLocal(ctx, cmd)
	if err != nil {
		return nil, s.m.statusOf(err)
	}
	return &coordpb.ProposeResponse{Outcomes: outcomes}, nil
}

// forwarded reports whether a follower may have a command proposed. What nobody signs is the leader's: log time never
// goes back, so one tick from far ahead, which any member could send, would end every round and every key for ever.
func forwarded(cmd *coordpb.Command) bool {
	switch cmd.GetCommand().(type) {
	case *coordpb.Command_TickUnixMs, *coordpb.Command_Propose, *coordpb.Command_Close:
		return false
	}
	return true
}

// Store takes a copy of a contribution and answers when it is on disk.
func (s *MeshServer) Store(stream grpc.ClientStreamingServer[coordpb.UploadRequest, coordpb.StoreResponse]) error {
	err := s.m.ingress.Store(stream.Context(), stream.Recv)
	var r *intake.Refusal
	switch {
	case err == nil:
		return stream.SendAndClose(&coordpb.StoreResponse{Outcome: "stored"})
	case errors.As(err, &r):
		return stream.SendAndClose(&coordpb.StoreResponse{Outcome: "refused", Code: r.Code})
	}
	return s.m.statusOf(err)
}

// Receipt gives this member's receipt of a contribution once its Accept is applied.
func (s *MeshServer) Receipt(ctx context.Context, r *coordpb.GetReceiptsRequest) (*coordpb.MemberStatement, error) {
	id, header, err := ids(r.GetRoundId(), r.GetHeaderHash())
	if err != nil {
		return nil, err
	}
	out, err := s.m.Receipt(ctx, id, header)
	return out, s.m.statusOf(err)
}

// FetchContribution streams a held contribution.
func (s *MeshServer) FetchContribution(r *coordpb.GetReceiptsRequest, stream grpc.ServerStreamingServer[coordpb.UploadRequest]) error {
	id, header, err := ids(r.GetRoundId(), r.GetHeaderHash())
	if err != nil {
		return err
	}
	c, err := s.m.shelf.Load(id, header)
	if err == nil {
		err = s.m.wholeCopy(c)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.As(err, new(*intake.DamageError)):
		return status.Error(codes.NotFound, "no such contribution is here")
	case err != nil: // it may be here all the same
		return s.m.statusOf(err)
	}
	send := pacedSend(stream.Send)
	if err := send(&coordpb.UploadRequest{Message: &coordpb.UploadRequest_Open{Open: c.Open(0)}}); err != nil {
		return err
	}
	return s.m.shelf.Send(c, 0, func(ch *coordpb.Chunk) error {
		return send(&coordpb.UploadRequest{Message: &coordpb.UploadRequest_Chunk{Chunk: ch}})
	})
}

// FetchSum streams a vector that this member revealed, until the round has expired here or is certified dead.
func (s *MeshServer) FetchSum(r *coordpb.FetchSumRequest, stream grpc.ServerStreamingServer[coordpb.Chunk]) error {
	id, hash, err := ids(r.GetRoundId(), r.GetHash())
	if err != nil {
		return err
	}
	tag, err := s.m.mayServe(id, hash)
	if err != nil {
		return err
	}
	f, _, err := s.m.sums.OpenChecked(id.String(), hash, tag)
	if errors.As(err, new(*blob.DigestError)) {
		s.m.cfg.Logger.Error("a revealed sum is damaged on disk; it is set aside, and folded again", "error", err)
	}
	if err != nil {
		return status.Error(codes.NotFound, "the vector is not here")
	}
	defer f.Close()
	send := pacedSend(stream.Send)
	return coordpb.SendChunks(f, 0, func(c *coordpb.Chunk) error {
		if _, err := s.m.mayServe(id, hash); err != nil { // it may have expired since the chunk before
			return err
		}
		return send(c)
	})
}

// FetchAdapter streams a published state.
func (s *MeshServer) FetchAdapter(r *coordpb.GetAdapterRequest, stream grpc.ServerStreamingServer[coordpb.Chunk]) error {
	return s.m.sendModel(r, stream.Send)
}

// Status is this member's own line.
func (s *MeshServer) Status(context.Context, *coordpb.ListMembersRequest) (*coordpb.MemberStatus, error) {
	out := s.m.status()
	out.Rejoin, out.ClockMs = s.m.rejoin(), s.m.cfg.Now().UnixMilli()
	return out, nil
}

var _ coordpb.MeshServer = (*MeshServer)(nil)
