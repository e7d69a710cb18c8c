//go:build faults

package fault

import (
	"errors"
	"sync"
)

// ErrInjected is what a Plan's step fails with.
var ErrInjected = errors.New("fault: injected")

// Passing is one moment of one point.
type Passing struct {
	Name   string
	Moment Moment
}

// Points are names of points that a test strikes. Every point stands in such a list or in a Passing of a fault test: the
// test that holds docs/PROTOCOL.md looks there, and not at other strings that may happen to be the same word.
type Points []string

// Plan is a Handler that counts passings and fails one of them. It is safe for concurrent use.
type Plan struct {
	// At is the passing that fails, at its Nth time (1 is the first) on a path that Where accepts; nil: on any.
	At    Passing
	Nth   int
	Where func(path string) bool
	// Strike is called when it fails, with the path, and may be nil.
	Strike func(path string)

	mu     sync.Mutex
	counts map[Passing]int
	times  int
	struck bool
}

// Handle is the Handler.
func (p *Plan) Handle(name string, moment Moment, path string) error {
	p.mu.Lock()
	if p.counts == nil {
		p.counts = map[Passing]int{}
	}
	at := Passing{name, moment}
	p.counts[at]++
	strikes := false
	if at == p.At && !p.struck && (p.Where == nil || p.Where(path)) {
		p.times++
		strikes = p.times == max(p.Nth, 1)
		p.struck = strikes
	}
	p.mu.Unlock()
	if !strikes {
		return nil
	}
	if p.Strike != nil {
		p.Strike(path)
	}
	return ErrInjected
}

// Struck reports whether the passing was reached.
func (p *Plan) Struck() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.struck
}

// Count is how often a passing took place, whether or not Where accepts it.
func (p *Plan) Count(at Passing) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[at]
}
