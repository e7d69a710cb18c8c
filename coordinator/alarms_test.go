package coordinator

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/storage/durable"
)

// TestAlarmsAfterAFailedWrite: a file that has refused a record takes no other before it is opened again. What the failed
// write left there all the same stands there once.
func TestAlarmsAfterAFailedWrite(t *testing.T) {
	dir := t.TempDir()
	a, err := openAlarms(dir, time.Now, slog.New(slog.DiscardHandler))
	must(t, err)
	want := ""
	wrote := func(detail string) {
		t.Helper()
		want += detail + " "
		list, err := ReadAlarms(dir)
		must(t, err)
		got := ""
		for _, a := range list {
			got += a.Detail + " "
		}
		if got != want {
			t.Fatalf("the file holds %q, want %q", got, want)
		}
	}
	a.raise(AlarmDuty, errors.New("one"))
	wrote("one")
	must(t, a.file.Close()) // its next append fails, and all that follow
	a.raise(AlarmDuty, errors.New("two"))
	wrote("two")

	must(t, a.file.Close())
	other, _, err := durable.OpenRecords(filepath.Join(dir, alarmsFile), alarmsOptions())
	must(t, err)
	must(t, other.Append([]byte(`{"what":"duty_refused","detail":"three"}`))) // it was written, and then it failed
	must(t, other.Close())
	a.raise(AlarmDuty, errors.New("three"))
	wrote("three")

	must(t, a.file.Close())
	path := filepath.Join(dir, alarmsFile)
	must(t, os.Rename(path, path+".away"))
	must(t, os.Mkdir(path, 0o700)) // nor can it be opened
	for range 2 {
		a.raise(AlarmDuty, errors.New("four"))
	}
	must(t, os.Remove(path))
	must(t, os.Rename(path+".away", path))
	a.raise(AlarmDuty, errors.New("four"))
	wrote("four")
	if n := a.count(); n != 4 {
		t.Errorf("%d alarms are counted", n)
	}
	must(t, a.close())
	a.raise(AlarmDuty, errors.New("after the end"))
	want = ""
	wrote("one two three four")
}
