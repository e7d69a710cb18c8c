//go:build !faults

package fault_test

import (
	"os/exec"
	"regexp"
	"testing"

	"github.com/ruche-federation/ruche/storage/fault"
)

// TestAStepIsItsWrite: without the tag nothing stands between a caller and its write, and nothing is allocated for it.
func TestAStepIsItsWrite(t *testing.T) {
	n := 0
	path := t.TempDir()
	if got := testing.AllocsPerRun(100, func() {
		if err := fault.Step("vote", path, func() error { n++; return nil }); err != nil {
			t.Error(err)
		}
		if err := fault.Point("vote", fault.Before, path); err != nil {
			t.Error(err)
		}
	}); got != 0 {
		t.Errorf("a step allocates %v times", got)
	}
	if n != 101 { // once to warm up
		t.Errorf("the write ran %d times of 101", n)
	}
}

// TestNothingIsLeftOfAPoint reads the compiled code of a package with points: no instruction of it names this one.
func TestNothingIsLeftOfAPoint(t *testing.T) {
	compile := func(tags string) []byte {
		out, err := exec.Command("go", "build", "-tags="+tags, "-gcflags=-S", "../raftlog").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return out
	}
	call := regexp.MustCompile(`\s(?:CALL|JMP|BL)\s+\S*storage/fault\.`)
	if m := call.Find(compile("")); m != nil {
		t.Errorf("without the tag the code calls a point: %s", m)
	}
	if !call.Match(compile("faults")) {
		t.Error("with the tag the code calls no point: the search is broken")
	}
}
