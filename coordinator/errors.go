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
	"github.com/ruche-federation/ruche/coordinator/replica"
	"github.com/ruche-federation/ruche/coordinator/round"
)

// codeOf maps every word that a refusal may carry to a gRPC code: the one place where domain errors become codes.
// ABORTED: not this round any more. UNAVAILABLE: another member, or later. RESOURCE_EXHAUSTED: later, it says when.
// FAILED_PRECONDITION: something has to change first. INVALID_ARGUMENT: these bytes never.
var codeOf = map[string]codes.Code{
	intake.CodeUnknownRound:  codes.Unavailable, // this member may be behind
	intake.CodeBadHeader:     codes.InvalidArgument,
	intake.CodeUnknownDevice: codes.Unavailable, // its certificate may not be applied here yet
	intake.CodeBadSignature:  codes.InvalidArgument,
	intake.CodeWrongLength:   codes.InvalidArgument,
	intake.CodeBadBoxes:      codes.InvalidArgument,
	intake.CodeInvalidBox:    codes.InvalidArgument,
	intake.CodeCorrupt:       codes.DataLoss,
	intake.CodeFull:          codes.ResourceExhausted,
	intake.CodeBusy:          codes.ResourceExhausted,
	intake.CodeSlow:          codes.DeadlineExceeded,
	intake.CodeTooMany:       codes.Aborted,
	intake.CodeNotListed:     codes.Unavailable,
	intake.CodeUnavailable:   codes.Unavailable,
	intake.CodeNotRead:       codes.Unavailable,

	string(round.OK):              codes.OK,
	string(round.Duplicate):       codes.OK,
	string(round.Malformed):       codes.InvalidArgument,
	string(round.UnknownCommand):  codes.Unimplemented,
	string(round.StaleIndex):      codes.Internal,
	string(round.StaleTick):       codes.FailedPrecondition,
	string(round.BeyondHorizon):   codes.FailedPrecondition,
	string(round.NotMember):       codes.PermissionDenied,
	string(round.Conflict):        codes.AlreadyExists,
	string(round.TooEarly):        codes.FailedPrecondition,
	string(round.TooLate):         codes.Aborted,
	string(round.StaleEpoch):      codes.FailedPrecondition,
	string(round.Outdated):        codes.FailedPrecondition,
	string(round.UnknownEpoch):    codes.FailedPrecondition,
	string(round.TokenUsed):       codes.PermissionDenied,
	string(round.DeviceLimit):     codes.ResourceExhausted,
	string(round.OtherCharter):    codes.FailedPrecondition,
	string(round.RoundLive):       codes.FailedPrecondition,
	string(round.BadSeq):          codes.FailedPrecondition,
	string(round.BadStart):        codes.FailedPrecondition,
	string(round.BadConfig):       codes.InvalidArgument,
	string(round.StaleKeyPackage): codes.FailedPrecondition,
	string(round.RoundNotOpen):    codes.Unavailable,
	string(round.RoundClosed):     codes.Aborted,
	string(round.RoundFull):       codes.Aborted,
	string(round.NoQuota):         codes.PermissionDenied,
	string(round.StartUsed):       codes.Aborted,
	string(round.SecondHeader):    codes.Aborted,
	string(round.BadSize):         codes.InvalidArgument,
	string(round.BadHolders):      codes.Internal,
	string(round.WrongAuthority):  codes.InvalidArgument,
	string(round.BadCandidates):   codes.FailedPrecondition,
	string(round.BadActive):       codes.FailedPrecondition,
	string(round.UnknownClose):    codes.FailedPrecondition,
	string(round.NotActive):       codes.FailedPrecondition,
	string(round.NotCertified):    codes.FailedPrecondition,
	string(round.OtherSet):        codes.FailedPrecondition,
	string(round.BadSubsets):      codes.InvalidArgument,
}

// retryAfter is what a member that sheds load asks for.
const retryAfter = 2 * time.Second

// statusOf turns an error of the member into what the other side sees: a refusal with its code, or that this member
// cannot do it now. The words of other errors stay here: they hold paths, or what a peer chose to say.
func (m *Member) statusOf(err error) error {
	var r *intake.Refusal
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return status.FromContextError(err).Err()
	case errors.As(err, &r):
		return refusalStatus(r)
	case errors.Is(err, replica.ErrTooLarge):
		return status.Error(codes.InvalidArgument, "the command is too large for the log")
	case errors.Is(err, replica.ErrNotLeader):
		return status.Error(codes.Unavailable, "another member leads")
	}
	m.cfg.Logger.Warn("a call failed", "error", err)
	return status.Error(codes.Unavailable, "this member cannot do that now; ask another, or later")
}

func refusalStatus(r *intake.Refusal) error {
	code, ok := codeOf[r.Code]
	if !ok || code == codes.OK {
		code = codes.Internal
	}
	return withRetry(status.New(code, r.Error()))
}

// withRetry says when to come back: RESOURCE_EXHAUSTED without it would mean never.
func withRetry(s *status.Status) error {
	if s.Code() == codes.ResourceExhausted {
		if with, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)}); err == nil {
			s = with
		}
	}
	return s.Err()
}

// tooMany refuses a call above a bound of this member.
func tooMany(what string) error {
	return withRetry(status.Newf(codes.ResourceExhausted, "too many %s at once here; come back a little later", what))
}
