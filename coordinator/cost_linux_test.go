package coordinator

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/epoch"
	"github.com/ruche-federation/ruche/coordinator/intake"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/seal"
)

// BenchmarkMember is what the protocol itself asks of one member of (4,1) for every device, without TLS, gRPC and Raft,
// which it shares with a sum in the clear: checks, CRC and hash of arrival, y and head on disk, y read for its checksum
// before the ack and again into the sum, the box opened twice (arrival, reveal), and the masks of its three subsets.
// cpu-ms/dev is the user and system time of this process, the least of all iterations, and consists of the four beside it:
// system time is the disk.
func BenchmarkMember(b *testing.B) {
	const devices = 2 * foldBatch
	dir := b.TempDir()
	e, err := epoch.Create(filepath.Join(dir, "epochs"), 1, rand.Reader)
	must(b, err)
	defer e.Close()
	var others [3]*seal.PrivateKey
	r := committee.Round{ID: label.Hash{1}, N: 4, F: 1, Len: benchValues + 3, Listed: []committee.Recipient{{Member: 0, Epoch: 1, SealKey: e.SealPublic()}}}
	for i := range others {
		others[i], err = seal.GenerateKey(rand.Reader)
		must(b, err)
		r.Listed = append(r.Listed, committee.Recipient{Member: i + 1, Epoch: 1, SealKey: others[i].Public()})
	}
	known := benchState{intake.Terms{Round: r}, map[label.Hash]*statement.DeviceCert{}}
	var uploads []*coordpb.UploadOpen
	var ys [][]*coordpb.Chunk
	for range devices {
		d := newTestDevice(b)
		cert := &statement.DeviceCert{Device: d.id(), Public: d.key.Public()}
		known.certs[d.id()] = cert
		h := &statement.Header{Round: r.ID, Device: d.id(), Cert: cert.Hash(), Kind: statement.KindDevice, Len: uint32(r.Len)}
		sealed, err := committee.Contribute(r, d.id(), h.Nonce, make([]uint32, r.Len), func(commitments []label.Hash, y label.Hash) []byte {
			h.Commitments, h.Y = commitments, y
			return h.AAD()
		}, rand.Reader)
		must(b, err)
		h.Boxes = statement.HashBoxes(sealed.Boxes)
		uploads = append(uploads, &coordpb.UploadOpen{RoundId: r.ID[:], Boxes: sealed.Boxes,
			Header: &coordpb.Signed{Body: h.Bytes(), Signature: statement.SignContribution(d.key, r.ID, h.Hash())}})
		var y []*coordpb.Chunk
		must(b, coordpb.SendChunks(bytes.NewReader(sealed.Y), 0, func(ch *coordpb.Chunk) error {
			y = append(y, proto.CloneOf(ch))
			return nil
		}))
		ys = append(ys, y)
	}
	m := &Member{cfg: Config{Logger: slog.New(slog.DiscardHandler)}, ch: &charter.Charter{N: 4, F: 1}}
	m.shelf, err = intake.OpenShelf(filepath.Join(dir, "blobs"), 0)
	must(b, err)
	defer m.shelf.Close()
	v := round.View{ID: r.ID, Config: &statement.RoundConfig{Len: uint32(r.Len)}}
	var arrivals, reveals []usage
	for b.Loop() {
		before := ownUsage(b)
		var set []round.Candidate
		for i, open := range uploads {
			c, terms, err := intake.Check(known, open)
			must(b, err)
			rest := ys[i]
			must(b, m.shelf.Receive(b.Context(), c, func() (*coordpb.Chunk, error) {
				if len(rest) == 0 {
					return nil, io.EOF
				}
				chunk := rest[0]
				rest = rest[1:]
				return chunk, nil
			}))
			s, err := m.openBox(e, c, terms)
			must(b, err)
			s.Erase()
			set = append(set, round.Candidate{Device: c.Header.Device, Header: c.Hash})
		}
		for _, k := range set { // for the ack
			_, err := m.sound(b.Context(), v, k)
			must(b, err)
		}
		arrived := ownUsage(b)
		if _, _, err := m.fold(b.Context(), e, v, known.terms, set); err != nil {
			b.Fatal(err)
		}
		revealed := ownUsage(b)
		arrivals, reveals = append(arrivals, arrived.minus(before)), append(reveals, revealed.minus(arrived))
		must(b, m.shelf.RemoveRound(r.ID))
	}
	total := 0.0
	for name, list := range map[string][]usage{"arrival": arrivals, "reveal": reveals} {
		least := slices.MinFunc(list, func(a, b usage) int { return cmp.Compare(a.cpu(), b.cpu()) })
		b.ReportMetric(least.user.Seconds()*1000/devices, name+"-user-ms/dev")
		b.ReportMetric(least.system.Seconds()*1000/devices, name+"-system-ms/dev")
		total += least.cpu().Seconds() * 1000 / devices
	}
	b.ReportMetric(total, "cpu-ms/dev")
}

// benchState is intake.State of one round that is open and devices that are enrolled.
type benchState struct {
	terms intake.Terms
	certs map[label.Hash]*statement.DeviceCert
}

func (s benchState) Await(context.Context, label.Hash, label.Hash) {}

func (s benchState) Terms(label.Hash) (intake.Terms, bool) { return s.terms, true }

func (s benchState) DeviceCert(device label.Hash) (*statement.DeviceCert, bool) {
	c, ok := s.certs[device]
	return c, ok
}

func (s benchState) Acceptable(label.Hash, label.Hash, label.Hash) (code, detail string) {
	return string(round.OK), ""
}

// ownUsage is what this process has computed.
func ownUsage(b *testing.B) usage {
	b.Helper()
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return usage{user: time.Duration(u.Utime.Nano()), system: time.Duration(u.Stime.Nano())}
}
