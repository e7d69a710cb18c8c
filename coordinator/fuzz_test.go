package coordinator

import (
	"bytes"
	"context"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/replica"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// FuzzRequests asks both ports of a member whatever anybody may ask. What they do not answer they refuse by a code, never
// as an error of their own.
func FuzzRequests(f *testing.F) {
	r := newRig(f)
	v := r.until(round.Open)
	d := r.contribute(v)[0]
	r.m.Attach(deaf{r.log}, nobody{})
	charter, device, header := r.ch.Hash(), d.id(), d.header.Hash()
	over, cancel := context.WithCancel(context.Background()) // nobody waits
	cancel()
	dev, mesh := r.m.DeviceServer(), r.m.MeshServer()
	receipts := &coordpb.GetReceiptsRequest{RoundId: v.ID[:], HeaderHash: header[:]}
	model := &coordpb.GetAdapterRequest{ModelHash: v.Config.Start.Model[:]}
	calls := []func(b []byte) error{
		request(func(r *coordpb.EnrollRequest) error { _, err := dev.Enroll(over, r); return err }),
		request(func(r *coordpb.CheckInRequest) error { _, err := dev.CheckIn(over, r); return err }),
		request(func(r *coordpb.QueryUploadRequest) error { _, err := dev.QueryUpload(over, r); return err }),
		request(func(r *coordpb.GetReceiptsRequest) error { _, err := dev.GetReceipts(over, r); return err }),
		request(func(r *coordpb.GetAdapterRequest) error { return dev.GetAdapter(r, &sink[coordpb.Chunk]{ctx: over}) }),
		request(func(r *coordpb.GetRoundRequest) error { _, err := dev.GetRound(over, r); return err }),
		request(func(r *coordpb.ListRoundsRequest) error { _, err := dev.ListRounds(over, r); return err }),
		request(func(r *coordpb.GetReceiptsRequest) error { _, err := mesh.Receipt(over, r); return err }),
		request(func(r *coordpb.GetReceiptsRequest) error {
			return mesh.FetchContribution(r, &sink[coordpb.UploadRequest]{ctx: over})
		}),
		request(func(r *coordpb.FetchSumRequest) error { return mesh.FetchSum(r, &sink[coordpb.Chunk]{ctx: over}) }),
		request(func(r *coordpb.GetAdapterRequest) error { return mesh.FetchAdapter(r, &sink[coordpb.Chunk]{ctx: over}) }),
		request(func(r *coordpb.ProposeRequest) error { _, err := mesh.Propose(over, r); return err }),
	}
	for i, m := range []proto.Message{
		&coordpb.EnrollRequest{CharterHash: charter[:], DevicePublic: d.key.Public(), Token: make([]byte, tokenBytes)},
		&coordpb.CheckInRequest{CharterHash: charter[:], DeviceId: device[:], TaskId: testTask, Rounds: [][]byte{v.ID[:], make([]byte, label.Size)}},
		&coordpb.QueryUploadRequest{RoundId: v.ID[:], HeaderHash: header[:]},
		receipts, model,
		&coordpb.GetRoundRequest{RoundId: v.ID[:]}, &coordpb.ListRoundsRequest{TaskId: testTask},
		receipts, receipts,
		&coordpb.FetchSumRequest{RoundId: v.ID[:], Hash: make([]byte, label.Size)},
		model,
	} {
		b, err := proto.Marshal(m)
		must(f, err)
		f.Add(uint8(i), b)
		f.Add(uint8(i), []byte{})
	}
	for _, entry := range r.log.entries {
		b, err := proto.Marshal(&coordpb.ProposeRequest{Command: entry})
		must(f, err)
		f.Add(uint8(len(calls)-1), b)
	}
	f.Fuzz(func(t *testing.T, call uint8, b []byte) {
		switch err := calls[int(call)%len(calls)](b); status.Code(err) {
		case codes.Unknown, codes.Internal:
			t.Fatalf("call %d: %v", call, err)
		}
	})
}

// request reads a request as gRPC does, and refuses what is none.
func request[T any, M interface {
	*T
	proto.Message
}](do func(M) error) func([]byte) error {
	return func(b []byte) error {
		m := M(new(T))
		if proto.Unmarshal(b, m) != nil {
			return nil
		}
		return do(m)
	}
}

// deaf is a log that checks what another member has proposed, and takes nothing.
type deaf struct{ *memoryLog }

func (l deaf) ProposeLocal(_ context.Context, cmd *coordpb.Command) ([]*coordpb.Outcome, error) {
	_, err := l.m.MarshalCommand(cmd)
	return nil, err
}

// FuzzMemberStatus hears whatever a peer may say of itself. Its store is taken in by its own signed word about that store
// only, and its clock contradicts nobody's but its own.
func FuzzMemberStatus(f *testing.F) {
	homes := newHomes(f, 4, 1, time.Hour)
	ch, _, err := homes[0].Charter()
	must(f, err)
	now := time.UnixMilli(1_800_000_000_000)
	m := &Member{ch: ch}
	const id, from = "123e4567-e89b-42d3-a456-426614174000", 2
	word := func(signer int, r statement.Rejoin) *coordpb.Signed {
		return round.ToSigned(statement.SignMember(homes[signer].Identity, label.StmtRejoin, r.Bytes()))
	}
	own := word(from, statement.Rejoin{Charter: ch.Hash(), Member: from, Store: id, AtMs: now.UnixMilli()})
	for _, line := range []*coordpb.MemberStatus{
		{Index: from, StoreId: id, Applied: 9, ClockMs: now.UnixMilli(), Rejoin: own},
		{Index: from, StoreId: homes[from].Card.StoreID, ClockMs: math.MinInt64, Rejoin: own},
		{StoreId: id, ClockMs: math.MaxInt64, Rejoin: word(from, statement.Rejoin{Charter: ch.Hash(), Member: from, Store: id, AtMs: statement.TimeMax})},
		{StoreId: id, Rejoin: word(1, statement.Rejoin{Charter: ch.Hash(), Member: 1, Store: id, AtMs: now.UnixMilli()})},
		{Rejoin: &coordpb.Signed{}},
	} {
		b, err := proto.Marshal(line)
		must(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		line := new(coordpb.MemberStatus)
		if proto.Unmarshal(b, line) != nil {
			return
		}
		if m.checkRejoin(from, line, now) == nil && (line.GetStoreId() != id || !bytes.Equal(line.GetRejoin().GetBody(), own.GetBody())) {
			t.Fatalf("store %q is taken in by what member %d has not signed", line.GetStoreId(), from)
		}
		if got := replica.Seat(ch.Members[from].Name + "/" + line.GetStoreId()); got != ch.Members[from].Name {
			t.Fatalf("its store is one of %q", got)
		}
		p := &meshPeers{me: 0, heard: make([]atomic.Pointer[heard], ch.N), now: func() time.Time { return now }}
		p.heard[1].Store(&heard{now, &coordpb.MemberStatus{ClockMs: now.UnixMilli()}})
		p.heard[from].Store(&heard{now, line})
		for _, i := range []int{0, 1} {
			if apart := p.Apart(i, time.Minute); apart&^(1<<from) != 0 {
				t.Fatalf("%v contradict member %d", apart, i)
			}
		}
		p.Apart(from, time.Minute)
	})
}
