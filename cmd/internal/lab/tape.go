package lab

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
)

// Taped is an upload as whoever listens on the way has it, if pinned TLS did not hold.
type Taped struct {
	Open *coordpb.UploadOpen
	Y    []byte // from Open's offset on
}

// tape keeps every upload.
type tape struct {
	mu      sync.Mutex // guards uploads and what they hold
	uploads []*Taped
}

// hear takes one message of a stream; t is what the stream has brought so far.
func (r *tape) hear(t *Taped, m *coordpb.UploadRequest) *Taped {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case m.GetOpen() != nil:
		t = &Taped{Open: proto.CloneOf(m.GetOpen())}
		r.uploads = append(r.uploads, t)
	case t != nil:
		t.Y = append(t.Y, m.GetChunk().GetData()...)
	}
	return t
}

// Taped lists every upload that ever reached a member's device port, as far as it has come.
func (f *Federation) Taped() []*Taped {
	f.tape.mu.Lock()
	defer f.tape.mu.Unlock()
	var out []*Taped
	for _, t := range f.tape.uploads {
		out = append(out, &Taped{t.Open, slices.Clip(t.Y)})
	}
	return out
}
