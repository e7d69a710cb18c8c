package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/ruche-federation/ruche/cmd/internal/consortium"
)

// proxies stand before the members' mesh ports and hold back what is lost: a partition where there are no network
// namespaces. A connection stays, and what was sent arrives after the partition, as it does over TCP.
type proxies struct {
	listeners []net.Listener
	behind    []string                               // where the members really listen
	whose     func(port int) (member int, err error) // where a connection comes from

	mu    sync.Mutex // guards what follows
	lost  map[link]bool
	turn  chan struct{} // closed and replaced when lost changes
	conns map[net.Conn]bool
	done  bool
	wg    sync.WaitGroup
}

// newProxies listens for n members. watch tells it whose processes they are.
func newProxies(n int) (*proxies, []consortium.Place, error) {
	p := &proxies{lost: map[link]bool{}, turn: make(chan struct{}), conns: map[net.Conn]bool{}}
	var places []consortium.Place
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, errors.Join(err, p.close())
		}
		p.listeners = append(p.listeners, l)
	}
	ports, err := consortium.FreePorts(2 * n)
	if err != nil {
		return nil, nil, errors.Join(err, p.close())
	}
	for i, l := range p.listeners {
		p.behind = append(p.behind, fmt.Sprintf("127.0.0.1:%d", ports[2*i+1]))
		places = append(places, consortium.Place{Device: fmt.Sprintf("127.0.0.1:%d", ports[2*i]), Mesh: l.Addr().String(), Listen: p.behind[i]})
	}
	return p, places, nil
}

// watch begins to serve.
func (p *proxies) watch(members []*consortium.Process) {
	p.whose = func(port int) (int, error) {
		var pids []int
		for _, m := range members {
			pids = append(pids, m.PID())
		}
		return holder(pids, port)
	}
	p.begin()
}

func (p *proxies) begin() {
	for to, l := range p.listeners {
		p.wg.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				p.wg.Go(func() { p.serve(conn, to) })
			}
		})
	}
}

// keep remembers a connection for close; false if that was already.
func (p *proxies) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *proxies) drop(c net.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// serve carries one connection to a member.
func (p *proxies) serve(in net.Conn, to int) {
	if !p.keep(in) {
		return
	}
	defer p.drop(in)
	from, err := p.whose(in.RemoteAddr().(*net.TCPAddr).Port)
	if err != nil {
		return // a process that has just been killed
	}
	there, back := link{from, to}, link{to, from}
	if !p.pass(there) || !p.pass(back) { // no handshake comes through
		return
	}
	out, err := net.Dial("tcp", p.behind[to])
	if err != nil || !p.keep(out) {
		return
	}
	defer p.drop(out)
	var both sync.WaitGroup
	both.Go(func() { p.pump(out, in, there) })
	both.Go(func() { p.pump(in, out, back) })
	both.Wait()
}

// pump carries bytes in one direction, and none while that is lost.
func (p *proxies) pump(dst, src net.Conn, l link) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if !p.pass(l) {
				return
			}
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass waits as long as the direction is lost. It is false when the proxies are closed.
func (p *proxies) pass(l link) bool {
	for {
		p.mu.Lock()
		lost, turn, done := p.lost[l], p.turn, p.done
		p.mu.Unlock()
		if done || !lost {
			return !done
		}
		<-turn
	}
}

func (p *proxies) set(lost bool, links ...link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range links {
		p.lost[l] = lost
	}
	close(p.turn)
	p.turn = make(chan struct{})
}

// lose, heal and plug are wiring's. An unplugged member still answers devices: their ports have no proxies.
func (p *proxies) lose(_ context.Context, l link) error { p.set(true, l); return nil }
func (p *proxies) heal(_ context.Context, l link) error { p.set(false, l); return nil }

func (p *proxies) plug(_ context.Context, member int, up bool) error {
	var all []link
	for i := range p.listeners {
		if i != member {
			all = append(all, link{i, member}, link{member, i})
		}
	}
	p.set(!up, all...)
	return nil
}

func (p *proxies) deaf() bool { return false }

func (p *proxies) close() error {
	p.mu.Lock()
	p.done = true
	close(p.turn)
	p.turn = make(chan struct{})
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	var errs []error
	for _, l := range p.listeners {
		errs = append(errs, l.Close())
	}
	p.wg.Wait()
	return errors.Join(errs...)
}

// holder is which of some processes holds the socket that is connected from a port of this machine.
func holder(pids []int, port int) (int, error) {
	inode, err := socketAt(port)
	if err != nil {
		return 0, err
	}
	for i, pid := range pids {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			return 0, err
		}
		for _, f := range files {
			if to, err := os.Readlink(f); err == nil && to == "socket:["+inode+"]" {
				return i, nil
			}
		}
	}
	return 0, fmt.Errorf("no member's process holds port %d", port)
}

// socketAt finds the socket that is bound to a local port and connected, in the kernel's table.
func socketAt(port int) (inode string, err error) {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 {
			continue
		}
		_, hex, ok := strings.Cut(fields[1], ":")
		if local, err := strconv.ParseUint(hex, 16, 16); ok && err == nil && int(local) == port && fields[9] != "0" {
			return fields[9], nil
		}
	}
	return "", fmt.Errorf("no socket at port %d", port)
}
