package intake

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/blob"
	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/fault"
)

// Shelf keeps contributions on disk. It is safe for concurrent use.
type Shelf struct {
	blobs    *blob.Store // y, by H(y), in a group per round
	heads    string      // heads/<round>/<H(header)>
	keepFree uint64      // bytes that contributions leave free, whatever sums their round ends in: the log and the votes need them

	checking sync.Mutex // one copy at a time is hashed before it is believed, or dropped

	mu     sync.Mutex // guards what follows
	unsure map[place]int
	hashed map[place]bool
	parts  map[place]int64
	begun  map[label.Hash]map[label.Hash][]label.Hash
	drops  uint64 // contributions that were dropped
}

// place is where a contribution lies.
//
// In Shelf's maps: unsure counts who is writing the head there now, or failed to, so that its name says nothing yet;
// hashed has those whose y this process has hashed as it came, or compared with its checksum on the disk;
// parts has how much of y is here of an upload that broke off; begun has the headers that each device began in a round,
// in this process.
type place struct{ round, header label.Hash }

// OpenShelf opens or creates the shelf in dir. What an earlier process renamed and did not sync is on the disk when it
// returns. Contributions leave keepFree bytes of the file system free, and room for their round's sums; 0 is no bound.
func OpenShelf(dir string, keepFree uint64) (*Shelf, error) {
	heads := filepath.Join(dir, "heads")
	if err := durable.MkdirAll(heads, 0o700); err != nil {
		return nil, err
	}
	blobs, err := blob.Open(filepath.Join(dir, "y"))
	if err != nil {
		return nil, err
	}
	s := &Shelf{blobs: blobs, heads: heads, keepFree: keepFree, unsure: map[place]int{}, hashed: map[place]bool{}, parts: map[place]int64{}, begun: map[label.Hash]map[label.Hash][]label.Hash{}}
	if err := s.syncHeads(); err != nil {
		return nil, errors.Join(err, blobs.Close())
	}
	return s, nil
}

func (s *Shelf) syncHeads() error {
	entries, err := os.ReadDir(s.heads)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		dir := filepath.Join(s.heads, e.Name())
		if _, err := durable.RemoveTemps(dir); err != nil {
			return err
		}
		if err := durable.SyncDir(dir); err != nil {
			return err
		}
	}
	return durable.SyncDir(s.heads)
}

func (s *Shelf) headPath(p place) string {
	return filepath.Join(s.heads, p.round.String(), p.header.String())
}

// Has reports whether the contribution is here, whole and fsynced.
func (s *Shelf) Has(round, header label.Hash) bool {
	_, err := s.Load(round, header)
	return err == nil
}

// Load reads a head whose y is here too. The error wraps fs.ErrNotExist where either is missing, or not certainly on
// the disk yet; it is *DamageError where the head is not what was written.
func (s *Shelf) Load(round, header label.Hash) (*Contribution, error) {
	p := place{round, header}
	s.mu.Lock()
	unsure := s.unsure[p] > 0
	s.mu.Unlock()
	if unsure {
		return nil, fmt.Errorf("head %s: not complete: %w", header, fs.ErrNotExist)
	}
	b, err := os.ReadFile(s.headPath(p))
	if err != nil {
		return nil, unreadable(err)
	}
	c, err := ParseHead(header, b)
	if err != nil {
		return nil, &DamageError{err}
	}
	if c.Header.Round != round {
		return nil, damaged("head %s is of another round", header)
	}
	if !s.blobs.Has(round.String(), c.Header.Y) {
		return nil, fmt.Errorf("y of contribution %s: %w", header, fs.ErrNotExist)
	}
	return c, nil
}

// Offset is how much of y is here: all of it, what an upload that broke off has left, or nothing. A copy that an earlier
// process left is read once: if it rotted it is not here.
func (s *Shelf) Offset(round, header label.Hash) (offset int64, complete bool, err error) {
	c, err := s.found(round, header)
	if err == nil {
		return c.YBytes(), true, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return 0, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parts[place{round, header}], false, nil
}

// Y is a contribution's masked vector, read from the shelf. What is read is sound if Whole says so at the end. Of what is
// on the disk and not what was written, its methods' errors are *DamageError.
type Y struct {
	f    io.ReadCloser
	name label.Hash
	want uint32 // CRC32C
	got  uint32
	left int64
}

// Y opens the masked vector of a contribution that Load gave.
func (s *Shelf) Y(c *Contribution) (*Y, error) {
	r, size, err := s.blobs.Open(c.Header.Round.String(), c.Header.Y)
	if err != nil {
		return nil, err
	}
	if size != c.YBytes() {
		r.Close()
		return nil, damaged("y of contribution %s has %d bytes on disk, its header says %d", c.Hash, size, c.YBytes())
	}
	return &Y{f: r, name: c.Hash, want: c.yCRC, left: size}, nil
}

// Read is io.Reader's.
func (y *Y) Read(p []byte) (int, error) {
	n, err := y.f.Read(p)
	y.got = crc32.Update(y.got, castagnoli, p[:n])
	y.left -= int64(n)
	if errors.Is(err, io.EOF) && y.left > 0 {
		return n, damaged("y of contribution %s ends %d bytes early", y.name, y.left)
	}
	return n, unreadable(err)
}

// Whole compares the checksum once y was read to its end. It finds rot; what the device signed was compared with y's
// hash before the head was written.
func (y *Y) Whole() error {
	if y.left > 0 {
		return fmt.Errorf("y of contribution %s: %d bytes were not read", y.name, y.left)
	}
	if y.got != y.want {
		return damaged("y of contribution %s: its checksum differs", y.name)
	}
	return nil
}

// Close is io.Closer's.
func (y *Y) Close() error { return y.f.Close() }

// Verify reads the contribution's y to the end and compares its checksum.
func (s *Shelf) Verify(c *Contribution) error {
	y, err := s.Y(c)
	if err != nil {
		return err
	}
	defer y.Close()
	for buf := make([]byte, verifyBytes); ; {
		_, err := y.Read(buf)
		if errors.Is(err, io.EOF) {
			return y.Whole()
		}
		if err != nil {
			return fmt.Errorf("y of contribution %s: %w", c.Hash, err)
		}
	}
}

// Sure verifies a contribution that this process has not read yet. What an earlier one left may have rotted since, and
// nothing is said of it unread.
func (s *Shelf) Sure(c *Contribution) error {
	p := place{c.Header.Round, c.Hash}
	s.mu.Lock()
	sure := s.hashed[p]
	s.mu.Unlock()
	if sure {
		return nil
	}
	if err := s.Verify(c); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hashed[p] = true
	return nil
}

// found is Load of a contribution that this process is sure of. One whose y rotted is dropped, and is fs.ErrNotExist.
func (s *Shelf) found(round, header label.Hash) (*Contribution, error) {
	s.checking.Lock()
	defer s.checking.Unlock()
	c, err := s.Load(round, header)
	if err != nil {
		return nil, err
	}
	err = s.Sure(c)
	if errors.As(err, new(*DamageError)) {
		return nil, errors.Join(fmt.Errorf("%w: %w", fs.ErrNotExist, err), s.drop(c))
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Receive takes y chunk by chunk and returns when the contribution is whole on disk: y, then the head, each with its
// folder. Chunks that lie before what is already here are skipped, so a resumed and a repeated upload are one thing. What
// goes wrong here, and not with what is sent, is a refusal for a full disk or another upload of the same, or *ShelfError.
func (s *Shelf) Receive(ctx context.Context, c *Contribution, next func() (*coordpb.Chunk, error)) error {
	group := c.Header.Round.String()
	if _, err := s.found(c.Header.Round, c.Hash); err == nil {
		return nil
	}
	if err := s.begin(c); err != nil {
		return err
	}
	yCRC, err := s.receiveY(ctx, c, group, next)
	if errors.Is(err, blob.ErrExists) { // of another head, or of an upload that broke off between y and head
		yCRC, err = s.checksum(c, group)
	}
	if errors.As(err, new(*blob.DigestError)) { // it had rotted, and is set aside
		if yCRC, err = s.receiveY(ctx, c, group, next); errors.Is(err, blob.ErrExists) {
			err = &ShelfError{err}
		}
	}
	if err != nil {
		return err
	}
	if err := s.writeHead(c, yCRC); err != nil {
		return storeError(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hashed[place{c.Header.Round, c.Hash}] = true
	return nil
}

// checksum is the CRC32C of a y that is here, once its hash is compared; *blob.DigestError where it rotted.
func (s *Shelf) checksum(c *Contribution, group string) (uint32, error) {
	b, err := s.blobs.Read(group, c.Header.Y, label.TagContribution)
	if err != nil && !errors.As(err, new(*blob.DigestError)) {
		err = storeError(err)
	}
	return crc32.Checksum(b, castagnoli), err
}

// begin counts a device's headers in a round. What the log accepted is owed to the round and always taken.
func (s *Shelf) begin(c *Contribution) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	round := s.begun[c.Header.Round]
	if round == nil {
		round = map[label.Hash][]label.Hash{}
		s.begun[c.Header.Round] = round
	}
	of := round[c.Header.Device]
	switch {
	case slices.Contains(of, c.Hash) || c.Accepted:
		return nil
	case len(of) >= headersPerDevice:
		return refuse(CodeTooMany, "the device began %d other contributions to this round here", len(of))
	}
	round[c.Header.Device] = append(of, c.Hash)
	return nil
}

// writeHead makes the contribution whole. While it is at it, and after a failure, the head's name is not believed: it
// may be visible and not on the disk.
func (s *Shelf) writeHead(c *Contribution, yCRC uint32) error {
	p := place{c.Header.Round, c.Hash}
	if err := durable.MkdirAll(filepath.Dir(s.headPath(p)), 0o700); err != nil {
		return err
	}
	s.mu.Lock()
	s.unsure[p]++
	s.mu.Unlock()
	err := fault.Step("head", s.heads, func() error { return durable.WriteFile(s.headPath(p), c.shelved(yCRC), 0o600) })
	if err != nil {
		if gone := os.Remove(s.headPath(p)); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			return errors.Join(err, gone) // and unsure for ever
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unsure[p]--; s.unsure[p] == 0 {
		delete(s.unsure, p)
	}
	if err == nil {
		delete(s.parts, p)
	}
	return err
}

// receiveY takes y and gives its CRC32C; blob.ErrExists where it is here already. Errors of next are returned as they are.
func (s *Shelf) receiveY(ctx context.Context, c *Contribution, group string, next func() (*coordpb.Chunk, error)) (uint32, error) {
	if s.blobs.Has(group, c.Header.Y) {
		return 0, blob.ErrExists
	}
	w, err := s.blobs.CreateLeaving(s.leave(c), group, c.Header.Y, label.TagContribution, c.YBytes())
	if errors.Is(err, blob.ErrExists) { // another upload of the same bytes came first
		return 0, err
	}
	if errors.As(err, new(*blob.FullError)) {
		return 0, full(c)
	}
	if err != nil {
		return 0, storeError(err)
	}
	defer func() {
		w.Close() // keeps the part for a resumed upload; nothing after Commit
		s.mu.Lock()
		defer s.mu.Unlock()
		if p := (place{c.Header.Round, c.Hash}); w.Offset() < c.YBytes() {
			s.parts[p] = w.Offset()
		} else {
			delete(s.parts, p) // whole, or dropped
		}
	}()
	bytes, chunks := sendsMax*c.YBytes()+coordpb.ChunkBytesMax, chunksMax*(c.YBytes()/coordpb.ChunkBytesMax+2)
	for w.Offset() < c.YBytes() {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		chunk, err := next()
		if errors.Is(err, io.EOF) {
			return 0, refuse(CodeWrongLength, "y ends at %d of %d bytes", w.Offset(), c.YBytes())
		}
		if err != nil {
			return 0, err
		}
		if err := chunk.Verify(); err != nil {
			return 0, refuse(CodeCorrupt, "%v", err)
		}
		data, crc := chunk.GetData(), chunk.GetCrc32C()
		if bytes, chunks = bytes-int64(len(data)), chunks-1; bytes < 0 || chunks < 0 {
			return 0, refuse(CodeCorrupt, "y of %d bytes comes in too many pieces, or over and over", c.YBytes())
		}
		// An offset beyond y is compared before it is added to: nothing overflows.
		switch at := chunk.GetOffset(); {
		case at > uint64(w.Offset()):
			return 0, refuse(CodeCorrupt, "a chunk begins at %d, expected %d", at, w.Offset())
		case int64(at)+int64(len(data)) > c.YBytes():
			return 0, refuse(CodeWrongLength, "y is longer than its %d bytes", c.YBytes())
		case int64(at)+int64(len(data)) <= w.Offset():
			continue // already here
		default:
			if cut := w.Offset() - int64(at); cut > 0 {
				data = data[cut:]
				crc = crc32.Checksum(data, castagnoli)
			}
		}
		if _, err := w.WriteSummed(data, crc); err != nil {
			return 0, storeError(err)
		}
	}
	err = fault.Step("y", s.heads, w.Commit)
	if errors.As(err, new(*blob.DigestError)) {
		return 0, refuse(CodeCorrupt, "y does not match its hash")
	}
	if err != nil {
		return 0, storeError(err)
	}
	return w.Checksum(), nil
}

// leave is what a contribution leaves free: the round gives no room back before it has ended, and ends in the sum of y and
// the sum of each of this member's masks, which are some of those that a device commits to.
func (s *Shelf) leave(c *Contribution) uint64 {
	if s.keepFree == 0 {
		return 0
	}
	return s.keepFree + uint64(1+len(c.Header.Commitments))*uint64(c.YBytes())
}

func full(c *Contribution) error {
	return refuse(CodeFull, "this member has no room for %d bytes now", c.YBytes())
}

// storeError is what a step of this shelf's own failed for: a refusal, where devices understand it, or *ShelfError. A
// refusal passes no path on: they are nobody's business but this member's.
func storeError(err error) error {
	switch {
	case errors.As(err, new(*blob.FullError)), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return refuse(CodeFull, "this member's disk is full")
	case errors.Is(err, blob.ErrBusy):
		return refuse(CodeBusy, "the same contribution is being received already")
	}
	return &ShelfError{err}
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
	s.checking.Lock()
	defer s.checking.Unlock()
	return s.drop(c)
}

// Drops counts the contributions that were dropped since the shelf was opened. While it stands, what was here is.
func (s *Shelf) Drops() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drops
}

func (s *Shelf) drop(c *Contribution) error {
	defer func() { // last: who reads the count looks at the disk after it
		s.mu.Lock()
		defer s.mu.Unlock()
		s.drops++
	}()
	s.mu.Lock()
	delete(s.hashed, place{c.Header.Round, c.Hash})
	s.mu.Unlock()
	if err := os.Remove(s.headPath(place{c.Header.Round, c.Hash})); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.blobs.Remove(c.Header.Round.String(), c.Header.Y)
}

// RemoveRound removes all that is left of a terminal round.
func (s *Shelf) RemoveRound(round label.Hash) error {
	s.mu.Lock()
	delete(s.begun, round)
	for p := range s.parts {
		if p.round == round {
			delete(s.parts, p)
		}
	}
	for p := range s.hashed {
		if p.round == round {
			delete(s.hashed, p)
		}
	}
	s.mu.Unlock()
	if err := s.blobs.RemoveGroup(round.String()); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(s.heads, round.String()))
}

// ExpireParts removes what uploads left that broke off before now less ttl and were not resumed.
func (s *Shelf) ExpireParts(now time.Time, ttl time.Duration) (int, error) {
	n, err := s.blobs.ExpireParts(now, ttl)
	if n > 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		clear(s.parts) // whoever resumes learns the offset at its first chunk
	}
	return n, err
}

// Err is why nothing is here any more until the shelf is opened again, nil while it works.
func (s *Shelf) Err() error { return s.blobs.Err() }

// Close gives the folder back.
func (s *Shelf) Close() error { return s.blobs.Close() }

// Rounds lists the rounds of which anything is here.
func (s *Shelf) Rounds() ([]label.Hash, error) {
	entries, err := os.ReadDir(s.heads)
	if err != nil {
		return nil, err
	}
	groups, err := s.blobs.Groups()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		groups = append(groups, e.Name())
	}
	found := map[label.Hash]bool{}
	for _, g := range groups {
		if h, err := label.ParseHash(g); err == nil {
			found[h] = true
		}
	}
	s.mu.Lock()
	for h := range s.begun {
		found[h] = true
	}
	s.mu.Unlock()
	out := make([]label.Hash, 0, len(found))
	for h := range found {
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b label.Hash) int { return slices.Compare(a[:], b[:]) })
	return out, nil
}
