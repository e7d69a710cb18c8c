//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/ruche-federation/ruche/cmd/internal/consortium"
)

// TestMain lets the test binary be what bin/chaos is to the control: a program that makes syncs nothing.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == unsyncedVerb {
		fmt.Fprintln(os.Stderr, unsynced(os.Args[2:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestAPowerCutKeepsWhatWasSynced is the method itself, on one disk: what a program synced is in the copy of the disk, what
// it did not is not, and what it synced under the control's kernel is not either.
func TestAPowerCutKeepsWhatWasSynced(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	if why := cannotCut(ctx, dir); why != "" {
		t.Skip(why)
	}
	dd, err := exec.LookPath("dd")
	if err != nil {
		t.Skip("no dd on this machine")
	}
	self, err := os.Executable()
	must(t, err)
	d, err := newImage(ctx, dir, "disk")
	must(t, err)
	mounted := true
	defer func() {
		if mounted {
			must(t, d.detach(ctx))
		}
	}()
	payload := filepath.Join(dir, "payload")
	must(t, os.WriteFile(payload, bytes.Repeat([]byte("ruche"), 10_000), 0o600))
	copied := func(argv ...string) {
		t.Helper()
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", argv, err, out)
		}
	}
	copied(dd, "if="+payload, "of="+filepath.Join(d.mount, "synced"), "conv=fsync")
	copied(dd, "if="+payload, "of="+filepath.Join(d.mount, "unsynced"))
	copied(self, unsyncedVerb, dd, "if="+payload, "of="+filepath.Join(d.mount, "control"), "conv=fsync")
	must(t, d.copyAs(d.file+".cut"))
	must(t, d.detach(ctx))
	mounted = false
	must(t, os.Rename(d.file+".cut", d.file))
	must(t, d.attach(ctx))
	mounted = true
	want, err := os.ReadFile(payload)
	must(t, err)
	if got, err := os.ReadFile(filepath.Join(d.mount, "synced")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what was synced is gone: %v", err)
	}
	for _, name := range []string{"unsynced", "control"} {
		if got, err := os.ReadFile(filepath.Join(d.mount, name)); err == nil && bytes.Equal(got, want) || err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s outlived the cut: %v", name, err)
		}
	}
}

// TestATornCopyIsNone: a copy of a file that changed meanwhile is refused, whether in its data or in where that lies.
func TestATornCopyIsNone(t *testing.T) {
	dir := t.TempDir()
	path, to := filepath.Join(dir, "disk"), filepath.Join(dir, "copy")
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	const size = 64 << 20
	must(t, f.Truncate(size))
	write := func(at int64, b byte) {
		_, err := f.WriteAt(bytes.Repeat([]byte{b}, 8192), at)
		must(t, err)
	}
	write(1<<20, 1)
	write(40<<20, 2)
	must(t, copySparse(path, to))
	dst, err := os.Open(to)
	must(t, err)
	defer dst.Close()
	extents, err := extentsOf(f, size)
	must(t, err)
	must(t, unchanged(f, dst, extents, size))
	write(40<<20, 3)
	if err := unchanged(f, dst, extents, size); !errors.Is(err, errTorn) {
		t.Errorf("other bytes: %v", err)
	}
	write(40<<20, 2)
	must(t, unchanged(f, dst, extents, size))
	write(20<<20, 4)
	if err := unchanged(f, dst, extents, size); len(extents) > 1 && !errors.Is(err, errTorn) {
		t.Errorf("bytes at another place: %v", err)
	}
}

// TestANetworkIsCutAndHealed: a direction that is lost has another neighbour, and a healed one its own again.
func TestANetworkIsCutAndHealed(t *testing.T) {
	ctx := t.Context()
	if why := cannotPart(ctx); why != "" {
		t.Skip(why)
	}
	w, err := newNetwork(ctx, 2)
	defer func() { must(t, w.close()) }()
	must(t, err)
	neighbours := func() string {
		out, err := consortium.Command(ctx, "ip", "-n", w.space(0), "neigh", "show")
		must(t, err)
		return string(out)
	}
	must(t, w.lose(ctx, link{0, 1}))
	if got := neighbours(); !bytes.Contains([]byte(got), []byte(nowhere)) {
		t.Errorf("member 0 still knows the way: %q", got)
	}
	must(t, w.heal(ctx, link{0, 1}))
	if got := neighbours(); bytes.Contains([]byte(got), []byte(nowhere)) {
		t.Errorf("member 0 is not healed: %q", got)
	}
	must(t, w.plug(ctx, 1, false))
	must(t, w.plug(ctx, 1, true))
}

// TestAProxyHoldsBackWhatIsLost: one direction, the other, both; what was sent arrives after the partition.
func TestAProxyHoldsBackWhatIsLost(t *testing.T) {
	p, places, err := newProxies(2)
	must(t, err)
	defer func() { must(t, p.close()) }()
	echo, err := net.Listen("tcp", places[1].Listen)
	must(t, err)
	defer echo.Close()
	heard := make(chan byte, 8)
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				b := make([]byte, 1)
				for {
					if _, err := c.Read(b); err != nil {
						return
					}
					heard <- b[0]
					_, _ = c.Write(b)
				}
			}()
		}
	}()
	self := os.Getpid()
	p.whose = func(port int) (int, error) { return holder([]int{self, 1}, port) }
	p.begin()
	c, err := net.Dial("tcp", places[1].Mesh)
	must(t, err)
	defer c.Close()
	answered := make(chan byte, 8)
	go func() {
		b := make([]byte, 1)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
			answered <- b[0]
		}
	}()
	said := byte(0)
	say := func() {
		said++
		_, err := c.Write([]byte{said})
		must(t, err)
	}
	want := func(ch chan byte) {
		t.Helper()
		if got := <-ch; got != said {
			t.Fatalf("heard %d, want %d", got, said)
		}
	}
	say()
	want(heard)
	want(answered)
	must(t, p.lose(t.Context(), link{1, 0})) // the answer is lost, the question is not
	say()
	want(heard)
	if len(answered) != 0 {
		t.Error("an answer came through")
	}
	must(t, p.heal(t.Context(), link{1, 0}))
	want(answered)
	must(t, p.plug(t.Context(), 1, false))
	say()
	if other, err := net.Dial("tcp", places[1].Mesh); err == nil {
		defer other.Close() // it is not carried on
	}
	must(t, p.plug(t.Context(), 1, true))
	want(heard)
	want(answered)
}

func TestPartitionsAreTheirSeed(t *testing.T) {
	plan := partings(3, 200, 4)
	if !reflect.DeepEqual(plan, partings(3, 200, 4)) {
		t.Error("the same seed gives other partitions")
	}
	kinds, long := map[string]bool{}, 0
	for _, p := range plan {
		kinds[p.about] = true
		if p.hold >= biteAfter {
			long++
		}
		for _, l := range p.links {
			if l.from == l.to || min(l.from, l.to) < 0 || max(l.from, l.to) > 3 {
				t.Errorf("%s: link %v", p.about, l)
			}
		}
		if len(p.links)+len(p.plugs) == 0 {
			t.Errorf("%s cuts nothing", p.about)
		}
		led := p.lead(2)
		if p.about == "the leader is unplugged" && !slices.Equal(led.plugs, []int{2}) {
			t.Errorf("member 2 leads, and %v are unplugged", led.plugs)
		}
		if p.about == "the leader is not heard" && slices.ContainsFunc(led.links, func(l link) bool { return l.from != 2 }) {
			t.Errorf("member 2 leads, and lost is %v", led.links)
		}
	}
	if len(kinds) != 8 || long < 40 {
		t.Errorf("%d kinds, %d long ones", len(kinds), long)
	}
}
