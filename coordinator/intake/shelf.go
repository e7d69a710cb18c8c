package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/blob"
	"github.com/ruche-federation/ruche/storage/durable"
)

// Shelf keeps contributions on disk. It is safe for concurrent use.
type Shelf struct {
	blobs *blob.Store // y, by H(y), in a group per round
	heads string      // heads/<round>/<H(header)>
}

// OpenShelf opens or creates the shelf in dir.
func OpenShelf(dir string) (*Shelf, error) {
	heads := filepath.Join(dir, "heads")
	if err := durable.MkdirAll(heads, 0o700); err != nil {
		return nil, err
	}
	blobs, err := blob.Open(filepath.Join(dir, "y"))
	if err != nil {
		return nil, err
	}
	return &Shelf{blobs: blobs, heads: heads}, nil
}

func (s *Shelf) headPath(round, header label.Hash) string {
	return filepath.Join(s.heads, round.String(), header.String())
}

// Has reports whether the contribution is here, whole and fsynced.
func (s *Shelf) Has(round, header label.Hash) bool {
	_, err := os.Stat(s.headPath(round, header))
	return err == nil
}

// Load reads a head.
func (s *Shelf) Load(round, header label.Hash) (*Contribution, error) {
	b, err := os.ReadFile(s.headPath(round, header))
	if err != nil {
		return nil, err
	}
	return parseHead(header, b)
}

// Y opens the contribution's masked vector.
func (s *Shelf) Y(c *Contribution) (io.ReadCloser, error) {
	r, size, err := s.blobs.Open(c.Header.Round.String(), c.Header.Y)
	if err != nil {
		return nil, err
	}
	if size != c.YBytes() {
		r.Close()
		return nil, fmt.Errorf("y of contribution %s has %d bytes on disk, its header says %d", c.Hash, size, c.YBytes())
	}
	return r, nil
}

// Receive takes y chunk by chunk and returns when the contribution is whole on disk: y, then the head, each with its
// folder. Chunks that lie before what is already here are skipped, so a resumed and a repeated upload are one thing.
func (s *Shelf) Receive(ctx context.Context, c *Contribution, next func() (*coordpb.Chunk, error)) error {
	group := c.Header.Round.String()
	if s.Has(c.Header.Round, c.Hash) {
		return nil
	}
	if !s.blobs.Has(group, c.Header.Y) {
		if err := s.receiveY(ctx, c, group, next); err != nil {
			return err
		}
	}
	if err := durable.MkdirAll(filepath.Join(s.heads, group), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(s.headPath(c.Header.Round, c.Hash), c.head, 0o600)
}

func (s *Shelf) receiveY(ctx context.Context, c *Contribution, group string, next func() (*coordpb.Chunk, error)) error {
	w, err := s.blobs.Create(group, c.Header.Y, label.TagContribution, c.YBytes())
	if errors.Is(err, blob.ErrExists) {
		return nil // another upload of the same bytes came first
	}
	if err != nil {
		return storeError(err)
	}
	defer w.Close() // keeps the part for a resumed upload; nothing after Commit
	for w.Offset() < c.YBytes() {
		if err := ctx.Err(); err != nil {
			return err
		}
		chunk, err := next()
		if errors.Is(err, io.EOF) {
			return refuse(CodeWrongLength, "y ends at %d of %d bytes", w.Offset(), c.YBytes())
		}
		if err != nil {
			return err
		}
		if err := chunk.Verify(); err != nil {
			return refuse(CodeCorrupt, "%v", err)
		}
		data := chunk.GetData()
		switch at := int64(chunk.GetOffset()); {
		case at < 0 || at > w.Offset():
			return refuse(CodeCorrupt, "a chunk begins at %d, expected %d", chunk.GetOffset(), w.Offset())
		case at+int64(len(data)) > c.YBytes():
			return refuse(CodeWrongLength, "y is longer than its %d bytes", c.YBytes())
		case at+int64(len(data)) <= w.Offset():
			continue // already here
		default:
			data = data[w.Offset()-at:]
		}
		if _, err := w.Write(data); err != nil {
			return storeError(err)
		}
	}
	return storeError(w.Commit())
}

// storeError turns the blob store's typed errors into refusals that a device understands.
func storeError(err error) error {
	var full *blob.FullError
	var digest *blob.DigestError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &full):
		return refuse(CodeFull, "%v", full)
	case errors.As(err, &digest):
		return refuse(CodeCorrupt, "y does not match its hash")
	case errors.Is(err, blob.ErrBusy):
		return refuse(CodeBusy, "the same contribution is being received already")
	}
	return err
}

// Send streams a held contribution's chunks from offset on.
func (s *Shelf) Send(c *Contribution, offset uint64, send func(*coordpb.Chunk) error) error {
	r, err := s.Y(c)
	if err != nil {
		return err
	}
	defer r.Close()
	if offset > 0 {
		if _, err := io.CopyN(io.Discard, r, int64(offset)); err != nil {
			return err
		}
	}
	return coordpb.SendChunks(r, offset, send)
}

// Drop removes a contribution that turned out to be corrupt, so that it is pulled again.
func (s *Shelf) Drop(c *Contribution) error {
	if err := os.Remove(s.headPath(c.Header.Round, c.Hash)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.blobs.Remove(c.Header.Round.String(), c.Header.Y)
}

// RemoveY removes the masked vectors of a round, when the sum over its set is durable and agreed on (SA 2.3 "Unmask").
// Heads stay until the round is terminal.
func (s *Shelf) RemoveY(round label.Hash) error { return s.blobs.RemoveGroup(round.String()) }

// RemoveRound removes all that is left of a terminal round.
func (s *Shelf) RemoveRound(round label.Hash) error {
	if err := s.blobs.RemoveGroup(round.String()); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(s.heads, round.String()))
}

// Close gives the folder back.
func (s *Shelf) Close() error { return s.blobs.Close() }

// Rounds lists the rounds of which anything is here.
func (s *Shelf) Rounds() ([]label.Hash, error) {
	entries, err := os.ReadDir(s.heads)
	if err != nil {
		return nil, err
	}
	var out []label.Hash
	for _, e := range entries {
		h, err := label.ParseHash(strings.TrimSpace(e.Name()))
		if err == nil {
			out = append(out, h)
		}
	}
	return out, nil
}
