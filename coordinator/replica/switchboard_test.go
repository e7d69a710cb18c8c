package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"
)

// switchboard is a network in memory whose every wire can be cut in one direction, slowed down or broken off. All of
// its waiting is on timers and channels, so it lives in virtual time (testing/synctest).
//
// A wire is what TCP is: what is sent over a cut one stays on its way and arrives, in order, when it is mended, unless
// the connection is reset before.
type switchboard struct {
	mu    sync.Mutex // guards what follows, and all that is on a wire
	rng   *rand.Rand
	ports map[string]*port
	cut   map[[2]string]bool // from, to
	delay time.Duration      // a message takes between nothing and this long
	lines map[*line]bool
}

func newSwitchboard(seed uint64) *switchboard {
	return &switchboard{rng: rand.New(rand.NewPCG(seed, 1)), ports: map[string]*port{}, cut: map[[2]string]bool{}, lines: map[*line]bool{}}
}

// listen opens a member's port; the one before it must be closed.
func (s *switchboard) listen(name string) *port {
	p := &port{board: s, name: name, calls: make(chan *lineEnd, 64), done: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ports[name] = p
	return p
}

// dial connects two members, or waits for the context's end where either way is cut, as one does whose packets vanish.
func (s *switchboard) dial(ctx context.Context, from, to string) (net.Conn, error) {
	for {
		s.mu.Lock()
		p, open := s.ports[to], !s.cut[[2]string{from, to}] && !s.cut[[2]string{to, from}]
		if open && p == nil {
			s.mu.Unlock()
			return nil, fmt.Errorf("%s: connection refused", to)
		}
		if open {
			l := &line{board: s, ends: [2]*lineEnd{}}
			for i, name := range []string{from, to} {
				l.ends[i] = &lineEnd{line: l, name: name, side: i, wake: make(chan struct{})}
			}
			select {
			case p.calls <- l.ends[1]:
				s.lines[l] = true
				s.mu.Unlock()
				return l.ends[0], nil
			default: // nobody accepts
			}
		}
		s.mu.Unlock()
		retry := time.NewTimer(100 * time.Millisecond)
		select {
		case <-retry.C:
		case <-ctx.Done():
			retry.Stop()
			return nil, ctx.Err()
		}
	}
}

// set cuts or mends the way from one member to another. Where reset says so, connections over it break off for good.
func (s *switchboard) set(from, to string, cut, reset bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut[[2]string{from, to}] = cut
	for l := range s.lines {
		for i, e := range l.ends {
			if e.name == from && l.ends[1-i].name == to {
				if reset {
					l.end(errReset)
				} else {
					e.stir()
					l.ends[1-i].stir()
				}
			}
		}
	}
}

// reaches reports whether a question from one member finds the other and its answer the way back.
func (s *switchboard) reaches(from, to string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return from == to || !s.cut[[2]string{from, to}] && !s.cut[[2]string{to, from}]
}

var errReset = errors.New("connection reset")

// port is a member's listener.
type port struct {
	board *switchboard
	name  string
	calls chan *lineEnd
	once  sync.Once
	done  chan struct{}
}

func (p *port) Accept() (net.Conn, error) {
	select {
	case c := <-p.calls:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *port) Addr() net.Addr { return memberAddr(p.name) }

// Close ends the port and every connection that came through it or went out from here: a process that is gone.
func (p *port) Close() error {
	p.once.Do(func() {
		p.board.mu.Lock()
		defer p.board.mu.Unlock()
		if p.board.ports[p.name] == p {
			delete(p.board.ports, p.name)
		}
		for l := range p.board.lines {
			if l.ends[0].name == p.name || l.ends[1].name == p.name {
				l.end(io.ErrUnexpectedEOF)
			}
		}
		close(p.done)
	})
	return nil
}

// line is one connection.
type line struct {
	board *switchboard
	ends  [2]*lineEnd
	over  error
}

// end is called with the board's lock held.
func (l *line) end(err error) {
	if l.over == nil {
		l.over = err
	}
	delete(l.board.lines, l)
	for _, e := range l.ends {
		e.stir()
	}
}

// lineEnd is one side of a connection.
type lineEnd struct {
	line *line
	name string
	side int
	// Guarded by the board's lock.
	in          []packet // what the other side sent
	held        int      // bytes in it
	last        time.Time
	read, write time.Time // deadlines
	wake        chan struct{}
}

type packet struct {
	at   time.Time
	data []byte
}

// windowMax is what one direction of a connection holds before a write waits.
const windowMax = 256 << 10

// stir wakes whoever waits at this end. The board's lock is held.
func (e *lineEnd) stir() {
	close(e.wake)
	e.wake = make(chan struct{})
}

func (e *lineEnd) other() *lineEnd { return e.line.ends[1-e.side] }

// Read is net.Conn's.
func (e *lineEnd) Read(b []byte) (int, error) {
	s := e.line.board
	for {
		s.mu.Lock()
		now := time.Now()
		var due time.Time
		if len(e.in) > 0 && !s.cut[[2]string{e.other().name, e.name}] {
			due = e.in[0].at
		}
		switch {
		case !e.read.IsZero() && !now.Before(e.read):
			s.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case e.line.over != nil:
			err := e.line.over
			s.mu.Unlock()
			return 0, err
		case !due.IsZero() && !due.After(now):
			n := copy(b, e.in[0].data)
			if e.in[0].data = e.in[0].data[n:]; len(e.in[0].data) == 0 {
				e.in = e.in[1:]
			}
			e.held -= n
			e.other().stir()
			s.mu.Unlock()
			return n, nil
		}
		wake := e.wake
		until := e.read
		if !due.IsZero() && (until.IsZero() || due.Before(until)) {
			until = due
		}
		s.mu.Unlock()
		waitFor(wake, until)
	}
}

// Write is net.Conn's.
func (e *lineEnd) Write(b []byte) (int, error) {
	s, written := e.line.board, 0
	for {
		s.mu.Lock()
		now := time.Now()
		to := e.other()
		switch room := windowMax - to.held; {
		case e.line.over != nil:
			err := e.line.over
			s.mu.Unlock()
			return written, err
		case !e.write.IsZero() && !now.Before(e.write):
			s.mu.Unlock()
			return written, os.ErrDeadlineExceeded
		case room > 0:
			n := min(room, len(b))
			at := now
			if s.delay > 0 {
				at = at.Add(time.Duration(s.rng.Int64N(int64(s.delay))))
			}
			if at.Before(to.last) {
				at = to.last // nothing overtakes within a connection
			}
			to.last = at
			to.in = append(to.in, packet{at, append([]byte(nil), b[:n]...)})
			to.held += n
			to.stir()
			b, written = b[n:], written+n
			if len(b) == 0 {
				s.mu.Unlock()
				return written, nil
			}
		}
		wake, until := e.wake, e.write
		s.mu.Unlock()
		waitFor(wake, until)
	}
}

// waitFor returns when wake is closed or, unless it is zero, the time has come.
func waitFor(wake <-chan struct{}, until time.Time) {
	if until.IsZero() {
		<-wake
		return
	}
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-wake:
	case <-t.C:
	}
}

// Close is net.Conn's.
func (e *lineEnd) Close() error {
	e.line.board.mu.Lock()
	defer e.line.board.mu.Unlock()
	e.line.end(io.EOF)
	return nil
}

func (e *lineEnd) deadline(set func()) error {
	e.line.board.mu.Lock()
	defer e.line.board.mu.Unlock()
	set()
	e.stir()
	return nil
}

// SetDeadline is net.Conn's, as are the rest.
func (e *lineEnd) SetDeadline(t time.Time) error {
	return e.deadline(func() { e.read, e.write = t, t })
}
func (e *lineEnd) SetReadDeadline(t time.Time) error  { return e.deadline(func() { e.read = t }) }
func (e *lineEnd) SetWriteDeadline(t time.Time) error { return e.deadline(func() { e.write = t }) }
func (e *lineEnd) LocalAddr() net.Addr                { return memberAddr(e.name) }
func (e *lineEnd) RemoteAddr() net.Addr               { return memberAddr(e.other().name) }
