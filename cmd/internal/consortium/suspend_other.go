//go:build !unix

package consortium

import "errors"

// Suspend is not possible here.
func (p *Process) Suspend() error { return errors.ErrUnsupported }

// Resume is not possible here.
func (p *Process) Resume() error { return errors.ErrUnsupported }
