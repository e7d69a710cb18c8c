package participant

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/fault"
)

// Kinds of ledger entries.
const (
	KindContribution = "contribution" // written before the first byte leaves
	KindAck          = "ack"          // n-f receipts are here, verified
	KindEnd          = "end"          // the round's end, proven by its certificate
)

// Entry is one line of the ledger: what left, when, to whom, and what became of it. An owner reads it; it holds no secret.
type Entry struct {
	Time     time.Time  `json:"time"`
	Kind     string     `json:"kind"`
	Task     string     `json:"task"`
	Round    label.Hash `json:"round"`
	Seq      uint64     `json:"seq"`
	Start    label.Hash `json:"start"`
	Header   label.Hash `json:"header"`
	Bytes    int        `json:"bytes,omitempty"`    // contribution: bytes that leave
	What     string     `json:"what,omitempty"`     // contribution: in words
	To       []string   `json:"to,omitempty"`       // contribution: the consortium's members that get a box; ack: who signed receipts
	Receipts [][]byte   `json:"receipts,omitempty"` // ack: marshalled, to be shown later
	End      string     `json:"end,omitempty"`      // end: EndPublished, EndDead or EndExpired
}

// step is the durable write of an entry of this kind.
func (e *Entry) step(path string, write func() error) error {
	switch e.Kind {
	case KindContribution:
		return fault.Step("debit", path, write)
	case KindAck:
		return fault.Step("ack", path, write)
	}
	return fault.Step("end", path, write)
}

// Ledger is the append-only, hash-chained record of what left the device.
type Ledger struct {
	path    string
	records *durable.Records // nil after a failed write, until the file is opened again
	entries []Entry
}

// OpenLedger opens or makes the ledger at path. A damaged one is an error: a device that cannot know what it sent
// must not send.
func OpenLedger(path string) (*Ledger, error) {
	l := &Ledger{path: path}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Ledger) open() error {
	records, raw, err := durable.OpenRecords(l.path, durable.RecordsOptions{Tag: label.TagRecord, MaxRecord: entryBytesMax})
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	entries, err := parseEntries(raw)
	if err != nil {
		records.Close()
		return fmt.Errorf("ledger %s: %w", l.path, err)
	}
	l.records, l.entries = records, entries
	return nil
}

// ReadLedger reads the entries while another process may be writing.
func ReadLedger(path string) ([]Entry, error) {
	raw, err := durable.ReadRecords(path)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return parseEntries(raw)
}

func parseEntries(raw [][]byte) ([]Entry, error) {
	out := make([]Entry, len(raw))
	for i, b := range raw {
		if err := json.Unmarshal(b, &out[i]); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
	}
	return out, nil
}

// Append adds an entry; it is on disk when Append returns. After an error only the file knows whether it is in it, so the
// file is read again, now or with the next call, which then adds nothing: its caller did not know what it holds.
func (l *Ledger) Append(e Entry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if l.records == nil {
		if err := l.open(); err != nil {
			return err
		}
		return errors.New("ledger: read again after a failed write; nothing was added")
	}
	if err := e.step(l.path, func() error { return l.records.Append(b) }); err != nil {
		failed := l.records
		l.records = nil
		return fmt.Errorf("ledger: %w", errors.Join(err, failed.Close(), l.open()))
	}
	l.entries = append(l.entries, e)
	return nil
}

// Entries returns all entries, oldest first.
func (l *Ledger) Entries() []Entry { return l.entries }

// Close closes the file.
func (l *Ledger) Close() error {
	if l.records == nil {
		return nil
	}
	return l.records.Close()
}

// upload is what the ledger says of one round's contribution.
type upload struct {
	entry Entry
	acked bool
	end   string
}

// uploads gathers the contributions by round, oldest first.
func (l *Ledger) uploads() []*upload {
	var out []*upload
	by := map[label.Hash]*upload{}
	for _, e := range l.entries {
		switch u := by[e.Round]; {
		case e.Kind == KindContribution && u == nil:
			u = &upload{entry: e}
			by[e.Round] = u
			out = append(out, u)
		case u == nil:
		case e.Kind == KindAck:
			u.acked = true
		case e.Kind == KindEnd:
			u.end = e.End
		}
	}
	return out
}

// upload is what the ledger says of a round's contribution; nil if it has none.
func (l *Ledger) upload(round label.Hash) *upload {
	for _, u := range l.uploads() {
		if u.entry.Round == round {
			return u
		}
	}
	return nil
}

// blocks returns the earlier upload that forbids another one from the same start, if any: every upload does, unless a
// death certificate proves that its round opened nothing (SA 2.3, device, rule 1c).
func (l *Ledger) blocks(start, round label.Hash) *upload {
	for _, u := range l.uploads() {
		if u.entry.Start == start && u.entry.Round != round && u.end != EndDead {
			return u
		}
	}
	return nil
}

// Ends of a round as the ledger names them.
const (
	EndPublished = "published"
	EndDead      = "dead"    // with a DeadCert: the participation is given back
	EndExpired   = "expired" // counted as opened
)
