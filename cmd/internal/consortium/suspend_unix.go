//go:build unix

package consortium

import (
	"fmt"
	"syscall"
)

// Suspend is SIGSTOP: the process keeps its memory, its files and its connections, and does nothing.
func (p *Process) Suspend() error { return p.signal(syscall.SIGSTOP) }

// Resume is SIGCONT.
func (p *Process) Resume() error { return p.signal(syscall.SIGCONT) }

func (p *Process) signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return fmt.Errorf("%s does not run", p.Name)
	}
	return p.cmd.Process.Signal(s)
}
