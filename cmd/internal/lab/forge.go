package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/prg"
	"github.com/ruche-federation/ruche/crypto/seal"
)

// Contribution is an upload as it travels: for tests that send what no honest device sends, or send it in other ways.
type Contribution struct {
	Round  label.Hash
	Header label.Hash
	Open   *coordpb.UploadOpen
	Y      []byte
}

// Forge makes a contribution of a device by hand, over some vector of small numbers. From then on the device counts as
// a liar. garble, if set, changes the boxes before their hash is signed.
func (d *Device) Forge(garble func(boxes [][]byte)) (*Contribution, error) {
	return d.forge(nil, garble)
}

// forge makes it with a header that bend may change before the boxes are sealed under it, then with boxes of one's own.
func (d *Device) forge(bend func(h *statement.Header), garble func(boxes [][]byte)) (*Contribution, error) {
	v, ok := d.f.Round()
	if !ok {
		return nil, errors.New("there is no round")
	}
	d.Lies.Store(true)
	rc := v.Config
	x := make([]uint32, rc.Len)
	for i := range x {
		x[i] = uint32(int32(d.vectors.IntN(101) - 50))
	}
	h := &statement.Header{Round: v.ID, Device: d.ID, Cert: d.Cert.Hash(), Kind: statement.KindDevice, Len: rc.Len}
	if _, err := d.rand.Read(h.Nonce[:]); err != nil {
		return nil, err
	}
	sealed, err := committee.Contribute(rc.Committee(d.f.Charter), d.ID, h.Nonce, x, func(commitments []label.Hash, y label.Hash) []byte {
		h.Commitments, h.Y = slices.Clone(commitments), y
		if bend != nil {
			bend(h)
		}
		return h.AAD()
	}, d.rand)
	if err != nil {
		return nil, err
	}
	if garble != nil {
		garble(sealed.Boxes)
	}
	h.Boxes = statement.HashBoxes(sealed.Boxes)
	body := h.Bytes()
	c := &Contribution{Round: h.Round, Header: statement.HashHeader(body), Y: sealed.Y}
	if err := d.keepPlain(c.Header, x); err != nil {
		return nil, err
	}
	c.Open = &coordpb.UploadOpen{RoundId: h.Round[:], Boxes: sealed.Boxes,
		Header: &coordpb.Signed{Body: body, Signature: statement.SignContribution(d.key, h.Round, c.Header)}}
	return c, nil
}

// ForgeSeeds makes a contribution whose boxes for some members hold other seeds than its commitments are of. They are
// sealed as they should be, under the header that the device signs: nothing else is wrong with it.
func (d *Device) ForgeSeeds(victims ...int) (*Contribution, error) {
	v, ok := d.f.Round()
	if !ok {
		return nil, errors.New("there is no round")
	}
	var header *statement.Header
	var failed error
	c, err := d.forge(func(h *statement.Header) { header = h }, func(boxes [][]byte) {
		for i, r := range v.Config.Committee(d.f.Charter).Listed {
			if failed == nil && slices.Contains(victims, r.Member) {
				boxes[i], failed = d.sealOtherSeeds(header, r)
			}
		}
	})
	return c, errors.Join(err, failed)
}

// sealOtherSeeds is a member's box as SA 2.3 has it, but for the seeds: as many as are the member's, of no subset.
func (d *Device) sealOtherSeeds(h *statement.Header, r committee.Recipient) ([]byte, error) {
	seeds := make([]byte, prg.SeedSize*committee.Count(d.f.opts.N-1, d.f.opts.F))
	if _, err := d.rand.Read(seeds); err != nil {
		return nil, err
	}
	info := slices.Concat([]byte(label.BoxInfo), h.Round[:])
	info = binary.BigEndian.AppendUint32(info, uint32(r.Member))
	info = binary.BigEndian.AppendUint64(info, r.Epoch)
	return seal.Seal(r.SealKey, info, h.AAD(), seeds)
}

// Upload sends a contribution to some members at the same time. Answers and errors are in the members' order.
func (f *Federation) Upload(c *Contribution, members ...int) ([]*coordpb.UploadResponse, []error) {
	answers, errs := make([]*coordpb.UploadResponse, len(members)), make([]error, len(members))
	var run []func() error
	for i, member := range members {
		run = append(run, func() error {
			answers[i], errs[i] = f.uploadTo(c, member)
			return nil
		})
	}
	if err := f.during(run...); err != nil {
		return answers, []error{err}
	}
	return answers, errs
}

func (f *Federation) uploadTo(c *Contribution, member int) (*coordpb.UploadResponse, error) {
	p := f.Seats[member].live()
	if p == nil {
		return nil, fmt.Errorf("member %d is down", member)
	}
	stream, err := coordpb.NewDeviceClient(p.device.conn).Upload(context.Background())
	if err != nil {
		return nil, err
	}
	open := proto.Clone(c.Open).(*coordpb.UploadOpen)
	if err := stream.Send(&coordpb.UploadRequest{Message: &coordpb.UploadRequest_Open{Open: open}}); err == nil {
		// A send error only says that the member has answered already.
		_ = coordpb.SendChunks(bytes.NewReader(c.Y), 0, func(ch *coordpb.Chunk) error {
			return stream.Send(&coordpb.UploadRequest{Message: &coordpb.UploadRequest_Chunk{Chunk: ch}})
		})
	}
	return stream.CloseAndRecv()
}
