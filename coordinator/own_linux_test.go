package coordinator

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/epoch"
	"github.com/ruche-federation/ruche/coordinator/intake"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/blob"
)

// unprivileged calls f on a thread whom modes bind, whoever runs the test. f starts no goroutines that are looked at.
func unprivileged(t *testing.T, f func()) {
	t.Helper()
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		err := unix.Capget(&h, &caps[0])
		if err == nil {
			caps[0].Effective &^= 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH
			err = unix.Capset(&h, &caps[0])
		}
		if err == nil {
			f()
		}
		failed <- err
	}()
	must(t, <-failed)
}

// TestARefusalOfTheSystemDropsNothing: the system refuses to open a contribution's y, or its head, as it does when file
// handles or memory have run out. The copy stays, nobody is told that it is missing, and it is good again afterwards.
func TestARefusalOfTheSystemDropsNothing(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	h := r.contribute(v)[0].header
	r.restart(len(r.log.entries)) // so that nothing is known of the copy but what is read
	k, ok := r.m.machine.Candidate(v.ID, h.Hash())
	if !ok {
		t.Fatal("the log lacks the contribution")
	}
	e, err := r.m.listed(v.Config)
	must(t, err)
	c, err := r.m.shelf.Load(v.ID, h.Hash())
	must(t, err)
	judge := func() (statement.Verdict, error) {
		return r.m.judge(t.Context(), e, intake.Terms{Round: v.Config.Committee(r.ch)}, v, k, 0)
	}
	y := filepath.Join(r.home.Dir, "blobs", "y", v.ID.String(), h.Y.String())
	head := filepath.Join(r.home.Dir, "blobs", "heads", v.ID.String(), h.Hash().String())
	for _, refused := range []string{y, head} {
		must(t, os.Chmod(refused, 0))
		unprivileged(t, func() {
			if got, err := judge(); !errors.As(err, new(*ownError)) {
				t.Errorf("an ack says %v, %v", got, err)
			}
			if got, err := r.m.Receipt(t.Context(), v.ID, h.Hash()); err == nil {
				t.Errorf("receipted: %v", got)
			}
			if _, err := fetched(t, func(s grpc.ServerStreamingServer[coordpb.UploadRequest]) error {
				id := h.Hash()
				return r.m.MeshServer().FetchContribution(&coordpb.GetReceiptsRequest{RoundId: v.ID[:], HeaderHash: id[:]}, s)
			}); status.Code(err) != codes.Unavailable {
				t.Errorf("another member is told: %v", err)
			}
			id := h.Hash()
			if got, err := r.m.DeviceServer().QueryUpload(t.Context(), &coordpb.QueryUploadRequest{RoundId: v.ID[:], HeaderHash: id[:]}); status.Code(err) != codes.Unavailable {
				t.Errorf("a device is told: %v, %v", got, err)
			}
			if err := r.m.addY(make([]uint32, v.Config.Len), c); (err == nil) != (refused == head) {
				t.Errorf("adding y: %v", err)
			}
		})
		for _, path := range []string{y, head} {
			if _, err := os.Stat(path); err != nil {
				t.Fatalf("%s was refused once: %v", filepath.Base(refused), err)
			}
		}
		must(t, os.Chmod(refused, 0o600))
		if got, err := judge(); err != nil || got != statement.OK {
			t.Errorf("afterwards: %v, %v", got, err)
		}
	}
}

// TestAShelfThatCannotWriteCallsNothingMissing: another member has what this one lacks and sends it, and it cannot be
// written here. That is this member's own trouble: it accuses no device of anything, and bears no member a grudge.
func TestAShelfThatCannotWriteCallsNothingMissing(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	d := r.contribute(v)[0]
	k, _ := r.m.machine.Candidate(v.ID, d.header.Hash())
	k.Holders |= 1 << 1
	r.m.ingress.Close()
	r.m.Attach(r.log, holder{of: d})
	e, err := r.m.listed(v.Config)
	must(t, err)
	judge := func() (statement.Verdict, error) {
		return r.m.judge(t.Context(), e, intake.Terms{Round: v.Config.Committee(r.ch)}, v, k, 0)
	}
	for _, folder := range []string{"y", "heads"} {
		c, err := r.m.shelf.Load(v.ID, d.header.Hash())
		must(t, err)
		must(t, r.m.shelf.Drop(c))
		dir := filepath.Join(r.home.Dir, "blobs", folder, v.ID.String())
		must(t, os.Chmod(dir, 0o500))
		unprivileged(t, func() {
			if got, err := judge(); !errors.As(err, new(*ownError)) || !errors.Is(err, fs.ErrPermission) {
				t.Errorf("%s: an ack says %v, %v", folder, got, err)
			}
		})
		if got := r.m.grudges.order([]int{1, 0}); got[0] != 1 {
			t.Errorf("%s: the member that sent it is asked last", folder)
		}
		must(t, os.Chmod(dir, 0o700))
		if got, err := judge(); err != nil || got != statement.OK {
			t.Fatalf("%s: afterwards: %v, %v", folder, got, err)
		}
	}
}

// TestSumsLeaveTheLogItsRoom: where sums find less room than the log needs beside them, the reveal waits and the round goes
// on when there is room again.
func TestSumsLeaveTheLogItsRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	r := newRig(t)
	r.contribute(r.until(round.Open))
	v := r.until(round.Sealed)
	dir := filepath.Join(r.home.Dir, "sums")
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("mounting a small file system is not permitted here: %v: %s", err, out)
	}
	cmd, err := r.m.signReveal(t.Context(), v)
	said := strings.Count(r.logs.String(), "a duty has to wait")
	for range 20 {
		r.now = r.now.Add(1100 * time.Millisecond)
		r.m.Work(t.Context())
	}
	if n := strings.Count(r.logs.String(), "a duty has to wait") - said; n != 1 {
		t.Errorf("folded for nothing %d times in 22 seconds", n)
	}
	if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
		t.Fatalf("umount: %v: %s", err, out)
	}
	if !errors.As(err, new(*blob.FullError)) || cmd != nil {
		t.Errorf("revealed: %v, %v", cmd != nil, err)
	}
	r.until(round.Published)
}

// TestAnErasureThatFailsIsTriedOnceASecond: keys whose time is over and that cannot be erased are tried again, and said at
// a pace that somebody can read.
func TestAnErasureThatFailsIsTriedOnceASecond(t *testing.T) {
	r := newRig(t)
	r.until(round.Open)
	root := filepath.Join(r.home.Dir, "epochs")
	must(t, os.Chmod(root, 0o500))
	ended := r.known().NotAfterMs + 1
	unprivileged(t, func() {
		for range 25 {
			r.m.eraseEpochs(ended)
			r.now = r.now.Add(workEvery)
		}
	})
	must(t, os.Chmod(root, 0o700))
	if n := strings.Count(r.logs.String(), "erasing an epoch failed"); n != 3 {
		t.Errorf("said %d times in two and a half seconds", n)
	}
	r.now = r.now.Add(retryDuty)
	r.m.eraseEpochs(ended)
	if erased, err := epoch.Erased(root); err != nil || len(erased) != 1 {
		t.Errorf("%v is erased, %v", erased, err)
	}
}

// holder is the only other member, and holds a contribution.
type holder struct {
	nobody
	coordpb.MeshClient
	of *testDevice
}

func (h holder) Alive() statement.Mask                { return 3 }
func (h holder) Mesh(int) (coordpb.MeshClient, error) { return h, nil }

func (h holder) FetchContribution(_ context.Context, r *coordpb.GetReceiptsRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[coordpb.UploadRequest], error) {
	if label.Hash(r.GetHeaderHash()) != h.of.header.Hash() {
		return nil, status.Error(codes.NotFound, "no such contribution is here")
	}
	return &source{messages: h.of.messages()}, nil
}

type source struct {
	grpc.ServerStreamingClient[coordpb.UploadRequest]
	messages []*coordpb.UploadRequest
}

func (s *source) Recv() (*coordpb.UploadRequest, error) {
	if len(s.messages) == 0 {
		return nil, io.EOF
	}
	m := s.messages[0]
	s.messages = s.messages[1:]
	return m, nil
}
