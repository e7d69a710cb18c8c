//go:build unix

package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestRunForAParent is the device of TestNothingIsCalledRunningThatIsNot.
func TestRunForAParent(t *testing.T) {
	if dir := os.Getenv("RUCHE_TEST_RUN"); dir != "" {
		must(t, Run(t.Context(), dir, runOptions()))
	}
}

// TestNothingIsCalledRunningThatIsNot kills and suspends a device, and lets a contribution work in its folder before and
// after.
func TestNothingIsCalledRunningThatIsNot(t *testing.T) {
	dir, _, c := enrolled(t, sayings(12), nil)
	vector := writeVector(t, nil, meanValues(1, 2, 3, 4, 5, 6))
	want := func(what string, want ...Status) {
		t.Helper()
		var got []Status
		var err error
		for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(20 * time.Millisecond) {
			got, err = Statuses(dir, time.Now())
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			same := len(got) == len(want)
			for i := range got {
				same = same && got[i].Task == want[i].Task && got[i].State == want[i].State && got[i].PID == want[i].PID
			}
			if same {
				return
			}
		}
		t.Fatalf("%s: %+v, %v", what, got, err)
	}
	contribute := func() (stop func()) { // no round is open: it waits for one
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := Contribute(ctx, dir, ContributeOptions{RunOptions: runOptions(), Vector: vector})
			done <- err
		}()
		return func() {
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("the contribution ended with %v", err)
			}
		}
	}
	me, average, commons := os.Getpid(), Status{Task: "average", State: StateStopped}, Status{Task: "commons", State: StateStopped}
	at := func(s Status, state string, pid int) Status {
		s.State, s.PID = state, pid
		return s
	}

	stop := contribute()
	want("only a contribution ever ran", at(average, StateIdle, me))
	stop()
	want("the contribution ended", average)

	child := exec.Command(os.Args[0], "-test.run=^TestRunForAParent$")
	child.Env = append(os.Environ(), "RUCHE_TEST_RUN="+dir)
	must(t, child.Start())
	t.Cleanup(func() { child.Process.Kill() })
	pid := child.Process.Pid
	want("the device runs", at(commons, StateIdle, pid), average)
	c.mu.Lock() // no member answers, so there is nothing new to say
	silent := time.Now()
	eventually(t, dir, func(s Status) bool { return s.Updated.After(silent.Add(2 * statusEvery)) })
	c.mu.Unlock()
	must(t, child.Process.Signal(syscall.SIGSTOP))
	want("it is suspended", at(commons, StateStale, pid), average)
	must(t, child.Process.Signal(syscall.SIGCONT))
	want("it goes on", at(commons, StateIdle, pid), average)
	must(t, child.Process.Kill())
	child.Wait()
	want("it was killed", commons, average)

	stop = contribute()
	want("a contribution works where the device was killed", at(average, StateIdle, me), commons)
	stop()
	want("that ended too", average, commons)
}
