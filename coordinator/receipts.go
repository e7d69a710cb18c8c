package coordinator

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/fault"
)

// receipts remembers what this member signed receipts for, so that no leader can take an Accept back that a device was
// told of (coordinator design, 1.3). The log on disk is guarded by its applied index; a snapshot from a leader replaces
// the log, and is held against this. One file per round, gone with the round.
type receipts struct {
	dir string

	mu     sync.Mutex // guards what follows
	rounds map[label.Hash]*receipted
}

// receipted is one round's file: what round it is, then a record per receipt.
type receipted struct {
	file     *durable.Records
	revealMs int64 // after it the round is open no more
	task     string
	seq      uint64
	index    map[label.Hash]uint64 // of the Accept, by H(header)
}

const (
	receiptsVersion = 2
	receiptsBegin   = 1 + 8 + 8      // version, reveal deadline, seq; then the task's id
	receiptsRecord  = label.Size + 8 // header, index
)

func receiptsOptions() durable.RecordsOptions {
	return durable.RecordsOptions{Tag: label.TagReceipt, MaxRecord: receiptsBegin + statement.NameBytesMax}
}

// openReceipts reads what there is. A damaged file is set aside: it speaks of its round only, and costs the member one
// of two guards against a lying leader, which an operator should hear of.
func openReceipts(dir string, told *alarms) (*receipts, error) {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	r := &receipts{dir: dir, rounds: map[label.Hash]*receipted{}}
	for _, e := range entries {
		id, err := label.ParseHash(e.Name())
		if err != nil {
			continue
		}
		path := filepath.Join(dir, e.Name())
		got, err := readReceipted(path)
		var damaged *durable.CorruptError
		switch {
		case errors.As(err, &damaged), errors.Is(err, errReceipts):
			told.raise(AlarmReceipts, err, "round", id.String())
			if err := durable.Rename(path, path+".damaged"); err != nil {
				return nil, errors.Join(err, r.close())
			}
		case err != nil:
			return nil, errors.Join(err, r.close())
		case got.revealMs == 0: // nothing but a torn beginning
			if err := errors.Join(got.file.Close(), durable.Remove(path)); err != nil {
				return nil, errors.Join(err, r.close())
			}
		default:
			r.rounds[id] = got
		}
	}
	return r, nil
}

var errReceipts = errors.New("not a list of receipts")

func readReceipted(path string) (_ *receipted, err error) {
	file, records, err := durable.OpenRecords(path, receiptsOptions())
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	got, err := parseReceipted(records)
	if err != nil {
		return nil, err
	}
	got.file = file
	return got, nil
}

// CheckReceipts reads a round's file of receipts, and changes nothing.
func CheckReceipts(path string) error {
	records, err := durable.ReadRecords(path)
	if err == nil {
		_, err = parseReceipted(records)
	}
	return err
}

func parseReceipted(records [][]byte) (*receipted, error) {
	got := &receipted{index: map[label.Hash]uint64{}}
	for i, b := range records {
		switch {
		case i == 0 && len(b) > receiptsBegin && b[0] == receiptsVersion:
			got.revealMs, got.seq, got.task = int64(binary.BigEndian.Uint64(b[1:])), binary.BigEndian.Uint64(b[9:]), string(b[receiptsBegin:])
		case i > 0 && len(b) == receiptsRecord:
			got.index[label.Hash(b[:label.Size])] = binary.BigEndian.Uint64(b[label.Size:])
		default:
			return nil, fmt.Errorf("%w: record %d has %d bytes", errReceipts, i, len(b))
		}
	}
	return got, nil
}

// note makes it durable that this member signs a receipt for a contribution to round id whose Accept stands at index.
// Another index than before is refused: the log has changed under this member.
func (r *receipts) note(id label.Hash, rc *statement.RoundConfig, header label.Hash, index uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.rounds[id]
	if got == nil {
		var err error
		if got, err = readReceipted(filepath.Join(r.dir, id.String())); err != nil {
			return err
		}
		if got.revealMs == 0 {
			begin := binary.BigEndian.AppendUint64([]byte{receiptsVersion}, uint64(rc.RevealMs))
			begin = append(binary.BigEndian.AppendUint64(begin, rc.Seq), rc.Task...)
			if err := got.file.Append(begin); err != nil {
				return errors.Join(err, got.file.Close())
			}
			got.revealMs, got.task, got.seq = rc.RevealMs, rc.Task, rc.Seq
		}
		r.rounds[id] = got
	}
	switch old, ok := got.index[header]; {
	case ok && old == index:
		return nil
	case ok:
		return alarmf("round %s: the log holds at index %d an Accept that this member receipted at index %d", id, index, old)
	}
	record := binary.BigEndian.AppendUint64(bytes.Clone(header[:]), index)
	if err := fault.Step("receipt", r.dir, func() error { return got.file.Append(record) }); err != nil {
		delete(r.rounds, id) // whether it is in the file only the file knows: the next try reads it again
		return errors.Join(err, got.file.Close())
	}
	got.index[header] = index
	return nil
}

// allow refuses a state that has applied as much as this member's receipts rest on and lacks one of their Accepts, or
// has it elsewhere, while its round is open by this member's clock. A round that the state keeps in short only, with the
// certificate of its end, is believed, and so is one that it keeps no more, of which there are many in the hours that a
// round may take to be revealed: q members signed a later one of the task, and none that is honest did before the end of
// this one.
func (r *receipts) allow(next *round.Machine, nowMs int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, got := range r.rounds {
		if nowMs > got.revealMs {
			continue
		}
		v, known := next.Round(id)
		held := map[label.Hash]uint64{}
		for _, k := range next.Candidates(id) {
			held[k.Header] = k.Index
		}
		if known && len(held) == 0 && v.Accepted > 0 && (v.Phase == round.Published || v.Death == round.Certified) {
			continue
		}
		if !known && next.Certified(got.task) > got.seq {
			continue
		}
		for header, index := range got.index {
			if index > next.Applied() {
				continue // the log goes on to it
			}
			if at, ok := held[header]; !ok || at != index {
				return alarmf("the state of index %d lacks, in round %s, the Accept of index %d that this member signed a receipt for", next.Applied(), id, index)
			}
		}
	}
	return nil
}

// list has the rounds that receipts were signed in.
func (r *receipts) list() []label.Hash {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]label.Hash, 0, len(r.rounds))
	for id := range r.rounds {
		out = append(out, id)
	}
	return out
}

// forget drops a round that has ended.
func (r *receipts) forget(id label.Hash) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.rounds[id]
	if got == nil {
		return nil
	}
	path := filepath.Join(r.dir, id.String())
	if err := errors.Join(got.file.Close(), durable.Remove(path), durable.Remove(path+".lock")); err != nil {
		return err
	}
	delete(r.rounds, id)
	return nil
}

func (r *receipts) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, got := range r.rounds {
		errs = append(errs, got.file.Close())
	}
	clear(r.rounds)
	return errors.Join(errs...)
}
