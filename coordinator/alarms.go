package coordinator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
)

// Alarm is something that time does not mend: a person has to look. It is kept until a person removes the file.
type Alarm struct {
	Time   time.Time `json:"time"`
	What   string    `json:"what"`   // a stable word, one of Alarm...
	Detail string    `json:"detail"` // the error's text
}

// What alarms are about.
const (
	AlarmEpoch    = "epoch_damaged"    // an epoch's folder was damaged; its keys are destroyed
	AlarmWitness  = "own_word_unknown" // the log holds a vote, reveal or expiry of ours that the vote file lacks
	AlarmReceipts = "receipts_damaged" // a round's list of receipts was damaged
	AlarmState    = "state_refused"    // a snapshot contradicts what this member knows
	AlarmDuty     = "duty_refused"     // the log asks for what this member must not sign
	AlarmClock    = "clock_wrong"      // the other members' clocks contradict this one
	AlarmStopped  = "stopped"          // the member stopped by itself
	AlarmDisk     = "disk_full"        // the log found no room for a minute
	AlarmList     = "alarms_damaged"   // the list of alarms was damaged: earlier ones are in the file that was set aside
)

const alarmsFile = "alarms"

// alarms keeps what was said, each once: a duty that is refused every half minute is one alarm.
type alarms struct {
	path   string
	logger *slog.Logger
	now    func() time.Time

	mu     sync.Mutex       // guards what follows
	file   *durable.Records // nil where it could not be opened again
	closed bool
	seen   map[string]bool
	told   map[string]time.Time // when the log said what
}

func alarmsOptions() durable.RecordsOptions {
	return durable.RecordsOptions{Tag: label.TagRecord, MaxRecord: 512 + 6*alarmBytes}
}

// openAlarms opens the list. A damaged one is set aside, and that is the first alarm of the next.
func openAlarms(dir string, now func() time.Time, logger *slog.Logger) (*alarms, error) {
	a := &alarms{path: filepath.Join(dir, alarmsFile), logger: logger, now: now, seen: map[string]bool{}, told: map[string]time.Time{}}
	damaged, err := a.open()
	if err != nil {
		return nil, err
	}
	if damaged != nil {
		a.raise(AlarmList, damaged)
	}
	return a, nil
}

// open reads what is in the file.
func (a *alarms) open() (damaged, err error) {
	file, records, err := durable.OpenRecords(a.path, alarmsOptions())
	if errors.As(err, new(*durable.CorruptError)) {
		damaged = err
		if err := durable.Rename(a.path, a.path+".damaged"); err != nil {
			return nil, err
		}
		file, records, err = durable.OpenRecords(a.path, alarmsOptions())
	}
	if err != nil {
		return nil, err
	}
	a.file = file
	for _, b := range records {
		var old Alarm
		if json.Unmarshal(b, &old) == nil {
			a.seen[old.What+" "+old.Detail] = true
		}
	}
	return damaged, nil
}

// write puts an alarm into the file. One that has refused a record takes no other before it is opened again, and may hold
// the refused one.
func (a *alarms) write(key string, b []byte) error {
	if a.file != nil && a.file.Append(b) == nil {
		return nil
	}
	if a.file != nil {
		_ = a.file.Close() // nothing waits in it
		a.file = nil
	}
	if _, err := a.open(); err != nil {
		return err
	}
	if a.seen[key] {
		return nil
	}
	return a.file.Append(b)
}

// raise tells whoever reads the log now, and whoever asks later. A cause that lasts is said again after alarmAgain only.
func (a *alarms) raise(what string, err error, more ...any) {
	detail := err.Error()
	detail = strings.ToValidUTF8(detail[:min(len(detail), alarmBytes)], "") // as it is read back, to be known again
	a.mu.Lock()
	defer a.mu.Unlock()
	if last, ok := a.told[what+" "+detail]; !ok || a.now().Sub(last).Abs() >= alarmAgain {
		if len(a.told) >= alarmsMax {
			clear(a.told)
		}
		a.told[what+" "+detail] = a.now()
		a.logger.Error("ALARM", append([]any{"what", what, "error", err}, more...)...)
	}
	if a.closed || a.seen[what+" "+detail] || len(a.seen) >= alarmsMax {
		return
	}
	b, jerr := json.Marshal(Alarm{Time: a.now().UTC(), What: what, Detail: detail})
	if jerr == nil {
		jerr = a.write(what+" "+detail, b)
	}
	if jerr != nil {
		a.logger.Error("the alarm is in no file", "error", jerr)
		return
	}
	a.seen[what+" "+detail] = true
}

func (a *alarms) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.seen)
}

func (a *alarms) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	if a.file == nil {
		return nil
	}
	file := a.file
	a.file = nil
	return file.Close()
}

// ReadAlarms lists a member's alarms, oldest first, while it runs or not.
func ReadAlarms(dir string) ([]Alarm, error) {
	records, err := durable.ReadRecords(filepath.Join(dir, alarmsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Alarm
	for _, b := range records {
		var a Alarm
		if err := json.Unmarshal(b, &a); err != nil {
			return nil, fmt.Errorf("alarms: %w", err)
		}
		out = append(out, a)
	}
	return out, nil
}
