package coordinator

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/round"
)

// TestDamagedEpochOfAMember: whatever is damaged in the epoch folder, the member starts, raises an alarm that outlives
// it, destroys that epoch's keys, publishes a new epoch and takes part in the next round.
func TestDamagedEpochOfAMember(t *testing.T) {
	for name, damage := range map[string]func(keys, votes string) error{
		"a flipped byte in the keys":  func(keys, _ string) error { return flipByte(keys, 40) },
		"a flipped byte in the votes": func(_, votes string) error { return flipByte(votes, 60) },
		"no key file":                 func(keys, _ string) error { return os.Remove(keys) },
		"no vote file":                func(_, votes string) error { return os.Remove(votes) },
		"an empty vote file":          func(_, votes string) error { return os.Truncate(votes, 0) },
		"a vote cut off whole": func(_, votes string) error {
			info, err := os.Stat(votes)
			if err != nil {
				return err
			}
			return os.Truncate(votes, info.Size()-112)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.contribute(r.until(round.Open))
			first := r.until(round.Sealed) // voted
			must(t, r.m.Close())
			dir := filepath.Join(r.home.Dir, "epochs", "1")
			must(t, damage(filepath.Join(dir, "keys"), filepath.Join(dir, "votes")))
			r.start(r.log.size())
			for range 4 {
				r.now = r.now.Add(1100 * time.Millisecond)
				r.m.Work(t.Context())
			}
			if _, held := r.m.epochs.get(1); held {
				t.Fatal("the keys live on")
			}
			if _, err := os.Stat(filepath.Join(dir, "keys")); err == nil {
				t.Error("the key file is still there")
			}
			if e := r.m.epochs.newest(); e == nil || e.Number() != 2 {
				t.Fatalf("no new epoch: %v", e)
			}
			alarms, err := ReadAlarms(r.home.Dir)
			must(t, err)
			if len(alarms) == 0 || alarms[0].What != AlarmEpoch && alarms[0].What != AlarmWitness {
				t.Errorf("alarms: %v", alarms)
			}
			if v, _ := r.newest(); v.ID != first.ID || len(v.Reveals) != 0 {
				t.Error("revealed without keys")
			}
			r.tick(time.UnixMilli(first.Config.RevealMs + 1)) // the member alone loses that round, by design
			for range 8 {
				r.now = r.now.Add(time.Minute)
				r.m.Work(t.Context())
			}
			if v, _ := r.newest(); v.ID == first.ID || v.Phase < round.Open || v.Config.KeyPackages == nil {
				t.Errorf("the next round is %s", v.Phase)
			}
		})
	}
}

func flipByte(path string, at int) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[at] ^= 1
	return os.WriteFile(path, b, 0o600)
}

// TestALongAlarmIsKept: whatever stands in an error's text, its alarm is in the file, cut, and is one after a restart too.
func TestALongAlarmIsKept(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		a, err := openAlarms(dir, time.Now, slog.New(slog.DiscardHandler))
		must(t, err)
		a.raise(AlarmDuty, errors.New(strings.Repeat("<", 2*alarmBytes)))
		a.raise(AlarmDuty, errors.New("x"+strings.Repeat("é", alarmBytes)))
		if n := a.count(); n != 2 {
			t.Errorf("%d alarms, want 2", n)
		}
		must(t, a.close())
	}
	if list, err := ReadAlarms(dir); err != nil || len(list) != 2 {
		t.Errorf("%d alarms in the file, want 2: %v", len(list), err)
	}
}
