//go:build faults

package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Handler is asked at every passing of a point whose path lies in its folder. An error is what the step returns. It is
// called from any goroutine and may hold locks of the writer's: it must not wait for the writer.
type Handler func(name string, moment Moment, path string) error

// ExitCode is that of a process that ended itself at a point.
const ExitCode = 86

// variable names the passing at which a process ends itself: name:moment:n.
const variable = "RUCHE_FAULT"

// The points lie in every package that writes, and no argument leads there from a test: so this is the one place with
// state of its own, and it exists under the tag only.
var (
	mu        sync.Mutex
	installed []*entry
	exit      = sync.OnceValue(func() exitAt { return parseExit(os.Getenv(variable)) })
	passed    int // of the point in exit
)

type entry struct {
	dir     string
	handler Handler
}

// Install has h asked for all points in dir until remove is called.
func Install(dir string, h Handler) (remove func()) {
	e := &entry{filepath.Clean(dir), h}
	mu.Lock()
	defer mu.Unlock()
	installed = append(installed, e)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		installed = slices.DeleteFunc(installed, func(x *entry) bool { return x == e })
	}
}

// Point asks the handlers for the path; the first error counts.
func Point(name string, moment Moment, path string) error {
	path = filepath.Clean(path)
	var asked []Handler
	mu.Lock()
	if e := exit(); e.name == name && e.moment == moment {
		if passed++; passed == e.nth {
			fmt.Fprintf(os.Stderr, "fault: %s %s, passing %d: the process ends\n", moment, name, passed)
			os.Exit(ExitCode)
		}
	}
	for _, e := range installed {
		if path == e.dir || strings.HasPrefix(path, e.dir+string(filepath.Separator)) {
			asked = append(asked, e.handler)
		}
	}
	mu.Unlock()
	for _, h := range asked {
		if err := h(name, moment, path); err != nil {
			return err
		}
	}
	return nil
}

// Step is a durable write between its two points.
func Step(name, path string, write func() error) error {
	if err := Point(name, Before, path); err != nil {
		return err
	}
	if err := write(); err != nil {
		return err
	}
	return Point(name, After, path)
}

type exitAt struct {
	name   string
	moment Moment
	nth    int
}

// parseExit ends the process where it is told something that it does not understand: a test that names no moment would
// pass for the wrong reason.
func parseExit(s string) exitAt {
	if s == "" {
		return exitAt{}
	}
	parts := strings.Split(s, ":")
	if len(parts) == 3 {
		n, err := strconv.Atoi(parts[2])
		if m := Moment(parts[1]); err == nil && n > 0 && parts[0] != "" && (m == Before || m == After) {
			return exitAt{parts[0], m, n}
		}
	}
	fmt.Fprintf(os.Stderr, "fault: %s=%q is not name:before:n or name:after:n\n", variable, s)
	os.Exit(2)
	return exitAt{}
}
