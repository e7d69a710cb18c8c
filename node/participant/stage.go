package participant

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/fault"
)

// staged is one finished contribution: the bytes that leave, and the certificate of the round they belong to.
type staged struct {
	cert   *coordpb.Certificate
	open   *coordpb.UploadOpen
	y      []byte
	config *statement.RoundConfig // parsed from cert
	header *statement.Header      // parsed from open
	hash   label.Hash             // H(header)
}

const stagedMagic = "ruche staged 1\n"

// marshal writes magic, then certificate, head and y, each behind its length.
func (s *staged) marshal() ([]byte, error) {
	cert, err := proto.Marshal(s.cert)
	if err != nil {
		return nil, err
	}
	open, err := proto.Marshal(s.open)
	if err != nil {
		return nil, err
	}
	out := []byte(stagedMagic)
	for _, part := range [][]byte{cert, open, s.y} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(part)))
		out = append(out, part...)
	}
	return out, nil
}

func parseStaged(b []byte) (*staged, error) {
	rest, ok := strings.CutPrefix(string(b), stagedMagic)
	if !ok {
		return nil, errors.New("not a staged contribution of this version")
	}
	var parts [3][]byte
	for i := range parts {
		if len(rest) < 4 {
			return nil, errors.New("cut off")
		}
		n := binary.BigEndian.Uint32([]byte(rest[:4]))
		if rest = rest[4:]; uint64(n) > uint64(len(rest)) {
			return nil, fmt.Errorf("part %d has %d bytes, %d are left", i, n, len(rest))
		}
		parts[i], rest = []byte(rest[:n]), rest[n:]
	}
	if rest != "" {
		return nil, fmt.Errorf("%d bytes too many", len(rest))
	}
	s := &staged{cert: new(coordpb.Certificate), open: new(coordpb.UploadOpen), y: parts[2]}
	if err := proto.Unmarshal(parts[0], s.cert); err != nil {
		return nil, err
	}
	if err := proto.Unmarshal(parts[1], s.open); err != nil {
		return nil, err
	}
	var err error
	if s.config, err = statement.ParseRoundConfig(s.cert.GetBody()); err != nil {
		return nil, err
	}
	if s.header, err = statement.ParseHeader(s.open.GetHeader().GetBody()); err != nil {
		return nil, err
	}
	s.hash = statement.HashHeader(s.open.GetHeader().GetBody())
	switch { // a byte that flipped on the disk must not leave: the ledger names what does
	case statement.RoundID(s.cert.GetBody()) != s.header.Round:
		return nil, errors.New("the header is of another round than the certificate")
	case label.Sum(label.TagContribution, s.y) != s.header.Y:
		return nil, errors.New("y does not match its header")
	case statement.HashBoxes(s.open.GetBoxes()) != s.header.Boxes:
		return nil, errors.New("the boxes do not match their header")
	}
	return s, nil
}

func (p *Participant) stagedPath(round label.Hash) string {
	return filepath.Join(p.cfg.Dir, "staged", round.String())
}

func (p *Participant) stage(s *staged) error {
	b, err := s.marshal()
	if err != nil {
		return err
	}
	path := p.stagedPath(s.header.Round)
	if err := fault.Step("stage", path, func() error { return durable.WriteFile(path, b, 0o600) }); err != nil {
		return err
	}
	p.waiting[s.header.Round] = s.config
	return nil
}

// stagedRounds lists the rounds that something is staged for.
func (p *Participant) stagedRounds() (out []label.Hash, err error) {
	entries, err := os.ReadDir(filepath.Join(p.cfg.Dir, "staged"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if round, err := label.ParseHash(e.Name()); err == nil { // else a temporary file of a write that failed
			out = append(out, round)
		}
	}
	return out, nil
}

// readStaged reads what is staged for a round. A file that is not as it was written is removed, and nil is returned: if
// anything of it left, the ledger tells so, and forbids another upload; if not, the round is joined anew. To stop at it
// would be to stop for ever.
func (p *Participant) readStaged(round label.Hash) (*staged, error) {
	path := p.stagedPath(round)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	var s *staged
	if size := info.Size(); size > stagedBytesMax {
		err = fmt.Errorf("%d bytes, limit %d", size, int64(stagedBytesMax))
	} else {
		b, rerr := os.ReadFile(path)
		if rerr != nil {
			return nil, rerr
		}
		s, err = parseStaged(b)
	}
	if err == nil && s.header.Round != round {
		err = fmt.Errorf("it is of round %s", s.header.Round)
	}
	if err != nil {
		p.cfg.Logger.Error("a staged contribution is damaged: it is removed and not sent", "path", path, "error", err)
		return nil, p.unstage(round)
	}
	p.waiting[round] = s.config
	return s, nil
}

func (p *Participant) unstage(round label.Hash) error {
	if err := durable.Remove(p.stagedPath(round)); err != nil {
		return err
	}
	delete(p.waiting, round)
	return nil
}
