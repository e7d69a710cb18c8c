package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ruche-federation/ruche/coordinator/epoch"
	"github.com/ruche-federation/ruche/crypto/label"
)

// promises are a member's vote files, read from a copy of its folder as a restarted member would read them.
type promises struct {
	files  string // names and sizes when they were copied, and whose keys: vote files only grow, epochs go as a whole
	epochs []*epoch.Epoch
}

func (p *promises) close() {
	for _, e := range p.epochs {
		_ = e.Close() // a copy: nothing is lost
	}
}

// voted returns the recorded vote for a round.
func (p *promises) voted(id label.Hash) (label.Hash, bool) {
	for _, e := range p.epochs {
		if v, ok := e.Voted(id); ok {
			return v, true
		}
	}
	return label.Hash{}, false
}

// revealed returns the recorded reveal of a round.
func (p *promises) revealed(id label.Hash) (label.Hash, bool) {
	for _, e := range p.epochs {
		if v, ok := e.Revealed(id); ok {
			return v, true
		}
	}
	return label.Hash{}, false
}

// expired reports whether a round is recorded as expired.
func (p *promises) expired(id label.Hash) bool {
	for _, e := range p.epochs {
		if e.Expired(id) {
			return true
		}
	}
	return false
}

// epoch finds an epoch by its number.
func (p *promises) epoch(number uint64) *epoch.Epoch {
	for _, e := range p.epochs {
		if e.Number() == number {
			return e
		}
	}
	return nil
}

// promises reads the member's vote files as they are on disk now. The caller holds the federation's mu.
func (s *Seat) promises() (*promises, error) {
	root := filepath.Join(s.Dir, "epochs")
	files := ""
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files += fmt.Sprintf("%s %d\n", path, info.Size())
		if d.Name() == "keys" { // a member that lost its epochs draws others of the same numbers
			b, err := os.ReadFile(path)
			files += fmt.Sprintf("%x\n", b)
			return err
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if s.promised != nil && s.promised.files == files {
		return s.promised, nil
	}
	if s.promised != nil {
		s.promised.close()
		s.promised = nil
	}
	at := s.Dir + "-epochs-as-read" // beside the member's folder: what lies in that is the member's
	if err := removeAll(at); err != nil {
		return nil, err
	}
	if files != "" {
		if err := os.CopyFS(at, os.DirFS(root)); err != nil {
			return nil, err
		}
	}
	epochs, alarms, err := epoch.Load(at)
	if err != nil {
		return nil, err
	}
	for _, a := range alarms {
		s.f.fail("member %d: %v", s.Index, a)
	}
	s.promised = &promises{files, epochs}
	return s.promised, nil
}

// removeAll removes a folder of the lab's own.
func removeAll(path string) error { return os.RemoveAll(path) }
