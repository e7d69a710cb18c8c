package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// programs are the real binaries, found beside this one.
type programs struct{ node, coordinator, ruche string }

func findPrograms() (programs, error) {
	self, err := os.Executable()
	if err != nil {
		return programs{}, err
	}
	dir := filepath.Dir(self)
	p := programs{filepath.Join(dir, "ruche-node"), filepath.Join(dir, "ruche-coordinator"), filepath.Join(dir, "ruche")}
	for _, path := range []string{p.node, p.coordinator, p.ruche} {
		if runtime.GOOS == "windows" {
			path += ".exe"
		}
		if _, err := os.Stat(path); err != nil {
			return p, fmt.Errorf("%s is not beside ruche-demo: run `make build`", filepath.Base(path))
		}
	}
	return p, nil
}

// command runs a program to its end and returns what it printed; an error carries its last words.
func command(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", filepath.Base(program), args[0], err, lastLine(errs.String()+out.String()))
	}
	return out.Bytes(), nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(strings.Join(lines[max(0, len(lines)-3):], " | "))
}

// process is one long-running program of the demo, its output in a log file. Its methods are safe for concurrent use.
type process struct {
	name    string
	program string
	args    []string
	log     string

	mu       sync.Mutex // guards what follows
	cmd      *exec.Cmd
	done     chan struct{} // closed when the process has ended
	exit     error
	expected bool   // it was told to end
	peak     uint64 // most resident memory of its runs, bytes
}

func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.Command(p.program, p.args...)
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

// kill is SIGKILL: no chance to tidy up.
func (p *process) kill() {
	p.mu.Lock()
	p.expected = true
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill() // an error says that it has ended already
		<-done
	}
}

// stop asks the process to end and waits; after the deadline it is killed.
func (p *process) stop(wait time.Duration) {
	p.mu.Lock()
	p.expected = true
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-done:
	case <-time.After(wait):
		_ = cmd.Process.Kill()
		<-done
	}
}

// failed says that the process ended by itself, and what its log says last.
func (p *process) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.expected {
		return nil
	}
	select {
	case <-p.done:
	default:
		return nil
	}
	b, _ := os.ReadFile(p.log)
	return fmt.Errorf("%s ended: %v: %s", p.name, errors.Join(p.exit), lastLine(string(b)))
}

func (p *process) peakRSS() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.peak
}

// freePorts reserves n loopback ports by binding them all before giving them back.
func freePorts(n int) ([]int, error) {
	var ports []int
	var open []net.Listener
	defer func() {
		for _, l := range open {
			l.Close()
		}
	}()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		open = append(open, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
