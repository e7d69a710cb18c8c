package consortium

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Programs are the real binaries.
type Programs struct{ Node, Coordinator, Ruche string }

// FindPrograms finds them in a folder; empty is that of the running program.
func FindPrograms(dir string) (Programs, error) {
	if dir == "" {
		self, err := os.Executable()
		if err != nil {
			return Programs{}, err
		}
		dir = filepath.Dir(self)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Programs{}, err
	}
	p := Programs{filepath.Join(dir, "ruche-node"), filepath.Join(dir, "ruche-coordinator"), filepath.Join(dir, "ruche")}
	for _, path := range []string{p.Node, p.Coordinator, p.Ruche} {
		if runtime.GOOS == "windows" {
			path += ".exe"
		}
		if _, err := os.Stat(path); err != nil {
			return p, fmt.Errorf("%s is not in %s: run `make build`", filepath.Base(path), filepath.Base(dir))
		}
	}
	return p, nil
}

// Command runs a program to its end and returns what it printed; an error carries its last words.
func Command(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("%s %s: %w: %s", filepath.Base(program), args[0], err, lastLine(errs.String()+out.String()))
	}
	return out.Bytes(), nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(strings.Join(lines[max(0, len(lines)-3):], " | "))
}

// Process is one program that may be started again and again, its output in a log file. Its methods are safe for
// concurrent use.
type Process struct {
	Name    string
	Program string
	Args    []string
	Log     string

	mu       sync.Mutex // guards what follows
	cmd      *exec.Cmd
	done     chan struct{} // closed when the process has ended
	exit     error
	expected bool   // it was told to end
	peak     uint64 // most resident memory of its runs, bytes
}

// Start starts the program. What runs already is left alone.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		return nil
	}
	f, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.Command(p.Program, p.Args...)
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd, p.done, p.exit, p.expected = cmd, make(chan struct{}), nil, false
	go func(done chan struct{}) {
		err := cmd.Wait()
		p.mu.Lock()
		p.exit = err
		p.peak = max(p.peak, peakOf(cmd.ProcessState))
		p.mu.Unlock()
		close(done)
	}(p.done)
	return nil
}

// running is Running for a caller that holds mu.
func (p *Process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Running reports whether the process has been started and has not ended. One that is suspended runs.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running()
}

// Done is closed when the process that was started last has ended.
func (p *Process) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		ended := make(chan struct{})
		close(ended)
		return ended
	}
	return p.done
}

// Exit is how the process ended, and whether it had been told to: an exit status, or -1 after a signal.
func (p *Process) Exit() (code int, expected bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.cmd.ProcessState == nil {
		return 0, p.expected
	}
	return p.cmd.ProcessState.ExitCode(), p.expected
}

// PID is the number of the running process, 0 if there is none.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return 0
	}
	return p.cmd.Process.Pid
}

// Kill is SIGKILL: no chance to tidy up.
func (p *Process) Kill() {
	p.mu.Lock()
	p.expected = true
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill() // an error says that it has ended already
		<-done
	}
}

// Stop asks the process to end and waits; after the deadline it is killed, which is an error.
func (p *Process) Stop(wait time.Duration) error {
	p.mu.Lock()
	p.expected = true
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	if cmd == nil {
		return nil
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-done:
		return nil
	case <-time.After(wait):
		_ = cmd.Process.Kill()
		<-done
		return fmt.Errorf("%s did not end within %s of being told to", p.Name, wait)
	}
}

// StopAll stops processes side by side, the last ones first.
func StopAll(list []*Process, wait time.Duration) error {
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i := len(list) - 1; i >= 0; i-- {
		wg.Go(func() { errs[i] = list[i].Stop(wait) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Failed says that the process ended by itself, and what its log says last.
func (p *Process) Failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.expected || p.running() {
		return nil
	}
	b, _ := os.ReadFile(p.Log)
	return fmt.Errorf("%s ended: %v: %s", p.Name, errors.Join(p.exit), lastLine(string(b)))
}

// PeakRSS is the most resident memory of the runs that have ended, in bytes.
func (p *Process) PeakRSS() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.peak
}

// Ports below those that systems give to outgoing connections: while a member is down nobody takes its port by chance.
const portFirst, portLast, portTries = 12_000, 32_000, 200

// FreePorts reserves n loopback ports by binding them all before giving them back.
func FreePorts(n int) ([]int, error) {
	var ports []int
	var open []net.Listener
	defer func() {
		for _, l := range open {
			l.Close()
		}
	}()
	for try := 0; len(ports) < n; try++ {
		port := portFirst + rand.IntN(portLast-portFirst)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil && try < portTries {
			continue
		}
		if err != nil {
			return nil, err
		}
		open = append(open, l)
		ports = append(ports, port)
	}
	return ports, nil
}
