package lab

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/ruche-federation/ruche/aggregation/committee"
	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/node/participant"
)

// Fault is where a device's process ends during its next contribution.
type Fault int

const (
	None         Fault = iota
	BeforeStage        // the update is trained, nothing is on the disk
	BeforeLedger       // the bytes are staged, the ledger does not know them
	BeforeSend         // debited, no byte has left
	MidUpload          // a part of y has left
	BeforeAck          // all has arrived, the answer is lost
)

// String names a fault for reports.
func (f Fault) String() string {
	return [...]string{"none", "before stage", "before ledger", "before send", "mid upload", "before ack"}[f]
}

// Device is one device: its folder, and its participant while it runs.
type Device struct {
	Name  string
	Dir   string
	ID    label.Hash
	Cert  *statement.DeviceCert // nil before it is enrolled; set as Federation.Devices is
	Fault Fault                 // of the next contribution; taken when it strikes
	Lies  atomic.Bool           // the test speaks for it: the invariants of an honest device are not its

	f           *Federation
	key         *identity.Key
	signed      statement.Signed
	rand        *drawer
	vectors     *rand.Rand
	participant *participant.Participant
	adopted     layout.Model
	ledgerSize  int64 // before the current contribution
	calls       int   // of the current step
	stop        context.CancelCauseFunc
}

// errFault ends a device's step at its fault.
var errFault = errors.New("the device's process ended")

// errEnough ends a step that asked every member and more.
var errEnough = errors.New("every member was asked")

// AddDevice makes a device with its keys, without enrolling it: its certificate enters the log with Start.
func (f *Federation) AddDevice() (*Device, error) {
	i := len(f.Devices)
	d := &Device{Name: fmt.Sprintf("device %d", i), Dir: filepath.Join(f.opts.Dir, fmt.Sprintf("device-%d", i)), f: f,
		rand: f.drawer(fmt.Sprintf("device %d", i)), vectors: rand.New(rand.NewPCG(f.opts.Seed, uint64(1000+i)))}
	var err error
	if d.key, err = identity.NewKey(d.rand); err != nil {
		return nil, err
	}
	d.ID = identity.DeviceID(d.key.Public())
	f.mu.Lock()
	f.Devices = append(f.Devices, d)
	f.mu.Unlock()
	return d, os.MkdirAll(d.Dir, 0o700)
}

// enrol puts the device's certificate into the log: what an authority does for a token.
func (d *Device) enrol() error {
	f := d.f
	authority := f.Seats[slices.Index(f.Devices, d)%len(f.Seats)]
	home := filepath.Join(authority.Dir, "keys", "authority.key")
	b, err := os.ReadFile(home)
	if err != nil {
		return err
	}
	key, err := identity.ParseKey(b)
	if err != nil {
		return err
	}
	cert := &statement.DeviceCert{Charter: f.Charter.Hash(), Device: d.ID, Public: d.key.Public(), Authority: authority.Index, Quota: 1000,
		ExpiresMs: f.Now().Add(90 * 24 * time.Hour).UnixMilli(), Token: statement.HashToken([]byte(d.Name))}
	d.certify(cert, statement.SignKey(key, label.StmtDeviceCert, cert.Bytes()))
	outcomes, err := f.Inject(round.DeviceCertCommand(d.signed))
	if err != nil {
		return err
	}
	if outcomes[0].GetCode() != string(round.OK) {
		return fmt.Errorf("%s: %s: %s", d.Name, outcomes[0].GetCode(), outcomes[0].GetDetail())
	}
	return nil
}

// certify gives the device its certificate.
func (d *Device) certify(cert *statement.DeviceCert, signed statement.Signed) {
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	d.Cert, d.signed = cert, signed
}

// start opens the device's folder as its program does.
func (d *Device) start(ctx context.Context) (err error) {
	if d.participant != nil {
		return nil
	}
	base := label.Hash{}
	if d.f.task.Kind == charter.KindLoRA {
		base = BaseModel()
	}
	d.participant, err = participant.New(ctx, participant.Config{Charter: d.f.Charter, Task: TaskID, Base: base, Key: d.key, Cert: d.signed,
		Dir: d.Dir, Learner: (*learner)(d), Members: (*deviceMembers)(d), Now: d.f.Now, Rand: d.rand,
		Logger: d.f.logger.With("device", d.Name), KeepEncoded: d.f.Charter.Demo})
	return err
}

// Crash ends the device's process. Its next step opens the folder again.
func (d *Device) Crash() error {
	if d.participant == nil {
		return nil
	}
	p := d.participant
	d.participant = nil
	return p.Close()
}

// Ledger is what the device's ledger says on disk.
func (d *Device) Ledger() ([]participant.Entry, error) {
	return participant.ReadLedger(filepath.Join(d.Dir, "ledger"))
}

// Acked reports whether the device has n-f receipts for its contribution to a round.
func (d *Device) Acked(id label.Hash) bool {
	entries, err := d.Ledger()
	return err == nil && slices.ContainsFunc(entries, func(e participant.Entry) bool { return e.Kind == participant.KindAck && e.Round == id })
}

// Adopted is the state that the device uses.
func (d *Device) Adopted() layout.Model { return d.adopted }

// keepPlain keeps the vector of a contribution made by hand, for the sum that the checks compare with.
func (d *Device) keepPlain(header label.Hash, x []uint32) error {
	dir := filepath.Join(d.Dir, "forged")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, header.String()), committee.VectorBytes(x), 0o600)
}

// step is one step of the device's program, starting it if need be. A fault ends the process.
func (d *Device) step() error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	if p := d.f.opts.Patience; p > 0 {
		defer time.AfterFunc(p, func() { cancel(errEnough) }).Stop()
	}
	d.stop, d.calls = cancel, 0
	if err := d.start(ctx); err != nil {
		return err
	}
	_, err := d.participant.Step(ctx)
	if !errors.Is(context.Cause(ctx), errFault) {
		return err
	}
	fault := d.Fault
	d.Fault = None
	if err := d.Crash(); err != nil {
		return err
	}
	if fault == BeforeLedger {
		// The ledger's entry follows the staged bytes and is written before anything is sent: cut it off again, as if the
		// process had ended between the two.
		if err := os.Truncate(filepath.Join(d.Dir, "ledger"), d.ledgerSize); err != nil {
			return err
		}
	}
	return errFault
}

// learner makes the device's vectors: another one each time, with a norm that fills the grid.
type learner Device

// Update implements participant.Learner.
func (l *learner) Update(_ context.Context, task *charter.Task, _ uint64, _ layout.Model) (participant.Update, error) {
	d := (*Device)(l)
	if info, err := os.Stat(filepath.Join(d.Dir, "ledger")); err == nil {
		d.ledgerSize = info.Size()
	}
	if d.Fault == BeforeStage {
		d.stop(errFault)
		return participant.Update{}, errFault
	}
	u := participant.Update{Body: make([]float32, task.Layout.D()), Tail: make([]float64, task.Layout.TailLen())}
	for i := range u.Body {
		u.Body[i] = float32(d.vectors.NormFloat64() * task.Encoding.CReal / math.Sqrt(float64(len(u.Body))))
	}
	for i, m := range task.Layout.Tail {
		u.Tail[i] = d.vectors.Float64() * m.Max
	}
	return u, nil
}

// Adopt implements participant.Learner.
func (l *learner) Adopt(_ context.Context, _ *charter.Task, m layout.Model) error {
	l.adopted = m
	return nil
}

// deviceMembers are the members' device ports as one device reaches them.
type deviceMembers Device

// Device implements participant.Members.
func (l *deviceMembers) Device(member int) (coordpb.DeviceClient, error) {
	d := (*Device)(l)
	if d.calls++; d.calls > len(d.f.Seats)+3 {
		d.stop(errEnough)
		return nil, errEnough
	}
	p := d.f.Seats[member].live()
	if p == nil {
		return nil, fmt.Errorf("member %d does not answer", member)
	}
	return &deviceClient{coordpb.NewDeviceClient(p.device.conn), d}, nil
}

// deviceClient is a device's connection; it ends the device's process at its fault.
type deviceClient struct {
	coordpb.DeviceClient
	d *Device
}

// QueryUpload is the first call of an upload: what was to be written before the first byte has been written.
func (c *deviceClient) QueryUpload(ctx context.Context, in *coordpb.QueryUploadRequest, opts ...grpc.CallOption) (*coordpb.QueryUploadResponse, error) {
	if c.d.Fault == BeforeSend || c.d.Fault == BeforeLedger {
		c.d.stop(errFault)
		return nil, errFault
	}
	return c.DeviceClient.QueryUpload(ctx, in, opts...)
}

// Upload breaks off where the fault says.
func (c *deviceClient) Upload(ctx context.Context, opts ...grpc.CallOption) (grpc.ClientStreamingClient[coordpb.UploadRequest, coordpb.UploadResponse], error) {
	s, err := c.DeviceClient.Upload(ctx, opts...)
	if err != nil || c.d.Fault == None {
		return s, err
	}
	return &breakingUpload{ClientStreamingClient: s, d: c.d}, nil
}

type breakingUpload struct {
	grpc.ClientStreamingClient[coordpb.UploadRequest, coordpb.UploadResponse]
	d     *Device
	chunk int
}

// Send lets the head and the first chunk pass.
func (b *breakingUpload) Send(m *coordpb.UploadRequest) error {
	if m.GetChunk() != nil {
		if b.chunk++; b.d.Fault == MidUpload && b.chunk > 1 {
			for b.Context().Err() == nil && !b.d.f.heardFrom(b.d.ID) {
				time.Sleep(pumpEvery) // what was sent is on its way: the process ends when the first of it has arrived
			}
			b.d.stop(errFault)
			return errFault
		}
	}
	return b.ClientStreamingClient.Send(m)
}

// CloseAndRecv loses the answer.
func (b *breakingUpload) CloseAndRecv() (*coordpb.UploadResponse, error) {
	answer, err := b.ClientStreamingClient.CloseAndRecv()
	if err == nil && b.d.Fault == BeforeAck {
		b.d.stop(errFault)
		return nil, errFault
	}
	return answer, err
}

var _ participant.Learner = (*learner)(nil)
var _ participant.Members = (*deviceMembers)(nil)
