package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/crypto/pin"
)

// Exit statuses.
const (
	OK      = 0
	Failed  = 1 // the object or the server said no, or it ended badly
	Connect = 2 // no connection, or not the expected peer
	Timeout = 3
	Usage   = 4 // bad arguments
	Bug     = 5 // this program is wrong
)

// Error is an error with what a script and a person need: an exit status, a stable word, and what to do next.
type Error struct {
	Code int
	Word string // lower-case words joined by '_'; scripts compare it
	Hint string // what to do next; may be empty
	Err  error
	Data any // what is known all the same, for the envelope; usually nil
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Fail makes an error of exit status 1 with a word of its own.
func Fail(word, hint, format string, args ...any) error {
	return &Error{Code: Failed, Word: word, Hint: hint, Err: fmt.Errorf(format, args...)}
}

// BadUsage makes an error of exit status 4.
func BadUsage(hint, format string, args ...any) error {
	return &Error{Code: Usage, Word: "bad_arguments", Hint: hint, Err: fmt.Errorf(format, args...)}
}

// WithHint keeps what Classify says of err and adds, or replaces, what to do next. A nil err stays nil.
func WithHint(err error, hint string) error {
	if err == nil {
		return nil
	}
	e := *Classify(err)
	e.Err, e.Hint = err, hint
	return &e
}

// statuses maps every gRPC code to an exit status and what to do next: the only such table.
var statuses = map[codes.Code]struct {
	code       int
	word, hint string
}{
	codes.OK:                 {OK, "", ""},
	codes.Canceled:           {Failed, "interrupted", ""},
	codes.Unknown:            {Failed, "server_error", "look at the member's log"},
	codes.InvalidArgument:    {Usage, "bad_arguments", "compare the arguments with --help; an older member may not know a newer request"},
	codes.DeadlineExceeded:   {Timeout, "timeout", "try again, or give a longer --timeout"},
	codes.NotFound:           {Failed, "not_found", "list what there is; another member may still keep it (--member)"},
	codes.AlreadyExists:      {Failed, "already_exists", ""},
	codes.PermissionDenied:   {Connect, "permission_denied", "ask the member's operator for a new token"},
	codes.ResourceExhausted:  {Failed, "busy", "the member is busy: try again later"},
	codes.FailedPrecondition: {Failed, "failed_precondition", "compare the charter files of both sides"},
	codes.Aborted:            {Failed, "aborted", "the round has moved on: try again in the next one"},
	codes.OutOfRange:         {Failed, "out_of_range", ""},
	codes.Unimplemented:      {Failed, "unimplemented", "the member runs another version: compare `--version` on both sides"},
	codes.Internal:           {Failed, "server_error", "look at the member's log"},
	codes.Unavailable:        {Connect, "unavailable", "is the member running, and is its address in the charter reachable from here?"},
	codes.DataLoss:           {Failed, "data_loss", "the member's copy is damaged: ask another (--member)"},
	codes.Unauthenticated:    {Connect, "unauthenticated", "compare the charter files of both sides"},
}

// Classify gives any error its exit status, word and hint. It returns nil for nil.
func Classify(err error) *Error {
	var e *Error
	var peer *pin.PeerError
	var op *net.OpError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		out := *e
		out.Err = err
		return &out
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return &Error{Code: Timeout, Word: "timeout", Hint: statuses[codes.DeadlineExceeded].hint, Err: err}
	case errors.Is(err, context.Canceled):
		return &Error{Code: Failed, Word: "interrupted", Hint: "", Err: err}
	case errors.As(err, &peer):
		return &Error{Code: Connect, Word: "wrong_peer", Hint: "the address answers with another key than the charter's: check the address, then the charter", Err: err}
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.OK {
		if at, ok := statuses[s.Code()]; ok {
			return &Error{Code: at.code, Word: at.word, Hint: at.hint, Err: err}
		}
		return &Error{Code: Failed, Word: "server_error", Hint: statuses[codes.Unknown].hint, Err: err}
	}
	switch {
	case errors.As(err, &op):
		return &Error{Code: Connect, Word: "unavailable", Hint: statuses[codes.Unavailable].hint, Err: err}
	case errors.Is(err, fs.ErrNotExist):
		return &Error{Code: Failed, Word: "not_found", Hint: "check the path", Err: err}
	case errors.Is(err, fs.ErrPermission):
		return &Error{Code: Failed, Word: "permission_denied", Hint: "run as the user who owns the folder", Err: err}
	}
	return &Error{Code: Failed, Word: "failed", Hint: "", Err: err}
}
