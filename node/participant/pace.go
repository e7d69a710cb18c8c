package participant

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/storage/durable"
)

// A device that lost the members tries again at a random moment within a bound that doubles (full jitter), so that many
// which lost them together do not come back together; and never before the moment that a member asked for, whatever
// happens to the process meanwhile (coordinator design, section 5).

// jitter is random in (0, bound], the bound doubling with each failure from first to most.
func jitter(first, most time.Duration, failures int) time.Duration {
	bound := first
	for range failures {
		if bound = min(2*bound, most); bound == most {
			break
		}
	}
	return rand.N(bound) + time.Millisecond
}

// window draws from the window that a member gave, within bounds of our own, and says what its beginning is.
func window(w *coordpb.RetryWindow) (wait, least time.Duration) {
	lo := time.Duration(w.GetDelayMinMs()) * time.Millisecond
	hi := time.Duration(w.GetDelayMaxMs()) * time.Millisecond
	if w == nil || lo < 0 || hi <= 0 || hi < lo {
		return waitDefault/2 + jitter(waitDefault, waitDefault, 0), 0
	}
	lo, hi = min(lo, waitMax), min(hi, waitMax)
	return lo + rand.N(hi-lo+1), lo
}

// askedToWait is how long a member that sheds load asks to be left alone, 0 if it does not say.
func askedToWait(err error) time.Duration {
	s, ok := status.FromError(err)
	if !ok {
		return 0
	}
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return max(0, min(info.GetRetryDelay().AsDuration(), waitMax))
		}
	}
	return 0
}

func (p *Participant) pacePath() string { return filepath.Join(p.cfg.Dir, "next-checkin."+p.task.ID) }

// notBefore keeps the moment before which no member wants to hear a check-in of this task, for the next run: within this
// one, whoever steps waits. What is short is over before a process is up again, and is not written.
func (p *Participant) notBefore(least time.Duration) {
	if least < paceWritten {
		return
	}
	b := strconv.FormatInt(p.cfg.Now().Add(least).UnixMilli(), 10) + "\n"
	if err := durable.WriteFile(p.pacePath(), []byte(b), 0o600); err != nil {
		p.cfg.Logger.Warn("the moment of the next check-in was not written", "error", err)
	}
}

// loadPace reads what an earlier run wrote; what cannot be read as that costs one early check-in.
func (p *Participant) loadPace() error {
	b, err := os.ReadFile(p.pacePath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the next check-in: %w", err)
	}
	ms, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err == nil {
		p.next = time.UnixMilli(ms)
	}
	return nil
}
