//go:build !faults

package fault

// Point is a moment at which a process may fail; it does not.
func Point(name string, moment Moment, path string) error { return nil }

// Step is a durable write with a name.
func Step(name, path string, write func() error) error { return write() }
