package round

// Code says what became of one item of a command. Codes are stable: peers and tools read them.
type Code string

// Codes of an Outcome. OK and Duplicate mean that the state holds the item now.
const (
	OK        Code = "ok"
	Duplicate Code = "duplicate"

	// The command itself.
	Malformed      Code = "malformed"       // breaks a bound or a static rule
	UnknownCommand Code = "unknown_command" // of a later version: a member that meets it in the log stops
	StaleIndex     Code = "stale_index"     // at or below the applied index
	StaleTick      Code = "stale_tick"      // not later than the log time
	BeyondHorizon  Code = "beyond_horizon"  // a tick later than the key packages of f+1 members reach

	// What a statement refers to.
	BadSignature  Code = "bad_signature"
	UnknownRound  Code = "unknown_round"
	UnknownDevice Code = "unknown_device"
	NotMember     Code = "not_member"
	NotListed     Code = "not_listed" // the round lists no key package of this member
	Conflict      Code = "conflict"   // this member, device or token said something else before
	TooEarly      Code = "too_early"
	TooLate       Code = "too_late" // the round is past the phase that the statement belongs to

	// Key packages and certificates.
	StaleEpoch   Code = "stale_epoch" // epochs increase strictly
	Outdated     Code = "outdated"    // expired at the log time
	UnknownEpoch Code = "unknown_epoch"
	TokenUsed    Code = "token_used"
	DeviceLimit  Code = "device_limit"
	OtherCharter Code = "other_charter"

	// Proposals.
	RoundLive       Code = "round_live" // the round before has not ended
	BadSeq          Code = "bad_seq"
	BadStart        Code = "bad_start"
	BadConfig       Code = "bad_config" // not what the charter prescribes
	StaleKeyPackage Code = "stale_key_package"

	// Accepts.
	RoundNotOpen   Code = "round_not_open"
	RoundClosed    Code = "round_closed"
	RoundFull      Code = "round_full"
	NoQuota        Code = "no_quota"
	StartUsed      Code = "start_used" // the device uploaded from this start, and no death certificate says it was unopened
	SecondHeader   Code = "second_header"
	BadSize        Code = "bad_size"
	BadHolders     Code = "bad_holders"
	WrongAuthority Code = "wrong_authority"

	// Closes, Acks, Votes, Reveals.
	BadCandidates Code = "bad_candidates" // H(candidates) is not the own list's
	BadActive     Code = "bad_active"     // M is too small or not listed
	UnknownClose  Code = "unknown_close"
	NotActive     Code = "not_active"    // not in the Close's M
	NotCertified  Code = "not_certified" // no SetCert yet
	OtherSet      Code = "other_set"
	BadSubsets    Code = "bad_subsets"
)

// Outcome is what became of one item of a command: one for most commands, one per item for a batch of Accepts.
type Outcome struct {
	Code   Code
	Detail string
	Index  uint64 // for an Accept that the state holds: the log index of its record
}

// Held reports whether the state holds the item: it was added now or before.
func (o Outcome) Held() bool { return o.Code == OK || o.Code == Duplicate }

func refuse(code Code, detail string) Outcome {
	if len(detail) > DetailBytesMax {
		detail = detail[:DetailBytesMax]
	}
	return Outcome{Code: code, Detail: detail}
}
