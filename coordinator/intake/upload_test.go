package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wantAck checks that an answer is a device's ack: n-f receipts of distinct members over one index.
func (w *world) wantAck(t testing.TB, d *device, answer *coordpb.UploadResponse, err error, outcome string) {
	t.Helper()
	must(t, err)
	signers := statement.Mask(0)
	for _, r := range answer.GetReceipts() {
		index, err := w.members[0].CheckReceipt(w.round.ID, d.hash(), int(r.GetMember()), r)
		must(t, err)
		if at := w.acceptedAt(d.hash()); index != at {
			t.Errorf("receipt of index %d, accepted at %d", index, at)
		}
		signers |= 1 << r.GetMember()
	}
	if signers.Size() < w.round.N-w.round.F || answer.GetOutcome() != outcome {
		t.Errorf("%s with receipts of %v", answer.GetOutcome(), signers)
	}
}

// acceptedAt is the index of a contribution's Accept, 0 if there is none.
func (w *world) acceptedAt(h label.Hash) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.accepted[h]
}

// accepts is how many contributions the log accepted.
func (w *world) accepts() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.accepted)
}

func (w *world) holders(h label.Hash) (m statement.Mask) {
	for i, s := range w.members {
		if s.shelf.Has(w.round.ID, h) {
			m |= 1 << i
		}
	}
	return m
}

// TestUpload is the plain story: an upload through any member is acked, held by n-f, and repeated as a duplicate
// through any other.
func TestUpload(t *testing.T) {
	for _, size := range []struct{ n, f int }{{1, 0}, {2, 1}, {4, 1}, {7, 2}} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			w := newWorld(t, size.n, size.f, 1000)
			for i, m := range w.members {
				d := w.device()
				answer, err := m.ingress.Upload(t.Context(), d.upload())
				w.wantAck(t, d, answer, err, "accepted")
				if h := w.holders(d.hash()); h.Size() < size.n-size.f {
					t.Errorf("acked, and held by %v", h)
				}
				answer, err = w.members[(i+1)%size.n].ingress.Upload(t.Context(), d.upload())
				w.wantAck(t, d, answer, err, "duplicate")
			}
		})
	}
}

// TestTwoIngressesRace: the same bytes through two members at once become one Accept, and both answer with the ack, or
// one of them asks for patience.
func TestTwoIngressesRace(t *testing.T) {
	w := newWorld(t, 4, 1, 100_000)
	d := w.device()
	var wg sync.WaitGroup
	var mu sync.Mutex
	acked := 0
	for i := range w.members {
		wg.Go(func() {
			answer, err := w.members[i].ingress.Upload(t.Context(), d.upload())
			var r *Refusal
			switch {
			case err == nil && len(answer.GetReceipts()) >= 3:
				mu.Lock()
				acked++
				mu.Unlock()
			case errors.As(err, &r) && (r.Code == CodeBusy || r.Code == CodeUnavailable):
			default:
				t.Errorf("member %d: %v, %v", i, answer, err)
			}
		})
	}
	wg.Wait()
	answer, err := w.members[0].ingress.Upload(t.Context(), d.upload())
	if acked == 0 {
		w.wantAck(t, d, answer, err, "accepted")
	} else {
		w.wantAck(t, d, answer, err, "duplicate")
	}
	if n := w.accepts(); n != 1 {
		t.Errorf("%d Accepts", n)
	}
}

// TestPeersInTrouble: an ack needs n-f copies where they can be had and f+1 where they cannot; only a box that does not
// open is the device's fault.
func TestPeersInTrouble(t *testing.T) {
	answers := func(code string) func(*seat) {
		return func(s *seat) {
			s.answer = func(*coordpb.UploadOpen) *coordpb.StoreResponse {
				return &coordpb.StoreResponse{Outcome: "whatever a peer says", Code: code}
			}
		}
	}
	down := func(s *seat) { s.down = true }
	for _, c := range []struct {
		name   string
		break_ []func(*seat) // members 1, 2, …
		code   string        // "" : acked
	}{
		{"one is down", []func(*seat){down}, ""},
		{"one says invalid", []func(*seat){answers(CodeInvalidBox)}, ""},
		{"one lags behind", []func(*seat){answers(CodeUnknownRound)}, ""},
		{"one is keyless", []func(*seat){func(s *seat) { s.keyless = true }}, ""},
		{"one is blind", []func(*seat){func(s *seat) { s.blind = true }}, ""},
		{"two lag behind", []func(*seat){answers(CodeUnknownDevice), answers(CodeUnknownRound)}, CodeUnavailable}, // receipts
		{"one is down, one lags behind", []func(*seat){down, answers(CodeUnknownDevice)}, CodeUnavailable},
		{"one is down, one says invalid", []func(*seat){down, answers(CodeInvalidBox)}, CodeInvalidBox},
		{"two are full", []func(*seat){answers(CodeFull), answers(CodeFull)}, CodeUnavailable},
		{"all others are down", []func(*seat){down, down, down}, CodeUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 4, 1, 1000)
				for i, b := range c.break_ {
					b(w.members[i+1])
				}
				d := w.device()
				answer, err := w.members[0].ingress.Upload(t.Context(), d.upload())
				if c.code == "" {
					w.wantAck(t, d, answer, err, "accepted")
				} else {
					wantCode(t, err, c.code)
					if strings.Contains(err.Error(), "whatever") {
						t.Errorf("a peer's words went on to the device: %v", err)
					}
				}
				if n := w.holders(d.hash()).Size(); w.accepts() > 0 && n < 2 {
					t.Errorf("proposed with %d copies", n)
				}
			})
		})
	}
}

// TestOwnTroubleIsNotTheDevices: a member without keys sends devices on before it takes a byte; one whose key is erased
// meanwhile blames nobody and names no path.
func TestOwnTroubleIsNotTheDevices(t *testing.T) {
	w := newWorld(t, 4, 1, 1000)
	d := w.device()
	w.members[0].keyless = true
	_, err := w.members[0].ingress.Upload(t.Context(), func() (*coordpb.UploadRequest, error) { return d.upload()() })
	wantCode(t, err, CodeNotListed)
	w.members[1].blind = true
	_, err = w.members[1].ingress.Upload(t.Context(), d.upload())
	var r *Refusal
	if err == nil || errors.As(err, &r) {
		t.Errorf("a blind member answered %v", err)
	}
}

// TestLyingReceipts: whatever f members answer, the ack is n-f receipts that verify.
func TestLyingReceipts(t *testing.T) {
	for name, lie := range map[string]func(w *world, r *coordpb.MemberStatement) *coordpb.MemberStatement{
		"nothing": func(*world, *coordpb.MemberStatement) *coordpb.MemberStatement { return nil },
		"garbage": func(_ *world, r *coordpb.MemberStatement) *coordpb.MemberStatement {
			r.Statement.Body = []byte("x")
			return r
		},
		"signature": func(_ *world, r *coordpb.MemberStatement) *coordpb.MemberStatement {
			r.Statement.Signature[3] ^= 1
			return r
		},
		"another member's name": func(_ *world, r *coordpb.MemberStatement) *coordpb.MemberStatement { r.Member = 3; return r },
		"another index": func(w *world, r *coordpb.MemberStatement) *coordpb.MemberStatement {
			p, _ := statement.ParseReceipt(r.Statement.Body)
			p.Index += 7
			r.Statement.Body = p.Bytes()
			r.Statement.Signature = w.members[1].vote.Sign(label.StmtReceipt, r.Statement.Body)
			return r
		},
		"another contribution": func(w *world, r *coordpb.MemberStatement) *coordpb.MemberStatement {
			p, _ := statement.ParseReceipt(r.Statement.Body)
			p.Header[0] ^= 1
			r.Statement.Body = p.Bytes()
			r.Statement.Signature = w.members[1].vote.Sign(label.StmtReceipt, r.Statement.Body)
			return r
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 4, 1, 1000)
			w.members[1].receipt = func(r *coordpb.MemberStatement) (*coordpb.MemberStatement, error) { return lie(w, r), nil }
			d := w.device()
			answer, err := w.members[0].ingress.Upload(t.Context(), d.upload())
			w.wantAck(t, d, answer, err, "accepted")
		})
	}
}

// TestTheLogsWord: what the log answers is what the device hears, and what it would refuse costs no disk.
func TestTheLogsWord(t *testing.T) {
	w := newWorld(t, 4, 1, 1000)
	d := w.device()
	w.logFails = errors.New("no leader")
	if _, err := w.members[0].ingress.Upload(t.Context(), d.upload()); !errors.Is(err, w.logFails) {
		t.Fatal(err)
	}
	w.logFails = nil
	answer, err := w.members[0].ingress.Upload(t.Context(), d.upload())
	w.wantAck(t, d, answer, err, "accepted")

	w.verdict = "round_full"
	late := w.device()
	bodies := 0
	next := late.upload()
	_, err = w.members[0].ingress.Upload(t.Context(), func() (*coordpb.UploadRequest, error) {
		if bodies++; bodies > 2 { // the head, and at most one message that was read ahead
			t.Error("the body is read before the contribution is refused")
		}
		return next()
	})
	wantCode(t, err, "round_full")
	w.verdict = ""

	first := d.hash()
	w.contribute(d) // the same device with another contribution
	_, err = w.members[1].ingress.Upload(t.Context(), d.upload())
	wantCode(t, err, "second_header")
	err = w.members[2].ingress.Store(t.Context(), d.upload())
	wantCode(t, err, "second_header")
	if h := w.holders(d.hash()); h != 0 {
		t.Errorf("a second contribution lies with %v", h)
	}
	if h := w.holders(first); h.Size() < 3 {
		t.Errorf("the first lies with %v", h)
	}
}

// TestOneDeviceCannotFillTheDisk: without an Accept a device begins two contributions to a round at a member, no more,
// whoever sends them.
func TestOneDeviceCannotFillTheDisk(t *testing.T) {
	w := newWorld(t, 4, 1, 1000)
	d := w.device()
	m := w.members[0]
	for i := range 5 {
		err := m.ingress.Store(t.Context(), messages(d.open(), nil)) // a head and no byte of y
		if i < headersPerDevice {
			wantCode(t, err, CodeWrongLength)
		} else {
			wantCode(t, err, CodeTooMany)
		}
		if i < 4 {
			w.contribute(d)
		}
	}
	// What the log accepted is always taken.
	answer, err := w.members[1].ingress.Upload(t.Context(), d.upload())
	w.wantAck(t, d, answer, err, "accepted")
	must(t, m.ingress.Pull(t.Context(), 1, w.round.ID, d.hash()))
	if !m.shelf.Has(w.round.ID, d.hash()) {
		t.Error("an accepted contribution is not taken")
	}
}

// TestRenewedCertificate: a contribution stays good when its device renews its certificate after the Accept.
func TestRenewedCertificate(t *testing.T) {
	w := newWorld(t, 4, 1, 1000)
	d := w.device()
	answer, err := w.members[0].ingress.Upload(t.Context(), d.upload())
	w.wantAck(t, d, answer, err, "accepted")
	w.enrol(d)
	answer, err = w.members[1].ingress.Upload(t.Context(), d.upload())
	w.wantAck(t, d, answer, err, "duplicate")
}

// TestSlowSenders: who stalls is given up, in time, and holds nothing.
func TestSlowSenders(t *testing.T) {
	for _, c := range []struct {
		name string
		pace func(i int) time.Duration // before message i
		most time.Duration
		code string
	}{
		{"no head", func(i int) time.Duration { return time.Hour }, 30 * time.Second, CodeSlow},
		{"nothing after the head", func(i int) time.Duration { return time.Duration(i) * time.Hour }, 30 * time.Second, CodeSlow},
		{"a byte every ten seconds", func(i int) time.Duration { return 10 * time.Second }, time.Minute, CodeSlow},
		{"bearable", func(i int) time.Duration { return 15 * time.Second }, 5 * time.Minute, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lanes := 4 * coordpb.ChunkBytesMax / 4
				w := newWorld(t, 1, 0, lanes)
				d := w.device()
				chunks := d.chunks(0)
				if c.name == "a byte every ten seconds" {
					chunks = nil
					for i := range 100 {
						chunks = append(chunks, chunkOf(d.y, i, i+1))
					}
				}
				next, i := messages(d.open(), chunks), 0
				ended := make(chan struct{})
				t.Cleanup(func() { time.Sleep(5 * time.Hour) }) // for the sender to end
				start := time.Now()
				answer, err := w.members[0].ingress.Upload(t.Context(), func() (*coordpb.UploadRequest, error) {
					select {
					case <-time.After(c.pace(i)):
					case <-ended:
						return nil, context.Canceled
					}
					i++
					return next()
				})
				close(ended)
				if took := time.Since(start); took > c.most {
					t.Errorf("it took %s", took)
				}
				if c.code == "" {
					w.wantAck(t, d, answer, err, "accepted")
				} else {
					wantCode(t, err, c.code)
				}
				if len(w.members[0].ingress.uploads) != 0 || len(w.members[0].ingress.uploading) != 0 {
					t.Error("a place is still taken")
				}
			})
		})
	}
}

// TestPullCutsASlowSenderOff: what the log accepted is fetched from whoever has it, though a device is sending it here
// a little at a time, or another device names the same y to be in the way.
func TestPullCutsASlowSenderOff(t *testing.T) {
	t.Run("the device", func(t *testing.T) { pullBesideASlowSender(t, func(*world, *device) {}) })
	t.Run("another that names its y", func(t *testing.T) {
		pullBesideASlowSender(t, func(w *world, d *device) {
			liar := w.device()
			liar.header.Y = d.header.Y
			d.key, d.header, d.boxes = liar.key, liar.header, liar.boxes
		})
	})
}

// pullBesideASlowSender pulls a contribution while one is coming in that the disguise makes of it.
func pullBesideASlowSender(t *testing.T, disguise func(*world, *device)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, 1, 3*coordpb.ChunkBytesMax/4)
		d := w.device()
		sender := *d
		disguise(w, &sender)
		slow := make(chan struct{})
		next := sender.upload()
		i := 0
		cut := make(chan error, 1)
		go func() {
			_, err := w.members[0].ingress.Upload(t.Context(), func() (*coordpb.UploadRequest, error) {
				if i++; i == 3 {
					select {
					case <-slow:
					case <-time.After(25 * time.Second):
					}
					return nil, context.Canceled
				}
				return next()
			})
			cut <- err
		}()
		synctest.Wait()
		w.members[0].mu.Lock()
		w.members[0].down = true // no copy reaches it
		w.members[0].mu.Unlock()
		answer, err := w.members[1].ingress.Upload(t.Context(), d.upload())
		w.wantAck(t, d, answer, err, "accepted")
		start := time.Now()
		must(t, w.members[0].ingress.Pull(t.Context(), 1, w.round.ID, d.hash()))
		if took := time.Since(start); took > time.Second {
			t.Errorf("the pull waited %s", took)
		}
		if err := <-cut; err == nil {
			t.Error("the slow upload is acked")
		}
		close(slow)
	})
}

// TestPulledGarbage: a peer that sends anything but the contribution leaves nothing behind.
func TestPulledGarbage(t *testing.T) {
	w := newWorld(t, 4, 1, 1000)
	d, other := w.device(), w.device()
	for _, x := range []*device{d, other} {
		answer, err := w.members[1].ingress.Upload(t.Context(), x.upload())
		w.wantAck(t, x, answer, err, "accepted")
	}
	m := w.members[0]
	fresh := func() {
		w.members[0].ingress.wg.Wait()
		if c, err := m.shelf.Load(w.round.ID, d.hash()); err == nil {
			must(t, m.shelf.Drop(c))
		}
	}
	for _, x := range w.members {
		x.ingress.wg.Wait()
	}
	for name, c := range map[string]struct {
		sends func(*coordpb.UploadRequest) *coordpb.UploadRequest
		code  string
	}{
		"no head": {func(*coordpb.UploadRequest) *coordpb.UploadRequest { return &coordpb.UploadRequest{} }, CodeBadHeader},
		"no chunks": {func(m *coordpb.UploadRequest) *coordpb.UploadRequest {
			if m.GetChunk() != nil {
				return &coordpb.UploadRequest{}
			}
			return m
		}, CodeCorrupt},
		"another contribution": {func(m *coordpb.UploadRequest) *coordpb.UploadRequest {
			if m.GetOpen() != nil {
				return &coordpb.UploadRequest{Message: &coordpb.UploadRequest_Open{Open: other.open()}}
			}
			return m
		}, CodeCorrupt},
		"another y": {func(m *coordpb.UploadRequest) *coordpb.UploadRequest {
			if m.GetChunk() != nil {
				return &coordpb.UploadRequest{Message: &coordpb.UploadRequest_Chunk{Chunk: other.chunks(0)[0]}}
			}
			return m
		}, CodeCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			fresh()
			w.members[1].sends = c.sends
			wantCode(t, m.ingress.Pull(t.Context(), 1, w.round.ID, d.hash()), c.code)
			if m.shelf.Has(w.round.ID, d.hash()) {
				t.Error("garbage is held")
			}
			w.members[1].sends = nil
			must(t, m.ingress.Pull(t.Context(), 1, w.round.ID, d.hash()))
		})
	}
}

// TestCopiesAreBounded: a member that takes nothing costs a bounded number of copies, and uploads go on without it.
func TestCopiesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, 1, 100)
		hold := make(chan struct{})
		w.members[3].answer = func(*coordpb.UploadOpen) *coordpb.StoreResponse {
			<-hold
			return &coordpb.StoreResponse{Outcome: "stored"}
		}
		w.members[3].receipt = func(*coordpb.MemberStatement) (*coordpb.MemberStatement, error) { return nil, errors.New("slow") }
		m := w.members[0]
		for range copiesMax + 10 {
			d := w.device()
			answer, err := m.ingress.Upload(t.Context(), d.upload())
			w.wantAck(t, d, answer, err, "accepted")
		}
		if n := len(m.ingress.copies[3]); n != copiesMax {
			t.Errorf("%d copies under way, limit %d", n, copiesMax)
		}
		close(hold)
		m.ingress.wg.Wait()
	})
}

// TestClosing: an Ingress that is closed begins nothing and leaves nothing behind.
func TestClosing(t *testing.T) {
	in := New(Config{Log: shortLog{}, Logger: slog.New(slog.DiscardHandler)})
	in.Close()
	if in.begin(0, func() { t.Error("began") }) {
		t.Error("a copy began after Close")
	}
	if _, err := in.Upload(t.Context(), func() (*coordpb.UploadRequest, error) { return nil, io.EOF }); err == nil {
		t.Error("an upload without a head")
	}
}
