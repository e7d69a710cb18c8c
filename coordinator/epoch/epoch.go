package epoch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/seal"
)

// ErrClosed says that an epoch was closed or destroyed: its keys are gone from memory.
var ErrClosed = errors.New("epoch is closed")

// Epoch is one epoch of one member. It is safe for concurrent use. It prints as its type only.
type Epoch struct {
	disk   disk
	root   string
	number uint64
	torn   int64

	sealKey    *seal.PrivateKey
	votePublic identity.Public

	mu       sync.Mutex // guards what follows
	voteKey  *identity.Key
	votes    votes
	promises promises
	unsure   error // why the file may hold a record that promises lacks
	closed   bool
}

// Number is e, strictly increasing over the epochs of a member.
func (e *Epoch) Number() uint64 { return e.number }

// SealKey opens the boxes that were sealed to this epoch. It opens nothing once the epoch is closed or destroyed.
func (e *Epoch) SealKey() *seal.PrivateKey { return e.sealKey }

// SealPublic is what devices seal boxes to.
func (e *Epoch) SealPublic() []byte { return e.sealKey.Public() }

// VotePublic verifies what the epoch signs.
func (e *Epoch) VotePublic() identity.Public { return append(identity.Public(nil), e.votePublic...) }

// Torn is the number of bytes of a torn last record that opening cut off. It was never signed.
func (e *Epoch) Torn() int64 { return e.torn }

// Voted returns the value of the recorded vote of a round.
func (e *Epoch) Voted(round label.Hash) (label.Hash, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	v, ok := e.promises.votes[round]
	return v, ok
}

// Revealed returns the value of the recorded reveal of a round.
func (e *Epoch) Revealed(round label.Hash) (label.Hash, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	v, ok := e.promises.reveals[round]
	return v, ok
}

// Expired reports whether the round is recorded as expired: its vectors are served no more.
func (e *Epoch) Expired(round label.Hash) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.promises.expired[round]
}

// RecordVote makes the promise to vote for value in round and for nothing else. It is durable when RecordVote returns
// nil, which it does at once where the same value is recorded. Another value is *ConflictError.
//
// After any other error of a Record method the record may or may not be on the disk, and the epoch records nothing more
// until it is opened again, which tells.
func (e *Epoch) RecordVote(round, value label.Hash) error {
	return e.record(record{KindVote, round, value})
}

// RecordReveal makes the promise to reveal value and nothing else; the T-sums may be computed when it returns nil. It is
// refused where the round is expired, or a vote or reveal of another value is recorded.
func (e *Epoch) RecordReveal(round, value label.Hash) error {
	return e.record(record{KindReveal, round, value})
}

// RecordExpired makes the promise to reveal nothing of the round from now on, and to serve no vectors of it.
func (e *Epoch) RecordExpired(round label.Hash) error {
	return e.record(record{KindExpired, round, label.Hash{}})
}

func (e *Epoch) record(r record) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.recordLocked(r)
}

func (e *Epoch) recordLocked(r record) error {
	if e.closed {
		return fmt.Errorf("epoch %d: %w", e.number, ErrClosed)
	}
	b := r.encode()
	if _, err := parseRecord(b); err != nil { // what could not be read back is not written
		return fmt.Errorf("epoch %d: %w", e.number, err)
	}
	already, err := e.promises.allows(r)
	if err != nil {
		return fmt.Errorf("epoch %d: %w", e.number, err)
	}
	if already {
		return nil
	}
	if e.unsure != nil {
		return e.unsure
	}
	if err := r.kind.step(e.root, func() error { return e.votes.Append(b) }); err != nil {
		e.unsure = fmt.Errorf("epoch %d: %v of round %v: %w", e.number, r.kind, r.round, err)
		return e.unsure
	}
	e.promises.add(r)
	return nil
}

// BodyError says that a body to be signed does not hold the round or the value that was recorded for it.
type BodyError struct {
	Kind  Kind
	Round label.Hash
	Lacks string // "round" or "value"
}

func (e *BodyError) Error() string {
	return fmt.Sprintf("round %v: body of the %v does not hold its %s", e.Round, e.Kind, e.Lacks)
}

// Vote records the vote, or finds it recorded, and signs body, which must be the statement of exactly this vote.
func (e *Epoch) Vote(round, value label.Hash, body []byte) ([]byte, error) {
	return e.sign(label.StmtVote, record{KindVote, round, value}, body)
}

// Reveal records the reveal, or finds it recorded, and signs body, which must be the statement of exactly this reveal.
func (e *Epoch) Reveal(round, value label.Hash, body []byte) ([]byte, error) {
	return e.sign(label.StmtReveal, record{KindReveal, round, value}, body)
}

// Expire records the expiry, or finds it recorded, and signs body, which says that this member never revealed and never
// will. Where a reveal is recorded that would be a lie: the expiry is recorded all the same, and *ConflictError returned.
func (e *Epoch) Expire(round label.Hash, body []byte) ([]byte, error) {
	return e.sign(label.StmtExpired, record{KindExpired, round, label.Hash{}}, body)
}

func (e *Epoch) sign(stmt string, r record, body []byte) ([]byte, error) {
	if !bytes.Contains(body, r.round[:]) {
		return nil, &BodyError{Kind: r.kind, Round: r.round, Lacks: "round"}
	}
	if r.kind != KindExpired && !bytes.Contains(body, r.value[:]) {
		return nil, &BodyError{Kind: r.kind, Round: r.round, Lacks: "value"}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.recordLocked(r); err != nil {
		return nil, err
	}
	if old, ok := e.promises.reveals[r.round]; ok && r.kind == KindExpired {
		return nil, fmt.Errorf("epoch %d: %w", e.number,
			&ConflictError{Round: r.round, Want: KindExpired, Have: KindReveal, Old: old})
	}
	return e.voteKey.Sign(stmt, body), nil
}

// Receipt signs a receipt. Its own durability, the blob's and the applied index's, is the caller's affair (SA 2.5).
func (e *Epoch) Receipt(body []byte) ([]byte, error) { return e.signFree(label.StmtReceipt, body) }

// Ack signs an ack, which is a function of the log and the stored contributions and needs no record.
func (e *Epoch) Ack(body []byte) ([]byte, error) { return e.signFree(label.StmtAck, body) }

func (e *Epoch) signFree(stmt string, body []byte) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, fmt.Errorf("epoch %d: %w", e.number, ErrClosed)
	}
	return e.voteKey.Sign(stmt, body), nil
}

// Witness is told of every vote, reveal and expiry that the log shows and whose signature by this epoch's key the caller
// has verified. Where the file lacks the record, it was cut or rolled back, or the key is elsewhere too: the keys are
// destroyed and *AlarmError returned.
func (e *Epoch) Witness(kind Kind, round, value label.Hash) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return fmt.Errorf("epoch %d: %w", e.number, ErrClosed)
	}
	if e.promises.holds(record{kind, round, value}) {
		return nil
	}
	e.closeLocked()
	reason := fmt.Errorf("the log holds its %v of %v in round %v, the vote file does not", kind, value, round)
	return e.disk.alarm(e.root, e.number, reason)
}

// Close forgets the keys in memory and gives the files back. The epoch can be opened again.
func (e *Epoch) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closeLocked()
}

func (e *Epoch) closeLocked() error {
	if e.closed {
		return nil
	}
	e.closed = true
	e.sealKey.Erase()
	e.voteKey.Erase()
	return e.votes.Close()
}

// Destroy erases the keys, in memory first, and the folder. It may be repeated, after an error or a crash too.
func (e *Epoch) Destroy() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	closeErr := e.closeLocked()
	if err := e.disk.erase(e.root, e.number, false); err != nil {
		return fmt.Errorf("destroying epoch %d: %w", e.number, err)
	}
	return closeErr
}

// String prints the type and the number only.
func (e *Epoch) String() string { return fmt.Sprintf("epoch.Epoch(%d)", e.number) }

// GoString prints the type and the number only.
func (e *Epoch) GoString() string { return e.String() }

// Format prints the type and the number only, under every verb.
func (e *Epoch) Format(f fmt.State, _ rune) { io.WriteString(f, e.String()) }
