package intake

import "fmt"

// Codes of a Refusal: stable words, counted in rounds and shown to devices and operators. Beside them a refusal carries
// the words of round.Code, for what the log would not accept.
const (
	CodeUnknownRound  = "unknown_round"
	CodeBadHeader     = "bad_header"
	CodeUnknownDevice = "unknown_device"
	CodeBadSignature  = "bad_signature"
	CodeWrongLength   = "wrong_length"
	CodeBadBoxes      = "bad_boxes"
	CodeInvalidBox    = "invalid_box"
	CodeCorrupt       = "corrupt"
	CodeFull          = "disk_full"
	CodeBusy          = "busy"
	CodeSlow          = "too_slow"
	CodeTooMany       = "too_many_headers" // of one device in one round
	CodeNotListed     = "not_listed"
	CodeUnavailable   = "too_few_members"
	CodeNotRead       = "log_not_read" // of a member that has started again and does not know yet what it knew before
)

// Refusal says why a contribution is not taken. It names no device.
type Refusal struct {
	Code   string
	Detail string
}

func (r *Refusal) Error() string { return r.Code + ": " + r.Detail }

func refuse(code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Detail: fmt.Sprintf(format, args...)}
}
