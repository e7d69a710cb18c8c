//go:build faults

package fault_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/storage/fault"
)

// TestFaultBeforeOrAfter: a Plan fails one passing, before the write or after it, and counts all.
func TestFaultBeforeOrAfter(t *testing.T) {
	for _, moment := range []fault.Moment{fault.Before, fault.After} {
		dir := t.TempDir()
		struck := ""
		plan := &fault.Plan{At: fault.Passing{Name: "vote", Moment: moment}, Nth: 2, Strike: func(path string) { struck = path }}
		defer fault.Install(dir, plan.Handle)()
		writes := 0
		step := func(name, path string) error { return fault.Step(name, path, func() error { writes++; return nil }) }
		inside := filepath.Join(dir, "a")
		if err := errors.Join(step("vote", inside), step("reveal", inside), step("vote", dir+"-else")); err != nil {
			t.Fatal(err)
		}
		if err := step("vote", inside); !errors.Is(err, fault.ErrInjected) || struck != inside || !plan.Struck() {
			t.Errorf("%s: the second vote gives %v, struck at %q", moment, err, struck)
		}
		if err := step("vote", inside); err != nil {
			t.Errorf("%s: it strikes twice: %v", moment, err)
		}
		want := 4
		if moment == fault.After {
			want = 5
		}
		if n := plan.Count(plan.At); writes != want || n != 3 {
			t.Errorf("%s: %d writes, want %d; %d passings counted, want 3", moment, writes, want, n)
		}
	}
}

// TestFaultEndsAProcess: the program is this test's own, called again.
func TestFaultEndsAProcess(t *testing.T) {
	const child = "FAULT_TEST_FILE"
	if path := os.Getenv(child); path != "" {
		for _, b := range []string{"one", "two", "three"} {
			_ = fault.Step("vote", path, func() error { return os.WriteFile(path, []byte(b), 0o600) })
		}
		return
	}
	for told, want := range map[string]string{"vote:before:2": "one", "vote:after:2": "two", "reveal:after:1": "three", "vote:after": "", "vote:later:1": ""} {
		path := filepath.Join(t.TempDir(), "f")
		c := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		c.Env = append(os.Environ(), child+"="+path, "RUCHE_FAULT="+told)
		err := c.Run()
		code := c.ProcessState.ExitCode()
		b, _ := os.ReadFile(path)
		ended := strings.HasPrefix(told, "vote:") && want != ""
		if string(b) != want || ended != (code == fault.ExitCode) || want == "" && code != 2 || told[0] == 'r' && err != nil {
			t.Errorf("%s: exit code %d (%v), the file has %q, want %q", told, code, err, b, want)
		}
	}
}
