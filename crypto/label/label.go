package label

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
)

// Version names the protocol in every label.
const Version = "ruche/secagg/v1"

// Tags of hashes.
const (
	TagCommit       = "commit"     // one seed of one subset, SA 2.3 step 3
	TagContribution = "y"          // a masked vector
	TagBoxes        = "boxes"      // the sealed boxes of one contribution
	TagBits         = "bits"       // the masked bits of the norm check, SA 2.8
	TagHeader       = "header"     // a contribution's signed header
	TagBlob         = "blob"       // a contribution's file: header, boxes, vector
	TagRoundConfig  = "round"      // H(RC), the round id
	TagCandidates   = "candidates" // the accepted headers a Close names
	TagClose        = "close"      // one Close
	TagSet          = "set"        // the contributor set S
	TagDead         = "dead"       // the value of a vote for DEAD
	TagSum          = "sum"        // the sum of y over S
	TagTSum         = "tsum"       // the sum of one subset's masks over S
	TagUnmasked     = "unmasked"   // X, the opened sum
	TagModel        = "model"      // a result that devices load
	TagLayout       = "layout"     // what a vector means
	TagTask         = "task"       // a task of the charter
	TagRecipe       = "recipe"     // how a device trains
	TagCharter      = "charter"    // the consortium's rules
	TagCard         = "card"       // one organisation's entry in a charter
	TagKeyPackage   = "keypackage" // an epoch's public keys
	TagDeviceCert   = "devicecert" // an enrolment certificate
	TagDevice       = "device"     // device id from its public key
	TagToken        = "token"      // an enrolment token
	TagStart        = "start"      // what a device trained from
	TagVoteFile     = "votes"      // the hash chain of an epoch's vote file
	TagRecord       = "record"     // the hash chain of other append-only files
	TagNote         = "note"       // the checksum of a small file
	TagSnapshot     = "snapshot"   // a replicated state
	TagCommand      = "command"    // a proposed log entry
	TagErasure      = "erasure"    // a deleted epoch
	TagJournal      = "journal"    // the device's private store
	TagStaged       = "staged"     // a contribution staged on the device
	TagRotation     = "rotation"   // the public rotation of one round
	TagTrainSeed    = "train"      // the data order of one device in one round
	TagReceipt      = "receipt"    // a signed receipt
	TagResult       = "result"     // a signed result
	TagCell         = "cell"       // the cell of one device
	TagPersonal     = "personal"   // the private adapter
	TagBase         = "base"       // the base model's weights
	TagEpochFile    = "epoch"      // the hash chain of an epoch's key file
	TagAckShares    = "shares"     // the check shares inside an Ack
)

// Types of signed statements: the <type> of Signing.
const (
	StmtCharter      = "charter"
	StmtCard         = "card"
	StmtKeyPackage   = "keypackage"
	StmtRoundConfig  = "roundconfig"
	StmtDeviceCert   = "devicecert"
	StmtContribution = "contribution"
	StmtReceipt      = "receipt"
	StmtAck          = "ack"
	StmtVote         = "vote"
	StmtExpired      = "expired"
	StmtReveal       = "reveal"
	StmtResult       = "result"
	StmtAbort        = "abort"
	StmtErasure      = "erasure"
	StmtRejoin       = "rejoin"
)

// Purposes of seed expansion, for package prg.
const (
	PurposeMask        = "mask"        // masks of a contribution
	PurposeBits        = "bits"        // masks of the norm check's bits
	PurposeZero        = "zero"        // zero-sharing of check shares
	PurposeRotation    = "rotation"    // signs and dealing of the public rotation
	PurposeOrthonormal = "orthonormal" // a frozen LoRA factor
	PurposeData        = "data"        // order of the training data
)

const (
	// PRGSalt is the HKDF salt of every seed expansion.
	PRGSalt = Version + "/prg"
	// BoxInfo begins the HPKE info of every box.
	BoxInfo = Version + "/box"
)

// New returns the streaming form of Sum.
func New(tag string) hash.Hash {
	h := sha256.New()
	h.Write([]byte(Version + "/" + tag + "\x00"))
	return h
}

// Sum is H(tag, m) of SA 2.1, with m the concatenation of parts.
func Sum(tag string, parts ...[]byte) Hash {
	h := New(tag)
	for _, p := range parts {
		h.Write(p)
	}
	var out Hash
	h.Sum(out[:0])
	return out
}

// Signing is the signature input of SA 2.1: what every key signs for a statement of type typ with the exact bytes body.
func Signing(typ string, body []byte) []byte {
	digest := sha256.Sum256(body)
	out := make([]byte, 0, len(Version)+1+len(typ)+1+len(digest))
	out = append(out, Version...)
	out = append(out, '/')
	out = append(out, typ...)
	out = append(out, 0)
	return append(out, digest[:]...)
}

// Context is the FIPS 204 context string of a statement type.
func Context(typ string) []byte { return []byte(Version + "/" + typ) }

// Size is the length of a Hash in bytes.
const Size = sha256.Size

// Hash is a SHA-256 value. It prints as lower-case hexadecimal.
type Hash [Size]byte

// String returns 64 lower-case hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether h is the zero value, which no input is known to hash to.
func (h Hash) IsZero() bool { return h == Hash{} }

// MarshalText writes String's form.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (h *Hash) UnmarshalText(text []byte) error {
	v, err := ParseHash(string(text))
	if err != nil {
		return err
	}
	*h = v
	return nil
}

// ParseHash reads String's form and no other: a hash has one spelling.
func ParseHash(s string) (Hash, error) {
	if len(s) != 2*Size {
		return Hash{}, fmt.Errorf("hash has %d characters, want %d", len(s), 2*Size)
	}
	var h Hash
	for i := range h {
		hi, lo := nibble(s[2*i]), nibble(s[2*i+1])
		if hi > 15 || lo > 15 {
			return Hash{}, fmt.Errorf("hash is not lower-case hexadecimal at character %d", 2*i)
		}
		h[i] = hi<<4 | lo
	}
	return h, nil
}

func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// HashFromBytes copies b, which must be Size long.
func HashFromBytes(b []byte) (Hash, error) {
	if len(b) != Size {
		return Hash{}, fmt.Errorf("hash has %d bytes, want %d", len(b), Size)
	}
	return Hash(b), nil
}
