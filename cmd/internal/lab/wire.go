package lab

import (
	"context"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
)

func insecureDial(l *bufconn.Listener) []grpc.DialOption {
	return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) })}
}

// unary looks at what leaves a member in answer to one message.
func (p *process) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if p.dead.Load() {
		return nil, errDied
	}
	answer, err := next(ctx, req)
	if p.dead.Load() {
		return nil, errDied // it died before it could answer
	}
	if liar := p.seat.Liar(); liar != nil {
		answers := liar.manner().Answers
		if answers == nil || err != nil {
			return answer, err
		}
		return answers(methodOf(info.FullMethod), answer)
	}
	p.heard(err)
	switch a := answer.(type) {
	case *coordpb.MemberStatement:
		if err == nil && methodOf(info.FullMethod) == "Receipt" {
			p.seat.f.judgeReceipt(a)
		}
	case *coordpb.UploadResponse:
		if err == nil {
			p.seat.f.judgeReceipt(a.GetReceipts()...)
		}
	}
	return answer, err
}

// stream looks at every message of a stream.
func (p *process) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if p.dead.Load() {
		return errDied
	}
	err := next(srv, &watched{ServerStream: s, p: p, method: methodOf(info.FullMethod)})
	if p.dead.Load() {
		return errDied
	}
	p.heard(err)
	return err
}

func methodOf(full string) string { return full[strings.LastIndexByte(full, '/')+1:] }

// heard looks for secrets in an error that is about to leave the member.
func (p *process) heard(err error) {
	if err == nil {
		return
	}
	if form := p.seat.f.secrets.printed(err.Error()); form != "" {
		p.seat.f.fail("a secret stands in an error of member %d (%s)", p.seat.Index, form)
	}
}

// watched is a server's end of a stream.
type watched struct {
	grpc.ServerStream
	p      *process
	method string
	sum    *coordpb.FetchSumRequest
	begun  bool
	taped  *Taped
}

// RecvMsg sees what arrives.
func (w *watched) RecvMsg(m any) error {
	if err := w.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	switch m := m.(type) {
	case *coordpb.FetchSumRequest:
		w.sum = m
	case *coordpb.UploadRequest:
		if w.method == "Upload" {
			if m.GetOpen() != nil {
				w.p.seat.f.judgeUpload(m.GetOpen())
			}
			w.taped = w.p.seat.f.tape.hear(w.taped, m)
		}
	}
	return nil
}

// SendMsg sees what is about to leave.
func (w *watched) SendMsg(m any) error {
	if w.p.dead.Load() {
		return errDied
	}
	if liar := w.p.seat.Liar(); liar != nil {
		if answers := liar.manner().Answers; answers != nil {
			var err error
			if m, err = answers(w.method, m); err != nil {
				return err
			}
		}
		return w.ServerStream.SendMsg(m)
	}
	if w.sum != nil && !w.begun {
		w.begun = true
		w.p.seat.f.judgeSum(w.p, w.sum)
	}
	if a, ok := m.(*coordpb.UploadResponse); ok {
		w.p.seat.f.judgeReceipt(a.GetReceipts()...)
	}
	return w.ServerStream.SendMsg(m)
}
