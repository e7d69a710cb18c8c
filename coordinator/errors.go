package coordinator

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ruche-federation/ruche/coordinator/intake"
	"github.com/ruche-federation/ruche/coordinator/round"
)

// codeOf maps every word that a refusal may carry to a gRPC code: the one place where domain errors become codes.
// ABORTED: not this round any more. UNAVAILABLE: another member, or later. RESOURCE_EXHAUSTED: later, it says when.
// FAILED_PRECONDITION: something has to change first. INVALID_ARGUMENT: these bytes never.
var codeOf = map[string]codes.Code{
	intake.CodeUnknownRound:  codes.Unavailable, // this member may be behind
	intake.CodeRoundClosed:   codes.Aborted,
	intake.CodeBadHeader:     codes.InvalidArgument,
	intake.CodeUnknownDevice: codes.Unavailable, // its certificate may not be applied here yet
	intake.CodeBadSignature:  codes.InvalidArgument,
	intake.CodeWrongLength:   codes.InvalidArgument,
	intake.CodeBadBoxes:      codes.InvalidArgument,
	intake.CodeInvalidBox:    codes.InvalidArgument,
	intake.CodeCorrupt:       codes.DataLoss,
	intake.CodeFull:          codes.ResourceExhausted,
	intake.CodeBusy:          codes.ResourceExhausted,
	intake.CodeNotListed:     codes.Unavailable,
	intake.CodeUnavailable:   codes.Unavailable,

	string(round.RoundNotOpen):   codes.Unavailable,
	string(round.RoundFull):      codes.Aborted,
	string(round.NoQuota):        codes.PermissionDenied,
	string(round.StartUsed):      codes.Aborted,
	string(round.SecondHeader):   codes.Aborted,
	string(round.BadSize):        codes.InvalidArgument,
	string(round.BadHolders):     codes.Internal,
	string(round.WrongAuthority): codes.InvalidArgument,
	string(round.TokenUsed):      codes.PermissionDenied,
	string(round.DeviceLimit):    codes.ResourceExhausted,
	string(round.Conflict):       codes.AlreadyExists,
	string(round.Outdated):       codes.FailedPrecondition,
	string(round.Malformed):      codes.InvalidArgument,
	string(round.TooLate):        codes.Aborted,
}

// retryAfter is what a member that sheds load asks for.
const retryAfter = 2 * time.Second

// statusOf turns an error of the member into what the other side sees.
func statusOf(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return status.FromContextError(err).Err()
	}
	var r *intake.Refusal
	if !errors.As(err, &r) {
		if s, ok := status.FromError(err); ok {
			return s.Err()
		}
		return status.Error(codes.Unavailable, err.Error())
	}
	code, ok := codeOf[r.Code]
	if !ok {
		code = codes.Internal
	}
	s := status.New(code, r.Error())
	if code == codes.ResourceExhausted {
		if with, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)}); err == nil {
			s = with
		}
	}
	return s.Err()
}
